//! From the text to the plan: templates, references, types; every mistake with its place.

mod params;
mod tasks;
mod values;

use std::collections::HashSet;

use remuda_core::{error::Error, kwargs};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    Given,
    graph::{self, Draft},
    plan::{FlowPlan, Source},
    schema,
    template::{Scope, Templates},
};
use crate::config::{At, Document, KeyPath, Layer, Mistakes, Step, type_name};

impl FlowPlan {
    /// Reads a flow. `params` replace those of the file, as `--param` does; their values are taken as they are, without templates.
    ///
    /// # Errors
    /// [`remuda_core::error::ErrorKind::ConfigInvalid`] with every mistake, each with file, line and column.
    pub fn parse(document: &Document, params: Map<String, Value>) -> Result<Self, Error> {
        Self::parse_parts(document, Given { values: params, ..Given::default() }).1
    }

    /// The `runner` part, as far as it can be used, with the mistakes of the whole file.
    pub(super) fn parse_parts(document: &Document, given: Given) -> (Layer, Result<Self, Error>) {
        let mut parser = Parser {
            document,
            templates: Templates::new(),
            params: Scope::new(),
            broken: given.broken,
            failed: document.bad_paths(),
            unread: HashSet::new(),
            ids: Vec::new(),
            mistakes: given.mistakes,
        };
        parser.mistakes.extend(document.bad());
        let plan = parser.file(given.values);
        let mut runner = plan.runner.clone();
        runner.leave_out(&["runner"].into(), &parser.failed);
        runner.unclear |= document.tree().get("runner").is_none() && parser.unread.contains("runner");
        let mut mistakes = parser.mistakes;
        mistakes.sort();
        runner.mistakes = mistakes.clone();
        (runner, mistakes.or(plan))
    }
}

/// The keys of a flow file.
const FILE_KEYS: [&str; 4] = ["params", "tasks", "result", "runner"];

struct Parser<'a> {
    document: &'a Document,
    templates: Templates,
    params: Scope,
    /// Params without a usable value: what uses them is not reported once more.
    broken: HashSet<String>,
    /// Where a template could not be filled in, or a number not be read: the type there means nothing.
    failed: HashSet<String>,
    /// Keys of the file that say in vain what they say: what is missing there may be meant.
    unread: HashSet<&'static str>,
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
        self.unread = ["params", "tasks", "runner"].into_iter().filter(|key| self.in_vain(members, key)).collect();
        if !tree.is_object() {
            self.unread.extend(["params", "tasks", "runner"]);
        }
        if !tree.is_object() && !self.has_failed(&root) {
            self.report(&root, At::Value, format!("expected a mapping with `tasks`, found {}", type_name(tree)));
        }
        let top =
            members.iter().filter(|(key, _)| !key.starts_with("x-") && *key != "runner").map(|(k, v)| (k.clone(), v.clone())).collect();
        self.check::<schema::FlowFile>(Value::Object(top), &root);
        self.params(members.get("params"), given);
        let runner = self.runner(members.get("runner"));
        let tasks = members.get("tasks").and_then(Value::as_object).unwrap_or(&empty);
        if tasks.is_empty() && !self.unread.contains("tasks") {
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

    /// Whether `key` is not what it should be, or misspelt.
    fn in_vain(&self, members: &Map<String, Value>, key: &str) -> bool {
        let misspelt = |other: &String| !FILE_KEYS.contains(&other.as_str()) && kwargs::nearest(other, FILE_KEYS) == Some(key);
        let failed = self.has_failed(&[key].into());
        members.get(key).map_or_else(|| members.keys().any(misspelt), |value| failed || !value.is_object() && !value.is_null())
    }

    /// Whether of what stands at `path` nothing could be made.
    fn has_failed(&self, path: &KeyPath) -> bool {
        self.failed.contains(&path.to_string())
    }

    /// The same of it, or of a part of it.
    fn has_failed_below(&self, path: &KeyPath) -> bool {
        let path = path.to_string();
        self.failed.iter().any(|at| at.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
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

    /// `value`, which stands at `path`, as a `C`; or every way in which it is none.
    fn check<C: DeserializeOwned + JsonSchema>(&mut self, value: Value, path: &KeyPath) -> Option<C> {
        let error = match kwargs::parse::<C>(value) {
            Ok(typed) => return Some(typed),
            Err(error) => error,
        };
        for mistake in error.mistakes() {
            let below = steps(&mistake.path).into_iter();
            let path = KeyPath(path.0.iter().cloned().chain(below).collect());
            if self.has_failed(&path) {
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
