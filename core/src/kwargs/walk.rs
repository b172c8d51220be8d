//! The walk over a JSON tree along its JSON Schema.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{did_you_mean, secret};
use crate::error::Mistake;

/// Longest piece of a value that a message shows, in characters.
const SHOWN: usize = 60;

/// Finds what is wrong and takes it out, so that the rest can be looked at further; gives aliases their proper names.
pub(super) struct Walk<'a> {
    root: &'a Value,
    found: Vec<Mistake>,
}

impl<'a> Walk<'a> {
    pub(super) fn over(schema: &'a Value, tree: &mut Value) -> Vec<Mistake> {
        let mut walk = Self { root: schema, found: Vec::new() };
        walk.check(schema, tree, "");
        walk.found
    }

    /// Reports what is wrong with `value` and takes wrong members out. Returns whether `value` itself may stay.
    fn check(&mut self, schema: &'a Value, value: &mut Value, path: &str) -> bool {
        let schema = self.resolve(schema);
        if let Some(choices) = choices(schema) {
            return self.check_choices(schema, choices, value, path);
        }
        if schema == &Value::Bool(false) {
            return self.report(path, "nothing may stand here".into(), Some(value), None, None);
        }
        if let Some(names) = names(schema) {
            return names.contains(&&*value) || self.not_one_of(&names, value, path);
        }
        if !self.accepts(schema, value) {
            return self.wrong_type(schema, value, path);
        }
        match value {
            Value::Object(members) => self.check_members(schema, members, path),
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.check(&schema["items"], item, &format!("{path}[{i}]"));
                }
                let count = items.len();
                self.check_size(schema, ["minItems", "maxItems"], count, "items", value, path)
            }
            Value::String(text) => {
                let count = text.chars().count();
                self.check_size(schema, ["minLength", "maxLength"], count, "characters", value, path)
            }
            Value::Number(_) => self.check_range(schema, value, path),
            _ => true,
        }
    }

    /// The alternative with the fewest complaints speaks, among those of the value's own type: its complaints are the useful ones.
    fn check_choices(&mut self, schema: &'a Value, choices: &'a [Value], value: &mut Value, path: &str) -> bool {
        let attempt = |choice: &'a Value| {
            let (mut walk, mut tree) = (Walk { root: self.root, found: Vec::new() }, value.clone());
            let stays = walk.check(choice, &mut tree, path);
            let strange = mistagged(self.resolve(choice), value);
            ((strange, walk.found.len()), walk, tree, stays)
        };
        let best = choices.iter().filter(|choice| self.accepts(choice, value)).map(attempt).min_by_key(|(score, ..)| *score);
        match best {
            Some((_, walk, tree, stays)) => {
                self.found.extend(walk.found);
                *value = tree;
                stays
            }
            None => {
                let names: Vec<&Value> = choices.iter().filter_map(|c| names(self.resolve(c))).flatten().collect();
                match value.is_string() && names.iter().any(|name| name.is_string()) {
                    true => self.not_one_of(&names, value, path),
                    false => self.wrong_type(schema, value, path),
                }
            }
        }
    }

    fn check_members(&mut self, schema: &'a Value, members: &mut Map<String, Value>, path: &str) -> bool {
        let known = Properties::of(schema);
        let free = &schema["additionalProperties"];
        let mut left = Map::new();
        let mut seen: Vec<(&str, String)> = Vec::new();
        for (key, mut value) in std::mem::take(members) {
            let here = join(path, &key);
            let stays = match known.find(&key) {
                Some((name, _)) if seen.iter().any(|(other, _)| *other == name) => {
                    let first = seen.iter().find(|(other, _)| *other == name).map_or("", |(_, key)| key);
                    let problem = format!("given twice: `{first}` and `{key}` are the same");
                    self.report(&here, problem, None, None, Some("keep one of them".into()))
                }
                Some((name, field)) => {
                    seen.push((name, key.clone()));
                    if self.check(field, &mut value, &here) {
                        left.insert(name.to_owned(), value);
                    }
                    continue;
                }
                None if let Some(why) = schema["x-refused"][&key].as_str() => self.report(&here, why.to_owned(), Some(&value), None, None),
                None if free.is_object() => self.check(free, &mut value, &here),
                None if free == &Value::Bool(true) || known.is_free(schema) => true,
                None => {
                    let hint = did_you_mean(&key, known.names()).or_else(|| known.list());
                    self.report(&here, "unknown key".into(), Some(&value), None, hint)
                }
            };
            if stays {
                left.insert(key, value);
            }
        }
        *members = left;
        self.check_required(schema, &seen, members, path);
        let count = members.len();
        let value = Value::Object(members.clone());
        self.check_size(schema, ["minProperties", "maxProperties"], count, "entries", &value, path)
    }

    fn check_required(&mut self, schema: &'a Value, seen: &[(&str, String)], members: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if members.contains_key(name) || seen.iter().any(|(key, _)| *key == name) {
                continue;
            }
            let field = self.resolve(&schema["properties"][name]);
            let expected = self.expected(field);
            let problem = format!("is required: {expected}{}", summary(field).map(|text| format!(" ({text})")).unwrap_or_default());
            self.report(&join(path, name), problem, None, Some(expected), None);
        }
    }

    fn check_range(&mut self, schema: &Value, value: &Value, path: &str) -> bool {
        let n = value.as_f64().unwrap_or_default();
        let bound = |name: &str| schema[name].as_f64().map(|bound| (bound, &schema[name]));
        let mut bounds = Vec::new();
        let mut wrong = false;
        for (name, text, broken) in [
            ("minimum", "at least", (|n, bound| n < bound) as fn(f64, f64) -> bool),
            ("exclusiveMinimum", "more than", |n, bound| n <= bound),
            ("maximum", "at most", |n, bound| n > bound),
            ("exclusiveMaximum", "less than", |n, bound| n >= bound),
        ] {
            if let Some((limit, written)) = bound(name) {
                wrong |= broken(n, limit);
                let written = if limit.fract() == 0.0 && limit.abs() < 1e15 { format!("{limit:.0}") } else { written.to_string() };
                bounds.push(format!("{text} {written}"));
            }
        }
        if !wrong {
            return true;
        }
        let expected = bounds.join(" and ");
        self.report(path, format!("expected {expected}, found {}", shown(path, value)), Some(value), Some(expected), None)
    }

    fn check_size(&mut self, schema: &Value, [low, high]: [&str; 2], count: usize, what: &str, value: &Value, path: &str) -> bool {
        let count = count as u64;
        let expected = match (schema[low].as_u64(), schema[high].as_u64()) {
            (Some(low), _) if count < low => format!("at least {low} {what}"),
            (_, Some(high)) if count > high => format!("at most {high} {what}"),
            _ => return true,
        };
        self.report(path, format!("expected {expected}, found {count}"), Some(value), Some(expected), None)
    }

    /// Whether `value` is of a type that `schema` takes.
    fn accepts(&self, schema: &'a Value, value: &Value) -> bool {
        let schema = self.resolve(schema);
        if let Some(choices) = choices(schema) {
            return choices.iter().any(|c| self.accepts(c, value));
        }
        if let Some(names) = names(schema) {
            return names.contains(&value);
        }
        let fits = |name: &str| match name {
            "integer" => value.is_i64() || value.is_u64(),
            other => type_name(value) == other,
        };
        match &schema["type"] {
            Value::String(name) => fits(name),
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(fits),
            _ => schema != &Value::Bool(false), // no type: anything
        }
    }

    /// Follows `$ref`. A definition that refers to itself for ever is cut after a few steps.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..16 {
            let single = schema["allOf"].as_array().filter(|all| all.len() == 1).map(|all| &all[0]);
            match schema["$ref"].as_str().and_then(|r| self.root.pointer(r.trim_start_matches('#'))).or(single) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    fn expected(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        let mut all: Vec<String> = match (choices(schema), names(schema), &schema["type"]) {
            (Some(choices), ..) => choices.iter().map(|c| self.expected(c)).collect(),
            (_, Some(names), _) => names.iter().map(|name| plain(name)).collect(),
            (_, _, Value::String(name)) => vec![name.clone()],
            (_, _, Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => vec!["a value".into()],
        };
        if all.len() > 1 {
            all.retain(|name| name != "null"); // leaving the key out says the same
        }
        let mut unique: Vec<String> = Vec::new();
        all.into_iter().for_each(|name| {
            if !unique.contains(&name) {
                unique.push(name)
            }
        });
        unique.join(" or ")
    }

    fn wrong_type(&mut self, schema: &'a Value, value: &Value, path: &str) -> bool {
        let expected = self.expected(schema);
        let problem = format!("expected {expected}, found {}", shown(path, value));
        self.report(path, problem, Some(value), Some(expected), None)
    }

    fn not_one_of(&mut self, names: &[&Value], value: &Value, path: &str) -> bool {
        let expected = names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
        let hint = value.as_str().and_then(|text| did_you_mean(text, names.iter().filter_map(|name| name.as_str())));
        let problem = format!("expected one of {expected}, found {}", shown(path, value));
        self.report(path, problem, Some(value), Some(expected), hint)
    }

    fn report(&mut self, path: &str, problem: String, value: Option<&Value>, expected: Option<String>, hint: Option<String>) -> bool {
        let value = value.filter(|_| !secret::on_path(path)).cloned();
        self.found.push(Mistake { path: path.to_owned(), problem, value, expected, hint });
        false
    }
}

