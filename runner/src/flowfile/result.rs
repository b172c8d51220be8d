//! What a flow comes to.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use remuda_core::{engine::Shown, error::Error, value::decode};
use serde_json::{Map, Value};

use super::plain::Plain;

/// So many places are named in one note.
const NAMED: usize = 3;

/// The result of a flow file: a tree like JSON, in which tasks may also have put bytes; or, where that was asked for
/// ([`FlowPlan::run_for`](super::FlowPlan::run_for)), a Python object without a plain form as a table or as text.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowResult(Whole);

#[derive(Debug, Clone, PartialEq)]
enum Whole {
    Plain(Plain),
    Arrow { bytes: Bytes, type_name: Arc<str> },
    Text { text: String, type_name: Arc<str> },
}

impl FlowResult {
    pub(super) fn plain(plain: Plain) -> Self {
        Self(Whole::Plain(plain))
    }

    pub(super) fn shown(shown: Shown) -> Result<Self, Error> {
        Ok(Self(match shown {
            Shown::Plain(bytes) => Whole::Plain(decode(&bytes)?),
            Shown::Arrow { bytes, type_name } => Whole::Arrow { bytes, type_name },
            Shown::Text { text, type_name } => Whole::Text { text, type_name },
        }))
    }

    /// The bytes, where the whole result is bytes: of a Python function that returns `bytes`, or of a command with `binary: true`; and
    /// those of a table, an Arrow IPC stream.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Whole::Plain(Plain::Bytes(bytes)) => Some(bytes),
            Whole::Arrow { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// What `repr` says, where the result is shown as text for want of a better form.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.0 {
            Whole::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The Python type of a result that has no plain form.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        match &self.0 {
            Whole::Plain(_) => None,
            Whole::Arrow { type_name, .. } | Whole::Text { type_name, .. } => Some(type_name),
        }
    }

    /// The result as JSON, and a note for each thing in it that JSON does not have, saying where it stands and what is there instead:
    /// bytes become text in base64 (RFC 4648, with padding), NaN and the infinities `null`.
    #[must_use]
    pub fn into_json(self) -> (Value, Vec<String>) {
        let mut odd = Odd::default();
        let plain = match self.0 {
            Whole::Plain(plain) => plain,
            Whole::Arrow { bytes, .. } => Plain::Bytes(bytes.into()),
            Whole::Text { text, .. } => Value::from(text).into(),
        };
        let value = odd.json(plain, &mut "result".to_owned());
        let notes = [note(&odd.bytes, "bytes", "text in base64"), note(&odd.numbers, "NaN or an infinity", "null")];
        (value, notes.into_iter().flatten().collect())
    }
}

/// Where something stands that JSON does not have.
#[derive(Default)]
struct Odd {
    bytes: Vec<String>,
    numbers: Vec<String>,
}

impl Odd {
    fn json(&mut self, plain: Plain, path: &mut String) -> Value {
        match plain {
            Plain::Leaf(value) => value,
            Plain::NotFinite(_) => {
                self.numbers.push(path.clone());
                Value::Null
            }
            Plain::Bytes(bytes) => {
                self.bytes.push(path.clone());
                BASE64_STANDARD.encode(bytes).into()
            }
            Plain::List(items) => {
                let items = items.into_iter().enumerate();
                Value::Array(items.map(|(at, item)| self.below(item, path, &format!("[{at}]"))).collect())
            }
            Plain::Map(members) => {
                let members = members.into_iter();
                Value::Object(members.map(|(key, item)| (key.clone(), self.below(item, path, &format!(".{key}")))).collect::<Map<_, _>>())
            }
        }
    }

    fn below(&mut self, plain: Plain, path: &mut String, step: &str) -> Value {
        let len = path.len();
        path.push_str(step);
        let value = self.json(plain, path);
        path.truncate(len);
        value
    }
}

/// `what at result[0], result[1]: JSON has no such thing, so ..`.
fn note(places: &[String], what: &str, instead: &str) -> Option<String> {
    if places.is_empty() {
        return None;
    }
    let named = places[..places.len().min(NAMED)].join(", ");
    let more = if places.len() > NAMED { format!(" and {} more", places.len() - NAMED) } else { String::new() };
    Some(format!("{what} at {named}{more}: JSON has no such thing, so {instead} is written"))
}

#[cfg(test)]
mod tests {
    use remuda_core::value::{decode, encode};
    use serde_bytes::ByteBuf;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_json_has_comes_through_as_it_is() {
        let tree = json!({"a": [1, -2, 2.5, "x", null, true, u64::MAX], "b": {"z": {}, "y": []}});
        let plain: Plain = decode(&encode(&tree).unwrap()).unwrap();
        assert_eq!(plain, tree.clone().into());
        assert_eq!(decode::<Value>(&encode(&plain).unwrap()).unwrap(), tree);
        assert_eq!(FlowResult::plain(plain).into_json(), (tree, vec![]));
    }

    #[test]
    fn numbers_that_json_has_not_are_null_with_a_note() {
        let plain: Plain = decode(&encode(&(1.5, f64::NAN, f64::NEG_INFINITY, f32::INFINITY)).unwrap()).unwrap();
        let again: (f64, f64, f64, f64) = decode(&encode(&plain).unwrap()).unwrap();
        assert!(
            again.1.is_nan() && again.2 == f64::NEG_INFINITY && again.3 == f64::INFINITY,
            "{again:?}: the next task sees them as they are"
        );
        let (value, notes) = FlowResult::plain(plain).into_json();
        assert_eq!(value, json!([1.5, null, null, null]));
        assert_eq!(notes, ["NaN or an infinity at result[1], result[2], result[3]: JSON has no such thing, so null is written"]);
    }

    #[test]
    fn bytes_are_base64_with_a_note() {
        let whole: Plain = decode(&encode(&ByteBuf::from([0, 255])).unwrap()).unwrap();
        let result = FlowResult::plain(whole.clone());
        assert_eq!(result.bytes(), Some([0, 255].as_slice()));
        assert_eq!(result.into_json().0, json!("AP8="));
        assert_eq!(decode::<ByteBuf>(&encode(&whole).unwrap()).unwrap(), [0, 255], "they are bytes for the next task, too");
        let inside =
            FlowResult::plain(Plain::Map(vec![("a".into(), Plain::List(vec![Plain::Leaf(json!(1)), whole.clone()])), ("b".into(), whole)]));
        assert_eq!(inside.bytes(), None);
        let (value, notes) = inside.into_json();
        assert_eq!(value, json!({"a": [1, "AP8="], "b": "AP8="}));
        assert_eq!(notes, ["bytes at result.a[1], result.b: JSON has no such thing, so text in base64 is written"]);
        let many = Plain::List(vec![Plain::Bytes(vec![]); 5]);
        let notes = FlowResult::plain(many).into_json().1;
        assert!(notes[0].starts_with("bytes at result[0], result[1], result[2] and 2 more: "), "{notes:?}");
    }
}
