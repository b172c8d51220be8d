//! Real Dask processes: of the `dask` on the PATH, or the one that `REMUDA_DASK` names.
//!
//! Skipped by name where there is none; with `dask` in `REMUDA_REQUIRE` that is a failure. What runs on the cluster is tested elsewhere: here
//! it is the processes, so the scheduler is asked who its workers are, and nothing else.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod killed;
#[path = "../killed_driver/mod.rs"]
mod killed_driver;
mod machine;
mod stage;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    class::ClusterClass,
    cluster::{Cluster, ClusterOptions, Limits},
    engine::{Connect, Drain, Drains, Engine, Session, WorkerChange, WorkerChanges},
    error::{Error, ErrorKind, Result},
    manager::{ClusterEvent, Endpoint},
};
use remuda_dask::{Address, ConnectOptions, Rpc};
use remuda_local::{DaskCluster, DaskConfig, MemoryLimit};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use self::{
    killed_driver::{ended, handle},
    machine::{alive, descendants, find, left_behind, left_directories, own_directory, signal},
    stage::{Stage, way},
};

/// Importing Dask on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The interpreter beside the `dask` program, if there is one.
fn python() -> Result<PathBuf, String> {
    let program = std::env::var_os("REMUDA_DASK").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = program.or_else(|| std::env::split_paths(&path).map(|dir| dir.join("dask")).find(|path| path.is_file()));
    let program = program.ok_or("there is no `dask` on PATH")?;
    let python = program.parent().map(|dir| dir.join("python")).filter(|path| path.exists());
    python.ok_or_else(|| format!("no `python` beside {}", program.display()))
}

/// One test at a time: they count this process's descendants.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// `None`: this test cannot be run here; it was said why.
fn config(test: &str) -> Option<DaskConfig> {
    match python() {
        Ok(python) => Some(DaskConfig {
            n_workers: Some(2),
            threads_per_worker: Some(1),
            python: Some(python.to_str().unwrap().to_owned()),
            memory_limit: MemoryLimit::None,
            ..DaskConfig::default()
        }),
        Err(missing) => {
            let required = std::env::var("REMUDA_REQUIRE").unwrap_or_default();
            assert!(required.split(',').all(|word| word.trim() != "dask"), "REMUDA_REQUIRE names dask, and it is missing: {missing}");
            println!("skipped {test}: {missing}");
            None
        }
    }
}

#[tokio::test]
async fn workers_come_are_replaced_and_go() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("workers_come_are_replaced_and_go") else { return };
    let config = DaskConfig {
        resources: [("GPU".to_owned(), 2.0)].into(),
        env: [("REMUDA_TEST_ENV".to_owned(), "here".to_owned())].into(),
        worker_saturation: Some(f64::INFINITY),
        ..config
    };
    let stage = Stage::start(config).await;
    stage.workers(2).await;
    let workers = stage.identity().await.workers;
    let names: Vec<_> = workers.values().map(|worker| (worker.name.as_str(), worker.nthreads, worker.resources["GPU"])).collect();
    assert!(names.contains(&("0-0", 1, 2.0)) && names.contains(&("1-0", 1, 2.0)), "{names:?}");

    stage.cluster.scale(3);
    stage.workers(3).await;

    let mut events = stage.cluster.events();
    let address = stage.address().to_owned();
    let victim = find(&[&address, "1-0"]);
    let environment = std::fs::read(format!("/proc/{victim}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for variable in ["REMUDA_TEST_ENV=here", "OMP_NUM_THREADS=1", "REMUDA_GRACEFUL=1"] {
        assert!(environment.split('\0').any(|entry| entry == variable), "{variable}");
    }
    signal(victim, Signal::KILL);
    let replaced = async {
        let mut lost = false;
        loop {
            match events.recv().await.unwrap() {
                ClusterEvent::Lost { id, .. } if id.to_string() == "1-0" => lost = true,
                ClusterEvent::Joined { id: Some(id), .. } if id.to_string() == "1-1" => break assert!(lost),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, replaced).await.expect("the worker is replaced");

    stage.cluster.scale(1);
    let shrunk = async {
        while stage.identity().await.workers.len() != 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, shrunk).await.expect("workers go");
    stage.close().await;
}

#[tokio::test]
async fn with_tls_nobody_else_is_let_in() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("with_tls_nobody_else_is_let_in") else { return };
    let stage = Stage::start(DaskConfig { tls: true, n_workers: Some(1), ..config }).await;
    stage.workers(1).await;
    assert!(stage.address().starts_with("tls://"), "{}", stage.address());
    let workers = stage.identity().await.workers;
    assert!(workers.keys().all(|address| address.starts_with("tls://")), "{workers:?}");
    let stranger = remuda_dask::security::Material::temporary(1).unwrap().client;
    let options = ConnectOptions { security: Some(Arc::new(stranger)), ..ConnectOptions::default() };
    let refused = match Rpc::connect(&stage.address().parse().unwrap(), &options).await {
        Err(_) => true,
        Ok(mut rpc) => rpc.identity().await.is_err(),
    };
    assert!(refused);
    let worker = find(&[stage.address(), "0-0"]);
    let line = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
    assert!(!line.contains("BEGIN"), "{line}");
    stage.close().await;
}

#[tokio::test]
async fn every_process_has_the_shim() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("every_process_has_the_shim") else { return };
    let stage = Stage::start(DaskConfig { n_workers: Some(1), blocked_handlers: vec!["register_scheduler_plugin".into()], ..config }).await;
    stage.workers(1).await;
    let (address, options) = way(&stage.endpoint);
    let mut rpc = Rpc::connect(&address, &options).await.unwrap();
    let hello = remuda_dask::shim::install(&mut rpc).await.unwrap();
    assert_eq!((hello.workers, hello.address), (1, stage.address().to_owned()));
    stage.close().await;
}

