//! Rung 1: the keeper's mind without a clock, then against a hostile platform made up by proptest.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod chance;
mod policy;

use std::time::Duration;

use remuda_core::{
    adaptive::{Decision, Phase, Reason},
    error::{Error, ErrorKind},
    keeper::{
        Limits,
        fleet::{Action, Fleet, Input},
    },
    manager::{CloseReport, ClusterEvent, Scaling, Target, WorkerId, WorkerInfo, WorkerState},
};

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn id(index: u32, incarnation: u32) -> WorkerId {
    WorkerId { index, incarnation }
}

fn joined(id: WorkerId) -> Input {
    Input::Joined { name: id.to_string(), host: String::new(), slots: 1 }
}

fn left(name: &str, busy: bool) -> Input {
    Input::Left { name: name.into(), reason: "exit 1".into(), busy }
}

fn listed(id: WorkerId, host: Option<&str>, state: WorkerState) -> WorkerInfo {
    WorkerInfo { id: Some(id), platform_id: format!("arn:{id}"), host: host.map(Into::into), state }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "so it is")
}

fn open(workers: u32) -> Fleet {
    let mut fleet = Fleet::new(Limits::default(), None);
    assert!(matches!(fleet.step(s(0), Input::Tick)[..], [Action::Start]));
    fleet.step(s(0), Input::Started(Ok((Scaling::Workers, workers))));
    fleet
}

fn join(fleet: &mut Fleet, now: Duration, id: WorkerId) {
    fleet.step(now, Input::Launched(vec![id], Ok(())));
    fleet.step(now, joined(id));
}

/// Without the news for people.
fn calls(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Report(_))).collect()
}

fn launches(actions: &[Action]) -> Vec<WorkerId> {
    actions.iter().flat_map(|action| if let Action::Launch(ids) = action { ids.clone() } else { vec![] }).collect()
}

fn stops(actions: &[Action]) -> Vec<WorkerId> {
    actions.iter().flat_map(|action| if let Action::Stop(ids) = action { ids.clone() } else { vec![] }).collect()
}

#[test]
fn a_lost_worker_is_stopped_then_replaced_after_the_back_off() {
    let mut fleet = open(1);
    join(&mut fleet, s(1), id(0, 0));
    let lost = fleet.step(s(2), left("0-0", false));
    assert_eq!(stops(&lost), [id(0, 0)]);
    assert!(fleet.step(s(2), Input::Stopped(vec![id(0, 0)], Ok(()))).is_empty());
    assert_eq!(fleet.wake(), Some(s(3)));
    assert_eq!(launches(&fleet.step(s(3), Input::Tick)), [id(0, 1)]);
}

#[test]
fn a_worker_that_was_well_or_died_of_its_task_is_replaced_at_once_and_is_no_crash_loop() {
    for busy in [true, false] {
        let mut fleet = open(1);
        let mut now = s(0);
        for incarnation in 0..20 {
            join(&mut fleet, now, id(0, incarnation));
            now += if busy { Duration::ZERO } else { s(31) };
            fleet.step(now, Input::Tick);
            fleet.step(now, left(&id(0, incarnation).to_string(), busy));
            let out = fleet.step(now, Input::Stopped(vec![id(0, incarnation)], Ok(())));
            assert_eq!(launches(&out), [id(0, incarnation + 1)], "busy: {busy}");
        }
    }
}

#[test]
fn ten_that_end_together_are_one_failure_and_five_in_a_row_are_the_end() {
    let mut fleet = open(10);
    let mut now = s(0);
    for round in 0..5 {
        let ids: Vec<_> = (0..10).map(|index| id(index, round)).collect();
        fleet.step(now, Input::Launched(ids.clone(), Ok(())));
        ids.iter().for_each(|id| drop(fleet.step(now, joined(*id))));
        assert!(fleet.failure().is_none());
        now += s(1);
        ids.iter().for_each(|id| drop(fleet.step(now, left(&id.to_string(), false))));
        let out = fleet.step(now, Input::Stopped(ids, Ok(())));
        assert!(launches(&out).is_empty());
        now += s(1 << round);
        let again = launches(&fleet.step(now, Input::Tick));
        assert_eq!(again.len(), if round < 4 { 10 } else { 0 }, "round {round}");
    }
    let failure = fleet.failure().unwrap();
    assert_eq!(failure.kind(), ErrorKind::CrashLoop);
    assert!(failure.to_string().contains("5 failures in a row: exit 1"), "{failure}");
    assert_eq!(fleet.wake(), None, "cut off: nothing to wait for");
    // The user has mended it.
    assert_eq!(launches(&fleet.step(now, Input::Scale { count: 2, victims: vec![] })), [id(0, 5), id(1, 5)]);
    assert!(fleet.failure().is_none());
}

