//! Against a real scheduler and worker.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod real;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use remuda_core::error::ErrorKind;
use remuda_dask::{
    Address, Comm, ConnectOptions, Rpc,
    protocol::{
        Message, Part, Value, answer,
        value::{elements, get, map, text},
    },
};
use tempfile::TempDir;
use tokio::time::timeout;

use real::{PATIENCE, Running, can_run};

async fn rpc(address: &Address) -> Rpc {
    Rpc::connect(address, &ConnectOptions::default()).await.unwrap().with_patience(PATIENCE)
}

#[tokio::test]
async fn a_real_scheduler_answers() {
    if !can_run("a_real_scheduler_answers").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (scheduler, address) = Running::scheduler(directory.path()).await;
    let mut rpc = rpc(&address).await;
    assert_eq!(rpc.comm().peer().python[0], 3);
    let identity = rpc.identity().await.unwrap();
    assert_eq!((identity.kind.as_str(), identity.address, identity.workers.len()), ("Scheduler", Some(address.to_string()), 0));
    let versions = rpc.versions().await.unwrap();
    assert!(versions.distributed.starts_with("20") && versions.python.starts_with("3."), "{versions:?}");

    let unknown = rpc.call("no-such-operation", []).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unsupported, "{unknown:?}");
    let wrong = rpc.call("ncores", [("no_such_argument", 1.into())]).await.unwrap_err();
    assert!(wrong.kind() == ErrorKind::Unexpected && wrong.message().contains("no_such_argument"), "{wrong:?}");
    assert_eq!(rpc.ncores().await.unwrap().len(), 0, "the connection is as good as before");
    assert_eq!(rpc.adaptive_target(Duration::from_secs(5)).await.unwrap(), 0);

    // The dashboard's server waits for the end of what it takes for a request.
    let dashboard: Address = format!("127.0.0.1:{}", identity.services["dashboard"]).parse().unwrap();
    let options = ConnectOptions { timeout: Duration::from_secs(1), ..ConnectOptions::default() };
    let error = Comm::connect(&dashboard, &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.hint().unwrap().contains("dashboard"), "{error:?}");

    // `terminate` is answered by the end of the connection, and of the process.
    let error = rpc.call("terminate", []).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let mut scheduler = scheduler;
    let status = timeout(PATIENCE, scheduler.child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_real_worker_takes_bytes_and_gives_them_back() {
    if !can_run("a_real_worker_takes_bytes_and_gives_them_back").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (scheduler, address) = Running::scheduler(directory.path()).await;
    let worker = Running::worker(&address, "7", &BTreeMap::new(), directory.path()).await;
    let mut scheduler_rpc = rpc(&address).await;
    let identity = scheduler_rpc.identity().await.unwrap();
    let (worker_address, known) = identity.workers.first_key_value().unwrap();
    assert_eq!((known.name.as_str(), known.nthreads), ("7", 2));
    assert_eq!(scheduler_rpc.ncores().await.unwrap()[worker_address], 2);

    let its_own = rpc(&worker_address.parse().unwrap()).await.identity().await.unwrap();
    assert_eq!((its_own.kind.as_str(), its_own.address), ("Worker", None));

    // Larger than any buffer, and a second one: newer versions leave it out of their first write.
    let contents = [Bytes::from(vec![1; 3_000_000]), Bytes::from(vec![2; 5_000_000]), Bytes::new()];
    let mut comm = Comm::connect(&address, &ConnectOptions::default()).await.unwrap();
    let mut request = Message::default();
    let data = Value::Map(contents.iter().enumerate().map(|(n, bytes)| (key(n), request.attach(Part::bytes(bytes.clone())))).collect());
    request.set_body(map([
        ("op", "scatter".into()),
        ("reply", true.into()),
        ("data", data),
        ("workers", Value::Nil),
        ("client", Value::Nil),
    ]));
    let scattered = ask(&mut comm, "scatter", &request).await;
    assert_eq!(elements(scattered.body()).map(<[_]>::len), Some(contents.len()), "{scattered:?}");

    let keys = Value::Array((0..contents.len()).map(key).collect());
    let gathered = ask(&mut comm, "gather", &map([("op", "gather".into()), ("reply", true.into()), ("keys", keys.clone())]).into()).await;
    check(&gathered, &contents);
    let mut comm = Comm::connect(&worker_address.parse().unwrap(), &ConnectOptions::default()).await.unwrap();
    let get_data = map([("op", "get_data".into()), ("reply", true.into()), ("who", Value::Nil), ("keys", keys)]);
    check(&ask(&mut comm, "get_data", &get_data.into()).await, &contents);

    worker.end().await;
    scheduler.end().await;
}

fn key(n: usize) -> Value {
    format!("scattered-{n}").into()
}

async fn ask(comm: &mut Comm, op: &str, request: &Message) -> Message {
    let asked = async {
        comm.write(request).await.unwrap();
        comm.read().await.unwrap().expect("an answer")
    };
    answer(op, timeout(PATIENCE, asked).await.expect("an answer in time")).unwrap()
}

fn check(message: &Message, contents: &[Bytes]) {
    assert_eq!(get(message.body(), "status").and_then(text), Some("OK"), "{message:?}");
    for (n, content) in contents.iter().enumerate() {
        let value = get(get(message.body(), "data").unwrap(), key(n).as_str().unwrap()).unwrap();
        assert!(message.part(value).unwrap().to_bytes().unwrap() == content, "{n}: {message:?}");
    }
}
