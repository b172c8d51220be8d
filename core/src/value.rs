//! What tasks return and take, in the three forms it has on its way.
//!
//! Inside the driver's memory a value is what the task returned ([`Value::Here`]); across a process border it is MessagePack
//! ([`Value::Plain`]); what a Python task returned and no plain type can hold stays a Python object, opaque to us
//! ([`Value::Python`]), until Rust, a command or the driver asks for it.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorKind, Result};

/// The result of a task.
#[derive(Clone)]
pub enum Value {
    /// A Rust value of this process. Passing it on copies nothing.
    Here(Here),
    /// One MessagePack value (structs as maps with named fields).
    Plain(Bytes),
    /// A pickled Python object.
    Python(Arc<PythonValue>),
}

impl Value {
    /// Encodes `value` as MessagePack.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`] when the type's own `Serialize` refuses.
    pub fn plain<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        encode(value).map(|bytes| Self::Plain(bytes.into()))
    }

    /// The MessagePack form.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`], naming the type, for a Rust type without `Serialize` and for a Python object that nobody
    /// has converted.
    pub fn to_plain(&self) -> Result<Bytes> {
        match self {
            Self::Here(here) => here.encode(),
            Self::Plain(bytes) => Ok(bytes.clone()),
            Self::Python(object) => {
                Err(Error::new(ErrorKind::Unserializable, format!("a Python object of type `{}` has no plain form here", object.type_name)))
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(here) => write!(f, "Here({})", here.type_name),
            Self::Plain(bytes) => write!(f, "Plain({} bytes)", bytes.len()),
            Self::Python(object) => write!(f, "Python({})", object.type_name),
        }
    }
}

/// Turns the erased value into MessagePack; made by [`Codec`] where the type is known.
pub type EncodeFn = fn(&(dyn Any + Send + Sync)) -> Result<Bytes>;

/// Reads a value from MessagePack.
pub type DecodeFn<T> = fn(&[u8]) -> Result<T>;

/// A Rust value in the driver's memory, with the means to leave it.
#[derive(Clone)]
pub struct Here {
    /// The value itself.
    pub value: Arc<dyn Any + Send + Sync>,
    /// For messages: the name of its type.
    pub type_name: &'static str,
    /// `None`: the type cannot be serialised, so it can only be passed on in this process.
    pub encode: Option<EncodeFn>,
}

impl Here {
    fn encode(&self) -> Result<Bytes> {
        let encode = self.encode.ok_or_else(|| unserializable(self.type_name))?;
        encode(&*self.value)
    }
}

/// A Python object as it came out of a task.
#[derive(Clone)]
pub struct PythonValue {
    /// Protocol 5, written by the interpreter of the worker that ran the task.
    pub pickle: Bytes,
    /// `module.QualName` of its class, for messages.
    pub type_name: Arc<str>,
}

/// How values of `T` cross a process border, as far as `T` can. Built where the traits of `T` are known (`#[remuda::task]`).
pub struct Codec<T> {
    /// Serialises; `None` for types without `Serialize`.
    pub encode: Option<EncodeFn>,
    /// Deserialises; `None` for types without `Deserialize`.
    pub decode: Option<DecodeFn<T>>,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

impl<T> fmt::Debug for Codec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").field("encode", &self.encode.is_some()).field("decode", &self.decode.is_some()).finish()
    }
}

impl<T: Send + Sync + 'static> Codec<T> {
    /// For a type that never leaves this process.
    #[must_use]
    pub fn here_only() -> Self {
        Self { encode: None, decode: None }
    }

    /// Wraps a task's result.
    pub fn wrap(self, value: Arc<T>) -> Value {
        Value::Here(Here { value, type_name: std::any::type_name::<T>(), encode: self.encode })
    }

    /// Reads a task's result, in whatever form it came.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`] when the types do not fit, naming both.
    pub fn unwrap(self, value: &Value) -> Result<Arc<T>> {
        let name = std::any::type_name::<T>();
        match value {
            Value::Here(here) => match here.value.clone().downcast::<T>() {
                Ok(value) => Ok(value),
                // Another Rust type with the same shape: `i32` for `i64`, a struct for a map.
                Err(_) => self.read(&here.encode()?).map_err(|e| e.with_context("value", here.type_name)),
            },
            Value::Plain(bytes) => self.read(bytes),
            Value::Python(object) => Err(Error::new(
                ErrorKind::Unserializable,
                format!("a Python object of type `{}` cannot become a `{name}`", object.type_name),
            )),
        }
    }

    fn read(self, bytes: &[u8]) -> Result<Arc<T>> {
        let name = std::any::type_name::<T>();
        let decode = self.decode.ok_or_else(|| {
            Error::new(ErrorKind::Unserializable, format!("`{name}` does not implement Deserialize"))
                .with_hint("derive serde's Serialize and Deserialize, or use `processes: false`")
        })?;
        decode(bytes).map(Arc::new)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Codec<T> {
    /// For a type that serde knows both ways.
    #[must_use]
    pub fn serde() -> Self {
        Self { encode: Some(encode_any::<T>), decode: Some(decode::<T>) }
    }
}

/// The [`EncodeFn`] of a type.
///
/// # Errors
/// As [`encode`]; and when `value` is not a `T`.
pub fn encode_any<T: Serialize + 'static>(value: &(dyn Any + Send + Sync)) -> Result<Bytes> {
    match value.downcast_ref::<T>() {
        Some(value) => encode(value).map(Into::into),
        None => Err(Error::new(ErrorKind::Unexpected, format!("the value is not a `{}`", std::any::type_name::<T>()))),
    }
}