#[test]
fn delays_are_kept_by_reason_and_lack_of_capacity_is_waited_out() {
    let mut fleet = open(1);
    let (mut now, mut incarnation) = (s(0), 0);
    let mut refuse = |fleet: &mut Fleet, kind| {
        let id = id(0, incarnation);
        incarnation += 1;
        assert_eq!(stops(&fleet.step(now, Input::Launched(vec![id], Err(error(kind))))), [id]);
        fleet.step(now, Input::Stopped(vec![id], Ok(())));
        let wait = fleet.wake().unwrap() - now;
        now += wait;
        assert_eq!(launches(&fleet.step(now, Input::Tick)).len(), 1);
        wait.as_secs()
    };
    let waits: Vec<_> = (0..8).map(|_| refuse(&mut fleet, ErrorKind::Capacity)).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
    let waits: Vec<_> = (0..4).map(|_| refuse(&mut fleet, ErrorKind::Unavailable)).collect();
    assert_eq!(waits, [1, 2, 4, 8]);
    assert_eq!(refuse(&mut fleet, ErrorKind::Capacity), 300, "its own count");
    assert!(fleet.failure().is_none());
}

#[test]
fn a_launch_that_never_arrives_is_written_off_and_a_late_one_is_stopped_again() {
    let mut fleet = open(1);
    fleet.step(s(0), Input::Launched(vec![id(0, 0)], Ok(())));
    assert_eq!(fleet.wake(), Some(s(300)));
    assert_eq!(stops(&fleet.step(s(300), Input::Tick)), [id(0, 0)]);
    fleet.step(s(300), Input::Stopped(vec![id(0, 0)], Ok(())));
    // Here it is, before the next is launched: that one waits until it is gone for certain.
    assert_eq!(stops(&fleet.step(s(300), joined(id(0, 0)))), [id(0, 0)]);
    assert!(launches(&fleet.step(s(302), Input::Tick)).is_empty());
    assert_eq!(fleet.wake(), None, "a place that may not be filled must not wake the loop");
    fleet.step(s(303), Input::Stopped(vec![id(0, 0)], Err(error(ErrorKind::Unavailable))));
    assert_eq!(stops(&fleet.step(fleet.wake().unwrap(), Input::Tick)), [id(0, 0)], "again, until it is granted");
    assert_eq!(launches(&fleet.step(s(305), Input::Stopped(vec![id(0, 0)], Ok(())))), [id(0, 1)]);
    // And once more, seen by the platform, while its successor works.
    join(&mut fleet, s(306), id(0, 1));
    let seen = Input::Platform(vec![listed(id(0, 0), None, WorkerState::Running), listed(id(0, 1), None, WorkerState::Running)]);
    assert_eq!(stops(&fleet.step(s(307), seen)), [id(0, 0)]);
    assert_eq!(fleet.live().map(|(id, _)| id).collect::<Vec<_>>(), [id(0, 1)]);
}

#[test]
fn a_stop_is_asked_for_until_it_is_granted_and_told_ever_more_rarely() {
    let mut fleet = open(1);
    join(&mut fleet, s(0), id(0, 0));
    fleet.step(s(0), left("0-0", false));
    let (mut now, mut told) = (s(0), vec![]);
    for tries in 1..=40 {
        let out = fleet.step(now, Input::Stopped(vec![id(0, 0)], Err(error(ErrorKind::PermissionDenied))));
        told.extend(out.iter().any(|action| matches!(action, Action::Report(ClusterEvent::Degraded(_)))).then_some(tries));
        let at = fleet.wake().unwrap();
        assert!(at > now && at - now <= s(60));
        now = at;
        assert_eq!(stops(&fleet.step(now, Input::Tick)), [id(0, 0)]);
        assert_eq!(fleet.leaving(), 0, "its place is kept for the next one, which is not launched");
    }
    assert_eq!(told, [3, 4, 8, 16, 32]);
    assert_eq!(launches(&fleet.step(now, Input::Stopped(vec![id(0, 0)], Ok(())))), [id(0, 1)]);
}

