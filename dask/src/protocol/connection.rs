//! One side of one connection, without the connection.

use bytes::{Bytes, BytesMut, buf::Limit};
use remuda_core::error::{Error, ErrorKind, Result};

use super::{FrameDecoder, Limits, Message, Peer, encode, handshake};

/// What a [`Connection`] has read.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The handshake is over. Comes first, and once.
    Ready(Peer),
    /// A message.
    Message(Message),
}

/// Our side of a connection, without I/O: write [`hello`](Self::hello), read into [`space`](Self::space), then [`next`](Self::next) until
/// it has nothing more. How long to wait for the handshake is for the caller: a peer that does not like ours says nothing, and hangs.
///
/// ```
/// use remuda_dask::protocol::{Connection, Event, Limits};
///
/// let mut here = Connection::new(Limits::default());
/// let mut there = Connection::new(Limits::default());
/// Connection::hello().iter().for_each(|bytes| there.feed(bytes));
/// Connection::hello().iter().for_each(|bytes| here.feed(bytes));
/// assert!(matches!(here.next()?, Some(Event::Ready(peer)) if peer.compression.is_none()));
/// # Ok::<_, remuda_core::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    decoder: FrameDecoder,
    limits: Limits,
    is_ready: bool,
}

impl Connection {
    /// Before the handshake. The limits count from its end; before it a few kilobytes are enough for everyone.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { decoder: FrameDecoder::new(Limits::HANDSHAKE), limits, is_ready: false }
    }

    /// Our half of the handshake, to be written at once. Declines compression.
    #[must_use]
    pub fn hello() -> Vec<Bytes> {
        encode(handshake::hello().to_frames().unwrap_or_default())
    }

    /// Where the next bytes of the stream go; see [`FrameDecoder::space`].
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        self.decoder.space()
    }

    /// Takes bytes that were read elsewhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// The next thing that has arrived whole.
    ///
    /// # Errors
    /// As [`FrameDecoder::next`] and [`Message::from_frames`], and [`ConfigInvalid`](remuda_core::error::ErrorKind::ConfigInvalid) when the
    /// peer does not begin with a handshake. The connection is of no more use then.
    // Not an iterator: nothing now may be something later.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>> {
        if self.is_ready {
            let Some(frames) = self.decoder.next()? else { return Ok(None) };
            return Ok(Some(Event::Message(Message::from_frames(&frames, &self.limits)?)));
        }
        let Some(frames) = self.decoder.next().map_err(stranger)? else { return Ok(None) };
        let peer = Peer::read(&Message::from_frames(&frames, &Limits::HANDSHAKE).map_err(stranger)?)?;
        self.is_ready = true;
        self.decoder.set_limits(self.limits);
        Ok(Some(Event::Ready(peer)))
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// When it ends within a message; see [`FrameDecoder::end`].
    pub fn end(&self) -> Result<()> {
        self.decoder.end()
    }
}

/// Whoever does not even begin with a message of Dask's is not Dask: limits are of no interest then.
fn stranger(error: Error) -> Error {
    if error.kind() == ErrorKind::ConfigInvalid {
        return error;
    }
    Error::new(ErrorKind::ConfigInvalid, "what listens there does not speak Dask's protocol")
        .with_hint("check host and port of the address: the scheduler's port is 8786 unless it was told otherwise")
        .with_source(error)
}
