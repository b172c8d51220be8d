//! Task hosts and commands as the shim on a worker runs them: its Python source in a real interpreter, this test binary as the task host.
//! What Dask does with it is tested with a cluster.
//!
//! Skipped by name where there is no Dask (see `scheduler.rs`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and the tasks they run")]

mod cluster;
mod commands;
#[path = "../real/mod.rs"]
mod real;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    engine::Connect,
    error::{Error, ErrorKind, Result},
    host::TaskDef,
    manager::Endpoint,
    task::{Annotations, CommandWork, Job, Key, TaskError, TaskScope, TaskSpec, TaskState, Work},
    value::{Template, Value, decode},
};
use serde_json::json;
use worker::{Worker, alive, begun, bytes, gone, result, rust, with};

/// Says whereto it was to connect.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Connect for Nowhere {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn remuda_core::engine::Engine>> {
        let Endpoint::Dask { address, security, .. } = endpoint else { panic!("{endpoint:?}") };
        let shown = security.as_ref().map(|security| [&*security.ca, &security.cert, &security.key]);
        Err(Error::new(ErrorKind::Unavailable, format!("asked for {address} with {shown:?}")))
    }
}

#[test]
fn host_entry() {
    remuda_core::host::set_connect(Arc::new(Nowhere));
    // In a task host it does not return.
    remuda_core::host::init(["host_entry", "--exact", "--nocapture"].map(String::from).to_vec());
}

fn ready(value: &impl serde::Serialize) -> Job {
    Job::Ready(Ok(Value::plain(value).unwrap()))
}

fn add(_: TaskScope, args: &[u8]) -> Job {
    let (a, b): (i64, i64) = decode(args).unwrap();
    ready(&(a + b))
}
fn length_and_copy(_: TaskScope, args: &[u8]) -> Job {
    let (bytes,): (serde_bytes::ByteBuf,) = decode(args).unwrap();
    ready(&bytes)
}
fn scope(scope: TaskScope, _: &[u8]) -> Job {
    ready(&(scope.key.0, scope.attempt, &*scope.worker, std::process::id()))
}
fn fails(_: TaskScope, _: &[u8]) -> Job {
    Job::Ready(Err(TaskError::failed("on purpose")))
}
fn panics(_: TaskScope, _: &[u8]) -> Job {
    panic!("on purpose")
}
fn aborts(_: TaskScope, _: &[u8]) -> Job {
    std::process::abort()
}
fn exits(_: TaskScope, args: &[u8]) -> Job {
    let (code,): (i32,) = decode(args).unwrap();
    std::process::exit(code)
}
/// Aborts until the file has so many letters.
fn aborts_at_first(scope: TaskScope, args: &[u8]) -> Job {
    let (file, times): (PathBuf, usize) = decode(args).unwrap();
    let begun = std::fs::read_to_string(&file).unwrap_or_default() + "x";
    std::fs::write(&file, &begun).unwrap();
    if begun.len() <= times { std::process::abort() } else { ready(&scope.attempt) }
}
/// Whole, or not there.
fn say(file: &Path, text: &str) {
    std::fs::write(file.with_extension("new"), text).unwrap();
    std::fs::rename(file.with_extension("new"), file).unwrap();
}
/// Begun when the file is there; does not look whether it is cancelled.
fn stubborn(_: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    let mut child = std::process::Command::new("sleep").arg("3600").spawn().unwrap();
    say(&file, &format!("{} {}", std::process::id(), child.id()));
    let _ = child.wait();
    std::thread::sleep(Duration::from_secs(3600));
    ready(&())
}
/// Is dropped when it is cancelled.
fn gentle(_: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    Job::Future(Box::pin(async move {
        say(&file, &std::process::id().to_string());
        std::future::pending().await
    }))
}
/// Waits for other tasks, twice, and tells what came of submitting one.
fn waits(scope: TaskScope, _: &[u8]) -> Job {
    let (session, slot) = (scope.session.unwrap(), scope.slot.unwrap());
    let mut events = session.events();
    for _ in 0..2 {
        slot.pause();
        slot.resume();
    }
    let work = Work::Command(CommandWork { call: Template::new() });
    let annotations = Arc::new(Annotations::default());
    session.submit(vec![TaskSpec { key: Key(1), name: "inner".into(), inputs: Vec::new(), after: Vec::new(), work, annotations }]);
    match events.blocking_recv().unwrap().state {
        TaskState::Ended(error) => ready(&error.to_string()),
        other => ready(&format!("{other:?}")),
    }
}
/// Gives its slot back until somebody writes the file.
fn waits_for(scope: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    let slot = scope.slot.unwrap();
    slot.pause();
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    slot.resume();
    ready(&())
}
fn writes(_: TaskScope, args: &[u8]) -> Job {
    let (file,): (PathBuf,) = decode(args).unwrap();
    say(&file, "here");
    ready(&())
}
fn prints(_: TaskScope, _: &[u8]) -> Job {
    println!("to be read");
    ready(&())
}
macro_rules! tasks {
    ($($name:ident),*) => { $(inventory::submit! { TaskDef { name: stringify!($name), signature: "test", call: $name } })* };
}
tasks!(add, length_and_copy, scope, fails, panics, aborts, exits, aborts_at_first, stubborn, gentle, prints, waits, waits_for, writes);

