//! Connections and calls against peers that misbehave, and against ones that say what real schedulers said.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::{future::Future, path::Path, time::Duration};

use bytes::Bytes;
use remuda_core::error::{Error, ErrorKind};
use remuda_dask::{
    Address, Audience, Comm, ConnectOptions, Rpc, TaskState, ToClose,
    protocol::{Connection, Event, Limits, Message, Part, Value, encode, value::map},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

/// Until something is a failure that should happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> ConnectOptions {
    ConnectOptions { timeout: PATIENCE, ..ConnectOptions::default() }
}

fn soon() -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_millis(300), ..ConnectOptions::default() }
}

/// A peer that accepts one connection.
async fn peer<F: Future<Output = ()> + Send + 'static>(script: impl FnOnce(TcpStream) -> F + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { script(listener.accept().await.unwrap().0).await });
    address
}

/// A peer that says this at once, and hangs up when the other side does.
async fn saying(bytes: impl Into<Vec<u8>>) -> Address {
    let bytes = bytes.into();
    peer(async move |mut stream| {
        stream.write_all(&bytes).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

fn raw(message: impl Into<Message>) -> Vec<u8> {
    encode(message.into().to_frames().unwrap()).concat()
}

fn golden(version: &str, name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version).join(format!("{name}.bin"));
    std::fs::read(path).unwrap()
}

async fn refusal(address: &Address, options: &ConnectOptions) -> Error {
    let connected = timeout(PATIENCE, Comm::connect(address, options)).await.expect("connecting has a deadline of its own");
    let error = connected.expect_err("that is no scheduler");
    assert!(error.to_string().starts_with("connect: ") && error.to_string().contains(&format!("address={address}")), "{error}");
    assert!(error.kind() == ErrorKind::Unexpected || error.hint().is_some(), "{error:?}");
    error
}

#[tokio::test]
async fn a_mute_port_is_given_up_in_time() {
    // Nobody accepts: the operating system does, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let error = refusal(&address, &soon()).await;
    assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "connected, but no Dask handshake came within 300ms"));
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_is_given_up_in_time() {
    let hello = Connection::hello().concat();
    let error = refusal(&saying(&hello[..hello.len() - 1]).await, &soon()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_refused_port_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = refusal(&address, &options()).await;
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "nothing listens there"));
}

#[tokio::test]
async fn other_servers_are_called_by_name() {
    for (said, message) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the peer speaks HTTP, not Dask's protocol"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "the peer speaks SSH, not Dask's protocol"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "the peer speaks TLS, not Dask's protocol"),
    ] {
        // They hear what they do not understand, answer, and hang up with our bytes unread, which may well be a reset.
        let address = peer(async move |mut stream| {
            stream.read_exact(&mut [0]).await.unwrap();
            stream.write_all(said).await.unwrap();
        })
        .await;
        let error = refusal(&address, &options()).await;
        assert_eq!((error.kind(), error.message()), (ErrorKind::ConfigInvalid, message));
    }
}

