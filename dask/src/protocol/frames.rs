//! Messages cut into frames, and back.

use std::{mem, vec};

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Limit};
use remuda_core::error::{Error, ErrorKind, Result};

use super::{Limits, malformed};

/// How many bytes are asked of the operating system at once.
const READ: usize = 64 << 10;
/// Frames at least that long that have not arrived are read into memory of their own, without a copy.
const OWN: usize = READ;
/// What is kept free behind a long frame.
const SPARE: usize = 16;
/// Frames up to that length are copied behind the header: one write for a small message.
const COPIED: usize = 16 << 10;

/// The bytes of one message on the wire, to be written one after the other. Long frames are passed on, not copied.
#[must_use]
pub fn encode(frames: Vec<Bytes>) -> Vec<Bytes> {
    let total: usize = frames.iter().map(Bytes::len).sum();
    let prelude = 8 * (frames.len() + 1);
    let mut chunks = Vec::new();
    let mut copied = BytesMut::with_capacity(8 + prelude + total.min(COPIED));
    // Always the whole message, as versions before 2024 demand.
    copied.put_u64_le((prelude + total) as u64);
    copied.put_u64_le(frames.len() as u64);
    frames.iter().for_each(|frame| copied.put_u64_le(frame.len() as u64));
    for frame in frames {
        if frame.len() <= COPIED {
            copied.extend_from_slice(&frame);
        } else {
            chunks.push(copied.split().freeze());
            chunks.push(frame);
        }
    }
    chunks.push(copied.freeze());
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// Finds messages in a stream of bytes, wherever it is cut. Does no I/O.
///
/// Read into [`space`](Self::space), then call [`next`](Self::next) until there is nothing more. An error is final: where the next
/// message would begin is not known any more.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    /// What has arrived and is not taken apart yet.
    arrived: BytesMut,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Before `FIRST` and the count.
    Head,
    /// Before the lengths.
    Lengths { first: u64, count: usize },
    /// Before the frames that are still to come.
    Frames { lengths: vec::IntoIter<usize>, current: Option<Partial>, frames: Vec<Bytes> },
    /// For good.
    Failed(Error),
}

/// A frame that has not arrived whole.
#[derive(Debug)]
struct Partial {
    length: usize,
    /// Memory of its own, for a long one. Short ones wait in the common buffer.
    own: Option<BytesMut>,
}

impl FrameDecoder {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, arrived: BytesMut::new(), state: State::Head }
    }

    /// From the next message on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where the next bytes of the stream go; never empty. At most twice what has arrived of a frame is held for it.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        if let State::Frames { current: Some(Partial { length, own: Some(own) }), .. } = &mut self.state {
            let missing = *length - own.len();
            if missing > 0 {
                if own.len() == own.capacity() {
                    // With some bytes to spare: a MessagePack head fits before the content without new memory.
                    own.reserve(missing.min(own.len().max(READ)) + SPARE);
                }
                let room = own.capacity() - own.len();
                return own.limit(room.min(missing));
            }
        }
        self.arrived.reserve(READ);
        let room = self.arrived.capacity() - self.arrived.len();
        (&mut self.arrived).limit(room)
    }

    /// Takes bytes that were read elsewhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while bytes.has_remaining() {
            let mut space = self.space();
            let fits = bytes.len().min(space.remaining_mut());
            space.put_slice(&bytes[..fits]);
            bytes.advance(fits);
        }
    }

    /// The frames of the next message that has arrived whole.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the peer speaks another protocol, [`ErrorKind::Unsupported`] when a message is beyond the limits,
    /// [`ErrorKind::Unexpected`] when its lengths contradict each other. The same again from then on.
    // Not an iterator: nothing now may be something later.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let found = self.advance();
        if let Err(error) = &found {
            self.state = State::Failed(error.clone());
            self.arrived = BytesMut::new();
        }
        found
    }

    /// To be called at the end of the stream.
    ///
    /// # Errors
    /// When it ends within a message: as [`next`](Self::next), or [`ErrorKind::Unavailable`].
    pub fn end(&self) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Head if self.arrived.is_empty() => Ok(()),
            State::Head if let Some(name) = foreign(&self.arrived) => Err(not_dask(name)),
            _ => Err(Error::new(ErrorKind::Unavailable, "the peer closed the connection within a message")),
        }
    }

    fn advance(&mut self) -> Result<Option<Vec<Bytes>>> {
        loop {
            match &mut self.state {
                State::Head => {
                    if self.arrived.len() < 16 {
                        return Ok(None);
                    }
                    self.state = self.head()?;
                }
                State::Lengths { first, count } => {
                    if self.arrived.len() < 8 * *count {
                        return Ok(None);
                    }
                    let (first, count) = (*first, *count);
                    let lengths: Vec<u64> = (0..count).map(|_| self.arrived.get_u64_le()).collect();
                    let lengths = check(first, lengths, &self.limits)?;
                    self.state = State::Frames { frames: Vec::with_capacity(count), lengths: lengths.into_iter(), current: None };
                }
                State::Frames { lengths, current, frames } => {
                    let Some(frame) = current.take().or_else(|| Partial::next(lengths)) else {
                        let frames = mem::take(frames);
                        self.state = State::Head;
                        return Ok(Some(frames));
                    };
                    match frame.take(&mut self.arrived) {
                        Ok(frame) => frames.push(frame),
                        Err(partial) => {
                            *current = Some(partial);
                            return Ok(None);
                        }
                    }
                }
                State::Failed(error) => return Err(error.clone()),
            }
        }
    }

    /// `FIRST` is how many bytes the sender put into its first write, header included: not the length of the message.
    fn head(&mut self) -> Result<State> {
        let mut head = &self.arrived[..16];
        let (first, count) = (head.get_u64_le(), head.get_u64_le());
        if let Some(name) = foreign(&self.arrived) {
            return Err(not_dask(name));
        }
        if count > self.limits.frames {
            return Err(beyond("frames", count, self.limits.frames));
        }
        let prelude = 8 * (count + 1);
        if first.saturating_sub(prelude) > self.limits.message {
            return Err(beyond("bytes", first, self.limits.message));
        }
        if first < prelude || count == 0 {
            return Err(malformed("a message without room for its own lengths").with_context("first", first).with_context("frames", count));
        }
        self.arrived.advance(16);
        let count = usize::try_from(count).map_err(|_| beyond("frames", count, self.limits.frames))?;
        Ok(State::Lengths { first: first - prelude, count })
    }
}

