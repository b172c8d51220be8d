//! `processes: true`, with real processes. One test at a time looks at the children of this process, so they stand in one lock.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

mod interpreter;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use remuda_core::{
    host::TaskDef,
    task::{Annotations, Input, Job, TaskError, TaskScope, TaskState},
    value::{Codec, Template, Value, decode},
};
use remuda_local::{LocalConfig, MemoryLimit};
use serde_json::json;
use support::{Stage, args, command, descendants, python, rust};
use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

#[test]
fn host_entry() {
    support::prepare();
}

fn processes(workers: u32, slots: u32) -> LocalConfig {
    LocalConfig { n_workers: Some(workers), threads_per_worker: Some(slots), memory_limit: MemoryLimit::None, ..LocalConfig::default() }
}

fn ready<T: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(value: T) -> Job {
    Job::Ready(Ok(Codec::<T>::serde().wrap(std::sync::Arc::new(value))))
}

fn add(_: TaskScope, args: &[u8]) -> Job {
    let (a, b): (i64, i64) = decode(args).unwrap();
    ready(a + b)
}
fn pid(_: TaskScope, _: &[u8]) -> Job {
    ready(std::process::id())
}
fn exit(_: TaskScope, args: &[u8]) -> Job {
    let (code,): (i32,) = decode(args).unwrap();
    std::process::exit(code)
}
fn fails(_: TaskScope, _: &[u8]) -> Job {
    Job::Ready(Err(TaskError::failed("on purpose")))
}
fn panics(_: TaskScope, _: &[u8]) -> Job {
    panic!("on purpose")
}
fn sleeps(_: TaskScope, _: &[u8]) -> Job {
    std::thread::sleep(Duration::from_secs(3600));
    ready(1)
}
fn sleeps_async(_: TaskScope, _: &[u8]) -> Job {
    Job::Future(Box::pin(async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(Value::plain(&1).unwrap())
    }))
}
fn opaque(_: TaskScope, _: &[u8]) -> Job {
    struct Opaque;
    Job::Ready(Ok(Codec::<Opaque>::here_only().wrap(std::sync::Arc::new(Opaque))))
}
fn eats(_: TaskScope, args: &[u8]) -> Job {
    let (bytes,): (usize,) = decode(args).unwrap();
    let block = vec![1u8; bytes];
    std::thread::sleep(Duration::from_secs(3600));
    ready(block.len())
}
fn is_ok(_: TaskScope, args: &[u8]) -> Job {
    let (result,): (Result<i64, TaskError>,) = decode(args).unwrap();
    ready(result.map_err(|e| e.to_string()).unwrap_err())
}

macro_rules! tasks {
    ($($name:ident),*) => { $(inventory::submit! { TaskDef { name: stringify!($name), signature: "test", call: $name } })* };
}
tasks!(add, pid, exit, fails, panics, sleeps, sleeps_async, opaque, eats, is_ok);

const NONE: [(); 0] = [];

async fn end(stage: Stage) {
    stage.close().await;
    let left = descendants();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn rust_functions_run_in_hosts() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(2, 1)).await;
    let a = stage.run(rust("add", &(1, 2)));
    let mut call = Template::new();
    call.array(2).append(&Template::hole()).append(&Template::hole());
    let work = remuda_core::task::Work::Rust(remuda_core::task::RustWork { function: "add".into(), here: None, args: Some(call) });
    let b = stage.submit(work, &[a, a], Annotations::default());
    assert_eq!(stage.json(b).await, 6);
    let pid = stage.run(rust("pid", &NONE));
    assert_ne!(stage.json(pid).await, std::process::id());
    end(stage).await;
}

#[tokio::test]
async fn failures_of_rust_functions_say_what_happened() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    for (function, message) in [("fails", "on purpose"), ("panics", "panicked: on purpose")] {
        let key = stage.run(rust(function, &NONE));
        let error = stage.error(key).await;
        assert!(matches!(&error, TaskError::Failed(f) if f.message == message), "{error:?}");
    }
    let key = stage.run(rust("opaque", &NONE));
    let error = stage.error(key).await;
    assert!(matches!(error, TaskError::Refused(_)) && error.to_string().contains("Opaque"), "{error:?}");
    let key = stage.run(rust("nothing", &NONE));
    assert!(stage.error(key).await.to_string().contains("no task `nothing`"));
    end(stage).await;
}

