//! What real schedulers sent, read back. `golden/README.md` says how it was captured.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use remuda_core::error::ErrorKind;
use remuda_dask::protocol::{
    Connection, Encoding, Event, FrameDecoder, Limits, Message, Value, answer, encode,
    value::{elements, get, text},
};

const VERSIONS: [&str; 5] = ["2023.5.0", "2024.8.0", "2025.3.0", "2025.7.0", "2026.8.0"];

fn file(version: &str, name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version).join(format!("{name}.bin"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for version in VERSIONS {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)).unwrap() {
            let path = entry.unwrap().path();
            found.insert(format!("{version}/{}", path.file_stem().unwrap().to_str().unwrap()), fs::read(path).unwrap());
        }
    }
    assert_eq!(found.len(), VERSIONS.len() * 14, "{:?}", found.keys());
    found
}

fn frames(raw: &[u8]) -> Vec<Bytes> {
    let mut decoder = FrameDecoder::new(Limits::default());
    decoder.feed(raw);
    let frames = decoder.next().unwrap().expect("a whole message");
    assert_eq!(decoder.next().unwrap(), None);
    decoder.end().unwrap();
    frames
}

fn message(version: &str, name: &str) -> Message {
    Message::from_frames(&frames(&file(version, name)), &Limits::default()).unwrap()
}

/// Of a stream: the first piece of news with this op.
fn news<'a>(message: &'a Message, op: &str) -> &'a Value {
    let found = message.body().as_array().unwrap().iter().find(|news| get(news, "op").and_then(text) == Some(op));
    found.unwrap_or_else(|| panic!("no {op} in {message:?}"))
}

#[test]
fn every_message_is_read_wherever_it_is_cut() {
    for (name, raw) in files() {
        let whole = frames(&raw);
        for cut in 0..=raw.len() {
            let mut decoder = FrameDecoder::new(Limits::default());
            decoder.feed(&raw[..cut]);
            let early = decoder.next().unwrap();
            assert_eq!(early.is_some(), cut == raw.len(), "{name} cut at {cut}");
            decoder.feed(&raw[cut..]);
            assert_eq!(early.or(decoder.next().unwrap()), Some(whole.clone()), "{name} cut at {cut}");
        }
    }
}

#[test]
fn every_message_survives_being_written_again() {
    for (name, raw) in files() {
        let first = Message::from_frames(&frames(&raw), &Limits::default()).unwrap();
        let again = encode(first.to_frames().unwrap()).concat();
        assert_eq!(Message::from_frames(&frames(&again), &Limits::default()).unwrap(), first, "{name}");
    }
}

/// Where nothing stands beside the body, ours are the same bytes as theirs.
#[test]
fn a_message_without_objects_is_written_as_dask_writes_it() {
    for version in VERSIONS {
        for name in ["handshake", "identity", "versions", "task-status", "unknown-op", "stream-start"] {
            assert_eq!(encode(message(version, name).to_frames().unwrap()).concat(), file(version, name), "{version}/{name}");
        }
    }
}

#[test]
fn a_message_that_is_cut_off_is_an_error_at_the_end() {
    for (name, raw) in files() {
        for cut in 1..raw.len() {
            let mut decoder = FrameDecoder::new(Limits::default());
            decoder.feed(&raw[..cut]);
            assert_eq!(decoder.next().unwrap(), None, "{name} cut at {cut}");
            assert_eq!(decoder.end().unwrap_err().kind(), ErrorKind::Unavailable, "{name} cut at {cut}");
        }
    }
}

#[test]
fn the_handshake_makes_a_connection_ready() {
    for version in VERSIONS {
        let mut connection = Connection::new(Limits::default());
        connection.feed(&file(version, "handshake"));
        connection.feed(&file(version, "task-status"));
        let Some(Event::Ready(peer)) = connection.next().unwrap() else { panic!("{version}: not ready") };
        assert_eq!((&peer.python[..2], peer.pickle_protocol, peer.compression), (&[3, 11][..], 4, None), "{version}");
        assert_eq!(connection.next().unwrap(), Some(Event::Message(message(version, "task-status"))));
    }
}