/// The known keys of an object and their other names.
struct Properties<'a>(Option<&'a Map<String, Value>>);

impl<'a> Properties<'a> {
    fn of(schema: &'a Value) -> Self {
        Self(schema["properties"].as_object())
    }

    fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.0.into_iter().flatten().map(|(name, field)| (name.as_str(), field))
    }

    fn find(&self, key: &str) -> Option<(&'a str, &'a Value)> {
        let named = self.iter().find(|(name, _)| *name == key);
        named.or_else(|| self.iter().find(|(_, field)| aliases(field).any(|alias| alias == key)))
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.iter().flat_map(|(name, field)| std::iter::once(name).chain(aliases(field)))
    }

    fn list(&self) -> Option<String> {
        let names: Vec<_> = self.iter().map(|(name, _)| format!("`{name}`")).collect();
        (1..=40).contains(&names.len()).then(|| format!("known are {}", names.join(", ")))
    }

    /// An object about which nothing is said takes anything.
    fn is_free(&self, schema: &Value) -> bool {
        self.0.is_none() && schema["additionalProperties"].is_null() && schema["unevaluatedProperties"].is_null()
    }
}

/// Whether a tag says that another alternative is meant: `kind: round` where this one is `kind: square`.
fn mistagged(schema: &Value, value: &Value) -> bool {
    let tags = schema["properties"].as_object().into_iter().flatten();
    let mut tags = tags.filter_map(|(name, field)| field.get("const").map(|tag| (name, tag)));
    tags.any(|(name, tag)| value.get(name).is_some_and(|given| given != tag))
}