#[tokio::test]
async fn an_exit_is_tried_again_and_then_a_crash_with_its_code() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 2)).await;
    let key = stage.submit(rust("exit", &(3,)), &[], Annotations { allowed_failures: Some(1), ..Annotations::default() });
    match stage.error(key).await {
        TaskError::Crashed(crash) => assert_eq!((crash.cause.as_str(), crash.attempts), ("exit code 3", 2)),
        other => panic!("{other:?}"),
    }
    let key = stage.run(rust("add", &(1, 1)));
    assert_eq!(stage.json(key).await, 2);
    end(stage).await;
}

#[tokio::test]
async fn a_task_that_kills_every_worker_does_not_end_the_cluster() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    let key = stage.run(rust("exit", &(3,)));
    match stage.error(key).await {
        TaskError::Crashed(crash) => assert_eq!((crash.cause.as_str(), crash.attempts), ("exit code 3", 4)),
        other => panic!("{other:?}"),
    }
    let key = stage.run(rust("add", &(1, 1)));
    assert_eq!(stage.json(key).await, 2);
    end(stage).await;
}

#[tokio::test]
async fn a_killed_worker_is_replaced() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    let first = stage.run(rust("pid", &NONE));
    let first = stage.json(first).await.as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let second = stage.run(rust("pid", &NONE));
    assert_ne!(stage.json(second).await, first);
    end(stage).await;
}

#[tokio::test]
async fn a_worker_killed_while_it_works_loses_its_task_and_no_other() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(2, 1)).await;
    stage.cluster.wait_for_workers(2, support::PATIENCE).await.unwrap();
    let sleeper = stage.submit(
        rust("sleeps", &NONE),
        &[],
        Annotations { allowed_failures: Some(0), workers: vec!["0".into()], ..Annotations::default() },
    );
    stage.running(sleeper).await;
    let other = stage.submit(rust("pid", &NONE), &[], Annotations { workers: vec!["1".into()], ..Annotations::default() });
    let other = stage.json(other).await.as_u64().unwrap();
    let (victim, _) = descendants().into_iter().find(|(pid, _)| u64::from(*pid) != other).unwrap();
    let victim = rustix::process::Pid::from_raw(i32::try_from(victim).unwrap()).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    match stage.error(sleeper).await {
        TaskError::Crashed(crash) => assert_eq!(crash.cause, "signal 9 (SIGKILL)"),
        other => panic!("{other:?}"),
    }
    end(stage).await;
}

#[tokio::test]
async fn what_does_not_stop_is_killed_and_its_slot_goes_on() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    for function in ["sleeps_async", "sleeps"] {
        let key = stage.run(rust(function, &NONE));
        stage.running(key).await;
        stage.session.cancel(&[key]);
        assert!(matches!(stage.error(key).await, TaskError::Cancelled));
        let next = stage.run(rust("add", &(1, 1)));
        assert_eq!(stage.json(next).await, 2);
    }
    let slow = stage.submit(rust("sleeps", &NONE), &[], Annotations { timeout: Some(Duration::from_millis(50)), ..Annotations::default() });
    assert!(stage.error(slow).await.to_string().contains("timeout"));
    let busy = stage.run(rust("sleeps", &NONE));
    stage.running(busy).await; // and is ended by the close
    end(stage).await;
}

#[tokio::test]
async fn memory_is_limited() {
    let _alone = alone().await;
    let mut stage = Stage::new(LocalConfig { memory_limit: MemoryLimit::Bytes(200 << 20), ..processes(1, 1) }).await;
    let key = stage.submit(rust("eats", &(300 << 20,)), &[], Annotations { allowed_failures: Some(0), ..Annotations::default() });
    match stage.error(key).await {
        TaskError::Crashed(crash) => assert!(crash.cause.contains("memory_limit") && crash.cause.contains("200 MiB"), "{crash}"),
        other => panic!("{other:?}"),
    }
    end(stage).await;
}

