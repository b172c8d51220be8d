//! What tasks return and take, in the forms it has on its way.
//!
//! Inside the driver's memory a value is what the task returned ([`Value::Here`]); across a process border it is MessagePack
//! ([`Value::Plain`]); what a Python task returned and no plain type can hold stays a Python object, opaque to us
//! ([`Value::Python`]), until Rust, a command or the driver asks for it. Where the cluster keeps results, as Dask does, the driver has
//! [`Value::There`] until it asks.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

mod msgpack;
mod owned;
mod template;

pub use self::{
    msgpack::elements,
    owned::{Encoded, decode_from},
    template::{PART, Template},
};
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
    /// It stays where it was made, in the cluster: [`Session::gather`](crate::engine::Session::gather) brings it.
    There,
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
            Self::There => Err(still_there()),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(here) => write!(f, "Here({})", here.type_name),
            Self::Plain(bytes) => write!(f, "Plain({} bytes)", bytes.len()),
            Self::Python(object) => write!(f, "Python({})", object.type_name),
            Self::There => f.write_str("There"),
        }
    }
}

/// Turns the erased value into MessagePack; made by [`Codec`] where the type is known.
pub type EncodeFn = fn(&(dyn Any + Send + Sync)) -> Result<Bytes>;

/// Reads a value from MessagePack.
pub type DecodeFn<T> = fn(Encoded<'_>) -> Result<T>;

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

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Here").field(&self.type_name).finish()
    }
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

impl fmt::Debug for PythonValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonValue").field("type_name", &self.type_name).field("bytes", &self.pickle.len()).finish()
    }
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
                Err(_) => self.read(here.encode()?.into()).map_err(|e| e.with_context("value", here.type_name)),
            },
            Value::Plain(bytes) => self.read(bytes[..].into()),
            Value::Python(object) => Err(Error::new(
                ErrorKind::Unserializable,
                format!("a Python object of type `{}` cannot become a `{name}`", object.type_name),
            )),
            Value::There => Err(still_there()),
        }
    }

    /// As [`unwrap`](Self::unwrap), of a value that is not needed afterwards: long bytes are not copied.
    ///
    /// # Errors
    /// As [`unwrap`](Self::unwrap).
    pub fn unwrap_owned(self, value: Value) -> Result<Arc<T>> {
        match value {
            Value::Plain(bytes) => self.read(bytes.into()),
            other => self.unwrap(&other),
        }
    }

    fn read(self, encoded: Encoded<'_>) -> Result<Arc<T>> {
        let name = std::any::type_name::<T>();
        let decode = self.decode.ok_or_else(|| {
            Error::new(ErrorKind::Unserializable, format!("`{name}` does not implement Deserialize"))
                .with_hint("derive serde's Serialize and Deserialize, or use `processes: false`")
        })?;
        decode(encoded).map(Arc::new)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Codec<T> {
    /// For a type that serde knows both ways.
    #[must_use]
    pub fn serde() -> Self {
        Self { encode: Some(encode_any::<T>), decode: Some(decode_from::<T>) }
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
    rmp_serde::from_slice(bytes).map_err(unfit::<T>)
}

fn unfit<T>(error: rmp_serde::decode::Error) -> Error {
    let text = format!("the value does not fit `{}`", std::any::type_name::<T>());
    Error::new(ErrorKind::Unserializable, text).with_source(error)
}

fn still_there() -> Error {
    Error::new(ErrorKind::Unserializable, "the value is still in the cluster").with_hint("gather it first")
}

pub(crate) fn unserializable(type_name: &str) -> Error {
    Error::new(ErrorKind::Unserializable, format!("`{type_name}` does not implement Serialize, so it cannot leave this process"))
        .with_hint("derive serde's Serialize and Deserialize, or use `processes: false`")
}

#[cfg(test)]
mod tests {
    use super::*;

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
