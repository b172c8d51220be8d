//! The death of the driver, with a real driver: this binary, started again.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

mod killed_driver;
mod support;

use std::time::Duration;

use killed_driver::{Driver, ended, handle, is_driver};
use remuda_core::{
    host::TaskDef,
    task::{Job, TaskScope},
};
use remuda_local::{LocalConfig, MemoryLimit};
use serde_json::json;
use support::{Stage, args, command, descendants, python, rust};

fn text(text: &str) -> remuda_core::value::Template {
    remuda_core::value::Template::value(text).unwrap()
}

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
    if !is_driver() {
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

#[test]
fn nothing_outlives_a_killed_driver() {
    let mut driver = Driver::start("driver_entry", |_| {});
    let pids = driver.children();
    assert!(pids.len() == 8, "{pids:?}");
    let handles: Vec<_> = pids.iter().map(|pid| handle(*pid)).collect();
    drop(driver);
    pids.iter().zip(&handles).for_each(|(pid, handle)| ended(*pid, handle));
}
