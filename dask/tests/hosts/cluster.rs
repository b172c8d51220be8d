//! The same on a real Dask, by the shim's own messages: what Dask makes of it.

use std::{collections::BTreeMap, path::Path};

use remuda_core::value::encode;
use remuda_dask::{
    Address, Comm, ConnectOptions, Rpc,
    protocol::{
        Value,
        value::{get, map, text},
    },
    shim,
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    real::{PATIENCE, Running, can_run},
    worker::{begun, gone},
};

/// A scheduler, a worker of one thread whose task host is this program, and a session.
struct Cluster {
    scheduler: Running,
    address: Address,
    worker: Running,
    comm: Comm,
    sent: u64,
    next: u64,
    events: Vec<Vec<Value>>,
    directory: TempDir,
}

impl Cluster {
    async fn start(test: &str, binary: bool) -> Option<Self> {
        if !can_run(test).await {
            return None;
        }
        let directory = TempDir::new().unwrap();
        let (scheduler, address) = Running::scheduler(directory.path()).await;
        let worker = Self::worker(&address, "0", binary, directory.path()).await;
        let mut rpc = Rpc::connect(&address, &ConnectOptions::default()).await.unwrap().with_patience(PATIENCE);
        shim::install(&mut rpc).await.unwrap();
        let mut comm = Comm::connect(&address, &ConnectOptions::default()).await.unwrap();
        let session = "0123456789abcdef0123456789abcdef";
        let op = shim::op("stream");
        let attach =
            [("op", op.into()), ("session", session.into()), ("name", "test".into()), ("lease", 600.into()), ("resume", false.into())];
        comm.write(&map(attach).into()).await.unwrap();
        let answer = comm.read().await.unwrap().expect("an answer");
        assert_eq!(get(answer.body(), "t").and_then(text), Some("attached"), "{answer:?}");
        Some(Self { scheduler, address, worker, comm, sent: 0, next: 0, events: Vec::new(), directory })
    }

