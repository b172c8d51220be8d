//! The protocol under any bytes, cut anywhere.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

#[path = "../../fuzz/src/connection.rs"]
mod fuzz_target;

use std::{fs, path::Path};

use bytes::{BufMut, Bytes};
use proptest::{collection::vec, prelude::*};
use remuda_core::error::ErrorKind;
use remuda_dask::protocol::{
    Connection, Event, FrameDecoder, Limits, Message, Part, Value, encode,
    value::{elements, map, set, text},
};

/// Anything MessagePack can say; maps have keys of any kind.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::F64),
        ".{0,12}".prop_map(Value::from),
        vec(any::<u8>(), 0..40).prop_map(Value::from),
        (any::<i8>(), vec(any::<u8>(), 0..20)).prop_map(|(kind, bytes)| Value::Ext(kind, bytes)),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![vec(inner.clone(), 0..8).prop_map(Value::Array), vec((inner.clone(), inner), 0..8).prop_map(Value::Map)]
    })
}

fn messages() -> impl Strategy<Value = Message> {
    (values(), vec((values(), vec(any::<u8>(), 0..300)), 0..5)).prop_map(|(rest, parts)| {
        let mut message = Message::default();
        let entries = parts.into_iter().map(|(key, bytes)| (key, message.attach(Part::bytes(bytes.into())))).collect();
        message.set_body(map([("data", Value::Map(entries)), ("rest", rest)]));
        message
    })
}

/// A message on the wire whose `FIRST` covers only some of the frames, as newer versions send it.
fn raw(frames: &[Vec<u8>], covered: usize) -> Vec<u8> {
    let mut raw = Vec::new();
    raw.put_u64_le((8 * (frames.len() + 1) + frames.iter().take(covered).map(Vec::len).sum::<usize>()) as u64);
    raw.put_u64_le(frames.len() as u64);
    frames.iter().for_each(|frame| raw.put_u64_le(frame.len() as u64));
    frames.iter().for_each(|frame| raw.put_slice(frame));
    raw
}

