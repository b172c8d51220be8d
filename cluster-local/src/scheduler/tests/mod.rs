//! The scheduler's rules, one by one.

mod bench;

use std::collections::HashMap;

use remuda_core::{
    error::ErrorKind,
    task::{Annotations, CommandWork, Input, TaskState, Work},
    value::{Template, Value},
};

pub(super) use self::bench::{Bench, id, one, spec};
use self::bench::{any, needs};
use super::*;

#[test]
fn better_tasks_first_and_older_ones_among_equals() {
    let mut bench = Bench::with_workers(&[1]);
    let high = Arc::new(Annotations { priority: 5, ..Annotations::default() });
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any()), spec(3, &[], &high), spec(4, &[], &any())]);
    for key in [1, 3, 2, 4] {
        // The first one was started when nothing else was known? No: a whole submission is ranked together.
        let expected = match key {
            1 => 3,
            3 => 1,
            other => other,
        };
        assert_eq!(bench.keys(), [expected]);
        bench.done(expected);
    }
}

#[test]
fn work_goes_to_the_least_loaded_worker() {
    let mut bench = Bench::with_workers(&[2, 2]);
    bench.submit((1..=5).map(|key| spec(key, &[], &any())).collect());
    let at: Vec<_> = bench.running.iter().map(|start| start.worker.index).collect();
    assert_eq!(at, [0, 1, 0, 1]);
}

#[test]
fn a_task_waits_for_its_inputs_and_gets_them_in_order() {
    let mut bench = Bench::with_workers(&[4]);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any()), spec(3, &[2, 1, 2], &any())]);
    assert_eq!(bench.keys(), [1, 2]);
    bench.done(1);
    bench.done(2);
    assert_eq!(bench.running[0].inputs.len(), 3);
}

#[test]
fn a_failure_ends_all_dependents_with_its_root_and_a_chain_may_be_long() {
    let mut bench = Bench::with_workers(&[1]);
    let annotations = any();
    let mut chain = vec![spec(0, &[], &annotations)];
    chain.extend((1..=100_000).map(|key| spec(key, &[key - 1], &annotations)));
    bench.submit(chain);
    bench.end(0, Ended::Outcome(Err(TaskError::failed("boom"))));
    match bench.last(100_000) {
        TaskState::Ended(TaskError::UpstreamFailed { key: Key(0), name, cause }) => {
            assert_eq!((&*name, cause.to_string().as_str()), ("t0", "boom"));
        }
        other => panic!("{other:?}"),
    }
    let keys: Vec<_> = (0..=100_000).map(Key).collect();
    bench.scheduler.release(bench.session, &keys, bench.now);
    assert!(bench.scheduler.tasks.is_empty());
}

#[test]
fn an_allowed_failure_is_an_input() {
    let mut bench = Bench::with_workers(&[1]);
    let mut second = spec(2, &[1], &any());
    second.inputs[0].allow_failure = true;
    bench.submit(vec![spec(1, &[], &any()), second]);
    bench.end(1, Ended::Outcome(Err(TaskError::failed("boom"))));
    assert!(matches!(bench.running[0].inputs[0], Err(TaskError::Failed(_))));
}

#[test]
fn results_go_when_nobody_needs_them() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[1], &any())]);
    bench.scheduler.release(bench.session, &[Key(1)], bench.now);
    bench.done(1);
    assert_eq!(bench.scheduler.tasks.len(), 2, "the second task needs the first's result");
    bench.done(2);
    assert_eq!(bench.scheduler.tasks.len(), 1);
    bench.scheduler.release(bench.session, &[Key(2)], bench.now);
    assert!(bench.scheduler.tasks.is_empty());
    assert_eq!(bench.scheduler.groups.len(), 0);
}

