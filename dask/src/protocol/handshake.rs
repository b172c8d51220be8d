//! What both sides say before anything else.

use remuda_core::error::{Error, ErrorKind, Result};
use rmpv::Value;

use super::{
    Message,
    value::{elements, get, map, text},
};

/// The oldest that all supported versions read. We send no pickles but a constant.
const PICKLE_PROTOCOL: u64 = 4;

/// What the peer said of itself.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its Python: `[3, 11, 7]`.
    pub python: Vec<u64>,
    /// The highest pickle protocol that both sides know.
    pub pickle_protocol: u64,
    /// What it would compress with, had we not declined.
    pub compression: Option<String>,
}

/// Our half. Either side may speak first.
pub(super) fn hello() -> Message {
    // A peer that misses one of these logs an error and stays silent for ever.
    let ours = [
        ("compression", Value::Nil),
        ("python", Value::Array([3, 11, 0].map(Value::from).to_vec())),
        ("pickle-protocol", PICKLE_PROTOCOL.into()),
    ];
    map(ours).into()
}

impl Peer {
    pub(super) fn read(message: &Message) -> Result<Self> {
        let body = message.body();
        let Some(pickle_protocol) = get(body, "pickle-protocol").and_then(Value::as_u64) else {
            return Err(Error::new(ErrorKind::ConfigInvalid, "the peer's first message is no Dask handshake")
                .with_hint("check host and port of the address"));
        };
        Ok(Self {
            python: get(body, "python").and_then(elements).unwrap_or_default().iter().filter_map(Value::as_u64).collect(),
            pickle_protocol: pickle_protocol.min(PICKLE_PROTOCOL),
            compression: get(body, "compression").and_then(text).map(Into::into),
        })
    }
}
