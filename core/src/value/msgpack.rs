//! Finding one's way in MessagePack without decoding it.

use rmp::Marker;

use crate::error::{Error, ErrorKind, Result};

/// The elements of a MessagePack array, each as it stands, undecoded.
///
/// # Errors
/// [`ErrorKind::Unserializable`] when the bytes are not one array.
pub fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let broken = || Error::new(ErrorKind::Unserializable, "not a MessagePack array");
    let mut rest = bytes;
    let len = rmp::decode::read_array_len(&mut rest).map_err(|_| broken())?;
    let mut found = Vec::with_capacity(rest.len().min(len as usize));
    for _ in 0..len {
        let after = skip(rest).ok_or_else(broken)?;
        found.push(&rest[..rest.len() - after.len()]);
        rest = after;
    }
    if rest.is_empty() { Ok(found) } else { Err(broken()) }
}

/// What follows the first value. Not recursive: depth is the sender's to choose.
fn skip(mut rest: &[u8]) -> Option<&[u8]> {
    let mut pending = 1_u64;
    while pending > 0 {
        let (after, children) = token(rest)?;
        rest = after;
        pending = pending - 1 + children;
    }
    Some(rest)
}

/// What follows the first token, and how many values it announces.
pub(super) fn token(mut rest: &[u8]) -> Option<(&[u8], u64)> {
    let marker = Marker::from_u8(*rest.first()?);
    rest = &rest[1..];
    let mut length = |bytes: usize| {
        let (head, tail) = rest.split_at_checked(bytes)?;
        rest = tail;
        Some(head.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte)))
    };
    let (payload, children) = match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False | Marker::Reserved => (0, 0),
        Marker::U8 | Marker::I8 => (1, 0),
        Marker::U16 | Marker::I16 => (2, 0),
        Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
        Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
        Marker::FixStr(len) => (len.into(), 0),
        Marker::Str8 | Marker::Bin8 => (length(1)?, 0),
        Marker::Str16 | Marker::Bin16 => (length(2)?, 0),
        Marker::Str32 | Marker::Bin32 => (length(4)?, 0),
        Marker::FixExt1 => (2, 0),
        Marker::FixExt2 => (3, 0),
        Marker::FixExt4 => (5, 0),
        Marker::FixExt8 => (9, 0),
        Marker::FixExt16 => (17, 0),
        Marker::Ext8 => (length(1)? + 1, 0),
        Marker::Ext16 => (length(2)? + 1, 0),
        Marker::Ext32 => (length(4)? + 1, 0),
        Marker::FixArray(len) => (0, len.into()),
        Marker::Array16 => (0, length(2)?),
        Marker::Array32 => (0, length(4)?),
        Marker::FixMap(len) => (0, 2 * u64::from(len)),
        Marker::Map16 => (0, 2 * length(2)?),
        Marker::Map32 => (0, 2 * length(4)?),
    };
    Some((rest.get(usize::try_from(payload).ok()?..)?, children))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{decode, encode},
        *,
    };

    #[test]
    fn an_array_comes_apart_into_its_elements() {
        let parts = (1, -7_i64, "text", vec![vec![1.5], vec![]], BTreeMap::from([("k", vec![0_u8; 300])]), "x".repeat(70_000), None::<()>);
        let bytes = encode(&parts).unwrap();
        let found = elements(&bytes).unwrap();
        assert_eq!(found.len(), 7);
        assert_eq!(decode::<i64>(found[1]).unwrap(), -7);
        assert_eq!(decode::<String>(found[5]).unwrap().len(), 70_000);
        for cut in 0..bytes.len().min(400) {
            assert!(elements(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
