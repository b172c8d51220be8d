//! Keyword arguments: an ordered JSON tree, checked against a schema before it becomes a struct.
//!
//! The schema is data (JSON Schema, from `schemars`), so the same walk serves Rust classes, plugins and foreign classes, and also
//! configuration files ([`check`]). Every mistake is reported at once: the walk finds unknown keys, wrong types, ranges and missing
//! keys; then the tree is deserialised, and a value that only the field's own `Deserialize` can judge (`"lots"` as memory) is taken
//! out and the rest tried again, so that it joins the same list.
//!
//! Two extensions of JSON Schema are understood: `x-aliases` on a property (a list of other names for it) and `x-refused` on an
//! object (key to the sentence that says why it is not taken and what to use instead).
//!
//! ```
//! use remuda_core::kwargs::Kwargs;
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Debug, Default, Deserialize, JsonSchema)]
//! #[serde(default)]
//! #[schemars(extend("x-refused" = {"scheduler_port": "there is no port: the scheduler is in this process"}))]
//! struct Config {
//!     #[schemars(range(min = 1), extend("x-aliases" = ["workers"]))]
//!     n_workers: Option<u32>,
//! }
//!
//! let config: Config = Kwargs::new().with("workers", 4).parse()?;
//! assert_eq!(config.n_workers, Some(4));
//!
//! let error = Kwargs::from([("n_worker", 4), ("scheduler_port", 8786)]).parse::<Config>().unwrap_err();
//! assert_eq!(error.mistakes().len(), 2);
//! assert_eq!(error.mistakes()[0].to_string(), "`n_worker`: unknown key; did you mean `n_workers`?");
//! # Ok::<(), remuda_core::error::Error>(())
//! ```

mod secret;
mod walk;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use secret::{is_secret, redacted};

use self::walk::Walk;
use crate::error::{Error, Mistake, Result};

/// The keyword arguments of a cluster class. Keeps the order they were given in.
///
/// `Display` and `Debug` write JSON in which the values of keys that look like secrets are masked.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kwargs(Map<String, Value>);

impl Kwargs {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more, replacing one of that name.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// Adds one, replacing one of that name.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// The value of `key`, by the name it was given under.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many at the top.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Lays `over` over these: maps are merged key by key at any depth, anything else is replaced.
    pub fn merge(&mut self, over: Self) {
        merge(&mut self.0, over.0);
    }

    /// As a JSON object.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Checks against the schema of `C` and deserialises.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::error::ErrorKind::ConfigInvalid) with every mistake: see [`Error::mistakes`].
    pub fn parse<C: DeserializeOwned + JsonSchema>(self) -> Result<C> {
        parse(self.into_value())
    }

    /// As [`parse`](Self::parse), then `make`, whose mistakes join the list: it also sees what is left when something was taken out, and
    /// what it makes of that is dropped.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and those of `make`.
    pub fn parse_into<C: DeserializeOwned + JsonSchema, T>(self, make: impl FnOnce(C) -> Result<T>) -> Result<T> {
        parse_into(self.into_value(), make)
    }
}

/// Checks a JSON tree against the schema of `C` and deserialises. What [`Kwargs::parse`] does, for any tree: `adapt_kwargs`, files.
/// Use [`Error::under`] to say where the tree stood.
///
/// # Errors
/// [`ConfigInvalid`](crate::error::ErrorKind::ConfigInvalid) with every mistake: see [`Error::mistakes`].
pub fn parse<C: DeserializeOwned + JsonSchema>(tree: Value) -> Result<C> {
    parse_into(tree, Ok)
}

