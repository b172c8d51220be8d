//! What the driver and the interpreter of a slot say to each other: the frames of [`remuda_core::host::wire`] with other messages.
//! The other side is `host.py`.

use std::sync::Arc;

use bytes::Bytes;
use remuda_core::{
    engine::{Form, Shown},
    error::{Error, ErrorKind, Result},
    host::wire::{frame, too_long},
    task::{Failure, Outcome, TaskError},
    value::{PythonValue, Value, decode, encode},
};
use serde::{Deserialize, Serialize};

use crate::calls::garbled;

/// MessagePack extension: a pickle, to be unpickled in its place.
const PICKLE: i8 = 1;
/// MessagePack extension: an encoded [`TaskError`], to become an exception object.
const ERROR: i8 = 2;

#[derive(Debug, Serialize)]
enum Request<'a> {
    Call {
        target: &'a str,
        #[serde(with = "serde_bytes")]
        args: &'a [u8],
        path: &'a [String],
    },
    Convert {
        #[serde(with = "serde_bytes")]
        pickle: &'a [u8],
        path: &'a [String],
        /// In the order of preference.
        forms: Vec<&'static str>,
    },
}

#[derive(Debug, Deserialize)]
enum Reply {
    Arrow { bytes: Bytes, type_name: String },
    Text { text: String, type_name: String },
    Done(Bytes),
    Object { pickle: Bytes, type_name: String },
    Failed(Failure),
    Refused { message: String },
}

pub(crate) fn call(target: &str, args: Vec<u8>, path: &[String]) -> Result<Vec<u8>> {
    frame(&Request::Call { target, args: &args, path })
}

pub(crate) fn convert(object: &PythonValue, path: &[String], forms: &[Form]) -> Result<Vec<u8>> {
    let name = |form: &Form| match form {
        Form::Plain => "plain",
        Form::Arrow => "arrow",
        Form::Text => "text",
    };
    frame(&Request::Convert { pickle: &object.pickle, path, forms: forms.iter().map(name).collect() })
}

/// The answer to [`convert`].
pub(crate) fn shown(message: &[u8]) -> Result<Shown, TaskError> {
    match decode::<Reply>(message) {
        Ok(Reply::Arrow { bytes, type_name }) => Ok(Shown::Arrow { bytes, type_name: type_name.into() }),
        Ok(Reply::Text { text, type_name }) => Ok(Shown::Text { text, type_name: type_name.into() }),
        _ => Ok(Shown::Plain(outcome(message)?.to_plain()?)),
    }
}

/// An input for a Python function.
pub(crate) fn input(outcome: &Outcome) -> Result<Bytes> {
    match outcome {
        Ok(Value::Python(object)) => extension(PICKLE, &object.pickle),
        Ok(value) => value.to_plain(),
        Err(error) => extension(ERROR, &encode(error)?),
    }
}

fn extension(kind: i8, bytes: &[u8]) -> Result<Bytes> {
    let length = u32::try_from(bytes.len()).map_err(|_| too_long(bytes.len()))?;
    let mut out = Vec::with_capacity(bytes.len() + 6);
    // Writing to a Vec cannot fail.
    let _ = rmp::encode::write_ext_meta(&mut out, length, kind);
    out.extend_from_slice(bytes);
    Ok(out.into())
}

pub(crate) fn outcome(message: &[u8]) -> Outcome {
    match decode::<Reply>(message) {
        Ok(Reply::Done(bytes)) => Ok(Value::Plain(bytes)),
        Ok(Reply::Object { pickle, type_name }) => Ok(Value::Python(Arc::new(PythonValue { pickle, type_name: type_name.into() }))),
        Ok(Reply::Arrow { .. } | Reply::Text { .. }) => Err(garbled(None)),
        Ok(Reply::Failed(failure)) => Err(TaskError::Failed(Arc::new(failure))),
        Ok(Reply::Refused { message }) => Err(TaskError::Refused(Error::new(ErrorKind::Unserializable, message))),
        Err(error) => Err(garbled(Some(error))),
    }
}

/// The first message, unasked.
pub(crate) fn is_hello(message: &[u8]) -> bool {
    // {"Hello": ..}
    message.starts_with(b"\x81\xa5Hello")
}
