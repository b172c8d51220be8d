//! What a source says in vain of `client_kwargs`.

use remuda_core::kwargs::nearest;
use serde_json::Value;

use super::{
    document::Step,
    layer::{KEYS, Setting},
};

const ROOT: &str = "client_kwargs";

/// Keywords of `client_kwargs` that are written, but not to be read: nobody can say that they are missing, or what they would not fit.
/// The last word counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Vec<(Name, bool)>);

#[derive(Debug, Clone, PartialEq)]
enum Name {
    /// May be any of them.
    All,
    One(String),
}

impl Unread {
    /// None of them can be read.
    pub(super) fn all(&mut self) {
        self.0.push((Name::All, true));
    }

    /// This one cannot.
    pub(super) fn one(&mut self, name: &str) {
        self.0.push((Name::One(name.to_owned()), true));
    }

    /// Looks at a key of a layer, which may be misspelt or have nothing in it that can be used.
    pub(super) fn look(&mut self, key: &str, value: &Value) {
        let misspelt = !KEYS.contains(&key) && nearest(key, KEYS) == Some(ROOT);
        match value {
            Value::Null => {}
            Value::Object(members) if misspelt => members.keys().for_each(|name| self.one(name)),
            Value::Object(_) => {}
            _ if misspelt || key == ROOT => self.all(),
            _ => {}
        }
    }

    /// The same of `key`, which is a part of nothing or of `client_kwargs`, and of which nothing could be made.
    pub(super) fn failed(&mut self, key: &str) {
        let rest = key.strip_prefix(ROOT);
        match rest.map(|rest| (rest, rest.strip_prefix('.'))) {
            _ if key.is_empty() => self.all(),
            Some(("", _)) => self.all(),
            Some((_, Some(below))) => self.one(below.split(['.', '[']).next().unwrap_or_default()),
            _ => {}
        }
    }

    /// Puts a layer on top, with what it says in vain and what it says.
    pub(super) fn put(&mut self, above: Self, settings: &[Setting]) {
        self.0.extend(above.0);
        for setting in settings.iter().filter(|setting| setting.root() == ROOT) {
            match setting.key.0.get(1) {
                Some(Step::Key(name)) => self.0.push((Name::One(name.clone()), false)),
                None if setting.value.is_null() => self.0.push((Name::All, false)),
                _ => {}
            }
        }
    }

    /// Whether `name` may be meant by what cannot be read.
    pub(super) fn has(&self, name: &str) -> bool {
        let about = |(said, vain): &&(Name, bool)| match said {
            Name::All => true,
            Name::One(said) => said == name || *vain && nearest(said, [name]).is_some(),
        };
        self.0.iter().rev().find(about).is_some_and(|(_, vain)| *vain)
    }
}
