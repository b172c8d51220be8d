//! What the tests of real Dask share.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "helpers of several tests")]

use remuda::{TaskFuture, TaskRunner, TaskState};
use remuda_tests::dask::Dask;

/// The module `faults` of the workers.
pub const FAULTS: &str = r#"
import os
import socket
import threading
import time
import uuid


def noop(x):
    return x


def word():
    return uuid.uuid4().hex


def twice(text):
    return text + text


def count(items):
    return len(items)


def lock():
    return threading.Lock()


def is_lock(x):
    return hasattr(x, "acquire")


def hold(directory, label):
    with open(os.path.join(directory, label + ".runs"), "a") as file:
        file.write("here\n")
    while not os.path.exists(os.path.join(directory, label + ".go")):
        time.sleep(0.01)
    return label


def knock(address, label):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall((label + "\n").encode())
        word = stream.makefile().readline()
    if word != "open\n":
        raise RuntimeError("the gate was closed")
    return label
"#;

/// A runner on a cluster that is there.
pub fn runner(cluster: &Dask) -> TaskRunner {
    TaskRunner::builder().address(&cluster.address).build().unwrap()
}

/// Our shim, as a site would preload it.
pub fn shim() -> String {
    remuda_dask::shim::preload_text(remuda_dask::shim::Preload::Plain)
}

/// The same of another version, and its hash.
pub fn other_shim() -> (String, String) {
    let other = "0badcafe";
    let text = shim().replace(remuda_dask::shim::hash(), other);
    let version = text.lines().find(|line| line.starts_with("V = ")).unwrap().to_owned();
    (text.replacen(&version, "V = \"9.9.9\"", 1), other.to_owned())
}

/// The worker that `future` runs on, as soon as it does.
pub async fn worker_of<T>(events: &mut remuda_core::engine::TaskEvents, future: &TaskFuture<T>) -> String {
    if let TaskState::Running { worker, .. } = future.state() {
        return worker.to_string();
    }
    loop {
        let event = events.recv().await.expect("the run goes on");
        if let (true, TaskState::Running { worker, .. }) = (event.key == future.key(), event.state) {
            return worker.to_string();
        }
    }
}