#[test]
fn what_nobody_wants_is_not_begun() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any()), spec(3, &[2], &any())]);
    bench.scheduler.release(bench.session, &[Key(2), Key(3)], bench.now);
    assert!(matches!(bench.last(2), TaskState::Ended(TaskError::Cancelled)));
    bench.done(1);
    assert!(bench.running.is_empty());
}

#[test]
fn retries_count_failures_and_say_so() {
    let mut bench = Bench::with_workers(&[1]);
    let annotations = Arc::new(Annotations { retries: 1, ..Annotations::default() });
    bench.submit(vec![spec(1, &[], &annotations)]);
    bench.end(1, Ended::Outcome(Err(TaskError::failed("boom"))));
    assert_eq!(bench.running[0].attempt, 1);
    let told = bench.states().remove(&1).unwrap();
    assert!(matches!(&told[1], TaskState::Pending { reason: Some(reason) } if &**reason == "attempt 1 failed: boom"), "{told:?}");
    bench.end(1, Ended::Outcome(Err(TaskError::failed("again"))));
    assert!(matches!(bench.last(1), TaskState::Ended(TaskError::Failed(_))));
}

#[test]
fn lost_workers_are_counted_apart_and_a_stop_is_not_counted() {
    let mut bench = Bench::with_workers(&[1]);
    let annotations = Arc::new(Annotations { allowed_failures: Some(1), ..Annotations::default() });
    bench.submit(vec![spec(1, &[], &annotations)]);
    bench.end(1, Ended::Lost("exit code 3".into()));
    assert_eq!(bench.running.len(), 1);
    bench.running.clear();
    bench.scheduler.worker_gone(id(0), None, bench.now);
    bench.worker(1, 1, &[]);
    assert_eq!(bench.running[0].attempt, 2);
    bench.end(1, Ended::Lost("signal 9 (SIGKILL)".into()));
    match bench.last(1) {
        TaskState::Ended(TaskError::Crashed(crash)) => assert_eq!((crash.cause.as_str(), crash.attempts), ("signal 9 (SIGKILL)", 2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timeout_ends_the_attempt_and_what_it_still_says_is_ignored() {
    let mut bench = Bench::with_workers(&[1]);
    let annotations = Arc::new(Annotations { timeout: Some(Duration::from_secs(5)), ..Annotations::default() });
    bench.submit(vec![spec(1, &[], &annotations)]);
    bench.pass(Duration::from_secs(4));
    assert!(bench.interrupted.is_empty());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.interrupted.len(), 1);
    assert!(matches!(bench.last(1), TaskState::Ended(TaskError::Failed(_))));
    bench.done(1);
    assert!(bench.states().is_empty());
    assert_eq!(bench.scheduler.wake(), None);
}

#[test]
fn a_cancelled_task_is_final_at_once_and_its_slot_free_when_the_attempt_is_over() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any())]);
    bench.scheduler.cancel(bench.session, &[Key(1)], bench.now);
    bench.absorb();
    assert!(matches!(bench.last(1), TaskState::Ended(TaskError::Cancelled)));
    assert_eq!(bench.interrupted.len(), 1);
    assert_eq!(bench.keys(), [1]);
    bench.done(1);
    assert_eq!(bench.keys(), [2]);
}

#[test]
fn resources_are_never_overcommitted_and_small_tasks_do_not_starve_big_ones() {
    let mut bench = Bench::new();
    bench.worker(0, 8, &[("GPU", 2.0)]);
    let (small, big) = (Arc::new(needs(&[("GPU", 1.0)])), Arc::new(needs(&[("GPU", 2.0)])));
    bench.submit(vec![spec(1, &[], &small), spec(2, &[], &big), spec(3, &[], &small), spec(4, &[], &any())]);
    assert_eq!(bench.keys(), [1, 4], "3 may not overtake 2, 4 needs no GPU");
    bench.done(1);
    assert_eq!(bench.keys(), [4, 2]);
    bench.done(2);
    assert_eq!(bench.keys(), [4, 3]);
}