fn all(decoder: &mut FrameDecoder) -> Vec<Vec<Bytes>> {
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_went(message in messages()) {
        let mut decoder = FrameDecoder::new(Limits::default());
        decoder.feed(&encode(message.to_frames().unwrap()).concat());
        let frames = decoder.next().unwrap().unwrap();
        prop_assert_eq!(Message::from_frames(&frames, &Limits::default()).unwrap(), message);
    }

    #[test]
    fn where_a_stream_is_cut_makes_no_difference(
        sent in vec((vec(prop_oneof![4 => vec(any::<u8>(), 0..50), 1 => (60_000_usize..150_000).prop_map(|n| vec![7; n])], 1..6), any::<prop::sample::Index>()), 1..5),
        mut cuts in vec(any::<prop::sample::Index>(), 0..12),
        eager in any::<bool>(),
    ) {
        let stream: Vec<u8> = sent.iter().flat_map(|(frames, covered)| raw(frames, covered.index(frames.len() + 1))).collect();
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::new(Limits::default());
        let mut found = Vec::new();
        for piece in cuts.windows(2) {
            decoder.feed(&stream[piece[0]..piece[1]]);
            if eager {
                found.extend(all(&mut decoder));
            }
        }
        found.extend(all(&mut decoder));
        decoder.end().unwrap();
        let wanted: Vec<Vec<Vec<u8>>> = sent.into_iter().map(|(frames, _)| frames).collect();
        prop_assert_eq!(found, wanted);
    }

    /// However the sender cut it, and however much of it was in its first write.
    #[test]
    fn sharded_objects_come_back_whole(
        content in vec(any::<u8>(), 0..5000),
        mut cuts in vec(any::<prop::sample::Index>(), 0..9),
        covered in any::<prop::sample::Index>(),
        beside in vec(any::<u8>(), 0..20),
    ) {
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(content.len() + 1)).collect();
        cuts.extend([0, content.len()]);
        cuts.sort_unstable();
        let shards: Vec<&[u8]> = cuts.windows(2).map(|piece| &content[piece[0]..piece[1]]).collect();
        let header = |frames: usize| map([("serializer", "dask".into()), ("type", "builtins.bytes".into()), ("num-sub-frames", frames.into())]);
        let body = map([("a", map([("__Serialized__", 1.into())])), ("b", map([("__Serialized__", (2 + shards.len()).into())]))]);
        let packed = |value: Value| Message::from(value).to_frames().unwrap().remove(0).to_vec();
        let mut frames = vec![packed(body), packed(header(shards.len()))];
        frames.extend(shards.iter().map(|shard| shard.to_vec()));
        frames.extend([packed(header(1)), beside.clone()]);
        let mut decoder = FrameDecoder::new(Limits::default());
        decoder.feed(&raw(&frames, covered.index(frames.len() + 1)));
        let message = Message::from_frames(&decoder.next().unwrap().unwrap(), &Limits::default()).unwrap();
        let bytes = |name: &str| message.part(&message.body()[name]).unwrap().to_bytes().unwrap();
        prop_assert_eq!((bytes("a"), bytes("b")), (Bytes::from(content), Bytes::from(beside)));
    }

    /// What came whole is read, whatever follows it.
    #[test]
    fn garbage_does_not_reach_back(messages in vec(messages(), 1..4), garbage in vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        let mut stream = Connection::hello().concat();
        messages.iter().for_each(|message| stream.extend(encode(message.to_frames().unwrap()).concat()));
        stream.extend(&garbage);
        let cut = cut.index(stream.len() + 1);
        let mut connection = Connection::new(Limits::default());
        let mut found = Vec::new();
        for piece in [&stream[..cut], &stream[cut..]] {
            connection.feed(piece);
            while found.len() <= messages.len() && let Some(event) = connection.next().unwrap() {
                found.push(event);
            }
        }
        prop_assert!(matches!(found.remove(0), Event::Ready(_)));
        prop_assert_eq!(found, messages.into_iter().map(Event::Message).collect::<Vec<_>>());
        while let Ok(Some(_)) = connection.next() {}
    }

    /// The target of the fuzzer, on a toolchain without one.
    #[test]
    fn the_target_of_the_fuzzer_holds(bytes in vec(any::<u8>(), 0..300), message in messages(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        fuzz_target::check(&bytes);
        let mut stream = encode(message.to_frames().unwrap()).concat();
        fuzz_target::check(&stream);
        let at = at.index(stream.len());
        stream[at] = with;
        fuzz_target::check(&stream);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..400)) {
        let mut connection = Connection::new(Limits::default());
        connection.feed(&bytes);
        while let Ok(Some(_)) = connection.next() {}
        let _ = connection.end();
        let _ = Message::from_frames(&[bytes.into()], &Limits::default());
    }

    /// Nearly right is worse than noise: it gets further.
    #[test]
    fn no_damaged_message_panics(message in messages(), at in any::<prop::sample::Index>(), with in any::<u8>(), body_only in any::<bool>()) {
        let mut connection = Connection::new(Limits::default());
        Connection::hello().iter().for_each(|bytes| connection.feed(bytes));
        let mut frames: Vec<Vec<u8>> = message.to_frames().unwrap().iter().map(|frame| frame.to_vec()).collect();
        if body_only {
            let at = at.index(frames[0].len());
            frames[0][at] = with;
        }
        let mut bytes = raw(&frames, frames.len());
        if !body_only {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        connection.feed(&bytes);
        while let Ok(Some(event)) = connection.next() {
            if let Event::Message(message) = event {
                let _ = message.to_frames().unwrap();
            }
        }
        let _ = connection.end();
    }
}

/// The corpus of the fuzzer, and each of it with a bit turned at each place of its beginning.
#[test]
fn the_target_of_the_fuzzer_holds_near_what_real_schedulers_sent() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let versions = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files: Vec<_> = versions.flat_map(|version| fs::read_dir(version).unwrap()).map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 5 * 14);
    for (n, file) in files.iter().enumerate() {
        let mut stream = fs::read(file).unwrap();
        fuzz_target::check(&stream);
        for at in 0..stream.len().min(100) {
            let bit = 1 << ((at + n) % 8);
            stream[at] ^= bit;
            fuzz_target::check(&stream);
            stream[at] ^= bit;
        }
    }
}

