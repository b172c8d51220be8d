//! Params, and the templates that use them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Locals, Parser};
use crate::{
    config::{At, KeyPath, Layer, did_you_mean},
    dynamic::is_name,
    flowfile::{
        plan::{Expr, Source, range_len},
        template::is_template,
    },
};

impl Parser<'_> {
    pub(super) fn params(&mut self, declared: Option<&Value>, given: Map<String, Value>) {
        let empty = Map::new();
        let declared = declared.and_then(Value::as_object).unwrap_or(&empty);
        let unread = self.unread.contains("params");
        for (name, value) in given.iter().filter(|(name, _)| !declared.contains_key(*name)) {
            if unread {
                self.params.insert(name.clone(), value.clone());
                continue;
            }
            let text = format!("{} has no param `{name}`{}", self.document.name(), did_you_mean(name, declared.keys().map(String::as_str)));
            self.mistakes.add("--param", "", text);
        }
        for (name, value) in declared {
            let path = KeyPath::from(["params", name]);
            let value = match given.get(name) {
                Some(value) => value.clone(),
                None if self.broken.contains(name) => continue,
                None if value.is_null() && !self.has_failed(&path) => {
                    self.broken.insert(name.clone());
                    self.report(&path, At::Key, format!("has no value: give it with --param {name}=VALUE"));
                    continue;
                }
                None => {
                    let value = self.rendered(value, &path, &[]);
                    if self.has_failed_below(&path) {
                        self.broken.insert(name.clone());
                        continue;
                    }
                    value
                }
            };
            if !is_name(name) {
                self.report(&path, At::Key, "a name is letters, digits and _");
            }
            self.params.insert(name.clone(), value);
        }
    }

    /// A copy with its templates filled in; those that use a name of `later` stay.
    pub(super) fn rendered(&mut self, value: &Value, path: &KeyPath, later: &[String]) -> Value {
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

    pub(super) fn render(&mut self, text: &str, path: &KeyPath) -> Value {
        let names = self.templates.names(text).unwrap_or_default();
        let result = match self.is_broken(&names) {
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

    /// Whether one of these names is a param whose value nobody knows.
    fn is_broken(&self, names: &HashSet<String>) -> bool {
        let unread = self.unread.contains("params");
        names.iter().any(|name| self.broken.contains(name) || unread && !self.params.contains_key(name))
    }

    /// One value for each call. The elements must be known now.
    pub(super) fn each(&mut self, text: &str, used: &HashSet<String>, path: &KeyPath, locals: &mut Locals) -> Expr {
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
        let unread = self.unread.contains("params");
        let calls = columns.iter().map(|(.., len)| *len).min().unwrap_or(0);
        let mut scope = self.params.clone();
        let mut values = Vec::with_capacity(calls);
        for call in 0..calls {
            scope.extend(columns.iter().filter_map(|(name, source, _)| Some((name.clone(), source.value(call)?))));
            match self.templates.render(text, &scope) {
                Ok(value) => values.push(value),
                Err(error) => {
                    if !used.iter().any(|name| self.broken.contains(name) || unread && !scope.contains_key(name)) {
                        self.report(path, At::Value, error);
                    }
                    break;
                }
            }
        }
        Expr::Each(values)
    }

    pub(super) fn runner(&mut self, runner: Option<&Value>) -> Layer {
        let path = KeyPath::from(["runner"]);
        let runner = runner.map_or(Value::Null, |runner| self.rendered(runner, &path, &[]));
        let layer = Layer::from_tree(&runner, self.document, &path);
        self.mistakes.extend(layer.mistakes.clone());
        layer
    }
}
