//! One layer of the configuration: what a file, the environment, the flags or the code say.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use remuda_core::kwargs::{is_secret, nearest, redacted};
use serde_json::{Map, Value};

use super::{
    document::{At, Document, KeyPath, Step},
    mistakes::{Mistakes, did_you_mean},
    prefect,
    unread::Unread,
    yaml,
};

/// The keys of every layer.
pub(crate) const KEYS: [&str; 5] = ["cluster_class", "cluster_kwargs", "adapt_kwargs", "client_kwargs", "address"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `file:line:column`.
    File(String),
    /// Name of the variable.
    Environment(String),
    /// `--kwarg`.
    Flag(&'static str),
    /// The program itself.
    Code,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(place) => f.write_str(place),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Code => f.write_str("code"),
        }
    }
}

/// One value, where it came from, and what became of it.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// `cluster_kwargs.n_workers`.
    pub key: KeyPath,
    /// As it was written.
    pub value: Value,
    /// Where.
    pub origin: Origin,
    /// Why it does not count, if it does not.
    pub dropped: Option<String>,
}

impl fmt::Debug for Setting {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.key.0.iter().any(|step| matches!(step, Step::Key(key) if is_secret(key)));
        let value = if secret { "***".into() } else { redacted(&self.value) };
        let Self { key, origin, dropped, .. } = self;
        f.debug_struct("Setting").field("key", key).field("value", &value).field("origin", origin).field("dropped", dropped).finish()
    }
}

/// What one source says. Layers are put on top of each other by [`super::resolve`].
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub(crate) settings: Vec<Setting>,
    pub(crate) mistakes: Mistakes,
    pub(crate) notices: Vec<String>,
    /// It says in vain which class or address is meant: what keywords are right cannot be known.
    pub(crate) unclear: bool,
    /// The same of `client_kwargs`.
    pub(crate) unread: Unread,
}

impl Layer {
    /// An empty layer, for what the code says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A file that could not be read.
    pub(crate) fn unread(mistakes: Mistakes) -> Self {
        let mut layer = Self { unclear: true, mistakes, ..Self::default() };
        layer.unread.all();
        layer
    }