#[tokio::test]
async fn an_allowed_failure_is_a_result() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    let bad = stage.run(rust("fails", &NONE));
    let mut call = Template::new();
    call.array(1).append(&Template::hole());
    let work = remuda_core::task::Work::Rust(remuda_core::task::RustWork { function: "is_ok".into(), here: None, args: Some(call) });
    let key = stage.submit_with(work, vec![Input { key: bad, allow_failure: true }], Annotations::default());
    assert_eq!(stage.json(key).await, "on purpose");
    end(stage).await;
}

#[tokio::test]
async fn commands_run_and_their_ends_are_told() {
    let _alone = alone().await;
    let mut stage = Stage::new(LocalConfig { env: [("COLOUR".to_owned(), "red".to_owned())].into(), ..processes(1, 1) }).await;
    let ok =
        stage.run(command(&json!({"argv": ["sh", "-c", "cat; echo $COLOUR $SIZE; pwd"], "stdin": "in ", "env": {"SIZE": 7}, "cwd": "/"})));
    assert_eq!(stage.json(ok).await, "in red 7\n/");
    let binary = stage.run(command(&json!({"argv": ["printf", "\\001\\n"], "binary": true})));
    match stage.end(binary).await {
        TaskState::Done(value) => assert_eq!(&value.to_plain().unwrap()[..], b"\xc4\x02\x01\n"),
        other => panic!("{other:?}"),
    }
    let big = "x".repeat(4 << 20);
    let echo = stage.run(command(&json!({"argv": ["cat"], "stdin": big})));
    assert_eq!(stage.json(echo).await.as_str().unwrap().len(), 4 << 20);
    let bad = stage.run(command(&json!({"argv": ["sh", "-c", "echo out; echo why >&2; exit 7"]})));
    match stage.error(bad).await {
        TaskError::Failed(f) => {
            assert_eq!((f.exit_code, f.traceback.as_deref()), (Some(7), Some("why")));
            assert!(f.message.ends_with("exited with code 7"), "{f}");
        }
        other => panic!("{other:?}"),
    }
    let killed = stage.run(command(&json!({"argv": ["sh", "-c", "kill -9 $$"]})));
    assert!(stage.error(killed).await.to_string().contains("signal 9 (SIGKILL)"));
    let missing = stage.run(command(&json!({"argv": ["no-such-program-anywhere"]})));
    assert!(stage.error(missing).await.to_string().contains("no program `no-such-program-anywhere` on PATH"));
    let missing = stage.run(command(&json!({"argv": ["true"], "cwd": "/no/such/place"})));
    assert!(stage.error(missing).await.to_string().contains("no such directory"));
    end(stage).await;
}

#[tokio::test]
async fn a_cancelled_command_leaves_nothing() {
    let _alone = alone().await;
    let mut stage = Stage::new(processes(1, 1)).await;
    // It ignores the polite signal, and so does its child.
    let key = stage.run(command(&json!({"argv": ["sh", "-c", "trap '' TERM; sleep 3600 & sleep 3600"]})));
    stage.running(key).await;
    stage.session.cancel(&[key]);
    let next = stage.run(command(&json!({"argv": ["echo", "1"]})));
    assert_eq!(stage.json(next).await, "1");
    let left: Vec<_> = descendants().into_iter().filter(|(_, name)| name.contains("sleep")).collect();
    assert!(left.is_empty(), "{left:?}");
    end(stage).await;
}

#[tokio::test]
async fn commands_run_in_thread_mode_too() {
    let _alone = alone().await;
    let mut stage = Stage::new(LocalConfig { processes: false, ..processes(1, 2) }).await;
    let key = stage.run(command(&json!({"argv": ["echo", "hello"]})));
    assert_eq!(stage.json(key).await, "hello");
    end(stage).await;
}
