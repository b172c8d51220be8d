//! Arguments that wait for the results of other tasks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{encode, msgpack::token};
use crate::error::{Error, ErrorKind, Result};

/// The extension type that stands for a part of a template while a value is serialised: see [`Template::with_parts`].
pub const PART: i8 = 0x52;

/// `fixext 8` of type [`PART`].
const PART_HEAD: [u8; 2] = [0xd7, PART.cast_unsigned()];

/// Arguments as MessagePack with holes where the results of other tasks go.
///
/// MessagePack values are self-delimiting, so a hole is filled by copying the value's bytes into its place; nothing is parsed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Template {
    #[serde(with = "serde_bytes")]
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

    /// How many bytes it has without its inputs.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
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
    use super::{super::decode, *};

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
}
