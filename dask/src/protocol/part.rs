//! Python objects beside the body of a message.

use std::fmt;

use bytes::{Bytes, BytesMut};
use remuda_core::error::{Error, ErrorKind, Result};
use rmpv::Value;

use super::value::{get, map, text};

/// The Python type `bytes`, pickled (protocol 4: PROTO, two SHORT_BINUNICODE, STACK_GLOBAL, STOP). A constant that schedulers and
/// workers want beside the bytes.
const TYPE_BYTES: &[u8] = b"\x80\x04\x8c\x08builtins\x8c\x05bytes\x93.";

/// How a [`Part`] carries its object.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A Python `bytes` or `bytearray`, as it is: [`Part::to_bytes`].
    Bytes,
    /// A pickle: opaque here.
    Pickle,
    /// By another serializer of Dask's, or a collection of several.
    Other,
}

/// One Python object beside the body of a message: a sub-header and frames.
#[derive(Clone, PartialEq)]
pub struct Part {
    /// Whether the receiver unpickles it on arrival (`__Pickled__`), or passes it on (`__Serialized__`).
    pub(super) on_arrival: bool,
    /// A map, without `num-sub-frames`.
    pub(super) header: Value,
    pub(super) frames: Vec<Bytes>,
}

impl Part {
    /// A Python `bytes`.
    #[must_use]
    pub fn bytes(bytes: Bytes) -> Self {
        let header = map([
            ("serializer", "dask".into()),
            ("sub-header", map([])),
            ("type", "builtins.bytes".into()),
            ("type-serialized", TYPE_BYTES.into()),
        ]);
        Self { on_arrival: false, header, frames: vec![bytes] }
    }

    /// How the object is carried.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        let field = |name| get(&self.header, name).and_then(text);
        match (field("serializer"), self.type_name()) {
            _ if self.on_arrival => Encoding::Pickle,
            (Some("dask"), Some("bytes" | "bytearray")) => Encoding::Bytes,
            (Some("pickle"), _) => Encoding::Pickle,
            _ => Encoding::Other,
        }
    }

    /// The object's Python type, where the sub-header says it: `bytes`, `numpy.ndarray`. For a pickle it does not.
    #[must_use]
    pub fn type_name(&self) -> Option<&str> {
        let name = get(&self.header, "type").and_then(text)?;
        // Versions differ in whether they write it.
        Some(name.strip_prefix("builtins.").unwrap_or(name))
    }

    /// How its frames are compressed: `zlib`. `None` where they are not.
    #[must_use]
    pub fn compression(&self) -> Option<&str> {
        get(&self.header, "compression")?.as_array()?.iter().find_map(text)
    }

    /// The sub-header, a map, without `num-sub-frames`.
    #[must_use]
    pub fn header(&self) -> &Value {
        &self.header
    }

    /// The frames as they came: a large object is cut into several.
    #[must_use]
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// The content of a Python `bytes` or `bytearray`. Copies only where it came in several frames.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`] for any other object, [`ErrorKind::Unsupported`] where it is compressed.
    pub fn to_bytes(&self) -> Result<Bytes> {
        self.clone().into_bytes()
    }

    /// As [`to_bytes`](Self::to_bytes); where nobody else has them, the bytes are the only holder of their memory then.
    pub(crate) fn into_bytes(mut self) -> Result<Bytes> {
        if self.encoding() != Encoding::Bytes {
            let what =
                self.type_name().map_or_else(|| "a pickled Python object".to_owned(), |name| format!("a Python object of type `{name}`"));
            return Err(Error::new(ErrorKind::Unserializable, format!("{what} came instead of bytes"))
                .with_hint("let the task return `bytes`, or convert the object in a further task"));
        }
        if let Some(name) = self.compression() {
            return Err(Error::new(ErrorKind::Unsupported, format!("bytes came compressed with `{name}`"))
                .with_hint("fetch them from the worker that has them: the scheduler passes on what workers compressed for it"));
        }
        if self.frames.len() == 1 {
            return Ok(self.frames.remove(0));
        }
        let mut whole = BytesMut::with_capacity(self.frames.iter().map(Bytes::len).sum());
        self.frames.iter().for_each(|frame| whole.extend_from_slice(frame));
        Ok(whole.freeze())
    }
}

/// Without the content: it may be large, and secret.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("encoding", &self.encoding())
            .field("type", &self.type_name())
            .field("frames", &self.frames.iter().map(Bytes::len).collect::<Vec<_>>())
            .finish()
    }
}
