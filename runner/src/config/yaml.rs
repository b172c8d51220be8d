//! The only module that knows which YAML library we use (`docs/adr/0004-yaml.md`).
//!
//! The library tells where things stand only in its errors. So [`locate`] reads the text again and stops, with an error, at the place
//! it looks for: that costs a pass for each message, and nothing while all is well.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::document::{At, Fault, Location, Step};

/// One document. Keys are strings, merge keys (`<<`) are carried out; duplicate keys, tags of one's own and numbers JSON cannot
/// hold are mistakes. An empty text is null.
pub(crate) fn parse(text: &str) -> Result<Value, Fault> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    let mut tree = Tree.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|e| fault(&e))?;
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

struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
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

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        Err(E::custom(format!("{value} is too large for a number: quote it")))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        Err(E::custom(format!("{value} is too large for a number: quote it")))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| {
            // Dask writes bounds like that.
            let hint = if value == f64::INFINITY { " (no bound is null, or the key left out)" } else { "" };
            E::custom(format!("the number is not finite{hint}"))
        })
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
        while let Some(item) = seq.next_element_seed(Tree)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key_seed(NewKey(&members))? {
            members.insert(key, map.next_value_seed(Tree)?);
        }
        Ok(Value::Object(members))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (tag, _) = data.variant::<String>()?;
        Err(A::Error::custom(format!("the tag `!{tag}` means nothing here")))
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
    let tree = Tree.deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The rules people can rely on; the same as those of `serde_yaml` 0.9 where that has any.
    #[test]
    fn scalars_mean_what_serde_yaml_says() {
        let cases = [
            ("no", json!("no")),
            ("on", json!("on")),
            ("yes", json!("yes")),
            ("True", json!(true)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("0o17", json!(15)),
            ("017", json!("017")),
            ("0x1f", json!(31)),
            ("0b11", json!(3)),
            ("1_000", json!("1_000")),
            ("+1", json!(1)),
            ("1e3", json!(1000.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("2001-01-01", json!("2001-01-01")),
            ("12:30:45", json!("12:30:45")),
            ("!!str 1", json!("1")),
            ("[1, {a: b}]", json!([1, {"a": "b"}])),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(&format!("a: {text}")).unwrap()["a"], expected, "{text}");
            assert_eq!(scalar(text), expected, "--param a={text}");
        }
        assert_eq!(scalar(""), json!(""));
        assert_eq!(scalar("a: b: c"), json!("a: b: c"));
        assert_eq!(scalar("[1"), json!("[1"));
    }

    #[test]
    fn merge_keys_are_carried_out() {
        let text = "base: &b {k: 1, z: 0}\nother: &o {k: 2, q: 3}\none: {<<: *b, z: 2}\ntwo:\n  <<: [*b, *o]\n";
        let tree = parse(text).unwrap();
        assert_eq!(tree["one"], json!({"z": 2, "k": 1}));
        assert_eq!(tree["two"], json!({"k": 1, "z": 0, "q": 3}));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_place() {
        let cases = [
            ("a: 1\nb: 2\na: 3", "3:1: the key `a` stands here twice"),
            ("a:\n  - !foo 1", "2:5: a[0]: the tag `!foo` means nothing here"),
            ("a: 18446744073709551616", "1:4: a: 18446744073709551616 is too large for a number: quote it"),
            ("a: .nan", "1:4: a: the number is not finite"),
            ("a: .inf", "1:4: a: the number is not finite (no bound is null, or the key left out)"),
            ("a: [1,\n  2", "3:1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4"),
            ("a: *nope", "1:4: unknown anchor"),
        ];
        for (text, expected) in cases {
            let fault = parse(text).unwrap_err();
            let l = fault.location.unwrap();
            assert_eq!(format!("{}:{}: {}", l.line, l.column, fault.message), expected, "{text}");
        }
        assert!(parse("--- 1\n--- 2").is_err());
        assert_eq!(parse("# only a comment\n\n").unwrap(), Value::Null);
    }

    #[test]
    fn every_entry_can_be_found() {
        let text = "a:\n  b: [x, {c: 1}]\n  d: |\n    text\n1: &q\n  e: 2\nf: *q\n";
        let key = |k: &str| Step::Key(k.into());
        let at = |path: &[Step], at| locate(text, path, at).map(|l| (l.line, l.column));
        assert_eq!(at(&[key("a")], At::Key), Some((1, 1)));
        assert_eq!(at(&[key("a"), key("b")], At::Key), Some((2, 3)));
        assert_eq!(at(&[key("a"), key("b")], At::Value), Some((2, 6)));
        assert_eq!(at(&[key("a"), key("b"), Step::Index(0)], At::Value), Some((2, 7)));
        assert_eq!(at(&[key("a"), key("b"), Step::Index(1), key("c")], At::Key), Some((2, 11)));
        assert_eq!(at(&[key("a"), key("b"), Step::Index(1), key("c")], At::Value), Some((2, 14)));
        assert_eq!(at(&[key("a"), key("d")], At::Value), Some((3, 6)));
        assert_eq!(at(&[key("1")], At::Key), Some((5, 1)));
        assert_eq!(at(&[key("f"), key("e")], At::Key), Some((6, 3)));
        assert_eq!(at(&[key("nope")], At::Key), None);
        assert_eq!(at(&[key("a"), Step::Index(0)], At::Value), None);
    }

    #[test]
    fn json_follows_the_same_rules() {
        assert_eq!(json(r#"{"a": [1, 2.5, null]}"#).unwrap(), json!({"a": [1, 2.5, null]}));
        assert!(json(r#"{"a": 1, "a": 2}"#).unwrap_err().contains("twice"));
        assert!(json("{} x").is_err());
    }
}
