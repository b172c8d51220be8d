//! Ctrl-C, SIGTERM, kill -9: what ends, with which code, and that nothing lives on.

use std::{fs::File, io::Read, sync::mpsc, thread, time::Duration};

use rustix::process::Signal;

use crate::harness::{Place, Running};

const PYTHON: &str = r#"
import os, time

def hold(path):
    # Open as long as this process lives.
    os.write(os.open(path, os.O_WRONLY), b"x")
    time.sleep(600)
"#;

const FLOW: &str = r#"
runner: {cluster_kwargs: {n_workers: 2, threads_per_worker: 1}}
tasks:
  python:  {python: "mod:hold", args: [python]}
  command: {command: [sh, -c, 'exec 3>command; echo x >&3; sleep 600']}
  never:   {command: [touch, made], after: [python]}
"#;

/// A run both of whose workers are busy, and pipes that end when what they run has ended.
fn busy(place: &Place) -> (Running, mpsc::Receiver<()>) {
    let fifos = [place.fifo("python"), place.fifo("command")];
    let run = place.start(&["run", "flow.yaml"]);
    let mut opened = Vec::new();
    for fifo in fifos {
        let mut pipe = File::open(fifo).unwrap();
        pipe.read_exact(&mut [0]).unwrap();
        opened.push(pipe);
    }
    // Disconnected when the last pipe has ended.
    let (open, ends) = mpsc::channel();
    for mut pipe in opened {
        let open = open.clone();
        thread::spawn(move || {
            let _ended = pipe.read_to_end(&mut Vec::new());
            drop(open);
        });
    }
    (run, ends)
}

/// Every process of the run has ended. The limit is only there so that one that lives on fails the test instead of delaying it.
fn all_gone(place: &Place, ends: &mpsc::Receiver<()>) {
    let ended = ends.recv_timeout(Duration::from_secs(60));
    assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected), "a process outlives its run");
    assert!(!place.path().join("made").exists());
}

fn place() -> Place {
    Place::new(&[("mod.py", PYTHON), ("flow.yaml", FLOW)])
}

#[test]
fn one_signal_cancels_closes_and_says_so() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = place();
        let (run, ends) = busy(&place);
        run.signal(signal);
        let ended = run.end();
        ended.code(130).says(&[
            "interrupted: cancelling the tasks and closing the cluster",
            "0 tasks done, 3 cancelled in ",
            "; cluster closed\n",
        ]);
        assert_eq!(ended.out, "");
        all_gone(&place, &ends);
    }
}

#[test]
fn a_second_signal_leaves_at_once() {
    let place = place();
    let (run, ends) = busy(&place);
    // Stopped meanwhile, so that both have arrived when the program looks; of one kind they would count as one.
    run.signal(Signal::STOP);
    run.signal(Signal::INT);
    run.signal(Signal::TERM);
    run.signal(Signal::CONT);
    let ended = run.end();
    ended.code(130).says(&["interrupted: cancelling", "interrupted again: leaving at once"]);
    assert!(!ended.err.contains("cluster closed"), "{}", ended.err);
    all_gone(&place, &ends);
}

#[test]
fn nothing_outlives_a_killed_driver() {
    let place = place();
    let (run, ends) = busy(&place);
    run.signal(Signal::KILL);
    assert_eq!(run.end().code, None);
    all_gone(&place, &ends);
}
