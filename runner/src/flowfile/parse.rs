//! From the text to the plan: templates, references, types; every mistake with its place.

use std::collections::HashSet;

use remuda_core::{error::Error, kwargs};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    graph::{self, Draft},
    plan::{Expr, FlowPlan, Source, TaskPlan, Work, range_len},
    schema,
    template::{Scope, Templates, is_template},
};
use crate::config::{At, Document, KeyPath, Layer, Mistakes, Step, did_you_mean, type_name};

impl FlowPlan {
    /// Reads a flow. `params` replace those of the file, as `--param` does; their values are taken as they are, without templates.
    ///
    /// # Errors
    /// [`remuda_core::error::ErrorKind::ConfigInvalid`] with every mistake, each with file, line and column.
    pub fn parse(document: &Document, params: Map<String, Value>) -> Result<Self, Error> {
        Self::parse_parts(document, params).1
    }

    /// The `runner` part, as far as it can be used, also where the plan has mistakes (which has the part's own among them).
    pub(super) fn parse_parts(document: &Document, params: Map<String, Value>) -> (Layer, Result<Self, Error>) {
        let mut parser = Parser {
            document,
            templates: Templates::new(),
            params: Scope::new(),
            broken: HashSet::new(),
            failed: HashSet::new(),
            ids: Vec::new(),
            mistakes: Mistakes::default(),
        };
        let plan = parser.file(params);
        let mut runner = plan.runner.clone();
        runner.mistakes = Mistakes::default();
        runner.settings.retain(|setting| {
            let key = format!("runner.{}", setting.key);
            !parser.failed.iter().any(|failed| failed.starts_with(&key))
        });
        let mut mistakes = parser.mistakes;
        mistakes.sort();
        (runner, mistakes.or(plan))
    }
}

struct Parser<'a> {
    document: &'a Document,
    templates: Templates,
    params: Scope,
    /// Params without a usable value: what uses them is not reported once more.
    broken: HashSet<String>,
    /// Where a template could not be filled in: the type there means nothing.
    failed: HashSet<String>,
    /// Of the tasks, in the order of the file.
    ids: Vec<String>,
    mistakes: Mistakes,
}

/// What a name may stand for inside one task.
#[derive(Default)]
struct Locals {
    map: Vec<(String, Source)>,
    /// Elements that the task places itself, by `$x` or `{{ x }}`.
    placed: HashSet<usize>,
}