#[tokio::test]
async fn garbage_for_a_handshake_is_refused() {
    let greeting = b"220 barn.example ESMTP\r\n".to_vec();
    for said in
        [vec![0xff; 64], vec![0; 64], greeting, raw(Value::Nil), raw(map([("op", "identity".into())])), raw(Value::Binary(vec![0; 70_000]))]
    {
        let error = refusal(&saying(said).await, &options()).await;
        assert!(error.kind() == ErrorKind::ConfigInvalid && error.hint().unwrap().contains("host and port"), "{error:?}");
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_said_to() {
    let address = peer(async |mut stream| drop(stream.read_exact(&mut [0; 66]).await)).await;
    let error = refusal(&address, &options()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// After the handshake it answers each message by the next of these.
async fn answering(answers: Vec<Vec<u8>>) -> Address {
    peer(async move |mut stream| {
        let mut connection = Connection::new(Limits::default());
        stream.write_all(&Connection::hello().concat()).await.unwrap();
        for answer in answers {
            loop {
                match connection.next().unwrap() {
                    Some(Event::Message(_)) => break,
                    Some(_) => {}
                    None => assert_ne!(stream.read_buf(&mut connection.space()).await.unwrap(), 0, "the caller hung up"),
                }
            }
            stream.write_all(&answer).await.unwrap();
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn typed_answers_of_real_schedulers() {
    for version in ["2023.5.0", "2024.8.0", "2025.3.0", "2025.7.0", "2026.8.0"] {
        let address = answering(vec![golden(version, "identity"), golden(version, "versions")]).await;
        let mut rpc = Rpc::connect(&address, &options()).await.unwrap();
        assert_eq!(rpc.comm().peer().python, [3, 11, 0]);
        let identity = rpc.identity().await.unwrap();
        assert_eq!(identity.kind, "Scheduler");
        assert!(identity.id.starts_with("Scheduler-"), "{identity:?}");
        assert!(identity.address.as_ref().unwrap().starts_with("tcp://127.0.0.1:"), "{identity:?}");
        assert!(identity.services.contains_key("dashboard"), "{identity:?}");
        let workers: Vec<_> = identity.workers.values().collect();
        assert_eq!(workers.len(), 1);
        assert_eq!((workers[0].name.as_str(), workers[0].host.as_str(), workers[0].nthreads), ("0", "127.0.0.1", 1));
        assert!(workers[0].memory_limit > 0);
        let versions = rpc.versions().await.unwrap();
        assert_eq!((versions.dask.as_str(), versions.distributed.as_str()), (version, version));
        assert!(versions.python.starts_with("3.11."), "{versions:?}");
        assert_eq!(versions.packages["numpy"], None);
    }
}

#[tokio::test]
async fn failures_of_a_call_are_told_apart_and_the_connection_stays() {
    let blocked = map([
        ("status", "uncaught-error".into()),
        ("exception_text", "ValueError(\"The 'x' handler has been explicitly disallowed in Scheduler, ...\")".into()),
    ]);
    let version = "2026.8.0";
    let answers =
        vec![golden(version, "unknown-op"), golden(version, "wrong-argument"), raw(blocked), raw(Value::Map(vec![])), raw(Value::from(7))];
    let mut rpc = Rpc::connect(&answering(answers).await, &options()).await.unwrap();
    let mut kinds = Vec::new();
    for op in ["no-such-operation", "ncores", "x"] {
        kinds.push(rpc.call(op, []).await.unwrap_err().kind());
    }
    assert_eq!(kinds, [ErrorKind::Unsupported, ErrorKind::Unexpected, ErrorKind::PermissionDenied]);
    let lacking = rpc.identity().await.unwrap_err();
    assert_eq!(lacking.message(), "the answer to `identity` has no `type`");
    assert_eq!(rpc.adaptive_target(Duration::from_secs(5)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_peer_that_lacks_an_operation_is_told_from_one_whose_answer_makes_no_sense() {
    let version = "2026.8.0";
    let odd = raw(map([("tcp://127.0.0.1:1", Value::Nil)]));
    let answers =
        vec![golden(version, "unknown-op"), golden(version, "unknown-op"), raw(Value::from(7)), odd, golden(version, "task-status")];
    let mut rpc = Rpc::connect(&answering(answers).await, &options()).await.unwrap();
    let all = Audience::default();
    assert_eq!(rpc.workers_to_close(&ToClose::default()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(rpc.broadcast("ping", [], &all, false).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let shapeless = rpc.ncores().await.unwrap_err();
    assert_eq!((shapeless.kind(), shapeless.message()), (ErrorKind::Unexpected, "the answer to `ncores` is no map"));
    let shapeless = rpc.processing(None).await.unwrap_err();
    assert_eq!(shapeless.message(), "the answer to `processing` is no map of what was asked for");
    assert_eq!(rpc.task_states(&[]).await.unwrap()["failed-0"], Some(TaskState::Erred));
}

#[tokio::test]
async fn a_peer_that_is_told_to_end_and_answers_is_not_gone() {
    let unknown = Rpc::connect(&answering(vec![raw(Value::Nil)]).await, &options()).await.unwrap();
    assert_eq!(unknown.terminate().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let staying = Rpc::connect(&answering(vec![]).await, &options()).await.unwrap().with_patience(Duration::from_millis(200));
    assert_eq!(staying.terminate().await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn garbage_in_mid_stream_ends_the_connection_after_what_came_before() {
    let fine = golden("2026.8.0", "gather-sharded");
    for (garbage, kind) in [
        (vec![0xff; 64], ErrorKind::Unsupported),
        (vec![0; 64], ErrorKind::Unexpected),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n".to_vec(), ErrorKind::ConfigInvalid),
        // A message, and no MessagePack in it.
        (encode(vec![Bytes::from_static(b"\xc4\x09")]).concat(), ErrorKind::Unexpected),
        // Refers to a frame that is not there.
        (raw(map([("__Serialized__", 1.into())])), ErrorKind::Unexpected),
        (Connection::hello().concat()[..30].to_vec(), ErrorKind::Unavailable),
    ] {
        let stream = [Connection::hello().concat(), fine.clone(), garbage].concat();
        let address = peer(async move |mut socket| {
            socket.read_exact(&mut [0; 66]).await.unwrap();
            socket.write_all(&stream).await.unwrap();
        })
        .await;
        let mut comm = Comm::connect(&address, &options()).await.unwrap();
        assert!(comm.read().await.unwrap().is_some());
        let error = timeout(PATIENCE, comm.read()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        if kind != ErrorKind::Unavailable {
            assert_eq!(comm.read().await.unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(comm.write(&Message::default()).await.unwrap_err().kind(), ErrorKind::Closed);
        }
    }
}

#[tokio::test]
async fn both_halves_go_their_own_way() {
    let address = peer(async |stream| {
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await;
    let (mut reader, mut writer) = Comm::connect(&address, &options()).await.unwrap().split();
    let mut sent = Message::default();
    let parts = (0..5).map(|n| sent.attach(Part::bytes(vec![n; 4_000_000].into()))).collect();
    sent.set_body(Value::Array(parts));
    let (written, read) = timeout(PATIENCE, async { tokio::join!(writer.write(&sent), reader.read()) }).await.unwrap();
    written.unwrap();
    assert_eq!(read.unwrap().unwrap(), sent);
    // The echo ends when it hears that nothing more comes.
    drop(writer);
    assert_eq!(timeout(PATIENCE, reader.read()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_and_takes_the_connection_with_it() {
    let mut rpc = Rpc::connect(&answering(vec![]).await, &options()).await.unwrap().with_patience(Duration::from_millis(200));
    let error = timeout(PATIENCE, rpc.identity()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "no answer to `identity` within 200ms"));
    assert_eq!(rpc.identity().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_call_that_is_dropped_cannot_give_its_answer_to_the_next() {
    let mut rpc = Rpc::connect(&answering(vec![]).await, &options()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), rpc.identity()).await.is_err());
    assert_eq!(rpc.versions().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_connection_that_ends_is_the_end_of_a_call() {
    let half = golden("2026.8.0", "identity")[..500].to_vec();
    for answer in [vec![], half] {
        let address = peer(async move |mut stream| {
            stream.write_all(&Connection::hello().concat()).await.unwrap();
            stream.read_exact(&mut [0; 100]).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        })
        .await;
        let mut rpc = Rpc::connect(&address, &options()).await.unwrap();
        assert_eq!(rpc.identity().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    let address = peer(async |stream| {
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    })
    .await;
    // The echo of our own handshake is one.
    let mut comm = Comm::connect(&address, &options()).await.unwrap();
    let content: Bytes = (0..5_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut sent = Message::default();
    let pieces = [content.slice(..7), content.slice(7..100_000), content.slice(100_000..)].map(|piece| sent.attach(Part::bytes(piece)));
    sent.set_body(Value::Array(pieces.to_vec()));
    // The echo has no room for all of it: who only writes never ends.
    let bytes = encode(sent.to_frames().unwrap()).iter().map(Bytes::len).sum::<usize>();
    assert!(bytes > 20_000_000);
    let writing = timeout(Duration::from_millis(200), comm.write(&sent)).await;
    assert!(writing.is_err(), "the peer's buffers hold 20 MB?");
    let again = timeout(PATIENCE, comm.write(&sent)).await.unwrap();
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Closed, "half a message was written");
    assert_eq!(comm.read().await.unwrap_err().kind(), ErrorKind::Closed);

    let (done, finished) = oneshot::channel();
    let address = peer(async move |mut stream| {
        let mut connection = Connection::new(Limits::default());
        stream.write_all(&Connection::hello().concat()).await.unwrap();
        let message = loop {
            match connection.next().unwrap() {
                Some(Event::Message(message)) => break message,
                Some(_) => {}
                None => assert_ne!(stream.read_buf(&mut connection.space()).await.unwrap(), 0),
            }
        };
        stream.write_all(&raw(message)).await.unwrap();
        finished.await.unwrap();
    })
    .await;
    let mut comm = Comm::connect(&address, &options()).await.unwrap();
    comm.write(&sent).await.unwrap();
    let received = comm.read().await.unwrap().unwrap();
    assert_eq!(received, sent);
    done.send(()).unwrap();
    assert_eq!(comm.read().await.unwrap(), None, "the peer closed between two messages");
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let (more, wanted) = oneshot::channel();
    let address = peer(async move |mut stream| {
        let message = golden("2026.8.0", "gather-sharded");
        stream.write_all(&[Connection::hello().concat(), message[..1000].to_vec()].concat()).await.unwrap();
        wanted.await.unwrap();
        stream.write_all(&message[1000..]).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut comm = Comm::connect(&address, &options()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), comm.read()).await.is_err());
    more.send(()).unwrap();
    let message = timeout(PATIENCE, comm.read()).await.unwrap().unwrap().unwrap();
    let data = &message.body()["data"]["sharded-0"];
    assert_eq!(message.part(data).unwrap().to_bytes().unwrap(), vec![0; 2500]);
}
