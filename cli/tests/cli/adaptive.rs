//! Workers that follow the work: bounds on the command line, the decisions and why, what was used.

use std::{fs, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{dask, harness::Place};

const FLOW: &str = "
runner: {cluster_kwargs: {processes: false}, adapt_kwargs: {maximum: 9, budget: 1h}}
tasks:
  naps: {command: [sleep, '0.0{{ i }}'], map: {i: {range: 30}}}
  said: {command: [printf, '%s', well], after: [naps]}
result: $said
";

#[test]
fn a_run_adapts_between_bounds_and_tells_why() {
    let place = Place::new(&[("flow.yaml", FLOW)]);
    let run = place.remuda(&["run", "flow.yaml", "--adapt", "0..3", "--explain-scaling=-"]);
    assert!(!place.path().join("-").exists(), "it is standard error");
    assert_eq!(run.code(0).out, "well\n");
    let started = "scaling: from 0 to 3 workers, a start is taken for 10ms, a budget of 3600 worker-seconds";
    run.says(&[started, " (start +", "adaptive scaling: ", " of a budget of 3600 worker-seconds used, ", "cluster closed"]);
    let most = run.err.lines().filter_map(|line| line.split_once("scaling: ")?.1.split_once(" worker")?.0.parse::<u32>().ok()).max();
    assert!(most.is_some_and(|most| (1..=3).contains(&most)), "{most:?}: {}", run.err);
    let fixed = place.remuda(&["run", "flow.yaml", "--explain-scaling", "--cluster-class", "local::LocalCluster"]);
    fixed.code(0).says(&["note: --explain-scaling has nothing to tell"]);
    let quiet = place.remuda(&["run", "flow.yaml", "--quiet"]);
    assert_eq!((quiet.code(0).out.as_str(), quiet.err.as_str()), ("well\n", ""));
}

#[test]
fn a_log_of_decisions_is_made_again_the_same() {
    let place = Place::new(&[("flow.yaml", FLOW)]);
    let run = place.remuda(&["run", "flow.yaml", "--quiet", "--explain-scaling=log.jsonl"]);
    assert_eq!(run.code(0).err, "", "what goes to a file is not told");
    let again = place.remuda(&["explain-scaling", "log.jsonl", "--all"]);
    let told = &again.code(0).out;
    assert!(told.contains("(start +") && told.contains("from 0 to 9 workers") && told.ends_with("made again the same\n"), "{told}");
    let log = fs::read_to_string(place.path().join("log.jsonl")).unwrap();
    let decisions = log.lines().filter(|line| line.starts_with("{\"decided\"")).count();
    assert!(told.contains(&format!("\n{decisions} decision")), "{told}");

    let changed = log.replace("\"victims\":[]", "\"victims\":[999]");
    assert_ne!(changed, log);
    fs::write(place.path().join("changed.jsonl"), changed).unwrap();
    let otherwise = place.remuda(&["explain-scaling", "changed.jsonl"]);
    assert!(otherwise.code(1).out.contains("now: ") && otherwise.out.contains("come out otherwise"), "{}", otherwise.out);
    let rest: String = log.lines().skip(1).map(|line| format!("{line}\n")).collect();
    fs::write(place.path().join("rest.jsonl"), rest).unwrap();
    place.remuda(&["explain-scaling", "rest.jsonl"]).code(2).says(&["rest.jsonl:1", "from its first line"]);
    let gap = log.replacen("{\"decided\":{\"number\":2,", "{\"decided\":{\"number\":5,", 1);
    fs::write(place.path().join("gap.jsonl"), gap).unwrap();
    place.remuda(&["explain-scaling", "gap.jsonl"]).code(2).says(&["gap.jsonl:2: 3 lines of the log are missing before this one"]);
    fs::write(place.path().join("two.jsonl"), log.repeat(2)).unwrap();
    assert!(place.remuda(&["explain-scaling", "two.jsonl"]).code(0).out.ends_with("made again the same\n"), "one log behind the other");
    place.remuda(&["explain-scaling", "flow.yaml"]).code(2).says(&["flow.yaml:1", "not a line of a decision log"]);
    place.remuda(&["explain-scaling", "none"]).code(2).says(&["none: "]);

    let cut = log.lines().count();
    fs::write(place.path().join("cut.jsonl"), &log[..log.len() - 9]).unwrap();
    let whole = place.remuda(&["explain-scaling", "cut.jsonl"]);
    whole.code(2).says(&[&format!("cut.jsonl ends in the middle of line {cut}")]);
    let word = if decisions == 2 { "decision" } else { "decisions" };
    assert!(whole.out.ends_with(&format!("\n{} {word}, made again the same\n", decisions - 1)), "{}", whole.out);
    fs::write(place.path().join("empty"), "").unwrap();
    place.remuda(&["explain-scaling", "empty"]).code(2).says(&["empty is empty, which is no log", "--explain-scaling=FILE"]);
    fs::write(place.path().join("binary"), b"\x7fELF\xff\xfe\n\x00").unwrap();
    place.remuda(&["explain-scaling", "binary"]).code(2).says(&["binary:1: ", "it is not text", "--explain-scaling=FILE"]);
}

#[test]
fn mistakes_about_bounds_are_told_before_anything_is_created() {
    let place = Place::new(&[("flow.yaml", FLOW), ("wrong.yaml", &FLOW.replace("budget", "budgte"))]);
    for (bounds, words) in [
        ("4", "at most 4 is `..4`"),
        ("-1..3", "expected MIN..MAX"),
        ("0..=4", "without the `=`"),
        ("9..3", "`minimum` (9) is more than `maximum` (3)"),
    ] {
        place.remuda(&["validate", "flow.yaml", "--adapt", bounds]).code(2).says(&["--adapt: ", words]);
    }
    let wrong = |kwargs: &str| format!("runner: {{adapt_kwargs: {{{kwargs}}}}}{}", FLOW.split_once("}}").unwrap().1);
    fs::write(place.path().join("inf.yaml"), wrong("maximum: .inf")).unwrap();
    place.remuda(&["validate", "inf.yaml"]).code(2).says(&["adapt_kwargs.maximum: the number is not finite (no bound is null"]);
    fs::write(place.path().join("max.yaml"), wrong("max: 3")).unwrap();
    place.remuda(&["validate", "max.yaml"]).code(2).says(&["adapt_kwargs.max: unknown key; did you mean `maximum`?"]);
    place.remuda(&["validate", "wrong.yaml"]).code(2).says(&["wrong.yaml:2:", "adapt_kwargs.budgte", "did you mean `budget`"]);
    place
        .remuda(&["run", "flow.yaml", "--adapt", "0..3", "--address", "tcp://h:1"])
        .code(2)
        .says(&["`adapt_kwargs` (--adapt)", "--address"]);
    place.remuda(&["run", "flow.yaml", "--explain-scaling=no/where"]).code(2).says(&["--explain-scaling: no/where cannot be written"]);
    place.remuda(&["run", "flow.yaml", "--explain-scaling="]).code(2).says(&["--explain-scaling: the file is empty"]);
    let shown = place.remuda(&["config", "show", "--origin", "--adapt", "2..", "flow.yaml"]);
    insta::assert_snapshot!(shown.code(0).out);
}

/// A held cluster follows the work of whoever uses it, until somebody says a number.
#[test]
fn a_held_cluster_adapts_until_it_is_scaled() {
    if !dask::can_run("a_held_cluster_adapts_until_it_is_scaled") {
        return;
    }
    let place = dask::place(&[]);
    let bounds = ["--kwarg", "threads_per_worker=1", "--kwarg", "name=barn", "--adapt", "0..2"];
    let mut held = place.start(&[&["cluster", "start", "--cluster-class", "local::DaskCluster"], &bounds[..]].concat());
    let address = held.line();
    let script = "
import sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    print(sum(client.gather(client.map(lambda x: x + 1, range(12)))))
";
    let python =
        Command::new("timeout").args(["60", "python3", "-c", script, &address]).env("PATH", place.variable("PATH")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&python.stdout), "78\n", "{}", String::from_utf8_lossy(&python.stderr));
    place.remuda(&["cluster", "scale", &address, "-n", "1"]).code(0).says(&["barn: 1 worker wanted", "adaptive scaling is over"]);
    let again = place.remuda(&["cluster", "scale", &address, "-n", "2"]);
    assert!(!again.code(0).err.contains("adaptive"), "{}", again.err);
    // And back: the side that is not said is as it was.
    let wish = |bounds: &str| place.remuda(&["cluster", "scale", &address, "--adapt", bounds]);
    wish("1..").code(0).says(&["barn: the number of workers follows the work: 1 to 2 workers"]);
    wish("..3").code(0).says(&["1 to 3 workers"]);
    wish("5..").code(2).says(&["holds `barn` does not do that", "minimum"]);
    wish("3..1").code(2).says(&["--adapt: ", "minimum"]);
    wish("4").code(2).says(&["--adapt: expected MIN..MAX"]);
    wish("0..20000").code(2).says(&["--adapt 0..20000: more than 10000 workers", "--force"]);
    place.remuda(&["cluster", "scale", &address]).code(2).says(&["--workers", "--adapt"]);
    place.remuda(&["cluster", "scale", &address, "-n", "1"]).code(0).says(&["adaptive scaling is over"]);
    place.remuda(&["cluster", "scale", &address, "-n", "0"]).code(0).says(&["note: ", "computes them again", "0 workers wanted"]);
    held.signal(Signal::INT);
    let said = ["(start +", "adaptive scaling is over: 1 worker wanted", "follows the work: 1 to 2 workers", "cluster closed"];
    held.end().code(0).says(&said);
}