#[tokio::test]
async fn a_scheduler_that_ends_is_told_and_nothing_remains() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_scheduler_that_ends_is_told_and_nothing_remains") else { return };
    for by in [Signal::TERM, Signal::KILL] {
        let stage = Stage::start(DaskConfig { n_workers: Some(1), ..config.clone() }).await;
        stage.workers(1).await;
        let mut events = stage.cluster.events();
        let descendants = descendants(std::process::id());
        let scheduler = find(&["scheduler.json", std::env::temp_dir().to_str().unwrap(), &own_directory(&descendants)]);
        signal(scheduler, by);
        let error = timeout(PATIENCE, stage.cluster.failed()).await.expect("it is noticed");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "what this test's engine says: {error:?}");
        let told = async {
            loop {
                if let ClusterEvent::Degraded(text) = events.recv().await.unwrap()
                    && text.contains("scheduler")
                {
                    break text;
                }
            }
        };
        let told = timeout(PATIENCE, told).await.expect("it is told");
        // After SIGTERM it closes in order, and some versions then end by the signal all the same. A busy machine may be too slow for it.
        let ends: &[&str] =
            if by == Signal::KILL { &["SIGKILL"] } else { &["exit code 0", "SIGTERM", "still closing after 2s; it was killed"] };
        assert!(ends.iter().any(|end| told.contains(end)), "{told}");
        let report = stage.cluster.close().await.unwrap();
        assert!(report.remaining.is_empty() && alive(&descendants).is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn a_scheduler_that_does_not_get_over_its_end_is_killed_and_it_is_said_by_whom() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_scheduler_that_does_not_get_over_its_end_is_killed_and_it_is_said_by_whom") else { return };
    let slow = TempDir::new().unwrap();
    // It closes, and then does not end. Dask lets a second signal end it while it closes, and ours may come that soon.
    let text = "
import atexit, signal, time
usual = signal.signal
def linger():
    usual(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
def lasting(number, handler):
    return usual(number, signal.SIG_IGN if (number, handler) == (signal.SIGTERM, signal.SIG_DFL) else handler)
with open('/proc/self/cmdline', 'rb') as file:
    if b'scheduler.json' in file.read():
        signal.signal = lasting
        atexit.register(linger)
";
    std::fs::write(slow.path().join("sitecustomize.py"), text).unwrap();
    let env = [("PYTHONPATH".to_owned(), slow.path().to_str().unwrap().to_owned())].into();
    let stage = Stage::start(DaskConfig { n_workers: Some(0), env, ..config }).await;
    let mut events = stage.cluster.events();
    signal(find(&["scheduler.json", &own_directory(&descendants(std::process::id()))]), Signal::TERM);
    timeout(PATIENCE, stage.cluster.failed()).await.expect("it is noticed");
    assert!(stage.cluster.close().await.unwrap().remaining.is_empty());
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ClusterEvent::Degraded(text) = event {
            told.push(text);
        }
    }
    assert!(told.iter().any(|text| text == "Dask's scheduler ended: it was still closing after 2s; it was killed"), "{told:?}");
}