    /// Said by the code: `cluster_class`, `cluster_kwargs`, `adapt_kwargs`, `client_kwargs` or `address`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.say(key, value.into(), &|_, _| Origin::Code);
        self
    }

    /// Said by a file, or by the part of a flow file at `root`.
    #[must_use]
    pub fn from_document(document: &Document, root: &KeyPath) -> Self {
        let at = root.0.iter().try_fold(document.tree(), |at, step| match step {
            Step::Key(key) => at.get(key),
            Step::Index(index) => at.get(index),
        });
        let mut layer = Self::from_tree(at.unwrap_or(&Value::Null), document, root);
        layer.leave_out(root, &document.bad_paths());
        layer.mistakes.extend(document.bad());
        layer
    }

    /// Leaves out what has in it one of the `failed` places of its file, of which nothing could be made.
    pub(crate) fn leave_out(&mut self, root: &KeyPath, failed: &HashSet<String>) {
        let full = |key: &KeyPath| KeyPath(root.0.iter().chain(&key.0).cloned().collect()).to_string();
        self.settings.retain(|setting| {
            let key = full(&setting.key);
            !failed.iter().any(|failed| failed.strip_prefix(&key).is_some_and(|below| below.is_empty() || below.starts_with(['.', '['])))
        });
        let which = [KeyPath::default(), ["cluster_class"].into(), ["address"].into()];
        self.unclear |= which.iter().any(|key| failed.contains(&full(key)));
        let root = root.to_string();
        for below in failed.iter().filter_map(|failed| failed.strip_prefix(&root)) {
            self.unread.failed(below.strip_prefix('.').unwrap_or(below));
        }
    }

    /// The same for a tree that is no longer as it was written: its templates are filled in.
    pub(crate) fn from_tree(tree: &Value, document: &Document, root: &KeyPath) -> Self {
        let mut layer = Self::default();
        let place = |path: &KeyPath, at| {
            let steps = root.0.iter().chain(&path.0).cloned().collect();
            Origin::File(document.place(&KeyPath(steps), at))
        };
        match tree {
            Value::Null => {}
            Value::Object(members) => {
                for (key, value) in members {
                    layer.say(key, value.clone(), &place);
                }
            }
            other => {
                let text = format!("expected a mapping with {}, found {}", KEYS.join(", "), type_name(other));
                layer.mistakes.add(place(&KeyPath::default(), At::Value).to_string(), root.to_string(), text);
                layer.unclear = true;
                layer.unread.all();
            }
        }
        layer
    }

    /// Said by the environment: the old Prefect variables first, `REMUDA_*` above them. A variable that is empty is not set.
    #[must_use]
    pub fn from_environment(env: &BTreeMap<String, String>) -> [Self; 2] {
        let mut layer = Self::default();
        let known = KEYS.map(|key| format!("REMUDA_{}", key.to_uppercase()));
        for (name, text) in env.iter().filter(|(_, text)| !text.trim().is_empty()) {
            let Some(at) = known.iter().position(|k| k == name) else {
                // Without the prefix, which makes all of them alike.
                let near = name.strip_prefix("REMUDA_").and_then(|rest| nearest(rest, KEYS));
                if let Some(near) = near {
                    layer.notices.push(format!("the variable {name} is not read, did you mean `REMUDA_{}`?", near.to_uppercase()));
                }
                continue;
            };
            let value = match KEYS[at].ends_with("kwargs") {
                false => Ok(Value::String(text.clone())),
                true => yaml::json(text),
            };
            match value {
                Ok(value) => layer.say(KEYS[at], value, &|_, _| Origin::Environment(name.clone())),
                Err(error) => {
                    let text = format!("expected a JSON object like {}: {error}", example(KEYS[at]));
                    layer.mistakes.add(format!("environment {name}"), "", text);
                    layer.unread.failed(KEYS[at]);
                }
            }
        }
        [prefect::layer(env), layer]
    }

    /// Said on the command line.
    #[must_use]
    pub fn from_flags(flags: &Flags) -> Self {
        let mut layer = Self::default();
        for (flag, key, text, example) in [
            ("--cluster-class", "cluster_class", &flags.cluster_class, "local::LocalCluster"),
            ("--address", "address", &flags.address, "tcp://host:8786"),
        ] {
            match text {
                // Most often a variable of the shell that is not set: it would run somewhere else than where it was sent.
                Some(text) if text.trim().is_empty() => {
                    let what = key.trim_start_matches("cluster_");
                    layer.mistakes.add(flag, "", format!("the {what} is empty: write {flag} {example}, or leave the flag out"));
                    layer.unclear = true;
                }
                Some(text) => layer.set(key, text.clone().into(), &|_, _| Origin::Flag(flag)),
                None => {}
            }
        }
        for text in &flags.kwargs {
            match split_assignment(text) {
                Ok((keys, value)) => {
                    let key = KeyPath(std::iter::once("cluster_kwargs").chain(keys).map(|k| Step::Key(k.to_owned())).collect());
                    layer.settings.push(Setting { key, value, origin: Origin::Flag("--kwarg"), dropped: None });
                }
                Err(error) => layer.mistakes.add("--kwarg", "", error),
            }
        }
        if let Some(text) = &flags.adapt {
            match parse_bounds(text) {
                Ok(bounds) => layer.set("adapt_kwargs", Value::Object(bounds), &|_, _| Origin::Flag("--adapt")),
                Err(error) => layer.mistakes.add("--adapt", "", error),
            }
        }
        layer
    }

    /// As [`set`](Self::set), for a key that may be any.
    fn say(&mut self, key: &str, value: Value, origin: &dyn Fn(&KeyPath, At) -> Origin) {
        self.unread.look(key, &value);
        self.set(key, value, origin);
    }

    /// Takes a key apart: one setting for each keyword argument, so that a higher layer replaces them one by one.
    pub(crate) fn set(&mut self, key: &str, value: Value, origin: &dyn Fn(&KeyPath, At) -> Origin) {
        let path = KeyPath::from([key]);
        let meant = nearest(key, KEYS);
        let mut unclear = false;
        let mut wrong = |at, text: String| self.mistakes.add(origin(&path, at).to_string(), key, text);
        match (key, &value) {
            (key, _) if !KEYS.contains(&key) => {
                unclear = matches!(meant, Some("cluster_class" | "address"));
                wrong(At::Key, format!("unknown key{}", did_you_mean(key, KEYS)));
            }
            ("cluster_class" | "address", Value::Null) => {}
            ("cluster_class" | "address", Value::String(text)) if text.trim().is_empty() => {}
            ("cluster_class" | "address", Value::String(_)) => self.push(path.clone(), value, origin(&path, At::Key)),
            ("cluster_class", other) => {
                unclear = true;
                wrong(At::Value, format!("expected the name of a class like \"local::LocalCluster\", found {}", shown(other)));
            }
            ("address", other) => {
                unclear = true;
                wrong(At::Value, format!("expected a text like \"tcp://host:8786\", found {}", shown(other)));
            }
            (_, Value::Null) => self.push(path.clone(), Value::Null, origin(&path, At::Key)),
            (_, Value::Object(members)) => {
                let members = members.clone();
                self.push(path.clone(), Value::Object(Map::new()), origin(&path, At::Key));
                for (name, value) in members {
                    let path = path.key(name);
                    self.push(path.clone(), value, origin(&path, At::Key));
                }
            }
            (_, other) => wrong(At::Value, format!("expected a mapping, found {}", type_name(other))),
        }
        self.unclear |= unclear;
    }

    fn push(&mut self, key: KeyPath, value: Value, origin: Origin) {
        self.settings.push(Setting { key, value, origin, dropped: None });
    }

    /// Where this layer speaks of `key`, if it does.
    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        self.settings.iter().find(|s| s.root() == key).map(|s| &s.origin)
    }
}

