//! Ledgers of clusters that create real processes and directories: closed in peace, killed, and swept.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of a test may panic like a test")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    cluster::{Cluster, ClusterOptions},
    error::{ErrorKind, Result},
    ledger::{Entry, Identity, Item, MARKER, Outcome, ProcessId, Record, Sweep, Verdict, builtin_collectors, sweep},
    manager::*,
};
use support::FakeEngine;
use tempfile::TempDir;

/// The state directory of the driver that `driver` plays.
const STATE: &str = "REMUDA_TEST_STATE";
const MODE: &str = "REMUDA_TEST_MODE";

/// The process and its entry, the directory's entry and its path.
type Made = (Child, Entry, Entry, PathBuf);

/// Makes a directory and a process in `start`.
#[derive(Debug, Default)]
struct Barn {
    temp: PathBuf,
    /// Dies, so to speak, before it can write the process id down.
    forgets: bool,
    /// Says at close that this remains.
    remaining: Vec<String>,
    made: Arc<Mutex<Option<Made>>>,
}

#[async_trait]
impl ClusterManager for Barn {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { scaling: Scaling::Count, ..ClusterInfo::new("barn::Barn") }
    }
    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        let ledger = cx.ledger();
        let (directory, path) = ledger.create_directory(self.temp.clone()).await?;
        fs::create_dir(path.join("inside")).unwrap();
        let entry = ledger.will_create(Item::process("sleeper")).await?;
        let child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env(MARKER, ledger.marker(&entry))
            .spawn()
            .unwrap();
        let pid = child.id();
        *self.made.lock().unwrap() = Some((child, entry.clone(), directory, path));
        if !self.forgets {
            ledger.is_process(&entry, pid).await?;
        }
        Ok(Endpoint::Embedded(Arc::new(FakeEngine::default())))
    }
    async fn scale(&self, _cx: &Context, _target: Target) -> Result<()> {
        Ok(())
    }
    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        Ok(vec![])
    }
    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        let made = self.made.lock().unwrap().take();
        if let Some((mut child, entry, directory, path)) = made.filter(|_| self.remaining.is_empty()) {
            child.kill().unwrap();
            child.wait().unwrap();
            fs::remove_dir_all(path).unwrap();
            cx.ledger().gone(&entry).await;
            cx.ledger().gone(&directory).await;
        }
        Ok(CloseReport { remaining: self.remaining.clone() })
    }
}

fn options(state: &Path) -> ClusterOptions {
    ClusterOptions { name: Some("barn".into()), state_dir: Some(state.to_owned()), ..ClusterOptions::default() }
}

fn files(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("ledger")) else { return vec![] };
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn swept(state: &Path, dry_run: bool) -> Sweep {
    let mut sweeps = sweep(state, &builtin_collectors(), dry_run).await.unwrap();
    assert_eq!(sweeps.len(), 1, "{sweeps:?}");
    sweeps.remove(0)
}

fn verdicts(sweep: &Sweep) -> Vec<(&str, &Verdict)> {
    let Outcome::Swept { found, .. } = &sweep.outcome else { panic!("{sweep:?}") };
    found.iter().map(|found| (found.entry.item.kind.as_str(), &found.verdict)).collect()
}

#[tokio::test]
async fn a_cluster_that_lives_is_left_alone_and_one_that_closes_leaves_no_file() {
    let (state, temp) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let cluster = Cluster::start(Barn { temp: temp.path().into(), ..Barn::default() }, options(state.path())).await.unwrap();
    let [path] = &files(state.path())[..] else { panic!("one file") };
    let record = Record::read(path).unwrap();
    assert_eq!((record.cluster.as_str(), record.class.as_str()), ("barn", "barn::Barn"));
    assert_eq!(record.driver.process, ProcessId::own().unwrap());
    let kinds: Vec<_> = record.entries.iter().map(|entry| entry.item.kind.as_str()).collect();
    assert_eq!(kinds, ["directory", "process"]);
    let Some(Identity::Process(process)) = &record.entries[1].identity else { panic!("{record:?}") };

    assert!(matches!(swept(state.path(), false).await.outcome, Outcome::Live));
    assert!(process.is_alive().unwrap() && Path::new(&record.entries[0].item.name).is_dir());
    cluster.close().await.unwrap();
    assert!(files(state.path()).is_empty() && !process.is_alive().unwrap());
}

