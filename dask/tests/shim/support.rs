//! A cluster of Dask's own processes, and the driver's side of a session written out by hand.

use std::collections::BTreeMap;

use remuda_dask::{
    Address, Comm, ConnectOptions, Rpc,
    protocol::{
        Value,
        value::{get, map, text},
    },
    shim,
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::real::{PATIENCE, Running};

/// Functions that tasks call, put beside the workers.
const MODULE: &str = "
import asyncio, threading, time

class Odd:
    def __init__(self, n): self.n = n
    def __repr__(self): return 'Odd(%d)' % self.n

def add(*numbers): return sum(numbers)
def divide(a, b): return a / b
def make_odd(n): return Odd(n)
def of_odd(odd): return odd.n
async def later(n): await asyncio.sleep(0); return n
def waits_for(path):
    import os
    while not os.path.exists(path): time.sleep(0.01)
    return path
def in_client(n):
    import distributed
    with distributed.worker_client() as client: return client.submit(sum, [n, n], pure=False).result()
def fails_once(path):
    import os
    if os.path.exists(path): return 'second'
    open(path, 'w').close()
    raise ValueError('first')
def interval():
    import distributed
    return distributed.get_worker().batched_stream.interval
SEEN = set()
def intervals():
    SEEN.add(interval())
    return sorted(SEEN)
def usual():
    while interval() > 0.002: time.sleep(0.01)
    return interval()
def leave(code):
    import sys
    sys.exit(code)
";

/// A scheduler and its workers; they end with this.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    pub(crate) scheduler: Running,
    pub(crate) workers: BTreeMap<String, Running>,
    pub(crate) address: Address,
}