/// One value as MessagePack: structs as maps with named fields, so that Python sees dictionaries.
///
/// # Errors
/// [`ErrorKind::Unserializable`] when the type's own `Serialize` refuses.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|e| {
        let text = format!("a value of type `{}` cannot be serialised", std::any::type_name::<T>());
        Error::new(ErrorKind::Unserializable, text).with_source(e)
    })
}

/// The inverse of [`encode`].
///
/// # Errors
/// [`ErrorKind::Unserializable`] when the bytes hold something else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|e| {
        let text = format!("the value does not fit `{}`", std::any::type_name::<T>());
        Error::new(ErrorKind::Unserializable, text).with_source(e)
    })
}

/// The elements of a MessagePack array, each as it stands, undecoded.
///
/// # Errors
/// [`ErrorKind::Unserializable`] when the bytes are not one array.
pub fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let broken = || Error::new(ErrorKind::Unserializable, "not a MessagePack array");
    let mut rest = bytes;
    let len = rmp::decode::read_array_len(&mut rest).map_err(|_| broken())?;
    let mut found = Vec::with_capacity(rest.len().min(len as usize));
    for _ in 0..len {
        let after = skip(rest).ok_or_else(broken)?;
        found.push(&rest[..rest.len() - after.len()]);
        rest = after;
    }
    if rest.is_empty() { Ok(found) } else { Err(broken()) }
}

/// What follows the first value. Not recursive: depth is the sender's to choose.
fn skip(mut rest: &[u8]) -> Option<&[u8]> {
    let mut pending = 1_u64;
    while pending > 0 {
        let (after, children) = token(rest)?;
        rest = after;
        pending = pending - 1 + children;
    }
    Some(rest)
}

/// What follows the first token, and how many values it announces.
fn token(mut rest: &[u8]) -> Option<(&[u8], u64)> {
    use rmp::Marker;
    let marker = Marker::from_u8(*rest.first()?);
    rest = &rest[1..];
    let mut length = |bytes: usize| {
        let (head, tail) = rest.split_at_checked(bytes)?;
        rest = tail;
        Some(head.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte)))
    };
    let (payload, children) = match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False | Marker::Reserved => (0, 0),
        Marker::U8 | Marker::I8 => (1, 0),
        Marker::U16 | Marker::I16 => (2, 0),
        Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
        Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
        Marker::FixStr(len) => (len.into(), 0),
        Marker::Str8 | Marker::Bin8 => (length(1)?, 0),
        Marker::Str16 | Marker::Bin16 => (length(2)?, 0),
        Marker::Str32 | Marker::Bin32 => (length(4)?, 0),
        Marker::FixExt1 => (2, 0),
        Marker::FixExt2 => (3, 0),
        Marker::FixExt4 => (5, 0),
        Marker::FixExt8 => (9, 0),
        Marker::FixExt16 => (17, 0),
        Marker::Ext8 => (length(1)? + 1, 0),
        Marker::Ext16 => (length(2)? + 1, 0),
        Marker::Ext32 => (length(4)? + 1, 0),
        Marker::FixArray(len) => (0, len.into()),
        Marker::Array16 => (0, length(2)?),
        Marker::Array32 => (0, length(4)?),
        Marker::FixMap(len) => (0, 2 * u64::from(len)),
        Marker::Map16 => (0, 2 * length(2)?),
        Marker::Map32 => (0, 2 * length(4)?),
    };
    Some((rest.get(usize::try_from(payload).ok()?..)?, children))
}

/// The extension type that stands for a part of a template while a value is serialised: see [`Template::with_parts`].
pub const PART: i8 = 0x52;

/// `fixext 8` of type [`PART`].
const PART_HEAD: [u8; 2] = [0xd7, PART.cast_unsigned()];

pub(crate) fn unserializable(type_name: &str) -> Error {
    Error::new(ErrorKind::Unserializable, format!("`{type_name}` does not implement Serialize, so it cannot leave this process"))
        .with_hint("derive serde's Serialize and Deserialize, or use `processes: false`")
}

/// Arguments as MessagePack with holes where the results of other tasks go.
///
/// MessagePack values are self-delimiting, so a hole is filled by copying the value's bytes into its place; nothing is parsed.
#[derive(Debug, Clone, Default)]
pub struct Template {
    bytes: Vec<u8>,
    /// Offsets into `bytes`, ascending. The n-th hole takes the n-th input of the task.
    holes: Vec<usize>,
}