/// A bound that nobody has said is the class's: it holds, and gives way to who says more.
#[test]
fn the_maximum_of_a_class_is_told_and_is_no_wish() {
    if !dask::can_run("the_maximum_of_a_class_is_told_and_is_no_wish") {
        return;
    }
    let place = dask::place(&[]);
    // One such worker is enough for any machine.
    let wide = ["--kwarg", "threads_per_worker=1024", "--kwarg", "name=barn", "--adapt", "0.."];
    let mut held = place.start(&[&["cluster", "start", "--cluster-class", "local::DaskCluster"], &wide[..]].concat());
    let address = held.line();
    let scale = |flag: &str, wish: &str| place.remuda(&["cluster", "scale", &address, flag, wish]);
    scale("--adapt", "2..").code(0).says(&["barn: the number of workers follows the work: 2 to 2 workers"]);
    scale("--adapt", "0..").code(0).says(&["barn: the number of workers follows the work: 0 to 1 worker\n"]);
    scale("-n", "0").code(0).says(&["adaptive scaling is over"]);
    let json = place.remuda(&["cluster", "scale", &address, "--adapt", "..", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json.code(0).out).unwrap(), json!({"name": "barn", "minimum": 0, "maximum": 1}));
    let status = |args: &[&str]| place.remuda(&[&["cluster", "status", &address], args].concat()).code(0).out.clone();
    let adaptive = || serde_json::from_str::<Value>(&status(&["--json"])).unwrap()["adaptive"].clone();
    assert_eq!(adaptive(), json!({"minimum": 0, "maximum": 1}));
    assert!(status(&[]).contains("\nscaling    adaptive, 0 to 1 worker\n"), "{}", status(&[]));
    scale("-n", "0").code(0);
    assert_eq!(adaptive(), Value::Null);
    assert!(!status(&[]).contains("scaling"), "{}", status(&[]));
    held.signal(Signal::INT);
    held.end().code(0).says(&["follows the work: 0 to 1 worker\n", "cluster closed"]);
}
