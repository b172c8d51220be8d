//! `remuda gc`.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::Place;

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

fn stat(pid: u32, field: usize) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(field - 3).unwrap().parse().unwrap()
}

fn process(pid: u32, start: u64) -> Value {
    json!({"pid": pid, "start": start, "boot_id": first_line("/proc/sys/kernel/random/boot_id")})
}

/// A ledger with these lines, whose driver is this process or one that is dead.
fn ledger(place: &Place, name: &str, alive: bool, lines: &[Value]) {
    let own = std::process::id();
    let mut driver = process(own, stat(own, 22) + u64::from(!alive));
    driver["host"] = first_line("/proc/sys/kernel/hostname").into();
    driver["pid_namespace"] = fs::read_link("/proc/self/ns/pid").unwrap().to_str().unwrap().into();
    let header = json!({"remuda_ledger": 1, "id": name, "cluster": name, "class": "a::B", "driver": driver, "created": 1});
    let text: String = [&header].into_iter().chain(lines).map(|line| format!("{line}\n")).collect();
    let directory = place.path().join("state/ledger");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{name}.jsonl")), text + "{\"gone\":{\"n\":1").unwrap();
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper() -> Sleeper {
    Sleeper(Command::new("sleep").arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn place() -> Place {
    let place = Place::new(&[]);
    let state = place.path().join("state");
    place.env("REMUDA_STATE_DIR", state.to_str().unwrap())
}

fn made(pid: u32, start: u64) -> [Value; 2] {
    [json!({"will": {"n": 1, "kind": "process", "name": "worker 0-0"}}), json!({"is": {"n": 1, "process": process(pid, start)}})]
}

#[test]
fn nothing_was_left() {
    let place = place();
    let ended = place.remuda(&["gc"]);
    ended.code(0).says(&["nothing was left behind"]);
    assert_eq!((ended.out.as_str(), place.remuda(&["gc", "--json"]).code(0).out.trim()), ("", "[]"));
}

#[test]
fn a_dead_driver_s_process_is_ended_and_others_are_not() {
    let place = place();
    let (mut dead, mut reused, mut live) = (sleeper(), sleeper(), sleeper());
    for (name, alive, child, earlier) in [("dead", false, &dead, 0), ("reused", false, &reused, 1), ("live", true, &live, 0)] {
        let pid = child.0.id();
        ledger(&place, name, alive, &made(pid, stat(pid, 22) - earlier));
    }
    let dry = place.remuda(&["gc", "--dry-run"]);
    let pid = dead.0.id();
    assert!(dry.code(0).out.contains(&format!("process worker 0-0 ({pid}): would be removed")), "{}", dry.out);
    assert!(dead.0.try_wait().unwrap().is_none());

    let done = place.remuda(&["gc", "--json"]);
    let tree: Value = serde_json::from_str(&done.code(0).out).unwrap();
    let of = |name: &str| tree.as_array().unwrap().iter().find(|entry| entry["cluster"] == name).unwrap();
    assert_eq!((&of("dead")["found"][0]["verdict"], &of("dead")["settled"]), (&"removed".into(), &true.into()), "{tree}");
    assert_eq!((&of("reused")["found"][0]["verdict"], &of("live")["state"]), (&"gone".into(), &"live".into()), "{tree}");
    assert!(dead.0.wait().unwrap().code().is_none(), "ended by a signal");
    assert!(reused.0.try_wait().unwrap().is_none() && live.0.try_wait().unwrap().is_none());
    let left: Vec<_> = fs::read_dir(place.path().join("state/ledger")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["live.jsonl"]);
}

#[test]
fn what_is_kept_is_told_with_the_reason() {
    let place = place();
    let strange = place.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("file"), "").unwrap();
    ledger(
        &place,
        "a",
        false,
        &[json!({"will": {"n": 1, "kind": "directory", "name": strange}}), json!({"will": {"n": 2, "kind": "pod", "name": "p"}})],
    );
    fs::write(place.path().join("state/ledger/later.jsonl"), "{\"remuda_ledger\":9}\n").unwrap();
    let ended = place.remuda(&["gc"]);
    ended.code(3).says(&["2 ledgers could not be settled"]);
    for words in ["does not carry the mark", "does not know how to remove a pod", "format 9"] {
        assert!(ended.out.contains(words), "{words:?} is missing in\n{}", ended.out);
    }
    assert!(strange.join("file").exists());
}