impl Template {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A single hole: the input as it is.
    #[must_use]
    pub fn hole() -> Self {
        Self { bytes: Vec::new(), holes: vec![0] }
    }

    /// A value without holes.
    ///
    /// # Errors
    /// As [`encode`].
    pub fn value<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        encode(value).map(|bytes| Self { bytes, holes: Vec::new() })
    }

    /// Begins an array; `len` values must follow.
    pub fn array(&mut self, len: usize) -> &mut Self {
        // Writing to a Vec cannot fail.
        let _ = rmp::encode::write_array_len(&mut self.bytes, u32::try_from(len).unwrap_or(u32::MAX));
        self
    }

    /// Begins a map; `len` pairs of key and value must follow.
    pub fn map(&mut self, len: usize) -> &mut Self {
        let _ = rmp::encode::write_map_len(&mut self.bytes, u32::try_from(len).unwrap_or(u32::MAX));
        self
    }

    /// Appends a string, as a key or as a value.
    pub fn text(&mut self, text: &str) -> &mut Self {
        let _ = rmp::encode::write_str(&mut self.bytes, text);
        self
    }

    /// Appends one value that is MessagePack already.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends another template, with its holes after ours.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.holes.extend(other.holes.iter().map(|at| base + at));
        self
    }

    /// A value that was serialised with its parts left out: each extension of type [`PART`] with a number in eight bytes stands for the part
    /// of that number.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`] when the bytes are not MessagePack, or name a part that is not there.
    pub fn with_parts(bytes: &[u8], parts: &[Self]) -> Result<Self> {
        let broken = || Error::new(ErrorKind::Unserializable, "not a MessagePack value with its parts left out");
        let mut whole = Self::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (after, _) = token(rest).ok_or_else(broken)?;
            match rest.strip_prefix(&PART_HEAD).and_then(|number| number.first_chunk::<8>()) {
                Some(number) => {
                    let part = usize::try_from(u64::from_be_bytes(*number)).ok().and_then(|n| parts.get(n));
                    whole.append(part.ok_or_else(broken)?);
                }
                None => {
                    whole.raw(&rest[..rest.len() - after.len()]);
                }
            }
            rest = after;
        }
        Ok(whole)
    }

    /// How many inputs it takes.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.holes.len()
    }

    /// The arguments with every hole filled, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] when the number of inputs is not the number of holes.
    pub fn fill(&self, inputs: &[Bytes]) -> Result<Vec<u8>> {
        if inputs.len() != self.holes.len() {
            let text = format!("{} inputs for {} places", inputs.len(), self.holes.len());
            return Err(Error::new(ErrorKind::Unexpected, text));
        }
        let mut out = Vec::with_capacity(self.bytes.len() + inputs.iter().map(Bytes::len).sum::<usize>());
        let mut done = 0;
        for (at, input) in self.holes.iter().zip(inputs) {
            out.extend_from_slice(&self.bytes[done..*at]);
            out.extend_from_slice(input);
            done = *at;
        }
        out.extend_from_slice(&self.bytes[done..]);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn holes_are_filled_in_order_and_at_any_depth() {
        let mut inner = Template::new();
        inner.array(2).append(&Template::hole()).append(&Template::value(&"x").unwrap());
        let mut outer = Template::new();
        outer.map(2).text("a").append(&inner).text("b").append(&Template::hole());
        let filled = outer.fill(&[encode(&1).unwrap().into(), encode(&[2, 3]).unwrap().into()]).unwrap();
        let tree: serde_json::Value = decode(&filled).unwrap();
        assert_eq!(tree, serde_json::json!({"a": [1, "x"], "b": [2, 3]}));
        assert!(outer.fill(&[]).is_err());
    }

    #[test]
    fn an_array_comes_apart_into_its_elements() {
        let parts = (1, -7_i64, "text", vec![vec![1.5], vec![]], BTreeMap::from([("k", vec![0_u8; 300])]), "x".repeat(70_000), None::<()>);
        let bytes = encode(&parts).unwrap();
        let found = elements(&bytes).unwrap();
        assert_eq!(found.len(), 7);
        assert_eq!(decode::<i64>(found[1]).unwrap(), -7);
        assert_eq!(decode::<String>(found[5]).unwrap().len(), 70_000);
        for cut in 0..bytes.len().min(400) {
            assert!(elements(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_value_is_read_as_another_type_of_the_same_shape_and_refused_otherwise() {
        let value = Codec::<i32>::serde().wrap(Arc::new(7));
        assert_eq!(*Codec::<i64>::serde().unwrap(&value).unwrap(), 7);
        let error = Codec::<String>::serde().unwrap(&value).unwrap_err();
        assert!(error.to_string().contains("String"), "{error}");
        struct Big;
        let big = Codec::<Big>::here_only().wrap(Arc::new(Big));
        assert!(Codec::<Big>::here_only().unwrap(&big).is_ok());
        assert!(big.to_plain().unwrap_err().to_string().contains("Big"));
    }
}