#[tokio::test]
async fn a_call_and_its_ends() {
    let Some(mut worker) = Worker::start("a_call_and_its_ends", true).await else { return };
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
    let mine = result(&worker.rust("scope", &()).await);
    assert_eq!((&mine[0], &mine[1], &mine[2]), (&json!(0x1f), &json!(0), &json!("w0")));
    let failed = worker.rust("fails", &()).await;
    assert_eq!(failed["failed"]["message"], "on purpose");
    let panicked = worker.rust("panics", &()).await;
    assert_eq!(panicked["failed"]["message"], "panicked: on purpose");
    worker.rust("prints", &()).await;
    worker.logged("prints-0123-1f | to be read").await;
    assert!(!worker.log.iter().any(|line| line.contains("running 1 test")), "{:?}", worker.log);
    let again = result(&worker.rust("scope", &()).await);
    assert_eq!(again[3], mine[3], "none of these has cost a process");
}

#[tokio::test]
async fn big_values_go_and_come_whole() {
    let Some(mut worker) = Worker::start("big_values_go_and_come_whole", true).await else { return };
    for size in [0, 200, 60_000, 8 << 20] {
        let sent: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let args = [serde_bytes::ByteBuf::from(sent)];
        let answer = worker.rust("length_and_copy", &args).await;
        let back: serde_bytes::ByteBuf = decode(&bytes(&answer)).unwrap();
        assert!(back == args[0], "{size} bytes");
    }
}

#[tokio::test]
async fn a_host_that_dies_is_replaced_as_often_as_allowed() {
    let Some(mut worker) = Worker::start("a_host_that_dies_is_replaced_as_often_as_allowed", true).await else { return };
    let file = worker.directory.path().join("count");
    let answer = worker.rust("aborts_at_first", &(&file, 3)).await;
    assert_eq!(result(&answer), 3, "the attempt's number goes up");
    let crashed = worker.perform(with(rust("aborts", &()), "allowed", 1.into())).await;
    assert_eq!(crashed["crashed"], json!([2, "signal 6 (SIGABRT)"]));
    let crashed = worker.perform(with(rust("exits", &(7,)), "allowed", 0.into())).await;
    assert_eq!(crashed["crashed"], json!([1, "exit code 7"]));
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
    // One that dies while it has nothing to do is nobody's doing.
    let idle = worker.perform(json!({"op": "idle"})).await;
    let idle = u32::try_from(idle["pids"][0].as_u64().unwrap()).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &idle.to_string()]).status().unwrap().success());
    gone(&[idle]).await;
    assert_eq!(result(&worker.perform(with(rust("add", &(2, 2)), "allowed", 0.into())).await), 4);
}

