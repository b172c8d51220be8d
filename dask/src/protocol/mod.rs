//! What goes over the wire, without any I/O.
//!
//! # The wire
//! All numbers are little-endian `u64`:
//!
//! ```text
//! message := FIRST  N  LENGTH[0] .. LENGTH[N-1]  frame[0] .. frame[N-1]
//! ```
//!
//! `FIRST` counts the bytes of the sender's first write behind it: count, lengths and *some* of the frames. It is not the length of the
//! message: newer versions leave large frames out of it. `frame[0]` is the body, MessagePack whose maps may have keys that are not strings.
//! A Python object in it is a map `{"__Serialized__": i}`: frame `i` is a sub-header, and its `num-sub-frames` tells how many frames behind
//! it are the object. See [`Part`].
//!
//! # The rules of this module
//! - **Nothing is unpickled**, ever. A pickle is bytes of a [`Part`].
//! - **Every length is bounded** ([`Limits`]), and none is believed: memory follows what has arrived.
//! - **No bytes panic.** What is not Dask's protocol is an error, and for HTTP, TLS and SSH one that says so.
//! - **No compression.** Our handshake declines it; a part that is compressed all the same is refused when its bytes are asked for.
//!
//! # The parts
//! [`Connection`] is one side of one connection: bytes in, [`Event`]s out. It puts together [`FrameDecoder`], the handshake ([`Peer`]) and
//! [`Message`]. [`answer`] sorts what an operation answered from its failures.

mod answer;
mod connection;
mod frames;
mod handshake;
mod limits;
mod message;
mod part;
pub mod value;

pub use answer::answer;
pub use connection::{Connection, Event};
pub use frames::{FrameDecoder, encode};
pub use handshake::Peer;
pub use limits::Limits;
pub use message::Message;
pub use part::{Encoding, Part};
pub use rmpv::Value;

use remuda_core::error::{Error, ErrorKind};

/// The peer broke the protocol.
fn malformed(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, what)
        .with_hint("if the peer is a Dask scheduler or worker, report this with its version of `distributed`")
}