fn parse_into<C: DeserializeOwned + JsonSchema, T>(mut tree: Value, make: impl FnOnce(C) -> Result<T>) -> Result<T> {
    let schema = schema_of::<C>();
    let mut mistakes = Walk::over(&schema, &mut tree);
    loop {
        // What was complained about has been taken out, so each turn finds another mistake or ends.
        match serde_path_to_error::deserialize::<_, C>(&tree) {
            Ok(config) if mistakes.is_empty() => return make(config),
            Ok(rest) => {
                let more = make(rest).err();
                // Of a kwarg in which something was taken out nothing more can be known.
                let known = |path: &str| mistakes.iter().any(|mistake| top(&mistake.path) == top(path));
                let more = more.iter().flat_map(Error::mistakes).filter(|mistake| !known(&mistake.path));
                let more: Vec<_> = more.cloned().collect();
                mistakes.extend(more);
                return Err(Error::invalid(mistakes));
            }
            Err(error) => {
                let path = error.path().to_string();
                let path = if path == "." { String::new() } else { path };
                let key = top(&path).to_owned();
                let removed = tree.as_object_mut().and_then(|members| members.shift_remove(&key));
                // Where something was complained about, the hole it left is no further mistake.
                let known = mistakes.iter().any(|mistake| within(&mistake.path, &path) || within(&path, &mistake.path));
                if mistakes.is_empty() || removed.is_some() && !known {
                    mistakes.push(judged_by_the_field(path, removed.as_ref(), &error.into_inner()));
                }
                if removed.is_none() {
                    return Err(Error::invalid(mistakes));
                }
            }
        }
    }
}

/// The kwarg that `path` is or is in.
fn top(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

/// Whether `path` is `at` or below it.
fn within(path: &str, at: &str) -> bool {
    path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn judged_by_the_field(path: String, top: Option<&Value>, error: &serde_json::Error) -> Mistake {
    let value = top.and_then(|top| path.find(['.', '[']).map_or(Some(top), |_| None)).cloned();
    if secret::on_path(&path) {
        return Mistake::new(path, "the value (not shown) is not valid");
    }
    Mistake { value, ..Mistake::new(path, error.to_string()) }
}

/// Everything in `value` that its `schema` does not allow. Paths begin with `prefix`, which may be empty.
#[must_use]
pub fn check(schema: &Value, value: &Value, prefix: &str) -> Vec<Mistake> {
    let mistakes = Walk::over(schema, &mut value.clone());
    match mistakes.is_empty() {
        true => mistakes,
        false => Error::invalid(mistakes).under(prefix).mistakes().to_vec(),
    }
}

/// The JSON Schema of a configuration struct.
#[must_use]
pub fn schema_of<C: JsonSchema>() -> Value {
    schemars::schema_for!(C).to_value()
}

/// The name that `word` is a slip of, if one is near enough: case, `-` for `_`, singular for plural, and about one wrong letter in four.
#[must_use]
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| {
        let text = text.to_lowercase().replace('-', "_");
        // `retry` for `retries`; a mere `s` too many is near enough.
        text.strip_suffix("ies").map(|stem| format!("{stem}y")).unwrap_or(text)
    };
    let word = plain(word);
    let near = |name: &&str| {
        let other = plain(name);
        let (wrong, like) = (strsim::damerau_levenshtein(&word, &other), strsim::jaro_winkler(&word, &other));
        (wrong <= 1 + other.chars().count() / 4 && like > 0.6 || like > 0.9).then_some((wrong, like))
    };
    let candidates = names.into_iter().filter_map(|name| near(&name).map(|score| (score, name)));
    candidates.min_by(|a, b| a.0.0.cmp(&b.0.0).then(b.0.1.total_cmp(&a.0.1))).map(|(_, name)| name)
}

/// ``did you mean `x`?`` for the nearest name.
#[must_use]
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, names).map(|name| format!("did you mean `{name}`?"))
}

fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

impl fmt::Display for Kwargs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", redacted(&Value::Object(self.0.clone())))
    }
}

impl fmt::Debug for Kwargs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kwargs({self})")
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Kwargs {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl From<Map<String, Value>> for Kwargs {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

impl From<Kwargs> for Value {
    fn from(kwargs: Kwargs) -> Self {
        kwargs.into_value()
    }
}

/// Only an object is a set of kwargs; null is an empty one.
impl TryFrom<Value> for Kwargs {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            Value::Null => Ok(Self::new()),
            other => {
                let problem = format!("expected a map of names to values, found {}", walk::shown("", &other));
                Err(Error::invalid(vec![Mistake { value: Some(other), expected: Some("object".into()), ..Mistake::new("", problem) }]))
            }
        }
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Kwargs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |kwargs, (key, value)| kwargs.with(key, value))
    }
}

impl IntoIterator for Kwargs {
    type Item = (String, Value);
    type IntoIter = serde_json::map::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
