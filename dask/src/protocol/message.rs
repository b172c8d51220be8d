//! Messages: a body, and Python objects beside it.

use std::collections::BTreeMap;

use bytes::Bytes;
use remuda_core::error::{Error, ErrorKind, Result};
use rmpv::{Value, decode::read_value_with_max_depth, encode::write_value};

use super::{Limits, Part, frames::beyond, malformed, value::map};

const SERIALIZED: &str = "__Serialized__";
const PICKLED: &str = "__Pickled__";
const SUB_FRAMES: &str = "num-sub-frames";

/// One message: a body, and the parts that it refers to.
///
/// ```
/// use remuda_dask::protocol::{Limits, Message, Part, Value, value};
///
/// let mut message = Message::default();
/// let data = message.attach(Part::bytes("grain".into()));
/// message.set_body(value::map([("op", "scatter".into()), ("data", value::map([("key", data)]))]));
///
/// let received = Message::from_frames(&message.to_frames()?, &Limits::default())?;
/// let key = value::get(received.body(), "data").and_then(|data| value::get(data, "key"));
/// assert_eq!(key.and_then(|key| received.part(key)).unwrap().to_bytes()?, "grain");
/// # Ok::<_, remuda_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    body: Value,
    /// By the index of the frame with their sub-header.
    parts: BTreeMap<u64, Part>,
}

impl Default for Message {
    fn default() -> Self {
        Self { body: Value::Nil, parts: BTreeMap::new() }
    }
}

impl From<Value> for Message {
    /// A message without parts.
    fn from(body: Value) -> Self {
        Self { body, parts: BTreeMap::new() }
    }
}