#[test]
fn scaling_down_takes_the_cheapest_first_and_drains_whoever_may_have_work() {
    let mut fleet = open(4);
    fleet.step(s(0), Input::Launched(vec![id(0, 0), id(1, 0), id(2, 0)], Ok(())));
    for index in 0..2 {
        fleet.step(s(1), joined(id(index, 0)));
    }
    fleet.step(s(1), joined(id(3, 0))); // its launch is not answered yet
    let out = calls(fleet.step(s(2), Input::Scale { count: 1, victims: vec![id(0, 0)] }));
    // 3-0 is doomed but still being launched; 2-0 never joined; 0-0 was chosen.
    assert!(
        matches!(&out[..], [Action::Stop(stop), Action::Drain(drain)] if *stop == [id(2, 0)] && *drain == [(id(0, 0), "0-0".into())]),
        "{out:?}"
    );
    let out = calls(fleet.step(s(3), Input::Launched(vec![id(3, 0)], Ok(()))));
    assert!(matches!(&out[..], [Action::Drain(drain)] if *drain == [(id(3, 0), "3-0".into())]), "{out:?}");
    assert_eq!(stops(&fleet.step(s(4), Input::Drained(vec![id(0, 0)]))), [id(0, 0)]);
    // 3-0 never finishes; it is stopped all the same.
    assert_eq!(fleet.wake(), Some(s(31)), "1-0 settles first");
    fleet.step(s(31), Input::Tick);
    assert_eq!(fleet.wake(), Some(s(63)));
    assert_eq!(stops(&fleet.step(s(63), Input::Tick)), [id(3, 0)]);
    assert!(fleet.step(s(64), Input::Drained(vec![id(3, 0)])).is_empty());
    for gone in [2, 0, 3] {
        fleet.step(s(65), Input::Stopped(vec![id(gone, 0)], Ok(())));
    }
    // Free indices are used again, by new incarnations, lowest first.
    assert_eq!(launches(&fleet.step(s(66), Input::Scale { count: 3, victims: vec![] })), [id(0, 1), id(2, 1)]);
}

#[test]
fn anonymous_workers_are_recognised_by_host_in_either_order() {
    let mut fleet = open(2);
    fleet.step(s(1), Input::Launched(vec![id(0, 0), id(1, 0)], Ok(())));
    let stranger = |name: &str, host: &str| Input::Joined { name: name.into(), host: host.into(), slots: 2 };
    fleet.step(s(2), stranger("tcp://10.0.0.7:41", "10.0.0.7")); // scheduler first
    fleet.step(s(2), stranger("tcp://10.0.0.8:41", "10.0.0.8")); // came and went before anybody knew it
    fleet.step(s(2), left("tcp://10.0.0.8:41", false));
    let running = |index, host| listed(id(index, 0), Some(host), WorkerState::Running);
    fleet.step(s(3), Input::Platform(vec![running(0, "10.0.0.7"), running(1, "10.0.0.9")]));
    fleet.step(s(4), stranger("tcp://10.0.0.9:42", "10.0.0.9")); // platform first
    assert_eq!(fleet.live().collect::<Vec<_>>(), [(id(0, 0), "tcp://10.0.0.7:41"), (id(1, 0), "tcp://10.0.0.9:42")]);
    assert_eq!(fleet.snapshot().iter().map(|worker| worker.slots).sum::<u32>(), 4);
    assert_eq!(stops(&fleet.step(s(5), left("tcp://10.0.0.9:42", false))), [id(1, 0)]);
}

#[test]
fn a_death_that_only_the_platform_saw_counts() {
    let mut fleet = open(2);
    fleet.step(s(1), Input::Launched(vec![id(0, 0), id(1, 0)], Ok(())));
    fleet.step(s(1), joined(id(0, 0)));
    let gone = |index| listed(id(index, 0), None, WorkerState::Gone { reason: "OutOfMemoryError".into() });
    assert_eq!(stops(&fleet.step(s(2), Input::Platform(vec![gone(0), gone(1)]))), [id(0, 0), id(1, 0)]);
    assert_eq!(fleet.trouble(), Some("worker 1-0: OutOfMemoryError"));
}

