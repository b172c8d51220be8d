//! What must hold of any bytes that a peer sends. Also run by `dask/tests/protocol.rs`, without a fuzzer.

use remuda_dask::protocol::{Connection, Event, FrameDecoder, Limits, Message, answer, encode};

/// Small enough that the fuzzer reaches them.
const LIMITS: Limits = Limits { message: 1 << 20, body: 1 << 16, frames: 1 << 10, depth: 32 };

/// Reads `stream` as what follows a handshake. Panics where something does not hold.
pub(crate) fn check(stream: &[u8]) {
    let whole = read(stream, &[stream.len()]);
    // Somewhere, and everywhere at the beginning, where lengths stand.
    let seed = stream.iter().fold(stream.len(), |seed, byte| seed.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let somewhere = seed % (stream.len() + 1);
    let cuts: Vec<usize> = (0..stream.len().min(40)).chain([somewhere.max(40).min(stream.len()), stream.len()]).collect();
    assert_eq!(read(stream, &cuts), whole, "where the stream is cut makes a difference");
    // A peer that begins with this instead of a handshake.
    let mut connection = Connection::new(LIMITS);
    connection.feed(stream);
    while let Ok(Some(_)) = connection.next() {}
    let _ = connection.end();
}

/// The messages as we would write them, and how it ended.
fn read(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, String) {
    let mut connection = Connection::new(LIMITS);
    Connection::hello().iter().for_each(|bytes| connection.feed(bytes));
    assert!(matches!(connection.next(), Ok(Some(Event::Ready(_)))));
    let mut messages = Vec::new();
    let mut from = 0;
    for to in cuts {
        connection.feed(&stream[from..*to]);
        from = *to;
        loop {
            match connection.next() {
                Ok(Some(Event::Message(message))) => messages.push(written(message)),
                Ok(Some(event)) => panic!("a second beginning: {event:?}"),
                Ok(None) => break,
                Err(error) => return (messages, error.to_string()),
            }
        }
    }
    (messages, connection.end().map_or_else(|error| error.to_string(), |()| String::new()))
}

/// As it stands on the wire when we write it. What was read once can be written and read again.
fn written(message: Message) -> Vec<u8> {
    let parts = parts(&message);
    let frames = message.to_frames().expect("what was MessagePack is so again");
    let bytes = encode(frames).concat();
    let mut decoder = FrameDecoder::new(Limits::default());
    decoder.feed(&bytes);
    let frames = decoder.next().expect("our own message").expect("the whole of it");
    let limits = Limits { depth: LIMITS.depth, ..Limits::default() };
    let again = Message::from_frames(&frames, &limits).expect("our own message");
    assert_eq!(self::parts(&again), parts);
    // Not the messages themselves: NaN is not itself, and strings that are no UTF-8 become bytes.
    assert_eq!(encode(again.to_frames().expect("a second time")).concat(), bytes);
    let _ = answer("op", again);
    bytes
}

/// The objects that stand in the body or right below.
fn parts(message: &Message) -> Vec<Result<Vec<u8>, String>> {
    let body = message.body();
    let below = body.as_map().into_iter().flatten().map(|(_, value)| value).chain(body.as_array().into_iter().flatten());
    let found = std::iter::once(body).chain(below).filter_map(|value| message.part(value));
    found.map(|part| part.to_bytes().map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())).collect()
}
