//! The death of the driver, with a real driver: this binary, started again.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use remuda_core::{
    host::TaskDef,
    task::{Job, TaskScope},
};
use remuda_local::{LocalConfig, MemoryLimit};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::json;
use support::{Stage, args, command, descendants, python, rust};

fn text(text: &str) -> remuda_core::value::Template {
    remuda_core::value::Template::value(text).unwrap()
}

const AS_DRIVER: &str = "REMUDA_TEST_DRIVER";

#[test]
fn host_entry() {
    support::prepare();
}

fn sleeps(_: TaskScope, _: &[u8]) -> Job {
    std::thread::sleep(Duration::from_secs(3600));
    unreachable!()
}
inventory::submit! { TaskDef { name: "sleeps", signature: "test", call: sleeps } }

/// Not a test: the driver that is going to be killed.
#[tokio::test]
async fn driver_entry() {
    if std::env::var_os(AS_DRIVER).is_none() {
        return;
    }
    let mut stage = Stage::new(LocalConfig {
        n_workers: Some(2),
        threads_per_worker: Some(2),
        memory_limit: MemoryLimit::None,
        ..LocalConfig::default()
    })
    .await;
    let works = [
        rust("sleeps", &[(); 0]),
        python("time:sleep", &args(&[remuda_core::value::Template::value(&3600).unwrap()]), "/"),
        // Native code that lets no other Python thread run.
        python("re:match", &args(&[text("(a+)+$"), text(&format!("{}b", "a".repeat(60)))]), "/"),
        command(&json!({"argv": ["sh", "-c", "sleep 3600 & wait"]})),
    ];
    for work in works {
        let key = stage.run(work);
        stage.running(key).await;
    }
    // Two hosts of each worker, two interpreters, a shell and what it runs; not the blink of a process between fork and exec.
    let mut before = descendants();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = descendants();
        if now.len() == 8 && now.iter().map(|(pid, _)| pid).eq(before.iter().map(|(pid, _)| pid)) {
            break;
        }
        before = now;
    }
    let pids: Vec<_> = before.into_iter().map(|(pid, _)| pid.to_string()).collect();
    eprintln!("children {}", pids.join(" "));
    std::future::pending().await
}

/// With `kill -9`, also when the test fails.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn nothing_outlives_a_killed_driver() {
    let mut driver = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["driver_entry", "--exact", "--nocapture"])
            .env(AS_DRIVER, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let lines = BufReader::new(driver.0.stderr.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("children ")).expect("the driver tells its children");
    let pids: Vec<Pid> = line.split(' ').skip(1).map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
    assert!(pids.len() == 8, "{line}");
    let handles: Vec<_> = pids.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()).unwrap()).collect();
    drop(driver);
    for (pid, handle) in pids.iter().zip(handles) {
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        // Generous for a loaded machine; without an end it would be an hour.
        let ended = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
        assert_eq!(ended, 1, "process {pid:?} outlives its driver");
    }
}