#[test]
fn memory_follows_what_has_arrived() {
    let limits = Limits { body: 2 << 30, ..Limits::default() };
    let mut decoder = FrameDecoder::new(limits);
    let mut head = Vec::new();
    [16 + (1_u64 << 30), 1, 1 << 30].into_iter().for_each(|number| head.put_u64_le(number));
    decoder.feed(&head);
    let mut arrived = 0;
    for _ in 0..300 {
        assert_eq!(decoder.next().unwrap(), None);
        let held = decoder.space().get_ref().capacity();
        assert!(held <= 2 * arrived + (256 << 10), "{held} bytes held for {arrived}");
        decoder.feed(&[0; 10_000]);
        arrived += 10_000;
    }
}

#[test]
fn what_is_beyond_the_limits_is_refused_before_it_comes() {
    let limits = Limits { message: 1000, body: 100, frames: 3, depth: 4 };
    let refused = |numbers: &[u64]| {
        let mut decoder = FrameDecoder::new(limits);
        let mut raw = Vec::new();
        numbers.iter().for_each(|number| raw.put_u64_le(*number));
        decoder.feed(&raw);
        let first = decoder.next().unwrap_err();
        let second = decoder.next().unwrap_err();
        assert_eq!((first.kind(), first.message()), (second.kind(), second.message()), "it stays refused");
        first.kind()
    };
    assert_eq!(refused(&[u64::MAX, u64::MAX]), ErrorKind::Unsupported);
    assert_eq!(refused(&[u64::MAX, 1]), ErrorKind::Unsupported);
    assert_eq!(refused(&[40, 4]), ErrorKind::Unsupported);
    assert_eq!(refused(&[16 + 101, 1, 101]), ErrorKind::Unsupported);
    assert_eq!(refused(&[24, 2, 0, 1001]), ErrorKind::Unsupported);
    assert_eq!(refused(&[24, 2, u64::MAX, u64::MAX]), ErrorKind::Unsupported);
    assert_eq!(refused(&[7, 0]), ErrorKind::Unexpected);
    assert_eq!(refused(&[8, 0]), ErrorKind::Unexpected);
    assert_eq!(refused(&[8, 1]), ErrorKind::Unexpected);
    // `FIRST` ends within a frame.
    assert_eq!(refused(&[24 + 15, 2, 10, 10]), ErrorKind::Unexpected);
    assert_eq!(refused(&[24 + 30, 2, 10, 10]), ErrorKind::Unexpected);
}