#[tokio::test]
async fn a_cluster_that_creates_nothing_writes_nothing() {
    let state = TempDir::new().unwrap();
    let cluster = Cluster::start(support::Fake::default(), options(state.path())).await.unwrap();
    cluster.close().await.unwrap();
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nothing_is_created_where_nothing_can_be_written_down() {
    let (place, temp) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let barn = Barn { temp: temp.path().into(), ..Barn::default() };
    let error = Cluster::start(barn, options(&file)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::ConfigInvalid && error.hint().unwrap().contains("REMUDA_STATE_DIR"), "{error:?}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_close_could_not_remove_may_be_removed_while_its_driver_lives() {
    let (state, temp) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = Arc::new(Mutex::new(None));
    let barn = Barn { temp: temp.path().into(), remaining: vec!["a sleeper".into()], made: made.clone(), ..Barn::default() };
    let cluster = Cluster::start(barn, options(state.path())).await.unwrap();
    let child = made.lock().unwrap().as_ref().map(|(child, ..)| ProcessId::of(child.id()).unwrap().unwrap()).unwrap();
    cluster.close().await.unwrap();
    let dry = swept(state.path(), true).await;
    assert_eq!(dry.record.as_ref().unwrap().ended, Some(vec!["a sleeper".into()]));
    assert_eq!(verdicts(&dry), [("process", &Verdict::Removable), ("directory", &Verdict::Removable)]);
    assert!(child.is_alive().unwrap());
    assert_eq!(verdicts(&swept(state.path(), false).await), [("process", &Verdict::Removed), ("directory", &Verdict::Removed)]);
    assert!(!child.is_alive().unwrap() && files(state.path()).is_empty());
}

/// A process that keeps a cluster until it is killed. Not a test.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn driver() {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let barn = Barn { temp: state.clone(), forgets: std::env::var_os(MODE).is_some(), ..Barn::default() };
        let _cluster = Cluster::start(barn, options(&state)).await.unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    });
}

/// A state directory whose driver was killed with its cluster running.
fn killed(forgets: bool) -> TempDir {
    let state = TempDir::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "driver", "--ignored", "--test-threads=1", "--nocapture"]).env(STATE, state.path()).stdout(Stdio::piped());
    if forgets {
        command.env(MODE, "forgets");
    }
    let mut driver = command.spawn().unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the driver ended early");
    driver.kill().unwrap();
    driver.wait().unwrap();
    state
}

fn sleeper(record: &Record) -> ProcessId {
    let marker = format!("{MARKER}={}", record.entries[1].marker);
    let carries =
        |pid: &u32| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.split(|b| *b == 0).any(|v| v == marker.as_bytes()));
    let mut pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ProcessId::of(pids.find(carries).expect("it runs")).unwrap().unwrap()
}

