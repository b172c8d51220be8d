//! A configuration text, YAML or TOML, as one JSON tree that still knows where everything stands.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    ops::Range,
    path::Path as FilePath,
};

use remuda_core::{
    error::{Error, ErrorKind},
    kwargs::redacted,
};
use serde_json::Value;

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
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) location: Option<Location>,
    pub(crate) message: String,
}

/// A number that JSON cannot hold. Null stands in its place.
#[derive(Debug, Clone)]
pub(crate) struct Bad {
    /// As a [`KeyPath`] is written.
    pub(crate) path: String,
    pub(crate) fault: Fault,
}

impl Bad {
    /// Each place once: a number comes again with each alias.
    pub(crate) fn once(bad: impl IntoIterator<Item = Self>) -> impl Iterator<Item = Self> {
        let mut told = BTreeSet::new();
        bad.into_iter().filter(move |bad| bad.fault.location.is_none_or(|location| told.insert(location)))
    }

    pub(crate) fn into_fault(self) -> Fault {
        let path = if self.path.is_empty() { String::new() } else { self.path + ": " };
        Fault { message: path + &self.fault.message, ..self.fault }
    }
}

/// Why there is no [`Document`]: for those who read it alone, and for a list with others.
#[derive(Debug)]
pub(crate) struct NoDocument {
    pub(crate) error: Error,
    pub(crate) mistakes: Mistakes,
}

impl From<Error> for NoDocument {
    fn from(error: Error) -> Self {
        let mut mistakes = Mistakes::default();
        mistakes.add_error(&error);
        Self { error, mistakes }
    }
}

/// A text that was read.
#[derive(Clone)]
pub struct Document {
    name: String,
    text: String,
    format: Format,
    tree: Value,
    bad: Vec<Bad>,
}

impl fmt::Debug for Document {
    /// Without what is secret: not as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, format, tree, bad, .. } = self;
        f.debug_struct("Document").field("name", name).field("format", format).field("tree", &redacted(tree)).field("bad", bad).finish()
    }
}

impl Document {
    /// `name` is what messages call it: the path as the user gave it.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] with line and column.
    pub fn parse(name: impl Into<String>, text: impl Into<String>, format: Format) -> Result<Self, Error> {
        let document = Self::read(name, text, format).map_err(|unread| unread.error)?;
        document.bad().or(document)
    }

    /// The same also where there are numbers that JSON cannot hold: whoever makes something of it tells them with what else is wrong.
    pub(crate) fn read(name: impl Into<String>, text: impl Into<String>, format: Format) -> Result<Self, NoDocument> {
        let (name, text) = (name.into(), text.into());
        let read = match format {
            Format::Yaml => yaml::parse_most(&text),
            Format::Toml => toml_tree(&text),
        };
        match read {
            Ok((tree, bad)) => Ok(Self { name, text, format, tree, bad }),
            Err(faults) => {
                let mut mistakes = Mistakes::default();
                for fault in faults {
                    mistakes.add(placed(&name, fault.location), "", fault.message);
                }
                let error = mistakes.clone().or(()).err();
                let error = error.unwrap_or_else(|| Error::new(ErrorKind::Unexpected, format!("{name}: cannot be read")));
                Err(NoDocument { error, mistakes })
            }
        }
    }

    /// The numbers that JSON cannot hold.
    pub(crate) fn bad(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        for Bad { path, fault: Fault { location, message } } in Bad::once(self.bad.clone()) {
            mistakes.push(Mistake { place: placed(&self.name, location), key: path, message, location });
        }
        mistakes
    }

    /// Where these stand.
    pub(crate) fn bad_paths(&self) -> HashSet<String> {
        self.bad.iter().map(|bad| bad.path.clone()).collect()
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

fn placed(name: &str, location: Option<Location>) -> String {
    location.map_or_else(|| name.to_owned(), |l| format!("{name}:{}:{}", l.line, l.column))
}

fn location(text: &str, offset: usize) -> Location {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    Location { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn toml_tree(text: &str) -> Result<(Value, Vec<Bad>), Vec<Fault>> {
    let read = toml::de::DeTable::parse(text).map_err(|e| Fault {
        location: e.span().map(|s| location(text, s.start)),
        message: e.message().lines().collect::<Vec<_>>().join(", "),
    });
    let table = read.map_err(|fault| vec![fault])?;
    let mut bad = Vec::new();
    let tree = convert_table(table.get_ref(), &KeyPath::default(), &mut |path, span, message| {
        let fault = Fault { location: Some(location(text, span.start)), message };
        bad.push(Bad { path: path.to_string(), fault });
        Value::Null
    });
    Ok((tree, bad))
}

type NoteBad<'a> = dyn FnMut(&KeyPath, Range<usize>, String) -> Value + 'a;

fn convert_table(table: &toml::de::DeTable<'_>, path: &KeyPath, bad: &mut NoteBad<'_>) -> Value {
    let member = |(key, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), convert(value, &path.key(key.as_ref()), bad))
    };
    Value::Object(table.iter().map(member).collect())
}

fn convert(value: &toml::Spanned<toml::de::DeValue<'_>>, path: &KeyPath, bad: &mut NoteBad<'_>) -> Value {
    use toml::de::DeValue;
    let mut wrong = |message: String| bad(path, value.span(), message);
    match value.get_ref() {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Integer(n) => {
            let number = i64::from_str_radix(n.as_str(), n.radix());
            number.map_or_else(|_| wrong("the number is too large: quote it".into()), Value::from)
        }
        DeValue::Float(n) => {
            let number = n.as_str().parse::<f64>().unwrap_or(f64::NAN);
            let hint = if number == f64::INFINITY { " (no bound is the key left out)" } else { "" };
            let finite = serde_json::Number::from_f64(number).map(Value::Number);
            finite.unwrap_or_else(|| wrong(format!("the number is not finite{hint}")))
        }
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().enumerate().map(|(at, item)| convert(item, &path.index(at), bad)).collect()),
        DeValue::Table(table) => convert_table(table, path, bad),
    }
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
        assert_eq!(text("x = 1\ny = inf"), "r.toml:2:5: y: the number is not finite (no bound is the key left out)");
        assert_eq!(text("y = -inf"), "r.toml:1:5: y: the number is not finite");
        assert_eq!(text("y = 99999999999999999999"), "r.toml:1:5: y: the number is too large: quote it");
        let all = text("x = [1, nan]\n[y]\nz = -inf");
        assert_eq!(all, "2 mistakes:\n  r.toml:1:9: x[1]: the number is not finite\n  r.toml:3:5: y.z: the number is not finite");
    }
}
