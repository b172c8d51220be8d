//! Reading MessagePack that nobody else needs any more: long bytes become the result without a copy.

use bytes::{Buf, Bytes};
use rmp_serde::decode::Error as Broken;
use serde::{
    Deserializer,
    de::{DeserializeOwned, Visitor},
};

use super::{decode, unfit};
use crate::error::Result;

/// MessagePack to be read: somebody else's, or our own to use up.
#[derive(Debug)]
pub enum Encoded<'a> {
    /// Somebody else's.
    Borrowed(&'a [u8]),
    /// Ours, if nobody else holds the same memory.
    Owned(Bytes),
}

impl<'a> From<&'a [u8]> for Encoded<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl From<Bytes> for Encoded<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Owned(bytes)
    }
}

/// As [`decode`]. Where the whole value is bytes, and the type takes them as a buffer (`serde_bytes::ByteBuf`), it gets this memory: fresh
/// memory for a large result costs as much as its way through a socket.
///
/// # Errors
/// As [`decode`].
pub fn decode_from<T: DeserializeOwned>(encoded: Encoded<'_>) -> Result<T> {
    match encoded {
        Encoded::Borrowed(bytes) => decode(bytes),
        Encoded::Owned(bytes) => match header(&bytes) {
            Some(header) => T::deserialize(Binary { whole: bytes, header }).map_err(unfit::<T>),
            None => decode(&bytes),
        },
    }
}

/// How long the head of a MessagePack binary is that is all there is.
fn header(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let length = rmp::decode::read_bin_len(&mut rest).ok()?;
    (rest.len() == length as usize).then(|| bytes.len() - rest.len())
}

/// One MessagePack binary.
struct Binary {
    whole: Bytes,
    header: usize,
}

impl Binary {
    fn content(mut self) -> Vec<u8> {
        self.whole.advance(self.header);
        // Without a copy where nobody else holds it: moved to the front of its memory.
        self.whole.into()
    }
}

/// What asks for something else than bytes gets what `rmp_serde` says.
macro_rules! as_ever {
    ($($name:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $name<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> std::result::Result<V::Value, Broken> {
            rmp_serde::Deserializer::new(&self.whole[..]).$name($($argument,)* visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Binary {
    type Error = Broken;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Broken> {
        visitor.visit_byte_buf(self.content())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Broken> {
        visitor.visit_byte_buf(self.content())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Broken> {
        visitor.visit_byte_buf(self.content())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Broken> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> std::result::Result<V::Value, Broken> {
        visitor.visit_newtype_struct(self)
    }

    as_ever! {
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_u8() deserialize_u16()
        deserialize_u32() deserialize_u64() deserialize_f32() deserialize_f64() deserialize_char() deserialize_str() deserialize_string()
        deserialize_unit() deserialize_seq() deserialize_map() deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::{super::encode, *};

    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        decode_from(Bytes::copy_from_slice(bytes).into())
    }

    #[test]
    fn long_bytes_stay_where_they_are() {
        let encoded = Bytes::from(encode(&ByteBuf::from(vec![7; 100_000])).unwrap());
        let memory = encoded.as_ptr();
        let read: ByteBuf = decode_from(encoded.into()).unwrap();
        assert_eq!((read.as_ptr(), read.len(), read[99_999]), (memory, 100_000, 7));
    }

    #[test]
    fn it_reads_what_decode_reads() {
        for length in [0, 1, 255, 256, 70_000] {
            let encoded = encode(&ByteBuf::from(vec![7; length])).unwrap();
            let whole = ByteBuf::from(vec![7; length]);
            assert_eq!(read::<ByteBuf>(&encoded).unwrap(), whole);
            assert_eq!(read::<Option<ByteBuf>>(&encoded).unwrap(), Some(whole));
            assert_eq!(read::<Vec<u8>>(&encoded).ok(), decode::<Vec<u8>>(&encoded).ok());
            assert_eq!(read::<String>(&encoded).ok(), decode::<String>(&encoded).ok());
            assert_eq!(read::<i64>(&encoded).ok(), None);
        }
        assert_eq!(read::<Vec<u8>>(&encode(&[1_u8, 2]).unwrap()).unwrap(), [1, 2]);
        // Cut short, or with something behind it.
        assert!(read::<ByteBuf>(&[0xc4, 2, 0]).is_err());
        let shared = Bytes::from_static(&[0xc4, 1, 9]);
        let again = shared.clone();
        assert_eq!(decode_from::<ByteBuf>(shared.into()).unwrap()[..], [9]);
        assert_eq!(again[..], [0xc4, 1, 9]);
    }
}