impl Message {
    /// The body. Where it has a part there is a map for [`part`](Self::part).
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Value) {
        self.body = body;
    }

    /// The part for which this piece of the body stands. `None` where it is plain data.
    #[must_use]
    pub fn part(&self, value: &Value) -> Option<&Part> {
        self.parts.get(&reference(value)?.0)
    }

    /// As [`part`](Self::part), taken out: nobody else holds its frames then.
    pub(crate) fn take_part(&mut self, value: &Value) -> Option<Part> {
        self.parts.remove(&reference(value)?.0)
    }

    /// Takes the body out.
    pub(crate) fn take_body(&mut self) -> Value {
        std::mem::replace(&mut self.body, Value::Nil)
    }

    /// Adds a part. What is returned stands for it in the body.
    pub fn attach(&mut self, part: Part) -> Value {
        let index = self.parts.last_key_value().map_or(1, |(index, last)| index + 1 + last.frames.len() as u64);
        let name = if part.on_arrival { PICKLED } else { SERIALIZED };
        self.parts.insert(index, part);
        map([(name, index.into())])
    }

    /// What to write: see [`encode`](super::encode()).
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`] when the body does not fit into MessagePack: something in it is beyond 4 GiB.
    pub fn to_frames(&self) -> Result<Vec<Bytes>> {
        let mut frames = vec![pack(&self.body)?];
        for (index, part) in &self.parts {
            // Parts that were received stand where they stood; frames that nothing referred to are not kept.
            frames.resize(usize::try_from(*index).unwrap_or(usize::MAX).max(frames.len()), Bytes::new());
            let mut header = part.header.clone();
            if let Value::Map(fields) = &mut header {
                fields.push((SUB_FRAMES.into(), part.frames.len().into()));
            }
            frames.push(pack(&header)?);
            frames.extend(part.frames.iter().cloned());
        }
        Ok(frames)
    }

    /// Takes a message apart. Every part that the body refers to is there afterwards; nothing is unpickled.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] when this is no message, [`ErrorKind::Unsupported`] when it is beyond the limits.
    pub fn from_frames(frames: &[Bytes], limits: &Limits) -> Result<Self> {
        let body = frames.first().ok_or_else(|| malformed("a message without frames"))?;
        let body = unpack(body, limits)?;
        let mut references = BTreeMap::new();
        collect(&body, &mut references);
        let mut parts = BTreeMap::new();
        let mut free = 1;
        for (index, on_arrival) in references {
            let part = part(frames, index, on_arrival, limits)?;
            if index < free {
                return Err(malformed("two objects of a message overlap").with_context("frame", index));
            }
            free = index + 1 + part.frames.len() as u64;
            parts.insert(index, part);
        }
        Ok(Self { body, parts })
    }
}

fn part(frames: &[Bytes], index: u64, on_arrival: bool, limits: &Limits) -> Result<Part> {
    let lost = || malformed("a message refers to a frame that it does not have").with_context("frame", index);
    let behind = usize::try_from(index).ok().and_then(|index| frames.get(index..)).ok_or_else(lost)?;
    let (header, behind) = behind.split_first().ok_or_else(lost)?;
    let Value::Map(mut header) = unpack(header, limits)? else {
        return Err(malformed("the sub-header of an object is no map").with_context("frame", index));
    };
    let count = header.iter().position(|(key, _)| key.as_str() == Some(SUB_FRAMES)).map(|at| header.remove(at).1);
    let count = count.and_then(|count| count.as_u64()).ok_or_else(|| malformed("an object does not say how many frames it has"))?;
    let frames = usize::try_from(count).ok().and_then(|count| behind.get(..count)).ok_or_else(lost)?;
    Ok(Part { on_arrival, header: Value::Map(header), frames: frames.to_vec() })
}

/// The frame that a piece of a body stands for, and whether it is to be unpickled on arrival.
fn reference(value: &Value) -> Option<(u64, bool)> {
    let [(key, index)] = value.as_map()?.as_slice() else { return None };
    let on_arrival = match key.as_str()? {
        SERIALIZED => false,
        PICKLED => true,
        _ => return None,
    };
    index.as_u64().filter(|index| *index > 0).map(|index| (index, on_arrival))
}

/// Depth is bounded: this was decoded within the limits.
fn collect(value: &Value, found: &mut BTreeMap<u64, bool>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, found)),
        Value::Map(entries) => match reference(value) {
            Some((index, on_arrival)) => _ = found.insert(index, on_arrival),
            None => entries.iter().for_each(|(key, value)| {
                collect(key, found);
                collect(value, found);
            }),
        },
        _ => {}
    }
}

fn pack(value: &Value) -> Result<Bytes> {
    let mut bytes = Vec::new();
    write_value(&mut bytes, value)
        .map_err(|error| Error::new(ErrorKind::Unserializable, "the message does not fit into MessagePack").with_source(error))?;
    Ok(bytes.into())
}

fn unpack(bytes: &Bytes, limits: &Limits) -> Result<Value> {
    if bytes.len() as u64 > limits.body {
        return Err(beyond("bytes of MessagePack", bytes.len() as u64, limits.body));
    }
    let mut rest = &bytes[..];
    let too_deep = || Error::new(ErrorKind::Unsupported, format!("a message is nested deeper than {} levels", limits.depth));
    // It counts two for an array or map, and up to three for what is inside: near enough to bound its recursion, not to be our limit.
    let depth = 2 * usize::from(limits.depth) + 3;
    let value = read_value_with_max_depth(&mut rest, depth).map_err(|error| match error {
        rmpv::decode::Error::DepthLimitExceeded => too_deep(),
        other => malformed("a frame is not MessagePack").with_source(other),
    })?;
    if is_deeper(&value, limits.depth) {
        return Err(too_deep());
    }
    if rest.is_empty() { Ok(value) } else { Err(malformed("bytes behind the MessagePack of a frame").with_context("bytes", rest.len())) }
}

/// Whether more than so many arrays and maps are inside of one another.
fn is_deeper(value: &Value, levels: u16) -> bool {
    let below = levels.checked_sub(1);
    match (value, below) {
        (Value::Array(_) | Value::Map(_), None) => true,
        (Value::Array(elements), Some(below)) => elements.iter().any(|element| is_deeper(element, below)),
        (Value::Map(entries), Some(below)) => entries.iter().any(|(key, value)| is_deeper(key, below) || is_deeper(value, below)),
        _ => false,
    }
}