impl Cluster {
    pub(crate) async fn start(env: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("flow_tasks.py"), MODULE).unwrap();
        let args = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"];
        let scheduler = Running::start(&args, &variables(env), directory.path(), "Scheduler at:").await;
        let address = scheduler.said.parse().unwrap();
        Self { directory, scheduler, workers: BTreeMap::new(), address }
    }

    pub(crate) async fn with_workers(names: &[&str]) -> Self {
        let mut cluster = Self::start(&[]).await;
        for name in names {
            cluster.add(name, &[], &[]).await;
        }
        cluster
    }

    pub(crate) async fn add(&mut self, name: &str, more: &[&str], env: &[(&str, &str)]) {
        let to = self.address.to_string();
        let mut args = vec!["worker", &to, "--host", "127.0.0.1", "--nthreads", "1", "--name", name, "--no-nanny"];
        args.extend(["--dashboard-address", "127.0.0.1:0"]);
        args.extend(more);
        let worker = Running::start(&args, &variables(env), self.directory.path(), "Registered to:").await;
        self.workers.insert(name.to_owned(), worker);
    }

    pub(crate) async fn rpc(&self) -> Rpc {
        Rpc::connect(&self.address, &ConnectOptions::default()).await.unwrap().with_patience(PATIENCE)
    }

    pub(crate) async fn installed(&self) -> Rpc {
        let mut rpc = self.rpc().await;
        shim::install(&mut rpc).await.unwrap();
        rpc
    }

    pub(crate) async fn stream(&self, session: &str, lease: f64) -> Stream {
        let (stream, first) = Stream::open(&self.address, session, lease, None).await;
        assert_eq!(first, json!({"t": "attached", "resumed": false, "received": 0}));
        stream
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A definition of a function of the module.
    pub(crate) fn python(&self, function: &str, more: Json) -> Json {
        let target = if function.contains(':') { function.to_owned() } else { format!("flow_tasks:{function}") };
        let mut definition = json!({
            "kind": "python", "name": target, "target": target, "path": [self.path("")], "function": null, "signature": null, "priority": 0,
            "retries": 0, "allowed": null, "resources": {}, "workers": [], "loose": false, "timeout": null, "slots": 1, "batch": false,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            definition[name] = value.clone();
        }
        definition
    }
}

fn variables(env: &[(&str, &str)]) -> BTreeMap<String, String> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Kills what a test that failed has left.
impl Drop for Cluster {
    fn drop(&mut self) {
        for running in self.workers.values_mut().chain([&mut self.scheduler]) {
            let _ = running.child.start_kill();
        }
    }
}

/// One piece of a template.
pub(crate) enum Arg {
    Plain(Json),
    Hole(u32),
}

/// `[[args...], {}]`.
pub(crate) fn args(args: &[Arg]) -> Vec<u8> {
    let mut out = vec![0x92, 0x90 | u8::try_from(args.len()).unwrap()];
    for arg in args {
        match arg {
            Arg::Plain(value) => out.extend(rmp_serde::to_vec(value).unwrap()),
            Arg::Hole(index) => {
                out.extend([0xd6, 0x51]);
                out.extend(index.to_be_bytes());
            }
        }
    }
    out.push(0x80);
    out
}

pub(crate) fn plain<const N: usize>(values: [Json; N]) -> Vec<u8> {
    args(&values.map(Arg::Plain))
}

/// A task: key, definition, arguments, dependencies (key, element, mode, hole).
pub(crate) type Task = (u64, u64, Vec<u8>, Vec<[i64; 4]>);

/// The driver's end of a session.
pub(crate) struct Stream {
    comm: Comm,
    pub(crate) n: u64,
    pub(crate) seen: u64,
    /// Everything that was told, and not taken by [`until`](Self::until) yet.
    events: Vec<Json>,
}

impl Stream {
    pub(crate) async fn open(address: &Address, session: &str, lease: f64, resume: Option<(u64, u64)>) -> (Self, Json) {
        let mut comm = Comm::connect(address, &ConnectOptions::default()).await.unwrap();
        let (n, seen) = resume.unwrap_or_default();
        let op = shim::op("stream");
        let open = [
            ("op", op.as_str().into()),
            ("session", session.into()),
            ("name", "a test".into()),
            ("lease", lease.into()),
            ("resume", resume.is_some().into()),
            ("seen", seen.into()),
        ];
        comm.write(&map(open).into()).await.unwrap();
        let mut stream = Self { comm, n, seen, events: Vec::new() };
        let first = stream.read().await.expect("an answer");
        (stream, first)
    }

    pub(crate) async fn read(&mut self) -> Option<Json> {
        let message = timeout(PATIENCE, self.comm.read()).await.expect("a message in time").unwrap();
        message.map(|message| from_value(message.body()))
    }

    pub(crate) async fn send(&mut self, mut message: Vec<(&str, Value)>) {
        self.n += 1;
        message.push(("n", self.n.into()));
        self.comm.write(&map(message).into()).await.unwrap();
    }

    pub(crate) async fn alive(&mut self) {
        self.comm.write(&map([("t", "alive".into()), ("seen", self.seen.into())]).into()).await.unwrap();
    }

    pub(crate) async fn submit(&mut self, defs: &[(u64, Json)], tasks: Vec<Task>) {
        let defs = defs.iter().map(|(id, def)| Value::Array(vec![(*id).into(), to_value(def)])).collect();
        let tasks = tasks.into_iter().map(|(key, def, args, deps)| {
            let deps = deps.into_iter().flatten().map(Value::from).collect();
            Value::Array(vec![key.into(), def.into(), Value::Binary(args), Value::Array(deps)])
        });
        self.send(vec![("t", "submit".into()), ("defs", Value::Array(defs)), ("tasks", Value::Array(tasks.collect()))]).await;
    }

    pub(crate) async fn release(&mut self, keys: &[u64]) {
        self.send(vec![("t", "release".into()), ("keys", Value::Array(keys.iter().map(|key| (*key).into()).collect()))]).await;
    }

    /// Waits for the event that begins so, and takes it.
    pub(crate) async fn until(&mut self, kind: &str, key: u64) -> Json {
        loop {
            if let Some(at) = self.events.iter().position(|event| event[0] == kind && event[1] == key) {
                return self.events.remove(at);
            }
            self.more(&format!("{kind} of {key}")).await;
        }
    }

    async fn more(&mut self, wanted: &str) {
        let Some(message) = self.read().await else { panic!("the session ended before {wanted}; told: {:?}", self.events) };
        let events = message["events"].as_array().unwrap_or_else(|| panic!("instead of {wanted}: {message}"));
        self.seen = self.seen.max(message["e"].as_u64().unwrap());
        self.events.extend(events.iter().cloned());
    }

    /// What was told of a task so far, and not taken.
    pub(crate) fn told(&self, key: u64) -> Vec<&Json> {
        self.events.iter().filter(|event| event[1] == key).collect()
    }

    /// Closes the session, and waits until it is.
    pub(crate) async fn close(mut self) {
        self.send(vec![("t", "close".into())]).await;
        while let Some(message) = self.read().await {
            if message["t"] == "closed" {
                return;
            }
        }
        panic!("the session was not closed");
    }
}

/// One result from the worker that has it, in the first of the forms.
pub(crate) async fn fetch(rpc: &mut Rpc, done: &Json, key: &str, element: i64, forms: &[&str]) -> Json {
    let forms = Value::Array(forms.iter().map(|form| (*form).into()).collect());
    let keys = Value::Array(vec![Value::Array(vec![key.into(), element.into(), forms])]);
    let worker = done[3].as_str().expect("an address");
    let answer = rpc.call(&shim::op("fetch"), [("worker", worker.into()), ("keys", keys), ("inline", true.into())]).await.unwrap();
    let results = get(answer.body(), "results").and_then(Value::as_array).unwrap();
    assert_eq!(results.len(), 1);
    let result = results[0].as_array().unwrap();
    match (text(&result[0]), result.get(1)) {
        (Some("plain"), Some(Value::Binary(data))) => json!({"plain": rmp_serde::from_slice::<Json>(data).unwrap()}),
        (Some("arrow"), Some(Value::Binary(data))) => json!({"arrow": data.len() > 8, "type": from_value(&result[2])}),
        _ => from_value(&results[0]),
    }
}

pub(crate) fn dask_key(name: &str, session: &str, key: u64) -> String {
    format!("{}-{session}-{key:x}", name.replace(':', "_"))
}

pub(crate) fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => (*value).into(),
        Json::Number(value) => value.as_i64().map_or_else(|| value.as_f64().unwrap().into(), Value::from),
        Json::String(value) => value.as_str().into(),
        Json::Array(values) => Value::Array(values.iter().map(to_value).collect()),
        Json::Object(entries) => Value::Map(entries.iter().map(|(key, value)| (key.as_str().into(), to_value(value))).collect()),
    }
}

pub(crate) fn from_value(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) => value.as_i64().map_or_else(|| value.as_u64().into(), Json::from),
        Value::F32(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().unwrap().into(),
        Value::Binary(value) => value.as_slice().into(),
        Value::Array(values) => values.iter().map(from_value).collect(),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), from_value(value))).collect(),
        Value::Ext(..) => panic!("an extension"),
    }
}