#[test]
fn a_task_of_many_slots_is_not_overtaken() {
    let mut bench = Bench::with_workers(&[2]);
    let wide = Arc::new(Annotations { slots: 2, ..Annotations::default() });
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &wide), spec(3, &[], &any())]);
    assert_eq!(bench.keys(), [1]);
    bench.done(1);
    assert_eq!(bench.keys(), [2]);
}

#[test]
fn tasks_without_a_slot_run_beside_the_others() {
    let mut bench = Bench::with_workers(&[1]);
    let waits = Arc::new(Annotations { slots: 0, ..Annotations::default() });
    bench.submit((1..=3).map(|key| spec(key, &[], if key == 1 { &DEFAULT } else { &waits })).collect());
    assert_eq!(bench.running.len(), 3);
}

static DEFAULT: std::sync::LazyLock<Arc<Annotations>> = std::sync::LazyLock::new(Arc::default);

#[test]
fn a_waiting_task_lends_its_slot() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any()), spec(3, &[], &any())]);
    let run = bench.running[0].run;
    bench.scheduler.pause(run, bench.now);
    bench.absorb();
    assert_eq!(bench.keys(), [1, 2]);
    bench.scheduler.resume(run, bench.now);
    bench.done(2);
    assert_eq!(bench.keys(), [1], "over its number: nothing new before one of both ends");
    bench.done(1);
    assert_eq!(bench.keys(), [3]);
}

#[test]
fn workers_by_name_index_or_host() {
    for (name, others, runs) in
        [("1-0", false, Some(1)), ("1", false, Some(1)), ("127.0.0.1", false, Some(0)), ("7", true, Some(0)), ("7", false, None)]
    {
        let mut bench = Bench::with_workers(&[1, 1]);
        let annotations = Arc::new(Annotations { workers: vec![name.into()], allow_other_workers: others, ..Annotations::default() });
        bench.submit(vec![spec(1, &[], &annotations)]);
        assert_eq!(bench.running.first().map(|start| start.worker.index), runs, "{name}");
    }
}

#[test]
fn a_preferred_worker_is_taken_first() {
    let mut bench = Bench::with_workers(&[1, 1]);
    let annotations = Arc::new(Annotations { workers: vec!["1".into()], allow_other_workers: true, ..Annotations::default() });
    bench.submit((1..=3).map(|key| spec(key, &[], &annotations)).collect());
    let at: Vec<_> = bench.running.iter().map(|start| start.worker.index).collect();
    assert_eq!(at, [1, 0]);
}