#[tokio::test]
async fn what_a_killed_driver_left_is_removed() {
    for forgets in [false, true] {
        let state = killed(forgets);
        let record = Record::read(&files(state.path())[0]).unwrap();
        assert_eq!(record.entries[1].identity.is_none(), forgets);
        let (child, directory) = (sleeper(&record), PathBuf::from(&record.entries[0].item.name));

        let dry = swept(state.path(), true).await;
        assert_eq!(verdicts(&dry), [("process", &Verdict::Removable), ("directory", &Verdict::Removable)]);
        assert!(child.is_alive().unwrap() && directory.join("inside").is_dir() && files(state.path()).len() == 1);

        // Torn by the kill, so to speak.
        let mut bytes = fs::read(&record.path).unwrap();
        bytes.extend(br#"{"gone":{"n":2"#);
        fs::write(&record.path, bytes).unwrap();
        let done = swept(state.path(), false).await;
        assert_eq!(verdicts(&done), [("process", &Verdict::Removed), ("directory", &Verdict::Removed)]);
        assert!(!child.is_alive().unwrap() && !directory.exists() && files(state.path()).is_empty());
    }
}

#[tokio::test]
async fn strangers_are_not_touched() {
    let state = killed(false);
    let [path] = &files(state.path())[..] else { panic!("one file") };
    let record = Record::read(path).unwrap();
    let Some(Identity::Process(known)) = record.entries[1].identity.clone() else { panic!("{record:?}") };
    // Its process id is somebody else's now; its directory is another one, too.
    let mut stranger = Command::new("sleep").arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let text = fs::read_to_string(path).unwrap();
    let written = |pid, start| format!("\"process\":{{\"pid\":{pid},\"start\":{start},");
    // A tick earlier: processes that start together share one, but then they do not share a number.
    let (was, is) = (written(known.pid, known.start), written(stranger.id(), known.start - 1));
    assert!(text.contains(&was));
    fs::write(path, text.replace(&was, &is)).unwrap();
    let directory = PathBuf::from(&record.entries[0].item.name);
    fs::write(directory.join(remuda_core::ledger::MARKER_FILE), "another/1").unwrap();

    let sweep = swept(state.path(), false).await;
    let [(_, Verdict::Gone), (_, Verdict::Kept { why })] = &verdicts(&sweep)[..] else { panic!("{sweep:?}") };
    assert!(why.contains("mark"), "{why}");
    assert!(stranger.try_wait().unwrap().is_none() && directory.is_dir() && files(state.path()).len() == 1);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(known.pid as i32).unwrap(), rustix::process::Signal::KILL).unwrap();

    // Of another machine, of another container, of a later version: not a word about what they name.
    let host = format!("\"host\":\"{}\"", record.driver.host);
    let boot = record.driver.process.boot_id.clone();
    for (from, to) in [(boot.as_str(), "another"), (record.driver.pid_namespace.as_str(), "pid:[1]")] {
        fs::write(path, text.replace(from, to).replace(&host, "\"host\":\"elsewhere\"")).unwrap();
        let sweep = swept(state.path(), false).await;
        assert!(matches!(&sweep.outcome, Outcome::OutOfSight(why) if why.contains("elsewhere")), "{sweep:?}");
    }
    fs::write(path, text.replace("\"remuda_ledger\":1", "\"remuda_ledger\":7")).unwrap();
    assert!(matches!(swept(state.path(), false).await.outcome, Outcome::Unreadable(error) if error.kind() == ErrorKind::Unsupported));
    assert!(directory.is_dir());
}

#[tokio::test]
async fn after_a_reboot_no_process_is_left_and_a_kind_that_nobody_knows_is_kept() {
    let state = killed(false);
    let [path] = &files(state.path())[..] else { panic!("one file") };
    let record = Record::read(path).unwrap();
    let child = sleeper(&record);
    let text = fs::read_to_string(path).unwrap();
    let task = "{\"will\":{\"n\":9,\"kind\":\"ecs-task\",\"name\":\"arn\"}}\n";
    fs::write(path, text.replace(&child.boot_id, "before") + task).unwrap();
    let sweep = swept(state.path(), false).await;
    let [("ecs-task", Verdict::Kept { why }), (_, Verdict::Gone), (_, Verdict::Removed)] = &verdicts(&sweep)[..] else {
        panic!("{sweep:?}")
    };
    assert!(why.contains("does not know"), "{why}");
    assert!(child.is_alive().unwrap(), "its number is a coincidence");
    rustix::process::kill_process(rustix::process::Pid::from_raw(child.pid as i32).unwrap(), rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while child.is_alive().unwrap() {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
}