impl Parser<'_> {
    fn report(&mut self, path: &KeyPath, at: At, text: impl Into<String>) {
        self.document.report(&mut self.mistakes, path, at, text);
    }

    fn file(&mut self, given: Map<String, Value>) -> FlowPlan {
        let root = KeyPath::default();
        let empty = Map::new();
        let tree = self.document.tree();
        let members = tree.as_object().unwrap_or(&empty);
        if !tree.is_object() {
            self.report(&root, At::Value, format!("expected a mapping with `tasks`, found {}", type_name(tree)));
        }
        let top =
            members.iter().filter(|(key, _)| !key.starts_with("x-") && *key != "runner").map(|(k, v)| (k.clone(), v.clone())).collect();
        self.check::<schema::FlowFile>(Value::Object(top), &root);
        self.params(members.get("params"), given);
        let runner = self.runner(members.get("runner"));
        let tasks = members.get("tasks").and_then(Value::as_object).unwrap_or(&empty);
        if tasks.is_empty() && tree.is_object() {
            self.report(&["tasks"].into(), At::Key, "a flow needs at least one task: `tasks: {name: {python: \"mod:func\"}}`");
        }
        self.ids = tasks.keys().cloned().collect();
        let mut drafts: Vec<Draft> = tasks.iter().map(|(id, task)| self.task(id, task)).collect();
        let path = KeyPath::from(["result"]);
        let mut result = members.get("result").map(|r| self.tree(r, &path, &mut Locals::default()));
        let order = graph::order(&drafts);
        match order {
            Ok(order) => graph::renumber(&mut drafts, result.as_mut(), &order),
            Err(cycle) => self.cycle(&cycle),
        }
        if self.mistakes.is_empty() {
            for (draft, text) in graph::lengths(&mut drafts) {
                self.report(&KeyPath::from(["tasks", &draft, "map"]), At::Key, text);
            }
        }
        FlowPlan {
            name: self.document.name().to_owned(),
            dir: None,
            runner,
            params: self.params.clone().into_iter().collect(),
            tasks: drafts,
            result,
        }
    }

    fn cycle(&mut self, cycle: &[usize]) {
        let name = |at: usize| format!("`{}`", self.ids[at]);
        let text = match cycle {
            [one] => format!("{} needs its own result", name(*one)),
            several => {
                let all: Vec<_> = several.iter().chain(several.first()).map(|at| name(*at)).collect();
                format!("tasks that wait for each other: {}", all.join(" needs "))
            }
        };
        let path = KeyPath::from(["tasks", self.ids[cycle[0]].as_str()]);
        self.report(&path, At::Key, text);
    }

    // -- params and templates --------------------------------------------------------------------------------------

    fn params(&mut self, declared: Option<&Value>, given: Map<String, Value>) {
        let empty = Map::new();
        let declared = declared.and_then(Value::as_object).unwrap_or(&empty);
        for name in given.keys().filter(|name| !declared.contains_key(*name)) {
            let text = format!("{} has no param `{name}`{}", self.document.name(), did_you_mean(name, declared.keys().map(String::as_str)));
            self.mistakes.add("--param", "", text);
        }
        for (name, value) in declared {
            let path = KeyPath::from(["params", name]);
            let value = match given.get(name) {
                Some(value) => value.clone(),
                None if value.is_null() => {
                    self.broken.insert(name.clone());
                    self.report(&path, At::Key, format!("has no value: give it with --param {name}=VALUE"));
                    continue;
                }
                None => self.rendered(value, &path, &[]),
            };
            if !is_name(name) {
                self.report(&path, At::Key, "a name is letters, digits and _");
            }
            self.params.insert(name.clone(), value);
        }
    }

    /// A copy with its templates filled in; those that use a name of `later` stay.
    fn rendered(&mut self, value: &Value, path: &KeyPath, later: &[String]) -> Value {
        match value {
            Value::String(text) if is_template(text) => match self.templates.names(text) {
                Ok(names) if names.iter().any(|name| later.contains(name)) => value.clone(),
                _ => self.render(text, path),
            },
            Value::Array(items) => items.iter().enumerate().map(|(i, item)| self.rendered(item, &path.index(i), later)).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(k, v)| (k.clone(), self.rendered(v, &path.key(k), later))).collect())
            }
            other => other.clone(),
        }
    }

    fn render(&mut self, text: &str, path: &KeyPath) -> Value {
        let names = self.templates.names(text).unwrap_or_default();
        let result = match names.iter().any(|name| self.broken.contains(name)) {
            true => None,
            false => Some(self.templates.render(text, &self.params)),
        };
        match result {
            Some(Ok(value)) => return value,
            Some(Err(error)) => self.report(path, At::Value, error),
            None => {}
        }
        self.failed.insert(path.to_string());
        Value::Null
    }

    /// One value for each call. The elements must be known now.
    fn each(&mut self, text: &str, used: &HashSet<String>, path: &KeyPath, locals: &mut Locals) -> Expr {
        let mut columns = Vec::new();
        for (at, (name, source)) in locals.map.iter().enumerate().filter(|(_, (name, _))| used.contains(name)) {
            locals.placed.insert(at);
            let known = match source {
                Source::Items(items) => items.iter().all(|i| matches!(i, Expr::Value(_))).then_some(items.len()),
                Source::Range { start, stop, step } => Some(range_len(*start, *stop, *step)),
                Source::Task(_) => None,
            };
            match known {
                Some(len) => columns.push((name.clone(), source.clone(), len)),
                None => {
                    let text = format!(
                        "`{name}` is not known before the run, so it cannot stand in a template: write \"${name}\" as an argument of its own"
                    );
                    self.report(path, At::Value, text);
                    return Expr::Value(Value::Null);
                }
            }
        }
        let calls = columns.iter().map(|(.., len)| *len).min().unwrap_or(0);
        let mut scope = self.params.clone();
        let mut values = Vec::with_capacity(calls);
        for call in 0..calls {
            scope.extend(columns.iter().filter_map(|(name, source, _)| Some((name.clone(), source.value(call)?))));
            match self.templates.render(text, &scope) {
                Ok(value) => values.push(value),
                Err(error) => {
                    if !used.iter().any(|name| self.broken.contains(name)) {
                        self.report(path, At::Value, error);
                    }
                    break;
                }
            }
        }
        Expr::Each(values)
    }

    fn runner(&mut self, runner: Option<&Value>) -> Layer {
        let path = KeyPath::from(["runner"]);
        let runner = runner.map_or(Value::Null, |runner| self.rendered(runner, &path, &[]));
        let layer = Layer::from_tree(&runner, self.document, &path);
        self.mistakes.extend(layer.mistakes.clone());
        layer
    }

    // -- types -----------------------------------------------------------------------------------------------------

    /// `value`, which stands at `path`, as a `C`; or every way in which it is none.
    fn check<C: DeserializeOwned + JsonSchema>(&mut self, value: Value, path: &KeyPath) -> Option<C> {
        let error = match kwargs::parse::<C>(value) {
            Ok(typed) => return Some(typed),
            Err(error) => error,
        };
        for mistake in error.mistakes() {
            let below = steps(&mistake.path).into_iter();
            let path = KeyPath(path.0.iter().cloned().chain(below).collect());
            if self.failed.contains(&path.to_string()) {
                continue;
            }
            let text = match (mistake.path.as_str(), &mistake.value, &mistake.hint) {
                ("command", Some(Value::String(line)), _) => {
                    let words: Vec<_> = line.split_whitespace().collect();
                    format!("expected a list: write [{}], or [sh, -c, \"{line}\"] for what needs a shell", words.join(", "))
                }
                (_, _, Some(hint)) => format!("{}; {hint}", mistake.problem),
                _ => mistake.problem.clone(),
            };
            self.report(&path, At::Key, text);
        }
        None
    }

    // -- tasks -----------------------------------------------------------------------------------------------------

    fn task(&mut self, id: &str, task: &Value) -> TaskPlan {
        let path = KeyPath::from(["tasks", id]);
        if !is_name(&id.replace('-', "_")) {
            self.report(&path, At::Key, "a task's name is letters, digits, _ and -, and does not begin with a digit");
        }
        let empty = Map::new();
        let members = task.as_object().unwrap_or(&empty);
        if !task.is_object() {
            self.report(&path, At::Value, format!("expected a mapping with `python` or `command`, found {}", type_name(task)));
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
        if let (Some(Value::String(_)), Err(text)) = (rendered.get("python"), python_target(&target)) {
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
                Err(text) => self.report(&path.index(i), At::Value, text),
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
                        self.report(path, At::Value, text);
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
            _ if self.failed.contains(&path.to_string()) => nothing,
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
        match numbers.as_deref() {
            Some([stop]) if *stop >= 0 => return Source::Range { start: 0, stop: *stop, step: 1 },
            Some([start, stop]) => return Source::Range { start: *start, stop: *stop, step: 1 },
            Some([start, stop, step]) if *step != 0 => return Source::Range { start: *start, stop: *stop, step: *step },
            _ => {}
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

    // -- values ----------------------------------------------------------------------------------------------------

    fn list(&mut self, value: &Value, path: &KeyPath, locals: &mut Locals) -> Vec<Expr> {
        match value {
            Value::Array(items) => items.iter().enumerate().map(|(i, item)| self.tree(item, &path.index(i), locals)).collect(),
            // One template that is a list.
            other => match self.rendered(other, path, &[]) {
                Value::Array(items) => items.into_iter().map(Expr::Value).collect(),
                _ => Vec::new(), // the schema has complained
            },
        }
    }

    fn members(&mut self, value: Option<&Value>, path: &KeyPath, locals: &mut Locals) -> Vec<(String, Expr)> {
        match value {
            None => Vec::new(),
            Some(Value::Object(members)) => members.iter().map(|(k, v)| (k.clone(), self.tree(v, &path.key(k), locals))).collect(),
            Some(other) => match self.rendered(other, path, &[]) {
                Value::Object(members) => members.into_iter().map(|(k, v)| (k, Expr::Value(v))).collect(),
                _ => Vec::new(),
            },
        }
    }

    fn tree(&mut self, value: &Value, path: &KeyPath, locals: &mut Locals) -> Expr {
        match value {
            Value::String(text) => self.text(text, path, locals),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().enumerate().map(|(i, item)| self.tree(item, &path.index(i), locals)).collect();
                plain(&items).unwrap_or(Expr::List(items))
            }
            Value::Object(members) => {
                let members: Vec<_> = members.iter().map(|(k, v)| (k.clone(), self.tree(v, &path.key(k), locals))).collect();
                let values: Option<Map<_, _>> =
                    members.iter().map(|(k, t)| if let Expr::Value(v) = t { Some((k.clone(), v.clone())) } else { None }).collect();
                values.map_or(Expr::Map(members), |values| Expr::Value(Value::Object(values)))
            }
            other => Expr::Value(other.clone()),
        }
    }

    /// A template, `$name`, `$$` for a dollar, or just text. A string with a template in it is never a reference.
    fn text(&mut self, text: &str, path: &KeyPath, locals: &mut Locals) -> Expr {
        if is_template(text) {
            let used: HashSet<String> = self.templates.names(text).unwrap_or_default();
            return match locals.map.iter().any(|(name, _)| used.contains(name)) {
                true => self.each(text, &used, path, locals),
                false => Expr::Value(self.render(text, path)),
            };
        }
        let Some(name) = text.strip_prefix('$') else { return Expr::Value(text.into()) };
        if name.starts_with('$') {
            return Expr::Value(name.into());
        }
        if let Some(at) = locals.map.iter().position(|(local, _)| local == name) {
            locals.placed.insert(at);
            return Expr::Element(at);
        }
        match self.find(name) {
            Ok(index) => Expr::Task(index),
            Err(text) => {
                self.report(path, At::Value, text);
                Expr::Value(Value::Null)
            }
        }
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        if let Some(index) = self.ids.iter().position(|id| id == name) {
            return Ok(index);
        }
        let word: String = name.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-')).collect();
        if word.len() < name.len() {
            return Err(match self.ids.contains(&word) {
                true => format!("`${name}`: a part of a result has no name here: give the whole `${word}`, and take it apart in the task"),
                false => format!("`${name}` is no task; for a text that begins with a dollar write `$${name}`"),
            });
        }
        let near = did_you_mean(name, self.ids.iter().map(String::as_str));
        Err(format!("there is no task `{name}`{near}"))
    }
}

fn plain(items: &[Expr]) -> Option<Expr> {
    let values: Option<Vec<Value>> = items.iter().map(|t| if let Expr::Value(v) = t { Some(v.clone()) } else { None }).collect();
    values.map(|values| Expr::Value(Value::Array(values)))
}

/// What Python and minijinja take for a name.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn python_target(target: &str) -> Result<(), String> {
    let names = |part: &str| part.split('.').all(is_name);
    match target.split_once(':') {
        Some((module, function)) if names(module) && names(function) => Ok(()),
        None if names(target) && target.contains('.') => {
            let (module, function) = target.rsplit_once('.').unwrap_or_default();
            Err(format!("expected `pkg.mod:func`, found `{target}`: write `{module}:{function}`"))
        }
        _ => Err(format!("expected `pkg.mod:func`, found `{target}`")),
    }
}

/// `a.b[2]`, as the schema's walk writes it.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, rest) = part.split_once('[').unwrap_or((part, ""));
        if !key.is_empty() {
            steps.push(Step::Key(key.to_owned()));
        }
        steps.extend(rest.split('[').filter_map(|index| index.trim_end_matches(']').parse().ok().map(Step::Index)));
    }
    steps
}
