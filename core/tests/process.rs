//! Clusters whose process or runtime ends under them, on Remuda's own threads and a real clock.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod support;

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use remuda_core::cluster::{self, Cluster, ClusterOptions};
use support::{Fake, Fault};

const LOG: &str = "REMUDA_TEST_LOG";

#[test]
fn the_users_runtime_dies_in_the_middle_and_everything_is_closed() {
    let fake = Fake::default();
    let inside = fake.clone();
    let (there, arrived) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let user = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        user.spawn(Cluster::scope(inside, ClusterOptions { workers: Some(2), ..ClusterOptions::default() }, |cluster| async move {
            cluster.wait_for_workers(2, Duration::from_secs(30)).await?;
            there.send(())?;
            std::future::pending::<anyhow::Result<()>>().await
        }));
        arrived.recv().unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(fake.said().last().unwrap(), "closed", "the dropped runtime dropped the handle, and that waited");
    assert!(fake.alive.lock().unwrap().is_empty());
}

#[test]
fn a_start_that_is_dropped_is_closed_before_the_drop_returns() {
    let fake = Fake::with(Fault { start_hangs: Some(false), ..Fault::default() });
    let user = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    user.block_on(async {
        tokio::select! {
            started = Cluster::start(fake.clone(), ClusterOptions::default()) => panic!("it hangs: {started:?}"),
            () = fake.hears("start") => {} // and it is dropped
        }
    });
    assert_eq!(fake.said(), ["start", "close", "closed"]);
}

/// Runs one of the tests below as a process of its own.
fn child(name: &str, log: &std::path::Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1", "--nocapture"])
        .env(LOG, log)
        .output()
        .unwrap()
}

fn log() -> Option<PathBuf> {
    std::env::var_os(LOG).map(PathBuf::from)
}

async fn cluster(log: PathBuf) -> Cluster {
    let fake = Fake::with(Fault { log: Some(log), ..Fault::default() });
    let cluster = Cluster::start(fake, ClusterOptions { workers: Some(1), ..ClusterOptions::default() }).await.unwrap();
    cluster.wait_for_workers(1, Duration::from_secs(30)).await.unwrap();
    cluster
}

#[test]
fn a_process_that_returns_from_main_has_closed_its_clusters() {
    for name in ["main_returns", "main_joins_what_others_hold", "main_says_what_remains"] {
        let dir = std::env::temp_dir().join(format!("remuda-core-{}-{name}", std::process::id()));
        let output = child(name, &dir);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let closed = std::fs::read_to_string(&dir);
        if name == "main_says_what_remains" {
            assert!(closed.is_err(), "nobody could close it");
            assert!(text.contains("REMAINS cluster deaf (fake::Fake): not closed in time"), "{text}");
            assert!(text.contains("the runtime that kept it was dropped before it was closed"), "{text}");
        } else {
            assert_eq!(closed.unwrap(), "closed", "{name}");
            std::fs::remove_file(dir).unwrap();
        }
    }
}

#[test]
#[ignore = "run by the test above as a process of its own"]
fn main_returns() {
    let Some(log) = log() else { return };
    let user = tokio::runtime::Runtime::new().unwrap();
    let (there, arrived) = std::sync::mpsc::channel();
    user.spawn(async move {
        let _cluster = cluster(log).await;
        there.send(()).unwrap();
        std::future::pending::<()>().await
    });
    arrived.recv().unwrap();
    drop(user);
    std::process::exit(0); // what a return from main does to threads
}

#[test]
#[ignore = "run by the test above as a process of its own"]
fn main_joins_what_others_hold() {
    let Some(log) = log() else { return };
    cluster::join_at_exit();
    let user = tokio::runtime::Runtime::new().unwrap();
    std::mem::forget(user.block_on(cluster(log))); // a global, say
    assert!(cluster::join_all(Duration::from_secs(30)).is_empty());
    std::process::exit(0);
}

#[test]
#[ignore = "run by the test above as a process of its own"]
fn main_says_what_remains() {
    if log().is_none() {
        return;
    }
    cluster::join_at_exit();
    let home = tokio::runtime::Runtime::new().unwrap();
    let user = tokio::runtime::Runtime::new().unwrap();
    user.block_on(async {
        let deaf = Fake::with(Fault { close_hangs: true, ..Fault::default() });
        let options = ClusterOptions { name: Some("deaf".into()), ..ClusterOptions::default() };
        drop(Cluster::start(deaf, options).await.unwrap()); // does not block: somebody joins
        let options = ClusterOptions { home: Some(home.handle().clone()), ..ClusterOptions::default() };
        std::mem::forget(Cluster::start(Fake::default(), options).await.unwrap());
    });
    drop(home);
    for line in cluster::join_all(Duration::from_millis(300)) {
        println!("REMAINS {line}");
    }
    std::process::exit(0);
}
