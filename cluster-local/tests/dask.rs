//! Real Dask processes: of the `dask` on the PATH, or the one that `REMUDA_DASK` names.
//!
//! Skipped by name where there is none; with `dask` in `REMUDA_REQUIRE` that is a failure. What runs on the cluster is tested elsewhere: here
//! it is the processes, so the scheduler is asked who its workers are, and nothing else.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    class::ClusterClass,
    cluster::{Cluster, ClusterOptions, Limits},
    engine::{Connect, Engine, Session, WorkerChange, WorkerChanges},
    error::{Error, ErrorKind, Result},
    manager::{ClusterEvent, Endpoint},
};
use remuda_dask::{Address, ConnectOptions, Rpc};
use remuda_local::{DaskCluster, DaskConfig, MemoryLimit};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

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

/// Knows who is there, and nothing of tasks.
#[derive(Debug, Default)]
struct Roll {
    endpoint: Mutex<Option<Endpoint>>,
}

#[derive(Debug)]
struct RollEngine(Address, ConnectOptions);

#[async_trait]
impl Connect for Roll {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        *self.endpoint.lock().unwrap() = Some(endpoint.clone());
        let (address, options) = way(endpoint);
        Ok(Arc::new(RollEngine(address, options)))
    }
}

fn way(endpoint: &Endpoint) -> (Address, ConnectOptions) {
    let Endpoint::Dask { address, security, .. } = endpoint else { panic!("{endpoint:?}") };
    (address.parse().unwrap(), ConnectOptions { security: security.clone(), ..ConnectOptions::default() })
}

#[async_trait]
impl Engine for RollEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "no sessions"))
    }

    async fn drain(&self, workers: &[String], _: Duration) -> Result<Vec<String>> {
        Ok(workers.to_vec())
    }

    fn changes(&self) -> WorkerChanges {
        let (news, changes) = mpsc::unbounded_channel();
        let (address, options) = (self.0.clone(), self.1.clone());
        tokio::spawn(async move {
            let lost = follow(&address, &options, &news).await.unwrap_err();
            let _ = news.send(WorkerChange::SchedulerLost(lost));
        });
        changes
    }
}

async fn follow(address: &Address, options: &ConnectOptions, news: &mpsc::UnboundedSender<WorkerChange>) -> Result<()> {
    let mut scheduler = Rpc::connect(address, options).await?;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let workers = scheduler.identity().await?.workers;
        let now: BTreeMap<_, _> = workers.into_values().map(|worker| (worker.name, worker.host)).collect();
        for (name, host) in now.iter().filter(|(name, _)| !known.contains_key(*name)) {
            let _ = news.send(WorkerChange::Joined { name: name.clone(), host: host.clone(), slots: 1 });
        }
        for name in known.keys().filter(|name| !now.contains_key(*name)) {
            let _ = news.send(WorkerChange::Left { name: name.clone(), reason: "it left the scheduler".into(), busy: false });
        }
        known = now;
        tokio::time::sleep(Duration::from_millis(50)).await; // the subject is the processes: being late does no harm
    }
}

struct Stage {
    cluster: Cluster,
    endpoint: Endpoint,
    state: TempDir,
}

impl Stage {
    async fn start(config: DaskConfig) -> Self {
        Self::try_start(config).await.unwrap()
    }