#[test]
fn depth_is_limited() {
    // Whatever is inside: nil, a string, bytes, an extension; and an empty array is a level of its own.
    let leaves: [&[u8]; 4] = [&[0xc0], &[0xa1, b'x'], &[0xc4, 1, 7], &[0xd4, 1, 7]];
    for depth in [0_u16, 1, 8, 128] {
        let limits = Limits { depth, ..Limits::default() };
        let read = |levels: u16, leaf: &[u8]| {
            let levels = usize::from(levels);
            let bodies = [vec![0x91; levels], [0x81, 0xc0].repeat(levels), [&[0x82, 0xc0, 0xc0][..], &[0xc0]].concat().repeat(levels)];
            bodies.map(|outside| Message::from_frames(&[[&outside, leaf].concat().into()], &limits).map_err(|error| error.kind()))
        };
        for leaf in leaves {
            assert!(read(depth, leaf).iter().all(Result::is_ok), "{depth} {leaf:?}: {:?}", read(depth, leaf));
            let deeper = read(depth + 1, leaf);
            assert!(deeper.iter().all(|read| matches!(read, Err(ErrorKind::Unsupported))), "{depth} {leaf:?}: {deeper:?}");
        }
        assert!(read(depth, &[0x90]).iter().all(|read| matches!(read, Err(ErrorKind::Unsupported))), "{depth}");
    }
    let deepest = [vec![0x91; 1_000_000], vec![0xc0]].concat();
    let error = Message::from_frames(&[deepest.into()], &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn objects_that_are_not_there_are_errors() {
    let bytes = |value: &Value| {
        let frames = Message::from(value.clone()).to_frames().unwrap();
        frames[0].clone()
    };
    let body = |index: u64| bytes(&map([("__Serialized__", index.into())]));
    let header = |frames: u64| bytes(&map([("num-sub-frames", frames.into())]));
    let two = bytes(&Value::Array(vec![map([("__Serialized__", 1.into())]), map([("__Pickled__", 2.into())])]));
    for frames in [
        vec![],
        vec![body(1)],
        vec![body(u64::MAX), header(0)],
        vec![body(1), header(1)],
        vec![body(1), header(u64::MAX), "x".into()],
        vec![body(1), bytes(&map([]))],
        vec![body(1), bytes(&Value::Nil)],
        vec![two, header(1), header(0)],
        vec![Bytes::from_static(b"\xc0\xc0")],
        vec![Bytes::from_static(b"\xdf\xff\xff\xff\xff")],
        vec![Bytes::from_static(b"\xc6\xff\xff\xff\xffshort")],
    ] {
        let error = Message::from_frames(&frames, &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected, "{frames:?}");
    }
    let fine = Message::from_frames(&[body(1), header(1), "x".into()], &Limits::default()).unwrap();
    assert_eq!(fine.part(fine.body()).unwrap().frames(), [Bytes::from("x")]);
}

#[test]
fn other_protocols_are_called_by_name() {
    for (said, name, ended) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP", false),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH", false),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLS", true),
        (b"\x15\x03\x01\x00\x02\x02\x0a\x15\x03\x01\x00\x02\x02\x0a\x15\x03", "TLS", false),
    ] {
        let mut connection = Connection::new(Limits::default());
        connection.feed(said);
        let error = if ended { connection.next().map(|_| ()).and(connection.end()).unwrap_err() } else { connection.next().unwrap_err() };
        assert_eq!((error.kind(), error.message()), (ErrorKind::ConfigInvalid, &*format!("the peer speaks {name}, not Dask's protocol")));
        assert!(error.hint().is_some());
    }
    // A length of ours may begin like TLS.
    let mut decoder = FrameDecoder::new(Limits::default());
    let frame = vec![0; 0x1_0315 - 16];
    decoder.feed(&raw(std::slice::from_ref(&frame), 1));
    assert_eq!(decoder.next().unwrap(), Some(vec![Bytes::from(frame)]));
}

#[test]
fn only_a_handshake_opens_a_connection() {
    let mut connection = Connection::new(Limits::default());
    encode(Message::from(map([("op", "identity".into())])).to_frames().unwrap()).iter().for_each(|bytes| connection.feed(bytes));
    assert_eq!(connection.next().unwrap_err().kind(), ErrorKind::ConfigInvalid);
}

#[test]
fn compressed_bytes_are_refused_with_the_way_round() {
    let header = map([
        ("serializer", "dask".into()),
        ("type", "bytes".into()),
        ("compression", Value::Array(vec![Value::Nil, "zlib".into()])),
        ("num-sub-frames", 2.into()),
    ]);
    let frames = [map([("__Serialized__", 1.into())]), header].map(|value| Message::from(value).to_frames().unwrap().remove(0));
    let frames = [&frames[..], &["a".into(), "b".into()]].concat();
    let message = Message::from_frames(&frames, &Limits::default()).unwrap();
    let error = message.part(message.body()).unwrap().to_bytes().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, "bytes came compressed with `zlib`"));
    assert!(error.hint().unwrap().contains("worker"));
}

#[test]
fn sets_and_enums_are_read_in_their_forms() {
    let keys = [Value::from("a-1"), Value::from("a-2")];
    assert_eq!(elements(&set(keys.clone())), Some(&keys[..]));
    assert_eq!(elements(&Value::Array(keys.to_vec())), Some(&keys[..]));
    assert_eq!(elements(&map([])), None);
    let status = map([("__Enum__", true.into()), ("name", "running".into()), ("__module__", "m".into()), ("__name__", "Status".into())]);
    assert_eq!((text(&status), text(&"running".into())), (Some("running"), Some("running")));
}
