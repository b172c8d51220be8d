//! Values with references in them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Locals, Parser};
use crate::{
    config::{At, KeyPath, did_you_mean},
    flowfile::{plan::Expr, template::is_template},
};

impl Parser<'_> {
    pub(super) fn list(&mut self, value: &Value, path: &KeyPath, locals: &mut Locals) -> Vec<Expr> {
        match value {
            Value::Array(items) => items.iter().enumerate().map(|(i, item)| self.tree(item, &path.index(i), locals)).collect(),
            // One template that is a list.
            other => match self.rendered(other, path, &[]) {
                Value::Array(items) => items.into_iter().map(Expr::Value).collect(),
                _ => Vec::new(), // the schema has complained
            },
        }
    }

    pub(super) fn members(&mut self, value: Option<&Value>, path: &KeyPath, locals: &mut Locals) -> Vec<(String, Expr)> {
        match value {
            None => Vec::new(),
            Some(Value::Object(members)) => members.iter().map(|(k, v)| (k.clone(), self.tree(v, &path.key(k), locals))).collect(),
            Some(other) => match self.rendered(other, path, &[]) {
                Value::Object(members) => members.into_iter().map(|(k, v)| (k, Expr::Value(v))).collect(),
                _ => Vec::new(),
            },
        }
    }

    pub(super) fn tree(&mut self, value: &Value, path: &KeyPath, locals: &mut Locals) -> Expr {
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
                self.no_task(path, text);
                Expr::Value(Value::Null)
            }
        }
    }

    /// What [`find`](Self::find) says, where the tasks are known.
    pub(super) fn no_task(&mut self, path: &KeyPath, text: String) {
        if !self.unread.contains("tasks") {
            self.report(path, At::Value, text);
        }
    }

    pub(super) fn find(&self, name: &str) -> Result<usize, String> {
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