    async fn try_start(config: DaskConfig) -> Result<Self> {
        let (connect, state) = (Arc::new(Roll::default()), TempDir::new().unwrap());
        let second = Duration::from_secs(1);
        let options = ClusterOptions {
            connect: connect.clone(),
            limits: Limits { backoff: (second / 10, second), poll: second / 5, ..Limits::default() },
            state_dir: Some(state.path().to_owned()),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(DaskCluster::from_config(config)?, options).await?;
        let endpoint = connect.endpoint.lock().unwrap().clone().unwrap();
        Ok(Self { cluster, endpoint, state })
    }

    fn address(&self) -> &str {
        match &self.endpoint {
            Endpoint::Dask { address, .. } => address,
            other => panic!("{other:?}"),
        }
    }

    async fn identity(&self) -> remuda_dask::Identity {
        let (address, options) = way(&self.endpoint);
        Rpc::connect(&address, &options).await.unwrap().identity().await.unwrap()
    }

    async fn workers(&self, count: usize) {
        self.cluster.wait_for_workers(count, PATIENCE).await.unwrap();
    }

    async fn close(self) {
        let before = descendants(std::process::id());
        assert!(!before.is_empty());
        let report = self.cluster.close().await.unwrap();
        assert!(report.remaining.is_empty(), "{report:?}");
        assert_eq!(self.cluster.close().await.unwrap(), report, "closing twice is closing once");
        assert_eq!(alive(&before), Vec::<u32>::new());
        assert_eq!(left_behind(self.state.path()), Vec::<PathBuf>::new());
    }
}

/// Processes below `root`.
fn descendants(root: u32) -> Vec<u32> {
    let (mut found, mut parents) = (Vec::new(), vec![root]);
    while let Some(parent) = parents.pop() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}

fn alive(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect()
}

fn left_behind(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![state.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() { dirs.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// The process of a worker or of the scheduler, by its command line.
fn find(words: &[&str]) -> u32 {
    let found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words.iter().all(|word| line.iter().any(|part| part.contains(word))).then_some(pid)
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "{words:?}: {found:?}");
    found[0]
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Waits for the end of a process that need not be our child.
fn ended(pid: u32, handle: &std::os::fd::OwnedFd) {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    let count = poll(&mut fds, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap();
    assert_eq!(count, 1, "process {pid} does not end");
}

fn handle(pid: u32) -> std::os::fd::OwnedFd {
    pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
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
        // After SIGTERM it closes in order, and some versions then end by the signal all the same.
        let ends: &[&str] = if by == Signal::KILL { &["SIGKILL"] } else { &["exit code 0", "SIGTERM"] };
        assert!(ends.iter().any(|end| told.contains(end)), "{told}");
        let report = stage.cluster.close().await.unwrap();
        assert!(report.remaining.is_empty() && alive(&descendants).is_empty(), "{report:?}");
    }
}

/// The directory of the cluster whose processes these are.
fn own_directory(pids: &[u32]) -> String {
    let lines = pids.iter().filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
    let mut words = lines.flat_map(|line| line.split('\0').map(str::to_owned).collect::<Vec<_>>());
    let guard = words.find_map(|word| word.strip_suffix("/remuda_guard.py").map(str::to_owned));
    guard.expect("a process with a guard")
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
    let error = stage.cluster.wait_for_workers(1, PATIENCE).await.unwrap_err();
    assert!(error.report().contains("No module named 'no_such_module'"), "{}", error.report());
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

const AS_DRIVER: &str = "REMUDA_TEST_DRIVER";

/// Not a test: the driver that is going to be killed.
#[tokio::test]
async fn driver_entry() {
    if std::env::var_os(AS_DRIVER).is_none() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("child.py");
    let busy = directory.path().join("busy");
    // A child in a session of its own, and a thread that lets no other one run.
    let text = format!(
        "import re, subprocess, threading\n\ndef spin():\n    open({busy:?}, 'w').close()\n    re.match('(a+)+$', 'a' * 60 + 'b')\n\n\
         def dask_setup(worker):\n    if worker.name == '0-0':\n        subprocess.Popen(['sleep', '3600'], start_new_session=True)\n    \
         else:\n        threading.Timer(1, spin).start()\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = config("driver_entry").unwrap();
    let stage = Stage::start(DaskConfig { preload: vec![file.to_str().unwrap().into()], ..config }).await;
    stage.workers(2).await;
    // A scheduler, two workers and the child.
    let pids = loop {
        let pids = descendants(std::process::id());
        if pids.len() == 4 {
            break pids;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while !busy.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cleaned = left_directories();
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    eprintln!("children {}\ndirectories {}", pids.join(" "), cleaned.join(" "));
    std::future::pending().await
}

/// The cluster's own, by its marker file.
fn left_directories() -> Vec<String> {
    let dirs = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    dirs.filter(|dir| dir.path().join("remuda_guard.py").exists()).map(|dir| dir.path().to_str().unwrap().to_owned()).collect()
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
    let _alone = ALONE.blocking_lock();
    if config("nothing_outlives_a_killed_driver").is_none() {
        return;
    }
    [Signal::KILL, Signal::TERM].into_iter().for_each(nothing_outlives);
}

fn nothing_outlives(by: Signal) {
    let temporary = TempDir::new().unwrap();
    let mut driver = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["driver_entry", "--exact", "--nocapture"])
            .env(AS_DRIVER, "1")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(driver.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut line = |word: &str| {
        let line = lines.find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("the driver tells its {word}"));
        line.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let pids: Vec<u32> = line("children ").iter().map(|pid| pid.parse().unwrap()).collect();
    let directories = line("directories ");
    assert_eq!((pids.len(), directories.len()), (4, 1));
    let handles: Vec<_> = pids.iter().map(|pid| handle(*pid)).collect();
    signal(driver.0.id(), by);
    driver.0.wait().unwrap();
    pids.iter().zip(&handles).for_each(|(pid, handle)| ended(*pid, handle));
    assert!(!Path::new(&directories[0]).exists(), "the scheduler removes the directory before it ends");
}
