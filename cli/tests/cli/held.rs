//! `remuda cluster start` on real Dask: who uses the cluster, and how it ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    dask::{can_run, place},
    harness::{Place, Running},
};

const CLASS: [&str; 4] = ["cluster", "start", "--cluster-class", "local::DaskCluster"];

/// A cluster with one worker, and what its line of JSON says.
fn start(place: &Place, args: &[&str]) -> (Running, Value) {
    let one = ["--json", "--kwarg", "n_workers=1", "--kwarg", "threads_per_worker=1"];
    let mut held = place.start(&[&CLASS[..], &one, args].concat());
    let said = serde_json::from_str(&held.line()).unwrap();
    (held, said)
}

/// Runs it with the interpreter that has Dask. It is killed when it takes too long.
#[track_caller]
fn python(place: &Place, script: &str, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let path = place.variable("PATH");
    command.args(["60", "python3", "-c", script]).args(args).current_dir(place.path()).env("PATH", path);
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn json(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&place.remuda(args).code(0).out).unwrap()
}

fn entries(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// Nothing of any cluster is left in the state directory.
#[track_caller]
fn settled(place: &Place) {
    let state = place.path().join("state");
    assert_eq!(entries(&state.join("ledger")), [] as [PathBuf; 0]);
    assert_eq!(entries(&state.join("security")), [] as [PathBuf; 0]);
}

/// The processes and the working directory that the only ledger names.
fn made(place: &Place) -> (Vec<u64>, PathBuf) {
    let ledgers = entries(&place.path().join("state/ledger"));
    let [ledger] = ledgers.as_slice() else { panic!("{ledgers:?}") };
    let lines: Vec<Value> = fs::read_to_string(ledger).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let processes = lines.iter().filter_map(|line| line["is"]["process"]["pid"].as_u64()).collect();
    let directory = lines.iter().find(|line| line["will"]["kind"] == "directory").unwrap();
    (processes, directory["will"]["name"].as_str().unwrap().into())
}

/// They end by themselves. The limit is there so that one that lives on fails the test instead of delaying it.
#[track_caller]
fn ended(processes: &[u64], directory: Option<&Path>) {
    let begin = Instant::now();
    let is_there = || processes.iter().any(|pid| is_running(*pid)) || directory.is_some_and(Path::exists);
    while is_there() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{processes:?} or {directory:?} outlive their driver");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever reaps orphans here may be slow.
fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn python_uses_a_held_cluster_and_others_look_at_it_and_scale_it() {
    if !can_run("python_uses_a_held_cluster_and_others_look_at_it_and_scale_it") {
        return;
    }
    let place = place(&[]);
    let (held, said) = start(&place, &["--scheduler-file", "s.json", "--kwarg", "name=barn"]);
    let address = said["address"].as_str().unwrap();
    assert_eq!((&said["name"], &said["class"], &said["security"]), (&"barn".into(), &"local::DaskCluster".into(), &Value::Null));
    let script = "
import sys
from dask.distributed import Client
for arguments in [{'address': sys.argv[1]}, {'scheduler_file': 's.json'}]:
    with Client(timeout=30, **arguments) as client:
        client.wait_for_workers(1, timeout=50)
        print(client.submit(sum, [1, 2]).result())
";
    assert_eq!(python(&place, script, &[address]), "3\n3\n");

    let status = json(&place, &["cluster", "status", address, "--json"]);
    assert_eq!((&status["address"], &status["workers"], &status["threads"]), (&said["address"], &1.into(), &1.into()), "{status}");
    let logs = json(&place, &["cluster", "logs", address, "--json"]);
    assert_eq!((&logs[0]["of"], &logs[1]["of"]), (&"scheduler".into(), &"worker 0-0".into()), "{logs}");
    place.remuda(&["cluster", "scale", address, "-n", "2"]).code(0).says(&["barn: 2 workers wanted"]);
    let wait = "
import sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=50)
";
    python(&place, wait, &[address]);
    let workers = json(&place, &["cluster", "workers", address, "--json"]);
    let names: Vec<_> = workers.as_array().unwrap().iter().map(|worker| worker["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["0-0", "1-0"], "{workers}");
    let live = place.remuda(&["gc"]);
    assert!(live.code(0).out.starts_with("barn (local::DaskCluster)") && live.out.contains("in use"), "{}", live.out);

    let (processes, directory) = made(&place);
    assert_eq!(processes.len(), 3);
    held.signal(Signal::INT);
    let end = held.end();
    end.code(0).says(&["`barn` is there", "asked for 2 workers", "closing the cluster", "cluster closed"]);
    assert_eq!(end.out, "", "one line of JSON and no more");
    assert!(!end.err.contains("scheduler ended"), "its end was asked for: {}", end.err);
    assert!(!place.path().join("s.json").exists() && !directory.exists());
    assert!(!processes.iter().any(|pid| is_running(*pid)));
    settled(&place);
    place.remuda(&["cluster", "status", address]).code(3).says(&["nothing listens there"]);
}

#[test]
fn python_uses_a_held_cluster_with_certificates() {
    if !can_run("python_uses_a_held_cluster_with_certificates") {
        return;
    }
    let place = place(&[("barn.yaml", "cluster_class: local::DaskCluster\ncluster_kwargs: {n_workers: 1, tls: true, name: barn}\n")]);
    let mut held = place.start(&["cluster", "start", "-f", "barn.yaml", "--json"]);
    let line = held.line();
    let script = "
import json, sys
from dask.distributed import Client
from distributed.security import Security
said = json.loads(sys.argv[1])
with Client(said['address'], security=Security(**said['security']), timeout=30) as client:
    print(client.submit(sum, [1, 2]).result())
";
    assert_eq!(python(&place, script, &[&line]), "3\n");

    let said: Value = serde_json::from_str(&line).unwrap();
    let address = said["address"].as_str().unwrap();
    let path = |name: &str| said["security"][name].as_str().unwrap();
    let files = [path("tls_ca_file"), path("tls_client_cert"), path("tls_client_key")];
    for file in files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let flags = ["--tls-ca-file", files[0], "--tls-cert", files[1], "--tls-key", files[2]];
    let status = json(&place, &[&["cluster", "status", address, "--json"][..], &flags].concat());
    assert_eq!((&status["address"], &status["workers"]), (&said["address"], &1.into()), "{status}");
    place.remuda(&[&["cluster", "scale", address, "-n", "0"][..], &flags].concat()).code(0);
    place.remuda(&["cluster", "status", address]).code(2).says(&["needs certificates", "--tls-ca-file"]);
    place.remuda(&["cluster", "status", &address.replace("tls", "tcp")]).code(3).says(&["tls://"]);

    held.signal(Signal::TERM);
    held.end().code(0).says(&["clients need the certificates in", "cluster closed"]);
    assert!(!Path::new(files[2]).exists());
    settled(&place);
}

#[test]
fn what_a_killed_holder_leaves_ends_or_is_collected() {
    if !can_run("what_a_killed_holder_leaves_ends_or_is_collected") {
        return;
    }
    let place = place(&[]);
    let (held, said) = start(&place, &["--kwarg", "tls=true", "--scheduler-file", "s.json"]);
    let key = said["security"]["tls_client_key"].as_str().unwrap();
    let (processes, directory) = made(&place);
    assert!(!processes.is_empty());
    held.signal(Signal::KILL);
    assert_eq!(held.end().code, None);
    // Without anybody's help.
    ended(&processes, Some(&directory));
    let dry = place.remuda(&["gc", "--dry-run"]);
    for words in ["s.json: would be removed", "security", "dask scheduler"] {
        assert!(dry.code(0).out.contains(words), "{words:?} is missing in\n{}", dry.out);
    }
    assert!(place.path().join("s.json").exists() && Path::new(key).exists());
    place.remuda(&["gc"]).code(0);
    assert!(!place.path().join("s.json").exists() && !Path::new(key).exists());
    settled(&place);
}

#[test]
fn a_second_signal_leaves_a_held_cluster_to_gc() {
    if !can_run("a_second_signal_leaves_a_held_cluster_to_gc") {
        return;
    }
    let place = place(&[]);
    let (held, _) = start(&place, &["--kwarg", "name=barn", "--scheduler-file", "s.json"]);
    let (processes, directory) = made(&place);
    // Stopped meanwhile, so that both have arrived when the program looks.
    held.signal(Signal::STOP);
    held.signal(Signal::INT);
    held.signal(Signal::TERM);
    held.signal(Signal::CONT);
    let end = held.end();
    end.code(130).says(&["interrupted again: leaving at once", "may still exist: cluster barn (local::DaskCluster)", "`remuda gc`"]);
    ended(&processes, None);
    place.remuda(&["gc"]).code(0);
    assert!(!place.path().join("s.json").exists() && !directory.exists());
    settled(&place);
}

#[test]
fn a_scheduler_file_that_somebody_has_written_over_stays() {
    if !can_run("a_scheduler_file_that_somebody_has_written_over_stays") {
        return;
    }
    let place = place(&[]);
    let (held, _) = start(&place, &["--scheduler-file", "s.json", "--quiet"]);
    fs::write(place.path().join("s.json"), "{}").unwrap();
    held.signal(Signal::TERM);
    assert_eq!(held.end().code(0).err, "", "--quiet");
    assert_eq!(fs::read_to_string(place.path().join("s.json")).unwrap(), "{}");
    settled(&place);
}

#[test]
fn a_run_on_its_own_dask_says_no_more_than_one_on_threads() {
    if !can_run("a_run_on_its_own_dask_says_no_more_than_one_on_threads") {
        return;
    }
    let place = place(&[("flow.yaml", "tasks: {said: {command: [echo, hello]}}\nresult: $said\n")]);
    let run = ["run", "flow.yaml", "--cluster-class", "local::DaskCluster", "--kwarg", "n_workers=1"];
    let end = place.remuda(&run);
    end.code(0).says(&["1 task done", "cluster closed"]);
    assert!(end.out.contains("hello"), "{}", end.out);
    assert!(!end.err.contains("ended"), "{}", end.err);
    settled(&place);
}