    async fn worker(scheduler: &Address, name: &str, binary: bool, directory: &Path) -> Running {
        let mut environment = BTreeMap::new();
        if binary {
            environment.insert("REMUDA_TASK_HOST_BINARY".to_owned(), std::env::current_exe().unwrap().to_str().unwrap().to_owned());
            environment.insert("REMUDA_TASK_HOST_ARGS".to_owned(), r#"["host_entry", "--exact", "--nocapture"]"#.to_owned());
        }
        let to = scheduler.to_string();
        let args =
            ["worker", &to, "--host", "127.0.0.1", "--nthreads", "1", "--name", name, "--no-nanny", "--dashboard-address", "127.0.0.1:0"];
        Running::start(&args, &environment, directory, "Registered to:").await
    }

    async fn say(&mut self, entries: impl IntoIterator<Item = (&'static str, Value)>) {
        self.sent += 1;
        let numbered = [("n", self.sent.into())].into_iter().chain(entries);
        self.comm.write(&map(numbered).into()).await.unwrap();
    }

    /// `deps`: key, element, mode, hole.
    async fn submit(&mut self, function: &str, args: Vec<u8>, deps: &[i64], more: &[(&'static str, Value)]) -> u64 {
        let own = [("kind", "rust".into()), ("name", function.into()), ("function", function.into()), ("signature", "test".into())];
        self.task(map(own.into_iter().chain(more.iter().cloned())), args, deps).await
    }

    async fn python(&mut self, target: &str, argument: i64) -> u64 {
        let path = Value::Array(vec![self.directory.path().to_str().unwrap().into()]);
        let definition = map([("kind", "python".into()), ("name", target.into()), ("target", target.into()), ("path", path)]);
        self.task(definition, encode(&((argument,), BTreeMap::<String, i64>::new())).unwrap(), &[]).await
    }

    async fn task(&mut self, definition: Value, args: Vec<u8>, deps: &[i64]) -> u64 {
        self.next += 1;
        let definition = Value::Array(vec![self.next.into(), definition]);
        let deps = Value::Array(deps.iter().map(|part| (*part).into()).collect());
        let task = Value::Array(vec![self.next.into(), self.next.into(), Value::Binary(args), deps]);
        self.say([("t", "submit".into()), ("defs", Value::Array(vec![definition])), ("tasks", Value::Array(vec![task]))]).await;
        self.next
    }

    async fn rust(&mut self, function: &str, args: &(impl serde::Serialize + Sync)) -> u64 {
        self.submit(function, encode(args).unwrap(), &[], &[]).await
    }

    /// The first event of `key` that is one of `kinds`.
    async fn event(&mut self, key: u64, kinds: &[&str]) -> Vec<Value> {
        loop {
            let fits = |event: &Vec<Value>| event[1].as_u64() == Some(key) && kinds.contains(&event[0].as_str().unwrap());
            if let Some(event) = self.events.iter().find(|event| fits(event)) {
                return event.clone();
            }
            let message = timeout(PATIENCE, self.comm.read()).await.expect("an event in time").unwrap().expect("the scheduler lives");
            let events = get(message.body(), "events").and_then(Value::as_array).cloned().unwrap_or_default();
            self.events.extend(events.into_iter().map(|event| event.as_array().unwrap().clone()));
        }
    }

    async fn end(&mut self, key: u64) -> Vec<Value> {
        self.event(key, &["done", "failed", "refused", "crashed"]).await
    }

    async fn done(&mut self, key: u64) {
        let event = self.end(key).await;
        assert_eq!(event[0].as_str(), Some("done"), "{event:?}");
    }

    async fn stop(mut self) {
        self.say([("t", "close".into())]).await;
        self.worker.end().await;
        self.scheduler.end().await;
    }
}

#[tokio::test]
async fn calls_and_their_ends_are_told() {
    let Some(mut cluster) = Cluster::start("calls_and_their_ends_are_told", true).await else { return };
    let sum = cluster.rust("add", &(1, 2)).await;
    cluster.done(sum).await;
    // [hole 0, 4]
    let args = b"\x92\xd6\x51\0\0\0\0\x04".to_vec();
    let next = cluster.submit("add", args, &[i64::try_from(sum).unwrap(), -1, 0, 0], &[]).await;
    cluster.done(next).await;
    let failed = cluster.rust("fails", &()).await;
    let event = cluster.end(failed).await;
    assert!(event[0].as_str() == Some("failed") && get(&event[4], "message").and_then(text) == Some("on purpose"), "{event:?}");
    let crashed = cluster.submit("aborts", encode(&()).unwrap(), &[], &[("allowed", 1.into())]).await;
    let event = cluster.end(crashed).await;
    assert_eq!(
        (event[0].as_str(), event[3].as_u64(), event[4].as_str()),
        (Some("crashed"), Some(2), Some("signal 6 (SIGABRT)")),
        "{event:?}"
    );
    assert_eq!(event[5].as_u64(), Some(1), "its second attempt");
    let again = cluster.event(crashed, &["again"]).await;
    assert_eq!((again[3].as_u64(), again[5].as_str()), (Some(0), Some("signal 6 (SIGABRT)")), "{again:?}");
    let file = cluster.directory.path().join("once");
    let saved = cluster.rust("aborts_at_first", &(&file, 1)).await;
    let event = cluster.end(saved).await;
    assert_eq!((event[0].as_str(), event[5].as_u64()), (Some("done"), Some(1)), "{event:?}");
    let refused = cluster.submit("add", encode(&(1, 2)).unwrap(), &[], &[("signature", "other".into())]).await;
    let event = cluster.end(refused).await;
    assert!(event[0].as_str() == Some("refused") && event[3].as_str().unwrap().contains("`other`"), "{event:?}");

    let bytes = serde_bytes::ByteBuf::from(vec![7; 8 << 20]);
    let big = cluster.rust("length_and_copy", &[bytes]).await;
    let args = b"\x91\xd6\x51\0\0\0\0".to_vec();
    let again = cluster.submit("length_and_copy", args, &[i64::try_from(big).unwrap(), -1, 0, 0], &[]).await;
    let event = cluster.end(again).await;
    assert!(event[0].as_str() == Some("done") && event[4].as_u64() > Some(8 << 20), "{event:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_call_of_a_batch_whose_host_dies_harms_no_other() {
    let Some(mut cluster) = Cluster::start("a_call_of_a_batch_whose_host_dies_harms_no_other", true).await else { return };
    let calls = [0, 9, 0].map(|times| {
        let file = cluster.directory.path().join(format!("file-{times}"));
        let _ = std::fs::remove_file(&file);
        serde_bytes::ByteBuf::from(encode(&(file, times)).unwrap())
    });
    let more = [("batch", true.into()), ("allowed", 0.into())];
    let batch = cluster.submit("aborts_at_first", encode(&calls).unwrap(), &[], &more).await;
    let event = cluster.end(batch).await;
    assert_eq!(event[0].as_str(), Some("done"), "{event:?}");
    let [lost] = event[7].as_array().unwrap().as_slice() else { panic!("{event:?}") };
    assert_eq!((lost[0].as_u64(), get(&lost[1], "crashed").and_then(text)), (Some(1), Some("signal 6 (SIGABRT)")), "{event:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_cancelled_task_frees_its_slot() {
    let Some(mut cluster) = Cluster::start("a_cancelled_task_frees_its_slot", true).await else { return };
    for name in ["one", "two"] {
        let file = cluster.directory.path().join(name);
        let stubborn = cluster.rust("stubborn", &(&file,)).await;
        let pids = begun(&file).await;
        cluster.event(stubborn, &["started"]).await;
        cluster.say([("t", "release".into()), ("keys", Value::Array(vec![stubborn.into()]))]).await;
        gone(&pids).await;
        let next = cluster.rust("add", &(1, 2)).await;
        cluster.done(next).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_hosts_along_and_the_task_goes_on_elsewhere() {
    let Some(mut cluster) = Cluster::start("a_killed_worker_takes_its_hosts_along_and_the_task_goes_on_elsewhere", true).await else {
        return;
    };
    let file = cluster.directory.path().join("file");
    let stubborn = cluster.rust("stubborn", &(&file,)).await;
    let pids = begun(&file).await;
    std::fs::remove_file(&file).unwrap();
    cluster.worker.child.kill().await.unwrap();
    gone(&pids).await;
    cluster.worker = Cluster::worker(&cluster.address, "1", true, cluster.directory.path()).await;
    let pids = begun(&file).await;
    assert_eq!(cluster.event(stubborn, &["again"]).await[2].as_str(), Some("0"));
    cluster.say([("t", "release".into()), ("keys", Value::Array(vec![stubborn.into()]))]).await;
    gone(&pids).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_worker_without_a_program_says_what_to_do() {
    let Some(mut cluster) = Cluster::start("a_worker_without_a_program_says_what_to_do", false).await else { return };
    let sum = cluster.rust("add", &(1, 2)).await;
    let event = cluster.end(sum).await;
    assert!(event[0].as_str() == Some("refused") && event[4].as_str().unwrap().contains("REMUDA_TASK_HOST_BINARY"), "{event:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn tasks_that_wait_for_tasks_need_no_second_slot() {
    let Some(mut cluster) = Cluster::start("tasks_that_wait_for_tasks_need_no_second_slot", true).await else { return };
    let files = [cluster.directory.path().join("one"), cluster.directory.path().join("two")];
    let mut waiting = Vec::new();
    for file in &files {
        waiting.push(cluster.rust("waits_for", &(file,)).await);
    }
    for file in &files {
        let writes = cluster.rust("writes", &(file,)).await;
        cluster.done(writes).await;
    }
    for task in waiting {
        cluster.done(task).await;
    }
    let sum = cluster.rust("add", &(1, 2)).await;
    cluster.done(sum).await;

    std::fs::write(cluster.directory.path().join("of_a_user.py"), OF_A_USER).unwrap();
    for function in ["by_client", "by_worker_client", "by_worker"] {
        let task = cluster.python(&format!("of_a_user:{function}"), 10).await;
        cluster.done(task).await;
    }
    cluster.stop().await;
}

const OF_A_USER: &str = "
from distributed import get_client, get_worker, rejoin, secede, worker_client

def by_client(n):
    client = get_client()
    futures = client.map(lambda x: x + 1, range(n))
    secede()
    total = sum(client.gather(futures))
    rejoin()
    assert total == 55, total

def by_worker_client(n):
    with worker_client() as client:
        total = sum(client.gather(client.map(lambda x: x + 1, range(n))))
    assert total == 55, total

def by_worker(n):
    assert str(get_worker().name) == '0', get_worker().name
";
