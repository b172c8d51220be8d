//! Tasks, and what they map over.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Locals, Parser};
use crate::{
    config::{At, KeyPath, type_name},
    dynamic::{is_name, valid_target},
    flowfile::{
        plan::{Expr, MOST_CALLS, Source, TaskPlan, Work, range_len},
        schema,
        template::is_template,
    },
};

impl Parser<'_> {
    pub(super) fn task(&mut self, id: &str, task: &Value) -> TaskPlan {
        let path = KeyPath::from(["tasks", id]);
        if !is_name(&id.replace('-', "_")) {
            self.report(&path, At::Key, "a task's name is letters, digits, _ and -, and does not begin with a digit");
        }
        let empty = Map::new();
        let members = task.as_object().unwrap_or(&empty);
        if !task.is_object() {
            if !self.has_failed(&path) {
                self.report(&path, At::Value, format!("expected a mapping with `python` or `command`, found {}", type_name(task)));
            }
            return self.nothing(id, &path);
        }
        let mut locals = self.locals(members.get("map"), &path.key("map"));
        let later: Vec<String> = locals.map.iter().map(|(name, _)| name.clone()).collect();
        let rendered: Map<String, Value> = members
            .iter()
            .map(|(key, value)| {
                let later: &[String] =
                    if matches!(key.as_str(), "annotations" | "after" | "binary" | "name" | "python") { &[] } else { &later };
                let value = if key == "map" { value.clone() } else { self.rendered(value, &path.key(key), later) };
                (key.clone(), value)
            })
            .collect();
        let typed = self.check::<schema::Task>(Value::Object(rendered.clone()), &path);
        self.kinds(members, &path, typed.is_some());
        let work = self.work(members, &rendered, &path, &mut locals);
        TaskPlan {
            id: id.to_owned(),
            label: rendered.get("name").and_then(Value::as_str).unwrap_or(id).to_owned(),
            place: self.document.place(&path, At::Key),
            work,
            map: locals.map,
            calls: None,
            after: self.after(rendered.get("after"), &path.key("after")),
            annotations: typed.and_then(|task| task.annotations).unwrap_or_default(),
        }
    }

    /// In the place of a task that is none.
    fn nothing(&self, id: &str, path: &KeyPath) -> TaskPlan {
        TaskPlan {
            id: id.to_owned(),
            label: id.to_owned(),
            place: self.document.place(path, At::Key),
            work: Work::Command { argv: Vec::new(), env: Vec::new(), cwd: None, stdin: None, binary: false },
            map: Vec::new(),
            calls: None,
            after: Vec::new(),
            annotations: schema::Annotations::default(),
        }
    }

    /// Exactly one of `python` and `command`, with the keys that go with it.
    fn kinds(&mut self, members: &Map<String, Value>, path: &KeyPath, typed: bool) {
        let has = |key: &str| members.contains_key(key);
        match (has("python"), has("command")) {
            (true, true) => self.report(&path.key("command"), At::Key, "`command` beside `python`: a task is one or the other"),
            (false, false) if typed => self.report(path, At::Key, "needs `python: \"mod:func\"` or `command: [program, ..]`"),
            (true, false) => {
                for key in ["env", "cwd", "stdin", "binary"].into_iter().filter(|key| has(key)) {
                    self.report(&path.key(key), At::Key, "goes with `command`, not with `python`");
                }
            }
            (false, true) => {
                for key in ["args", "kwargs"].into_iter().filter(|key| has(key)) {
                    self.report(&path.key(key), At::Key, "goes with `python`; a command's arguments stand in `command`");
                }
            }
            (false, false) => {}
        }
    }

    fn work(&mut self, raw: &Map<String, Value>, rendered: &Map<String, Value>, path: &KeyPath, locals: &mut Locals) -> Work {
        if let Some(argv) = raw.get("command") {
            if argv.as_array().is_some_and(Vec::is_empty) {
                self.report(&path.key("command"), At::Key, "needs at least the program's name");
            }
            let argv = self.list(argv, &path.key("command"), locals);
            let env = self.members(raw.get("env"), &path.key("env"), locals);
            let mut tree = |key: &str| raw.get(key).filter(|v| !v.is_null()).map(|value| self.tree(value, &path.key(key), locals));
            let (cwd, stdin) = (tree("cwd"), tree("stdin"));
            if !matches!(cwd, None | Some(Expr::Value(_) | Expr::Each(_))) {
                self.report(&path.key("cwd"), At::Value, "a directory must be known before the run: a text, or a template");
            }
            let binary = rendered.get("binary").and_then(Value::as_bool).unwrap_or_default();
            return Work::Command { argv, env, cwd, stdin, binary };
        }
        let target = rendered.get("python").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let (Some(Value::String(_)), Err(error)) = (rendered.get("python"), valid_target(&target)) {
            let text = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"));
            self.report(&path.key("python"), At::Value, text);
        }
        let args = raw.get("args").map(|args| self.list(args, &path.key("args"), locals)).unwrap_or_default();
        let mut kwargs = self.members(raw.get("kwargs"), &path.key("kwargs"), locals);
        for (at, (name, _)) in locals.map.iter().enumerate() {
            if kwargs.iter().any(|(key, _)| key == name) {
                if !locals.placed.contains(&at) {
                    self.report(
                        &path.key("kwargs").key(name),
                        At::Key,
                        format!("`{name}` stands under `map` too: the function would get it twice"),
                    );
                }
            } else if !locals.placed.contains(&at) {
                kwargs.push((name.clone(), Expr::Element(at)));
            }
        }
        Work::Python { target, args, kwargs }
    }

    fn after(&mut self, after: Option<&Value>, path: &KeyPath) -> Vec<usize> {
        let items = after.and_then(Value::as_array).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let Some(name) = item.as_str() else { continue };
            match self.find(name.strip_prefix('$').unwrap_or(name)) {
                Ok(index) => found.push(index),
                Err(text) => self.no_task(&path.index(i), text),
            }
        }
        found
    }

    // -- maps ------------------------------------------------------------------------------------------------------

    fn locals(&mut self, map: Option<&Value>, path: &KeyPath) -> Locals {
        let Some(Value::Object(members)) = map else { return Locals::default() };
        if members.is_empty() {
            self.report(path, At::Key, "needs at least one name and what it runs over");
        }
        let mut sources = Vec::new();
        for (name, source) in members {
            let path = path.key(name);
            if !is_name(name) {
                self.report(&path, At::Key, "a name is letters, digits and _");
            }
            let source = self.source(source, &path);
            sources.push((name.clone(), source));
        }
        Locals { map: sources, placed: HashSet::new() }
    }

    fn source(&mut self, source: &Value, path: &KeyPath) -> Source {
        let nothing = Source::Items(Vec::new());
        if let Value::String(text) = source
            && !is_template(text)
        {
            return match text.strip_prefix('$').filter(|name| !name.starts_with('$')) {
                Some(name) => match self.find(name) {
                    Ok(index) => Source::Task(index),
                    Err(text) => {
                        self.no_task(path, text);
                        nothing
                    }
                },
                None => {
                    self.report(path, At::Value, format!("expected a list, {{range: n}} or $task, found string \"{text}\""));
                    nothing
                }
            };
        }
        if let Value::Array(items) = source {
            let items = items.iter().enumerate().map(|(i, item)| self.tree(item, &path.index(i), &mut Locals::default()));
            return Source::Items(items.collect());
        }
        let value = self.rendered(source, path, &[]);
        match &value {
            Value::Array(items) => Source::Items(items.iter().cloned().map(Expr::Value).collect()),
            Value::Object(members) if members.len() == 1 && members.contains_key("range") => {
                self.range(&members["range"], &path.key("range"))
            }
            _ if self.has_failed(path) => nothing,
            Value::Object(members) => {
                let at = members.keys().find(|key| *key != "range").map_or(path.clone(), |key| path.key(key));
                self.report(&at, At::Key, "expected a list, {range: n} or $task");
                nothing
            }
            other => {
                self.report(path, At::Value, format!("expected a list, {{range: n}} or $task, found {} {other}", type_name(other)));
                nothing
            }
        }
    }

    /// `n`, `[start, stop]` or `[start, stop, step]`, as Python's `range`.
    fn range(&mut self, range: &Value, path: &KeyPath) -> Source {
        let numbers: Option<Vec<i64>> = match range {
            Value::Array(items) => items.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|n| vec![n]),
        };
        let bounds = match numbers.as_deref() {
            Some([stop]) if *stop >= 0 => Some((0, *stop, 1)),
            Some([start, stop]) => Some((*start, *stop, 1)),
            Some([start, stop, step]) if *step != 0 => Some((*start, *stop, *step)),
            _ => None,
        };
        if let Some((start, stop, step)) = bounds {
            let calls = range_len(start, stop, step);
            if calls > MOST_CALLS {
                let text = format!("{calls} calls are more than the {MOST_CALLS} that one map may have; let each call do more");
                self.report(path, At::Key, text);
                return Source::Items(Vec::new());
            }
            return Source::Range { start, stop, step };
        }
        let failed = self.failed.iter().any(|at| at.starts_with(&path.to_string()));
        if !failed {
            let text = match numbers.as_deref() {
                Some([stop]) => format!("expected a number that is not negative, found {stop}"),
                Some([_, _, _]) => "the step cannot be 0".to_owned(),
                _ => format!("expected a whole number, [start, stop] or [start, stop, step], found {} {range}", type_name(range)),
            };
            self.report(path, At::Key, text);
        }
        Source::Items(Vec::new())
    }
}