impl Setting {
    /// Which of [`KEYS`] it belongs to.
    pub(crate) fn root(&self) -> &str {
        match self.key.0.first() {
            Some(Step::Key(key)) => key,
            _ => "",
        }
    }
}

/// What `remuda run` takes on its command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--cluster-class`.
    pub cluster_class: Option<String>,
    /// `--kwarg`, each `key=value` or `key.sub=value`.
    pub kwargs: Vec<String>,
    /// `--address`.
    pub address: Option<String>,
    /// `--adapt`, `MIN..MAX`.
    pub adapt: Option<String>,
}

/// The bounds of `--adapt`: `0..10` as `minimum` and `maximum`, both included. A side that is left out says nothing, so that what was
/// said before counts.
///
/// # Errors
/// What was expected, for people.
pub fn parse_bounds(text: &str) -> Result<Map<String, Value>, String> {
    let wrong = |hint: &str| format!("expected MIN..MAX as in 0..10, both included, either may be left out; found \"{text}\"{hint}");
    let Some((low, high)) = text.split_once("..") else {
        let number = text.trim().parse::<u32>();
        return Err(wrong(
            &number.map_or(String::new(), |n| format!(" (a fixed number is `--kwarg n_workers={n}`, at most {n} is `..{n}`)")),
        ));
    };
    if high.trim_start().starts_with('=') {
        return Err(wrong(" (without the `=`)"));
    }
    let mut bounds = Map::new();
    for (key, side) in [("minimum", low.trim()), ("maximum", high.trim())] {
        if !side.is_empty() {
            bounds.insert(key.to_owned(), side.parse::<u32>().map_err(|_| wrong(""))?.into());
        }
    }
    Ok(bounds)
}

/// `resources.GPU=1`: the keys, and the value by YAML's rules for scalars. What may be a secret is not told.
pub(crate) fn split_assignment(text: &str) -> Result<(Vec<&str>, Value), String> {
    // `password: c2VjcmV0==` has no value after a `=`, however it looks.
    let divided = text.split_once('=').filter(|(key, _)| !key.split_once(':').is_some_and(|(key, _)| is_secret(key)));
    let Some((key, value)) = divided else {
        return Err(match key_of(text) {
            "" => "expected key=value, found a text without `=`".into(),
            key if key.len() == text.trim().len() => format!("expected key=value, found \"{key}\""),
            key => format!("expected key=value, found \"{key}\" and no `=` after it"),
        });
    };
    let keys: Vec<&str> = key.trim().split('.').collect();
    if keys.iter().any(|k| k.is_empty() || k.contains(char::is_whitespace)) {
        let key = match key_of(key) {
            known if known.len() == key.len() => format!("\"{key}\""),
            "" => "what stands before the `=`".into(),
            known => format!("what begins with \"{known}\""),
        };
        return Err(format!("{key} is no key: expected key=value or key.sub=value"));
    }
    Ok((keys, yaml::scalar(value)))
}

/// As much of a text as can be a key.
fn key_of(text: &str) -> &str {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.')).unwrap_or(text.len());
    &text[..end]
}

/// What a variable may hold.
fn example(key: &str) -> &'static str {
    match key {
        "client_kwargs" => r#"{"timeout": "10s"}"#,
        "adapt_kwargs" => r#"{"maximum": 10}"#,
        _ => r#"{"n_workers": 4}"#,
    }
}

/// What stands where a text should: of a list or a mapping, which may have secrets in it, only that it is one.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => format!("{} {value}", type_name(value)),
        other => type_name(other).to_owned(),
    }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "mapping",
    }
}
