//! The only module that knows which YAML library we use (`docs/adr/0004-yaml.md`).
//!
//! The library tells where things stand only in its errors. So [`locate`] reads the text again and stops, with an error, at the place
//! it looks for: that costs a pass for each message, and nothing while all is well.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::document::{At, Bad, Fault, Location, Step};

/// One document. Keys are strings, merge keys (`<<`) are carried out; duplicate keys, tags of one's own and numbers JSON cannot
/// hold are mistakes. An empty text is null.
pub(crate) fn parse(text: &str) -> Result<Value, Fault> {
    read(text, &Pardons::default())
}

/// Without its digits: it may be a token.
const TOO_LARGE: &str = "the number is too large: quote it";

/// So many numbers are told at once.
const MOST_BAD: usize = 20;
/// Each takes a pass, and one more for each alias of it.
const MOST_PASSES: usize = 200;

/// The same with null for every number that JSON cannot hold, and these.
///
/// # Errors
/// All that is known, where the rest is no YAML.
pub(crate) fn parse_most(text: &str) -> Result<(Value, Vec<Bad>), Vec<Fault>> {
    let (mut bad, mut places) = (Vec::new(), BTreeSet::new());
    loop {
        let pardons = Pardons { left: Cell::new(bad.len()), ..Pardons::default() };
        let fault = match read(text, &pardons) {
            Ok(tree) => return Ok((tree, bad)),
            Err(fault) => fault,
        };
        let said = pardons.said.take();
        match fault.message.strip_suffix(&said).filter(|_| !said.is_empty()) {
            Some(path) => {
                let path = merged(path.trim_end_matches(": "));
                places.insert(fault.location);
                bad.push(Bad { path, fault: Fault { message: said, ..fault } });
            }
            None => return Err(Bad::once(bad).map(Bad::into_fault).chain([fault]).collect()),
        }
        if places.len() > MOST_BAD || bad.len() > MOST_PASSES {
            return Err(Bad::once(bad).map(Bad::into_fault).collect());
        }
    }
}

/// Where it comes to when merge keys are carried out: `x.<<[0].y` is `x.y`.
fn merged(path: &str) -> String {
    path.split('.').filter(|step| *step != "<<" && !step.starts_with("<<[")).collect::<Vec<_>>().join(".")
}

/// How many bad numbers are read over, since they were told; and what was said of the one that was not.
#[derive(Default)]
struct Pardons {
    left: Cell<usize>,
    said: RefCell<String>,
}

impl Pardons {
    fn number<E: serde::de::Error>(&self, text: String) -> Result<Value, E> {
        match self.left.get() {
            0 => {
                let error = E::custom(&text);
                self.said.replace(text);
                Err(error)
            }
            left => {
                self.left.set(left - 1);
                Ok(Value::Null)
            }
        }
    }
}

fn read(text: &str, pardons: &Pardons) -> Result<Value, Fault> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    let mut tree = Tree(pardons).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|e| fault(&e))?;
    merge(&mut tree).map_err(|message| Fault { location: None, message })?;
    Ok(tree)
}

/// A value as `--param n=4` writes it: YAML's rules for scalars; flow lists and mappings too. What is no YAML is a string.
pub(crate) fn scalar(text: &str) -> Value {
    match text.trim() {
        "" => Value::String(String::new()),
        trimmed => parse(trimmed).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

/// Where the entry `path` stands in `text`.
pub(crate) fn locate(text: &str, path: &[Step], at: At) -> Option<Location> {
    let probe = Probe { path, at };
    let error = probe.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    match error.to_string().contains(FOUND) {
        true => error.location().map(|l| Location { line: l.line(), column: l.column() }),
        false => None,
    }
}

fn fault(error: &serde_yaml::Error) -> Fault {
    let location = error.location().map(|l| Location { line: l.line(), column: l.column() });
    let mut message = error.to_string();
    if let Some(l) = location {
        message = message.replacen(&format!(" at line {} column {}", l.line, l.column), "", 1);
    }
    Fault { location, message }
}

/// Carries out merge keys, innermost first. The mapping's own keys win, then the earlier source.
fn merge(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(merge),
        Value::Object(members) => {
            members.values_mut().try_for_each(merge)?;
            let sources = match members.shift_remove("<<") {
                None => return Ok(()),
                Some(Value::Array(sources)) => sources,
                Some(source) => vec![source],
            };
            for source in sources {
                let Value::Object(source) = source else { return Err("`<<` takes a mapping or a list of mappings".into()) };
                for (key, value) in source {
                    members.entry(key).or_insert(value);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Copy)]
struct Tree<'a>(&'a Pardons);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Value, E> {
        self.0.number(TOO_LARGE.to_owned())
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Value, E> {
        self.0.number(TOO_LARGE.to_owned())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if let Some(number) = Number::from_f64(value) {
            return Ok(Value::Number(number));
        }
        // Dask writes bounds like that.
        let hint = if value == f64::INFINITY { " (no bound is null, or the key left out)" } else { "" };
        self.0.number(format!("the number is not finite{hint}"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key_seed(NewKey(&members))? {
            members.insert(key, map.next_value_seed(self)?);
        }
        Ok(Value::Object(members))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        // Not told: it may be a password that begins with an exclamation mark.
        data.variant::<IgnoredAny>()?;
        Err(A::Error::custom("a tag means nothing here: quote a text that begins with `!`"))
    }
}

/// A key that the mapping does not have yet. Checked while the key is read, so that the error stands there.
struct NewKey<'a>(&'a Map<String, Value>);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        match self.0.contains_key(key) {
            true => Err(E::custom(format!("the key `{key}` stands here twice"))),
            false => Ok(key.to_owned()),
        }
    }
}

const FOUND: &str = "\u{1}found";

/// Walks down `path` and fails where it ends.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [Step],
    at: At,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.path {
            [] => deserializer.deserialize_any(self),
            [Step::Key(_), ..] => deserializer.deserialize_map(self),
            [Step::Index(_), ..] => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last step: whatever stands there is what we look for.
        f.write_str(if self.path.is_empty() { FOUND } else { "a parent" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let [Step::Index(index), rest @ ..] = self.path else { return Err(A::Error::custom(FOUND)) };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Probe { path: rest, at: self.at })?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [Step::Key(name), rest @ ..] = self.path else { return Err(A::Error::custom(FOUND)) };
        let stop = rest.is_empty() && self.at == At::Key;
        while let Some(hit) = map.next_key_seed(KeyProbe { name, stop })? {
            match hit {
                true => map.next_value_seed(Probe { path: rest, at: self.at })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(FOUND))
    }
}

#[derive(Clone, Copy)]
struct KeyProbe<'a> {
    name: &'a str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeyProbe<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyProbe<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.name, self.stop) {
            (true, true) => Err(E::custom(FOUND)),
            (hit, _) => Ok(hit),
        }
    }
}

/// The environment's `REMUDA_*_KWARGS` are JSON, by the same rules about duplicates.
pub(crate) fn json(text: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let tree = Tree(&Pardons::default()).deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(tree)
}

#[cfg(test)]
mod tests;
