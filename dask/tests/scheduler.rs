//! Against a real scheduler and worker.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod real;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use remuda_core::error::ErrorKind;
use remuda_dask::{
    Address, Audience, CallBy, Comm, ConnectOptions, Retirement, Retiring, Rpc, TaskState, ToClose,
    protocol::{
        Message, Part, Value, answer,
        value::{elements, get, map, text},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

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
    rpc.terminate().await.unwrap();
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
    assert_eq!((known.name.as_str(), known.nthreads, known.executing), ("7", 2, 0));
    assert!(known.memory > 1 << 20, "{known:?}");
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

/// Makes work of every kind, and holds it.
const CLIENT: &str = "
import sys, time
from distributed import Client
client = Client(sys.argv[1])
done = client.submit(bytes, 1000, key='done-0')
done.result()
failed = client.submit(int, 'x', key='failed-0')
failed.exception()
lasting = client.submit(time.sleep, 600, key='lasting-0')
waiting = client.submit(str, lasting, key='waiting-0')
nowhere = client.submit(int, key='nowhere-0', resources={'NOBODY': 1})
# What is submitted goes out in batches of its own time: a question may overtake it.
def known(dask_scheduler):
    return sorted(dask_scheduler.tasks), dask_scheduler.tasks['lasting-0'].state if 'lasting-0' in dask_scheduler.tasks else None
while client.run_on_scheduler(known) != (['done-0', 'failed-0', 'lasting-0', 'nowhere-0', 'waiting-0'], 'processing'):
    time.sleep(0.01)
print('ready', file=sys.stderr)
time.sleep(600)
";

fn strings<const N: usize>(strings: [&str; N]) -> Vec<String> {
    strings.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn the_control_plane_of_a_real_scheduler() {
    if !can_run("the_control_plane_of_a_real_scheduler").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (scheduler, address) = Running::scheduler(directory.path()).await;
    let none = BTreeMap::new();
    let mut workers =
        [Running::worker(&address, "7", &none, directory.path()).await, Running::worker(&address, "hay", &none, directory.path()).await];
    let client = Running::python(CLIENT, &[&address.to_string()], "ready").await;
    let mut rpc = rpc(&address).await;
    let identity = rpc.identity().await.unwrap();
    let addresses: BTreeMap<_, _> = identity.workers.iter().map(|(address, worker)| (worker.name.clone(), address.clone())).collect();
    let both: Vec<String> = identity.workers.keys().cloned().collect();
    assert_eq!(addresses.keys().collect::<Vec<_>>(), ["7", "hay"]);
    assert_eq!(rpc.ncores().await.unwrap(), both.iter().map(|address| (address.clone(), 2)).collect());

    let states = rpc.task_states(&strings(["done-0", "failed-0", "lasting-0", "waiting-0", "nowhere-0", "unknown-0"])).await.unwrap();
    let wanted = [
        ("done-0", Some(TaskState::Memory)),
        ("failed-0", Some(TaskState::Erred)),
        ("lasting-0", Some(TaskState::Processing)),
        ("nowhere-0", Some(TaskState::NoWorker)),
        ("unknown-0", None),
        ("waiting-0", Some(TaskState::Waiting)),
    ];
    assert_eq!(states, wanted.map(|(key, state)| (key.to_owned(), state)).into());
    let processing = rpc.processing(None).await.unwrap();
    let (busy, keys) = processing.iter().find(|(_, keys)| !keys.is_empty()).unwrap();
    assert_eq!((processing.len(), keys), (2, &strings(["lasting-0"])));
    assert_eq!(rpc.processing(Some(std::slice::from_ref(busy))).await.unwrap().len(), 1);
    let sizes = rpc.nbytes(None).await.unwrap();
    assert!(sizes["done-0"] >= 1000 && sizes.len() == 1, "{sizes:?}");
    assert_eq!(rpc.nbytes(Some(&strings(["done-0", "lasting-0"]))).await.unwrap(), sizes);
    let unknown = rpc.nbytes(Some(&strings(["unknown-0"]))).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unexpected, "{unknown:?}");
    let holders = rpc.who_has(Some(&strings(["done-0", "unknown-0"]))).await.unwrap();
    assert!(holders["done-0"].len() == 1 && holders["unknown-0"].is_empty(), "{holders:?}");
    assert_eq!(rpc.who_has(None).await.unwrap()["done-0"], holders["done-0"]);
    let holder = &holders["done-0"][0];
    assert_eq!(rpc.has_what(None).await.unwrap()[holder], strings(["done-0"]));
    assert_eq!(rpc.has_what(Some(std::slice::from_ref(holder))).await.unwrap().len(), 1);

    let pong = Value::from(b"pong".as_slice());
    let answers = rpc.broadcast("ping", [], &Audience::All, false).await.unwrap();
    assert_eq!(answers, both.iter().map(|address| (address.clone(), pong.clone())).collect());
    let one = Audience::Workers(vec![addresses["hay"].clone()]);
    assert_eq!(rpc.broadcast("ping", [], &one, false).await.unwrap(), [(addresses["hay"].clone(), pong)].into());
    let host = Audience::Hosts(strings(["127.0.0.1"]));
    assert_eq!(rpc.broadcast("identity", [], &host, false).await.unwrap().len(), 2);

    let log = rpc.logs(None).await.unwrap();
    assert!(log.iter().any(|line| line.level == "INFO" && line.text.contains("Scheduler at:")), "{log:?}");
    // The newest, newest first: that one, or one that has come since.
    let newest = rpc.logs(Some(1)).await.unwrap();
    let later = rpc.logs(None).await.unwrap();
    let place = |line| later.iter().position(|other| other == line).unwrap();
    assert!(newest.len() == 1 && place(&newest[0]) <= place(&log[0]), "{newest:?} {later:?}");
    let logs = rpc.worker_logs(None, None, false).await.unwrap();
    assert!(logs.len() == 2 && logs.values().all(|log| log.iter().any(|line| line.text.contains("Registered to:"))), "{logs:?}");
    let some = rpc.worker_logs(Some(&both[..1]), Some(1), false).await.unwrap();
    assert!(some.len() == 1 && some[&both[0]].len() == 1, "{some:?}");

    // Idle ones first. Nothing is changed by the question.
    let idle = both.iter().find(|address| *address != busy).unwrap();
    let one = ToClose { n: Some(1), ..ToClose::default() };
    assert_eq!(rpc.workers_to_close(&one).await.unwrap(), std::slice::from_ref(idle));
    let named = ToClose { target: Some(1), call_by: CallBy::Name, ..ToClose::default() };
    let name = rpc.workers_to_close(&named).await.unwrap().remove(0);
    assert_eq!(&addresses[&name], idle);
    let kept = ToClose { n: Some(2), minimum: Some(2), memory_ratio: Some(2.0), ..ToClose::default() };
    assert_eq!(rpc.workers_to_close(&kept).await.unwrap(), strings([]));

    // A drained one stays, and its results have moved.
    let drained = rpc.retire_workers(&Retiring::Names(vec![name.clone(), "nobody".into()]), Retirement::Drain).await.unwrap();
    assert_eq!(drained.keys().collect::<Vec<_>>(), [idle]);
    let identity = rpc.identity().await.unwrap();
    assert_eq!((identity.workers.len(), identity.workers[idle].status.as_str()), (2, "closing_gracefully"), "{identity:?}");
    assert_eq!(rpc.who_has(Some(&strings(["done-0"]))).await.unwrap()["done-0"], std::slice::from_ref(busy));
    let closed = rpc.retire_workers(&Retiring::Addresses(vec![idle.clone(), "tcp://127.0.0.1:1".into()]), Retirement::Close).await.unwrap();
    assert_eq!(closed.keys().collect::<Vec<_>>(), [idle]);
    assert_eq!(rpc.ncores().await.unwrap().keys().collect::<Vec<_>>(), [busy]);
    let leaving = &mut workers[usize::from(name == "hay")];
    assert!(timeout(PATIENCE, leaving.child.wait()).await.expect("it ends").unwrap().success());
    // Nowhere to go: it stays.
    let chosen = Retiring::Chosen(ToClose { n: Some(1), ..ToClose::default() });
    assert_eq!(rpc.retire_workers(&chosen, Retirement::Drain).await.unwrap(), BTreeMap::new());

    client.end().await;
    rpc.terminate().await.unwrap();
    let mut scheduler = scheduler;
    assert!(timeout(PATIENCE, scheduler.child.wait()).await.expect("it ends").unwrap().success());
    for worker in workers {
        worker.end().await;
    }
}

/// What it hears that makes no sense ends that connection, and nothing else.
#[tokio::test]
async fn garbage_does_not_harm_a_real_scheduler() {
    if !can_run("garbage_does_not_harm_a_real_scheduler").await {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (scheduler, address) = Running::scheduler(directory.path()).await;
    let mut rpc = rpc(&address).await;
    let hello = remuda_dask::protocol::Connection::hello().concat();
    let number = |number: u64| number.to_le_bytes();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        [number(16 + 4), number(1), number(4)].concat(),
        [&[number(17), number(1), number(1)].concat()[..], &[0xc1]].concat(),
    ] {
        for before in [&hello[..], &[]] {
            let mut stream = TcpStream::connect((address.host(), address.port())).await.unwrap();
            stream.write_all(&[before, &garbage].concat()).await.unwrap();
            stream.shutdown().await.unwrap();
            // It hangs up, with or without an answer.
            let heard = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
            assert!(heard.is_ok(), "{garbage:?}: still there");
            assert_eq!(rpc.identity().await.unwrap().kind, "Scheduler");
        }
    }
    scheduler.end().await;
}
