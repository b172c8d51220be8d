//! Finding one's way in a [`Value`], and making one.
//!
//! ```
//! use remuda_dask::protocol::value::{self, map, set};
//!
//! let message = map([("op", "client-releases-keys".into()), ("keys", set(["a-1".into(), "a-2".into()]))]);
//! assert_eq!(value::get(&message, "op").and_then(value::text), Some("client-releases-keys"));
//! assert_eq!(value::get(&message, "keys").and_then(value::elements).map(<[_]>::len), Some(2));
//! ```

use rmpv::Value;

const SET: &str = "__Set__";
const ELEMENTS: &str = "as-list";
const ENUM: &str = "__Enum__";

/// A map with string keys.
pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// A Python set. A plain array becomes a tuple, which some operations do not take.
pub fn set(elements: impl IntoIterator<Item = Value>) -> Value {
    map([(SET, true.into()), (ELEMENTS, Value::Array(elements.into_iter().collect()))])
}

/// What a map has under a string key. `None` where it has not, and where this is no map.
#[must_use]
pub fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_map()?.iter().find(|(known, _)| known.as_str() == Some(key)).map(|(_, value)| value)
}

/// The elements of an array or a set.
#[must_use]
pub fn elements(value: &Value) -> Option<&[Value]> {
    let array = if get(value, SET).is_some() { get(value, ELEMENTS)? } else { value };
    array.as_array().map(Vec::as_slice)
}

/// A string, or the name of a member of a Python enum.
#[must_use]
pub fn text(value: &Value) -> Option<&str> {
    let name = if get(value, ENUM).is_some() { get(value, "name")? } else { value };
    name.as_str()
}