#[test]
fn identity_has_keys_that_are_no_strings() {
    for version in VERSIONS {
        let message = message(version, "identity");
        let (_, worker) = &get(message.body(), "workers").unwrap().as_map().unwrap()[0];
        let metrics = get(worker, "metrics").unwrap();
        let digests = get(metrics, "digests_total_since_heartbeat").unwrap().as_map().unwrap();
        assert!(digests.iter().any(|(key, _)| key.as_array().is_some_and(|key| key[0].as_str() == Some("execute"))), "{version}");
    }
}

#[test]
fn bytes_are_read_without_a_pickle_sharded_or_not() {
    for version in VERSIONS {
        for (name, content, shards) in [("bytes", b"golden".to_vec(), 1), ("sharded", vec![0; 2500], 3)] {
            let message = message(version, &format!("gather-{name}"));
            assert_eq!(get(message.body(), "status").and_then(text), Some("OK"));
            let part = message.part(get(get(message.body(), "data").unwrap(), &format!("{name}-0")).unwrap()).unwrap();
            assert_eq!((part.encoding(), part.type_name(), part.frames().len()), (Encoding::Bytes, Some("bytes"), shards), "{version}");
            assert_eq!(part.to_bytes().unwrap(), content, "{version}");
        }
    }
}

#[test]
fn a_pickle_stays_closed() {
    for version in VERSIONS {
        let message = message(version, "gather-int");
        let part = message.part(get(get(message.body(), "data").unwrap(), "int-0").unwrap()).unwrap();
        assert_eq!((part.encoding(), part.type_name()), (Encoding::Pickle, None), "{version}");
        assert_eq!(part.frames().concat(), b"\x80\x04K*.", "{version}");
        assert_eq!(part.to_bytes().unwrap_err().kind(), ErrorKind::Unserializable, "{version}");
    }
}

#[test]
fn frames_beyond_the_first_write_belong_to_the_message() {
    for version in VERSIONS {
        let raw = file(version, "get-data-trailing");
        let first = u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize;
        assert_eq!(first + 8 < raw.len(), version != "2023.5.0", "{version}: what the capture is about");
        let message = message(version, "get-data-trailing");
        let data = get(message.body(), "data").unwrap().as_map().unwrap();
        let lengths: Vec<_> = data.iter().map(|(_, value)| message.part(value).unwrap().to_bytes().unwrap().len()).collect();
        assert_eq!(lengths, [900; 3], "{version}");
    }
}

#[test]
fn failures_are_told_from_answers() {
    for version in VERSIONS {
        let unknown = answer("no-such-operation", message(version, "unknown-op")).unwrap_err();
        assert_eq!((unknown.kind(), unknown.message()), (ErrorKind::Unsupported, "the peer has no operation `no-such-operation`"));
        let failed = answer("ncores", message(version, "wrong-argument")).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unexpected);
        assert!(failed.message().contains("got an unexpected keyword argument 'no_such_argument'"), "{version}: {failed}");
        assert!(failed.report().contains("_handle_comm"), "{version}: the traceback is the cause: {}", failed.report());
        let status = message(version, "task-status");
        assert_eq!(answer("get_task_status", status.clone()).unwrap(), status);
    }
}

#[test]
fn news_of_a_stream() {
    for version in VERSIONS {
        let start = message(version, "stream-start");
        assert!(get(news(&start, "stream-start"), "warning").and_then(text).is_some(), "{version}");
        let done = message(version, "key-in-memory");
        assert_eq!(get(news(&done, "key-in-memory"), "key").and_then(text), Some("bytes-0"), "{version}");
        let cancelled = message(version, "cancelled-keys");
        let keys = get(news(&cancelled, "cancelled-keys"), "keys").and_then(elements).unwrap();
        assert_eq!(keys, [Value::from("int-0")], "{version}");
        // The exception is a pickle inside of Python bytes: bytes to us, and nothing more.
        let erred = message(version, "task-erred");
        let exception = erred.part(get(news(&erred, "task-erred"), "exception").unwrap()).unwrap();
        assert_eq!(exception.to_bytes().unwrap()[..2], *b"\x80\x05", "{version}");
    }
}