#[tokio::test]
async fn a_host_without_tasks_does_not_stay() {
    let Some(mut worker) = Worker::start("a_host_without_tasks_does_not_stay", true).await else { return };
    worker.perform(json!({"op": "keep", "seconds": 0.2})).await;
    for _ in 0..2 {
        assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
        let idle = worker.perform(json!({"op": "idle"})).await;
        let pids: Vec<u32> = idle["pids"].as_array().unwrap().iter().map(|pid| u32::try_from(pid.as_u64().unwrap()).unwrap()).collect();
        gone(&pids).await;
    }
    // One that is at work is not idle, however long.
    let file = worker.directory.path().join("stubborn");
    let stubborn = worker.begin(with(rust("stubborn", &(&file,)), "timeout", 3.into())).await;
    begun(&file).await;
    assert!(worker.end(stubborn).await["failed"]["kind"].as_str().unwrap().contains("Timeout"));
}

/// Dask gives it to a thread, and drops it before the thread has begun: there was nothing to end yet.
#[tokio::test]
async fn what_is_cancelled_before_it_begins_does_not_begin() {
    let Some(mut worker) = Worker::start("what_is_cancelled_before_it_begins_does_not_begin", true).await else { return };
    for key in ["stubborn-0123-1f", "command-0123-1"] {
        worker.perform(json!({"op": "release", "key": key})).await;
    }
    let file = worker.directory.path().join("begun");
    assert_eq!(worker.rust("stubborn", &(&file,)).await["cancelled"], true);
    assert_eq!(worker.command(json!({"argv": ["touch", file]})).await["cancelled"], true);
    assert!(!file.exists());
}

#[tokio::test]
async fn what_is_cancelled_or_late_ends() {
    let Some(mut worker) = Worker::start("what_is_cancelled_or_late_ends", true).await else { return };
    let file = worker.directory.path().join("gentle");
    let gentle = worker.begin(rust("gentle", &(&file,))).await;
    let host = begun(&file).await;
    worker.perform(json!({"op": "kill", "key": "gentle-0123-1f"})).await;
    assert_eq!(worker.end(gentle).await["cancelled"], true);
    assert!(alive(host[0]), "it ended by itself, and serves on");

    let file = worker.directory.path().join("stubborn");
    let stubborn = worker.begin(rust("stubborn", &(&file,))).await;
    let pids = begun(&file).await;
    assert_eq!(pids[0], host[0], "the same host");
    worker.perform(json!({"op": "kill", "key": "stubborn-0123-1f"})).await;
    assert_eq!(worker.end(stubborn).await["cancelled"], true);
    gone(&pids).await;

    std::fs::remove_file(&file).unwrap();
    // Long enough that it has begun by then.
    let late = worker.begin(with(rust("stubborn", &(&file,)), "timeout", 3.into())).await;
    let late = worker.end(late).await;
    assert_eq!(late["failed"]["kind"], "TimeoutError");
    assert!(late["failed"]["message"].as_str().unwrap().contains("3s"), "{late}");
    gone(&begun(&file).await).await;
    worker.perform(json!({"op": "kill", "key": "nobody-0-0"})).await;
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
}