fn aliases(field: &Value) -> impl Iterator<Item = &str> {
    field["x-aliases"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn choices(schema: &Value) -> Option<&[Value]> {
    schema["anyOf"].as_array().or(schema["oneOf"].as_array()).map(Vec::as_slice)
}

/// The values of an `enum` or a `const`.
fn names(schema: &Value) -> Option<Vec<&Value>> {
    let one = schema.get("const").map(|name| vec![name]);
    one.or_else(|| schema["enum"].as_array().map(|names| names.iter().collect()))
}

fn summary(field: &Value) -> Option<&str> {
    field["description"].as_str().and_then(|text| text.lines().next()).map(|line| line.trim_end_matches('.'))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn plain(name: &Value) -> String {
    name.as_str().map_or_else(|| name.to_string(), str::to_owned)
}

/// A value with its type, cut to a readable length; a secret only by its type.
pub(super) fn shown(path: &str, value: &Value) -> String {
    let mut text = type_name(value).to_owned();
    if value.is_null() {
        return text;
    }
    if secret::on_path(path) {
        return text + " (not shown)";
    }
    let json = secret::redacted(value).to_string();
    let cut: String = json.chars().take(SHOWN).collect();
    let dots = if cut.len() < json.len() { " ..." } else { "" };
    let _ = write!(text, " {cut}{dots}");
    text
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