#[test]
fn a_platform_that_counts_is_told_one_number_at_a_time_and_the_last_one_last() {
    let mut fleet = Fleet::new(Limits::default(), Some(3));
    let told = |actions: Vec<Action>| {
        let numbers = actions.into_iter().filter_map(|action| match action {
            Action::SetTarget(Target::Exactly(n)) => Some(n),
            Action::Report(_) | Action::Failed(_) => None,
            other => panic!("{other:?}"),
        });
        numbers.collect::<Vec<_>>()
    };
    fleet.step(s(0), Input::Tick);
    assert_eq!(told(fleet.step(s(1), Input::Started(Ok((Scaling::Count, 9))))), [3], "the options win");
    assert!(told(fleet.step(s(2), Input::Scale { count: 1, victims: vec![] })).is_empty());
    assert!(told(fleet.step(s(2), Input::Scale { count: 5, victims: vec![] })).is_empty());
    assert_eq!(told(fleet.step(s(3), Input::TargetSet(Ok(())))), [5]);
    assert!(told(fleet.step(s(4), Input::TargetSet(Err(error(ErrorKind::Unavailable))))).is_empty());
    assert_eq!(fleet.wake(), Some(s(5)));
    assert_eq!(told(fleet.step(s(5), Input::Tick)), [5]);
    assert!(told(fleet.step(s(6), Input::TargetSet(Ok(())))).is_empty());
    assert_eq!(fleet.wake(), None);
    fleet.step(s(7), Input::Joined { name: "dask-worker-xyz".into(), host: "h".into(), slots: 4 });
    fleet.step(s(7), Input::Joined { name: "0-1".into(), host: "h".into(), slots: 4 });
    assert_eq!(fleet.snapshot().len(), 2);
    fleet.step(s(8), left("dask-worker-xyz", true));
    assert_eq!(fleet.snapshot().len(), 1);
    // What cannot pass is the cluster's failure, until the user scales again.
    assert_eq!(told(fleet.step(s(9), Input::Scale { count: 50, victims: vec![] })), [50]);
    fleet.step(s(9), Input::TargetSet(Err(error(ErrorKind::PermissionDenied))));
    assert_eq!(fleet.failure().unwrap().kind(), ErrorKind::PermissionDenied);
    assert_eq!(told(fleet.step(s(10), Input::Scale { count: 5, victims: vec![] })), [5]);
}

#[test]
fn somebody_else_s_workers_are_seen_and_left_alone_whatever_their_names() {
    let mut fleet = Fleet::new(Limits::default(), Some(3));
    fleet.step(s(0), Input::Tick);
    fleet.step(s(1), Input::Started(Ok((Scaling::None, 9))));
    let out = fleet.step(s(2), joined(id(0, 0)));
    assert!(matches!(&out[..], [Action::Report(ClusterEvent::Joined { id: None, name, .. })] if name == "0-0"), "{out:?}");
    fleet.step(s(2), Input::Joined { name: "tcp://10.0.0.7:41".into(), host: "10.0.0.7".into(), slots: 4 });
    assert_eq!((fleet.snapshot().len(), fleet.desired(), fleet.wake()), (2, 2, None));
    let out = fleet.step(s(3), Input::Scale { count: 1, victims: vec![id(0, 0)] });
    assert!(matches!(&out[..], [Action::Report(ClusterEvent::Degraded(_))]), "{out:?}");
    assert!(fleet.step(s(4), Input::Platform(vec![listed(id(0, 0), None, WorkerState::Running)])).is_empty());
    assert!(fleet.step(s(5), left("0-0", false)).is_empty());
    assert!(fleet.step(s(9999), Input::Tick).is_empty());
    assert_eq!((fleet.snapshot().len(), fleet.desired()), (1, 1));
    let out = fleet.step(s(9999), Input::SchedulerLost(error(ErrorKind::Unavailable)));
    assert!(matches!(out[..], [Action::Failed(_), Action::Cancel, Action::Close]), "the scheduler is theirs, its loss is told: {out:?}");
}

#[test]
fn an_error_that_cannot_pass_cuts_off_at_once() {
    let mut fleet = open(2);
    let denied = Error::new(ErrorKind::PermissionDenied, "ecs:RunTask");
    let out = fleet.step(s(1), Input::Launched(vec![id(0, 0), id(1, 0)], Err(denied)));
    assert_eq!(out.iter().filter(|a| matches!(a, Action::Failed(_))).count(), 1, "{out:?}");
    assert_eq!(fleet.failure().unwrap().kind(), ErrorKind::PermissionDenied);
    let out = fleet.step(s(2), Input::Stopped(vec![id(0, 0), id(1, 0)], Ok(())));
    assert!(out.is_empty() && fleet.wake().is_none());
}

#[test]
fn a_cut_off_with_workers_left_fails_the_cluster_only_when_the_last_is_gone() {
    let mut fleet = open(1);
    join(&mut fleet, s(0), id(0, 0));
    fleet.step(s(40), Input::Scale { count: 2, victims: vec![] });
    fleet.step(s(40), Input::Launched(vec![id(1, 0)], Err(error(ErrorKind::PermissionDenied))));
    assert!(fleet.failure().is_none());
    let out = fleet.step(s(50), left("0-0", false));
    assert!(out.iter().any(|action| matches!(action, Action::Failed(_))), "{out:?}");
}