#[tokio::test]
async fn a_task_that_submits_tasks_connects_as_its_worker_does() {
    let Some(mut worker) = Worker::start("a_task_that_submits_tasks_connects_as_its_worker_does", true).await else { return };
    let told = result(&worker.rust("waits", &()).await);
    assert!(told.as_str().unwrap().contains("asked for tcp://127.0.0.1:2 with None"), "{told}");
    worker.perform(rust("add", &(1, 2))).await;
    assert_eq!(worker.log.iter().filter(|line| *line == "seceded").count(), 1, "{:?}", worker.log);

    let Some(mut worker) = Worker::start("a_task_that_submits_tasks_connects_as_its_worker_does", true).await else { return };
    let ca = worker.directory.path().join("ca.pem");
    std::fs::write(&ca, "CA\n").unwrap();
    let security = json!({"tls_ca_file": ca, "tls_worker_cert": "CERT\n", "tls_worker_key": null});
    worker.perform(json!({"op": "tls", "security": security})).await;
    let told = result(&worker.rust("waits", &()).await);
    assert!(told.as_str().unwrap().contains(r#"asked for tls://127.0.0.1:3 with Some(["CA\n", "CERT\n", "CERT\n"])"#), "{told}");
}

#[tokio::test]
async fn hosts_go_with_their_worker() {
    let Some(mut worker) = Worker::start("hosts_go_with_their_worker", true).await else { return };
    let idle = result(&worker.rust("scope", &()).await);
    let files = ["one", "two"].map(|name| worker.directory.path().join(name));
    let mut pids = vec![u32::try_from(idle[3].as_u64().unwrap()).unwrap()];
    for file in &files {
        worker.begin(rust("stubborn", &(file,))).await;
        pids.extend(begun(file).await);
    }
    worker.child.kill().await.unwrap();
    gone(&pids).await;

    let Some(mut worker) = Worker::start("hosts_go_with_their_worker", true).await else { return };
    let file = worker.directory.path().join("closed");
    let busy = worker.begin(rust("stubborn", &(&file,))).await;
    let pids = begun(&file).await;
    worker.perform(json!({"op": "close"})).await;
    assert_eq!(worker.end(busy).await["cancelled"], true);
    gone(&pids).await;
    assert_eq!(worker.rust("add", &(1, 2)).await["cancelled"], true, "a closed worker starts nothing");
}

#[tokio::test]
async fn programs_that_are_not_the_drivers_are_refused() {
    let Some(mut worker) = Worker::start("programs_that_are_not_the_drivers_are_refused", true).await else { return };
    let refused = worker.perform(with(rust("add", &(1, 2)), "signature", "other".into())).await;
    let message = refused["refused"][1].as_str().unwrap();
    assert!(["`add`", "`test`", "`other`", "`w0`"].iter().all(|part| message.contains(part)), "{refused}");
    assert!(refused["refused"][2].as_str().unwrap().contains("restart the workers"), "{refused}");
    let refused = worker.rust("nothing", &()).await;
    assert!(refused["refused"][1].as_str().unwrap().contains("no task `nothing`"), "{refused}");
    let told = worker.perform(json!({"op": "prepare", "host": null})).await;
    assert!(told["tasks"].as_array().unwrap().contains(&json!(["add", "test"])), "{told}");
}

#[tokio::test]
async fn the_drivers_own_program_serves_on_its_machine_only() {
    let Some(mut worker) = Worker::start("the_drivers_own_program_serves_on_its_machine_only", false).await else { return };
    let refused = worker.rust("add", &(1, 2)).await;
    let (message, hint) = (refused["refused"][1].as_str().unwrap(), refused["refused"][2].as_str().unwrap());
    assert!(message.contains("`w0` has no program") && hint.contains("REMUDA_TASK_HOST_BINARY"), "{refused}");
    let args = ["host_entry", "--exact", "--nocapture"];
    let exe = std::env::current_exe().unwrap();
    let refused = worker.perform(json!({"op": "prepare", "host": {"exe": exe, "args": args, "boot_id": "another"}})).await;
    assert!(refused["refused"][1].as_str().unwrap().contains("another machine"), "{refused}");
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let silent = worker.perform(json!({"op": "prepare", "host": {"exe": "/bin/true", "args": [], "boot_id": boot_id.trim()}})).await;
    assert!(silent["refused"][1].as_str().unwrap().contains("exit code 0"), "{silent}");
    let told = worker.perform(json!({"op": "prepare", "host": {"exe": exe, "args": args, "boot_id": boot_id.trim()}})).await;
    assert!(told["tasks"].as_array().unwrap().contains(&json!(["add", "test"])), "{told}");
    assert_eq!(result(&worker.rust("add", &(1, 2)).await), 3);
}