impl Partial {
    fn next(lengths: &mut vec::IntoIter<usize>) -> Option<Self> {
        lengths.next().map(|length| Self { length, own: None })
    }

    /// The frame, if it is there whole; else itself, with what is there.
    fn take(self, arrived: &mut BytesMut) -> Result<Bytes, Self> {
        let Self { length, own } = self;
        let mut own = match own {
            Some(own) => own,
            None if arrived.len() >= length => return Ok(arrived.split_to(length).freeze()),
            None if length < OWN => return Err(Self { length, own: None }),
            None => BytesMut::with_capacity(length.min(2 * arrived.len().max(READ))),
        };
        own.extend_from_slice(&arrived.split_to(arrived.len().min(length - own.len())));
        if own.len() == length { Ok(own.freeze()) } else { Err(Self { length, own: Some(own) }) }
    }
}

/// The lengths, if they keep within the limits and agree with `FIRST`, which may cover only some of the frames.
fn check(first: u64, lengths: Vec<u64>, limits: &Limits) -> Result<Vec<usize>> {
    let mut total = 0_u64;
    let mut agrees = first == 0;
    for length in &lengths {
        total = total.saturating_add(*length);
        agrees |= total == first;
    }
    if total > limits.message {
        return Err(beyond("bytes", total, limits.message));
    }
    if let Some(body) = lengths.first().filter(|body| **body > limits.body) {
        return Err(beyond("bytes of MessagePack", *body, limits.body));
    }
    if !agrees {
        return Err(malformed("the lengths of a message do not add up").with_context("first", first).with_context("total", total));
    }
    lengths.into_iter().map(|length| usize::try_from(length).map_err(|_| beyond("bytes", length, limits.message))).collect()
}

pub(super) fn beyond(what: &str, announced: u64, limit: u64) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the peer announces a message of {announced} {what}, {limit} is the limit"))
        .with_hint("if the peer is a Dask scheduler or worker, raise the limit; if not, the address is wrong")
}

/// What else answers on a port, by its first bytes.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 4] = [(b"HTTP/", "HTTP"), (b"GET ", "HTTP"), (b"POST ", "HTTP"), (b"SSH-", "SSH")];
    match bytes {
        // An alert or a handshake of TLS 1.0 to 1.3. A length of ours that begins so has zeroes behind it.
        [0x15 | 0x16, 3, 1..=4, rest @ ..] if !rest.iter().take(5).skip(2).all(|byte| *byte == 0) => Some("TLS"),
        _ => KNOWN.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name),
    }
}

fn not_dask(name: &str) -> Error {
    let hint = match name {
        "HTTP" => "that may be the dashboard's port; the scheduler's own is 8786 unless it was told otherwise: `tcp://HOST:8786`",
        "TLS" => "the scheduler wants TLS: its address begins with `tls://`",
        _ => "check host and port of the address",
    };
    Error::new(ErrorKind::ConfigInvalid, format!("the peer speaks {name}, not Dask's protocol")).with_hint(hint)
}
