//! A configuration text, YAML or TOML, as one JSON tree that still knows where everything stands.

use std::{fmt, ops::Range, path::Path as FilePath};

use remuda_core::error::{Error, ErrorKind};
use serde_json::{Map, Value};

use super::{
    mistakes::{Mistake, Mistakes},
    yaml,
};

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// By `serde_yaml`: see `docs/adr/0004-yaml.md`.
    Yaml,
    /// TOML 1.
    Toml,
}

impl Format {
    /// By the file's extension; anything but `.toml` is YAML.
    #[must_use]
    pub fn of(path: &FilePath) -> Self {
        match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) {
            true => Self::Toml,
            false => Self::Yaml,
        }
    }
}

/// A step down a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// Where something stands in a tree: `tasks.adds.args[0]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// One key below.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// One list item below.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl<const N: usize> From<[&str; N]> for KeyPath {
    fn from(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|k| Step::Key((*k).to_owned())).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Which end of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The key itself.
    Key,
    /// What stands there.
    Value,
}

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// What a parser says: where, if it knows, and what.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) location: Option<Location>,
    pub(crate) message: String,
}

/// A text that was read.
#[derive(Debug, Clone)]
pub struct Document {
    name: String,
    text: String,
    format: Format,
    tree: Value,
}

impl Document {
    /// `name` is what messages call it: the path as the user gave it.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] with line and column.
    pub fn parse(name: impl Into<String>, text: impl Into<String>, format: Format) -> Result<Self, Error> {
        let (name, text) = (name.into(), text.into());
        let tree = match format {
            Format::Yaml => yaml::parse(&text),
            Format::Toml => toml_tree(&text),
        };
        match tree {
            Ok(tree) => Ok(Self { name, text, format, tree }),
            Err(fault) => {
                let at = fault.location.map(|l| format!(":{}:{}", l.line, l.column)).unwrap_or_default();
                Err(Error::new(ErrorKind::ConfigInvalid, format!("{name}{at}: {}", fault.message)))
            }
        }
    }

    /// The whole tree.
    #[must_use]
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where an entry stands; for one that came by a merge key or is missing, where its parent stands.
    #[must_use]
    pub fn locate(&self, path: &KeyPath, at: At) -> Option<Location> {
        if let Some(found) = self.find(&path.0, at) {
            return Some(found);
        }
        (0..path.0.len()).rev().find_map(|len| self.find(&path.0[..len], At::Key))
    }

    fn find(&self, steps: &[Step], at: At) -> Option<Location> {
        match self.format {
            Format::Yaml => yaml::locate(&self.text, steps, at),
            Format::Toml => toml_span(&self.text, steps, at).map(|span| location(&self.text, span.start)),
        }
    }

    /// `file:line:column` of an entry.
    #[must_use]
    pub fn place(&self, path: &KeyPath, at: At) -> String {
        match self.locate(path, at) {
            Some(l) => format!("{}:{}:{}", self.name, l.line, l.column),
            None => self.name.clone(),
        }
    }

    /// Notes a mistake at an entry.
    pub fn report(&self, mistakes: &mut Mistakes, path: &KeyPath, at: At, message: impl Into<String>) {
        let location = self.locate(path, at);
        let place = self.place(path, at);
        mistakes.push(Mistake { place, key: path.to_string(), message: message.into(), location });
    }
}

fn location(text: &str, offset: usize) -> Location {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    Location { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn toml_tree(text: &str) -> Result<Value, Fault> {
    let table = toml::de::DeTable::parse(text).map_err(|e| Fault {
        location: e.span().map(|s| location(text, s.start)),
        message: e.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let at = |span: Range<usize>, message: &str| Fault { location: Some(location(text, span.start)), message: message.into() };
    convert_table(table.get_ref(), &at)
}

fn convert_table(table: &toml::de::DeTable<'_>, fault: &impl Fn(Range<usize>, &str) -> Fault) -> Result<Value, Fault> {
    let mut members = Map::new();
    for (key, value) in table {
        members.insert(key.get_ref().to_string(), convert(value, fault)?);
    }
    Ok(Value::Object(members))
}

fn convert(value: &toml::Spanned<toml::de::DeValue<'_>>, fault: &impl Fn(Range<usize>, &str) -> Fault) -> Result<Value, Fault> {
    use toml::de::DeValue;
    let wrong = |message: &str| fault(value.span(), message);
    Ok(match value.get_ref() {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).map_err(|_| wrong("the number is too large: quote it"))?.into(),
        DeValue::Float(n) => {
            let number = n.as_str().parse::<f64>().unwrap_or(f64::NAN);
            let hint = if number == f64::INFINITY { " (no bound is the key left out)" } else { "" };
            Value::Number(serde_json::Number::from_f64(number).ok_or_else(|| wrong(&format!("the number is not finite{hint}")))?)
        }
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|i| convert(i, fault)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => convert_table(table, fault)?,
    })
}

fn toml_span(text: &str, steps: &[Step], at: At) -> Option<Range<usize>> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let Some((last, parents)) = steps.split_last() else { return Some(table.span()) };
    let whole = toml::de::DeValue::Table(table.into_inner());
    let parent = parents.iter().try_fold(&whole, |at, step| match step {
        Step::Key(key) => at.get(key.as_str()).map(toml::Spanned::get_ref),
        Step::Index(index) => at.get(*index).map(toml::Spanned::get_ref),
    })?;
    match last {
        Step::Index(index) => parent.get(*index).map(toml::Spanned::span),
        Step::Key(key) => {
            let (name, value) = parent.as_table()?.get_key_value(key.as_str())?;
            Some(if at == At::Key { name.span() } else { value.span() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn toml_knows_its_places() {
        let text =
            "cluster_class = \"local::LocalCluster\"\n[cluster_kwargs]\nn_workers = 4\nports = [1, 0x10]\n  env = {A = \"é\", B = 1.5}\n";
        let doc = Document::parse("remuda.toml", text, Format::Toml).unwrap();
        let expected = json!({"cluster_class": "local::LocalCluster",
            "cluster_kwargs": {"n_workers": 4, "ports": [1, 16], "env": {"A": "é", "B": 1.5}}});
        assert_eq!(doc.tree(), &expected);
        let path = KeyPath::from(["cluster_kwargs", "env", "B"]);
        assert_eq!(doc.place(&path, At::Key), "remuda.toml:5:19");
        assert_eq!(doc.place(&path, At::Value), "remuda.toml:5:23");
        assert_eq!(doc.place(&KeyPath::from(["cluster_kwargs", "ports"]).index(1), At::Value), "remuda.toml:4:13");
        assert_eq!(doc.place(&path.key("nope"), At::Key), "remuda.toml:5:19");
    }

    #[test]
    fn toml_mistakes_have_a_place() {
        let text = |text: &str| Document::parse("r.toml", text, Format::Toml).unwrap_err().to_string();
        assert!(text("a = 1\na = 2").starts_with("r.toml:2:1: "), "{}", text("a = 1\na = 2"));
        assert_eq!(text("x = 1\ny = inf"), "r.toml:2:5: the number is not finite (no bound is the key left out)");
        assert_eq!(text("y = -inf"), "r.toml:1:5: the number is not finite");
        assert_eq!(text("y = 99999999999999999999"), "r.toml:1:5: the number is too large: quote it");
    }
}