#[test]
fn what_nothing_can_run_is_told_at_once_and_refused_in_time() {
    let cases = [
        (needs(&[("GPU", 2.0)]), "no worker offers GPU=2; the most any offers is GPU=1"),
        (needs(&[("gpus", 1.0)]), "no worker offers gpus=1; none offers any gpus; did you mean `GPU`?"),
        (Annotations { workers: vec!["x".into()], ..Annotations::default() }, "no worker is called `x`; there are 0-0"),
        (Annotations { slots: 3, ..Annotations::default() }, "no worker has 3 slots; the most any has is 2"),
    ];
    for (annotations, expected) in cases {
        let mut bench = Bench::new();
        bench.worker(0, 2, &[("GPU", 1.0)]);
        bench.submit(vec![spec(1, &[], &Arc::new(annotations)), spec(2, &[1], &any())]);
        match bench.last(1) {
            TaskState::Pending { reason: Some(reason) } => assert_eq!(&*reason, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.scheduler.wake(), Some(bench.now + Duration::from_secs(60)));
        bench.pass(Duration::from_secs(60));
        let mut states = bench.states();
        match states.remove(&1).unwrap().pop() {
            Some(TaskState::Ended(TaskError::Refused(error))) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(states[&2].last(), Some(TaskState::Ended(TaskError::UpstreamFailed { .. }))));
    }
}

#[test]
fn what_no_worker_will_ever_be_is_refused_at_once_with_what_there_is() {
    let named = |name: &str| Annotations { workers: vec![name.into()], ..Annotations::default() };
    let place = || Place { host: "127.0.0.1".into(), slots: 2, resources: [("GPU".to_owned(), 1.0)].into() };
    let (ask, other) = ("ask for what the workers have", "`allow_other_workers`");
    let cases = [
        (needs(&[("GPU", 2.0)]), "no worker offers GPU=2; the most any offers is GPU=1", ask),
        (needs(&[("gpu", 1.0)]), "no worker offers gpu=1; none offers any gpu; did you mean `GPU`?", ask),
        (Annotations { slots: 3, ..Annotations::default() }, "no worker has 3 slots; the most any has is 2", ask),
        (named("nobody"), "no worker is called `nobody`; there are 0-1", other),
        (named("0-0"), "no worker is called `0-0`; there are 0-1; did you mean `0-1`?", other), // no name comes twice
    ];
    for (annotations, expected, hint) in cases {
        let mut bench = Bench::of_kind(place());
        let (old, new) = (id(0), WorkerId { index: 0, incarnation: 1 });
        bench.scheduler.expect_worker(old, place(), bench.now);
        bench.scheduler.worker_gone(old, None, bench.now);
        bench.scheduler.expect_worker(new, place(), bench.now);
        bench.scheduler.worker_joined(new, bench.now);
        bench.submit(vec![spec(0, &[], &any()), spec(1, &[0], &Arc::new(annotations))]);
        let told = bench.states().remove(&1).unwrap();
        match &told[..] {
            [TaskState::Ended(TaskError::Refused(error))] => {
                assert_eq!((error.to_string().contains(expected), error.kind()), (true, ErrorKind::Unschedulable), "{error}");
                assert!(error.hint().is_some_and(|told| told.contains(hint)), "{error:?}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(bench.scheduler.wake(), None);
    }
    // Its name goes with its worker, also for those that wait for it already.
    let mut bench = Bench::of_kind(place());
    bench.worker(0, 1, &[]);
    bench.submit(vec![spec(0, &[], &any()), spec(1, &[], &Arc::new(named("0-0"))), spec(2, &[0], &Arc::new(named("0-0")))]);
    bench.running.clear();
    bench.scheduler.worker_gone(id(0), None, bench.now);
    bench.pass(Duration::ZERO);
    assert!(matches!(bench.last(1), TaskState::Ended(TaskError::Refused(_))));
    bench.worker(1, 1, &[]);
    bench.done(0);
    bench.pass(Duration::ZERO);
    assert!(matches!(bench.last(2), TaskState::Ended(TaskError::Refused(_))));
}

#[test]
fn while_workers_are_started_a_task_waits_without_a_deadline() {
    let mut bench = Bench::new();
    bench.scheduler.expect_worker(id(0), Place { host: "h".into(), slots: 1, resources: BTreeMap::new() }, bench.now);
    bench.submit(vec![spec(1, &[], &any())]);
    assert!(matches!(bench.last(1), TaskState::Pending { reason: Some(reason) } if &*reason == "no workers yet: 0 of 4 joined"));
    assert_eq!(bench.scheduler.wake(), None);
    bench.scheduler.worker_joined(id(0), bench.now);
    bench.absorb();
    assert_eq!(bench.keys(), [1]);
    bench.running.clear();
    bench.scheduler.worker_gone(id(0), Some("gone"), bench.now);
    assert!(bench.scheduler.wake().is_some(), "nothing is being started any more");
}

#[test]
fn without_a_worker_it_is_the_outlook_that_says_whether_a_task_waits_and_why() {
    let nobody = Outlook::Nobody { reason: "the budget is spent".into(), hint: "raise the budget".into() };
    let held = Outlook::Adaptive { held: Some("starting them fails".into()) };
    let cases = [
        (Outlook::Adaptive { held: None }, "no workers now: adaptive scaling starts them", None),
        (held, "no workers now: starting them fails", None),
        (nobody, "the budget is spent", Some("raise the budget")),
        (Outlook::Fixed(0), "the cluster has no workers, and none are wanted", Some("scale the cluster up")),
        (Outlook::Fixed(3), "no workers: 0 of 3 are there", Some("annotations")),
    ];
    for (outlook, why, hint) in cases {
        let mut bench = Bench::with_workers(&[1]);
        bench.scheduler.expect(outlook, bench.now);
        bench.scheduler.worker_gone(id(0), None, bench.now);
        bench.submit(vec![spec(1, &[], &any())]);
        assert!(matches!(bench.last(1), TaskState::Pending { reason: Some(reason) } if &*reason == why), "{why}");
        bench.pass(Duration::from_secs(59));
        bench.pass(Duration::from_secs(3600));
        let ended = bench.states().remove(&1).and_then(|mut states| states.pop());
        match (hint, ended) {
            (None, None) => {}
            (Some(hint), Some(TaskState::Ended(TaskError::Refused(error)))) => {
                assert!(error.to_string().contains(why) && error.hint().unwrap().contains(hint), "{error:?}");
            }
            (_, other) => panic!("{why}: {other:?}"),
        }
    }
    // It is over: what waited with a reason waits with another, or runs out of time from then on.
    let mut bench = Bench::new();
    bench.scheduler.expect(Outlook::Adaptive { held: None }, bench.now);
    bench.submit(vec![spec(1, &[], &any())]);
    bench.pass(Duration::from_secs(600));
    bench.scheduler.expect(Outlook::Fixed(0), bench.now);
    assert!(matches!(bench.last(1), TaskState::Pending { reason: Some(reason) } if reason.contains("none are wanted")));
    assert_eq!(bench.scheduler.wake(), Some(bench.now + Duration::from_secs(60)));
}

#[test]
fn a_drained_worker_gets_nothing_more() {
    let mut bench = Bench::with_workers(&[1, 1]);
    bench.submit(vec![spec(1, &[], &any())]);
    bench.scheduler.drain_worker(id(0), bench.now);
    bench.submit(vec![spec(2, &[], &any()), spec(3, &[], &any())]);
    assert_eq!(bench.keys(), [1, 2]);
    assert!(!bench.scheduler.is_empty(id(0)));
    bench.done(1);
    assert!(bench.scheduler.is_empty(id(0)));
    assert_eq!(bench.keys(), [2]);
}

#[test]
fn an_unknown_input_or_a_bad_annotation_is_refused() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(vec![spec(1, &[99], &any()), spec(2, &[], &Arc::new(needs(&[("GPU", f64::NAN)])))]);
    let states = bench.states();
    for key in [1, 2] {
        assert!(matches!(states[&key].last(), Some(TaskState::Ended(TaskError::Refused(_)))), "{key}");
    }
}

#[test]
fn closing_a_session_ends_its_tasks_only() {
    let mut bench = Bench::with_workers(&[1]);
    let (other, mut heard) = bench.scheduler.open(None);
    bench.submit(vec![spec(1, &[], &any()), spec(2, &[], &any())]);
    bench.scheduler.submit(other, vec![spec(1, &[], &any())], bench.now);
    bench.scheduler.close_session(bench.session, bench.now);
    bench.absorb();
    let states = bench.states();
    assert!([1, 2].iter().all(|key| matches!(states[key].last(), Some(TaskState::Ended(TaskError::Cancelled)))));
    assert_eq!(bench.scheduler.tasks.len(), 1);
    assert_eq!(bench.scheduler.running_of(bench.session), 1);
    bench.done(1);
    assert_eq!(bench.scheduler.running_of(bench.session), 0);
    assert!(matches!(heard.try_recv().unwrap().state, TaskState::Running { .. }));
}