#[tokio::test]
async fn a_scheduler_that_dies_while_it_can_still_be_connected_to_is_told() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_scheduler_that_dies_while_it_can_still_be_connected_to_is_told") else { return };
    let stage = Stage::start(DaskConfig { n_workers: Some(0), ..config }).await;
    let mut events = stage.cluster.events();
    let scheduler = find(&["scheduler.json", &own_directory(&descendants(std::process::id()))]);
    // The system lets connections in for it. Threads stop one by one.
    signal(scheduler, Signal::STOP);
    let has_stopped = || {
        let mut threads = std::fs::read_dir(format!("/proc/{scheduler}/task")).unwrap();
        threads.all(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap().contains("State:\tT"))
    };
    while !has_stopped() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dies = async {
        let is_asked_to_end = || {
            let status = std::fs::read_to_string(format!("/proc/{scheduler}/status")).unwrap();
            let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
            u64::from_str_radix(pending.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
        };
        while !is_asked_to_end() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        signal(scheduler, Signal::KILL);
    };
    let (closed, ()) = tokio::join!(stage.cluster.close(), dies);
    assert!(closed.unwrap().remaining.is_empty());
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ClusterEvent::Degraded(text) = event {
            told.push(text);
        }
    }
    assert_eq!(told, ["Dask's scheduler ended: signal 9 (SIGKILL)"]);
}

#[tokio::test]
async fn a_scheduler_that_cannot_listen_says_why() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_scheduler_that_cannot_listen_says_why") else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = DaskConfig { scheduler_port: taken.local_addr().unwrap().port(), ..config };
    let error = Stage::try_start(config).await.err().expect("the port is taken");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.report().contains("exit code 1") && error.report().contains("in use"), "{}", error.report());
    assert_eq!(descendants(std::process::id()).len(), 0);
}

#[tokio::test]
async fn a_worker_that_ends_at_once_says_why() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_worker_that_ends_at_once_says_why") else { return };
    let config = DaskConfig { preload: vec!["no_such_module".into()], n_workers: Some(1), ..config };
    let stage = Stage::start(config).await;
    let mut events = stage.cluster.events();
    let error = stage.cluster.wait_for_workers(1, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CrashLoop);
    let report = error.report();
    assert!(
        report.contains("No module named 'no_such_module'") && report.contains("its log says\n") && report.contains("`preload`"),
        "{report}"
    );
    let mut lost = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let ClusterEvent::Lost { id, .. } = event {
            lost.push(id.incarnation);
        }
    }
    assert_eq!(lost, [0, 1], "what cannot be imported is not started again");
    stage.close().await;
}

#[tokio::test]
async fn a_worker_over_its_memory_is_replaced() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_worker_over_its_memory_is_replaced") else { return };
    let hog = TempDir::new().unwrap();
    let file = hog.path().join("hog.py");
    // Only the first of its name: what a worker starts counts, too, and goes with it.
    let text = "import subprocess, sys\n\ndef dask_setup(worker):\n    if worker.name == '0-0':\n        subprocess.Popen([sys.executable, '-c', \
                'import time; data = bytearray(600_000_000); time.sleep(3600)'], start_new_session=True)\n";
    std::fs::write(&file, text).unwrap();
    let config = DaskConfig {
        memory_limit: MemoryLimit::Bytes(500 << 20),
        n_workers: Some(1),
        preload: vec![file.to_str().unwrap().into()],
        ..config
    };
    let stage = Stage::start(config).await;
    let mut events = stage.cluster.events();
    let killed = async {
        loop {
            if let ClusterEvent::Joined { id: Some(id), .. } = events.recv().await.unwrap()
                && id.incarnation == 1
            {
                break;
            }
        }
    };
    timeout(PATIENCE, killed).await.expect("it is replaced");
    let hogs = descendants(std::process::id()).len();
    assert_eq!(hogs, 2, "a scheduler and a worker");
    stage.close().await;
}

#[tokio::test]
async fn a_cluster_that_was_just_begun_can_be_closed() {
    let _alone = ALONE.lock().await;
    let Some(config) = config("a_cluster_that_was_just_begun_can_be_closed") else { return };
    for pause in [0, 30, 200, 600] {
        let starting = Stage::try_start(config.clone());
        let _ = timeout(Duration::from_millis(pause), starting).await;
    }
    // Handles were dropped on a runtime that is ours; the keepers' is not, and they close.
    let gone = async {
        while !descendants(std::process::id()).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("nothing is left");
}
