//! Rung 1: the keeper's mind without a clock, then against a hostile platform made up by proptest.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
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

fn decided(launch: u32, victims: &[WorkerId], cancelled: &[WorkerId], lost: u32) -> Input {
    let numbers = |ids: &[WorkerId]| ids.iter().map(|id| u64::from(*id)).collect();
    Input::Decided(Decision {
        desired: launch,
        launch,
        victims: numbers(victims),
        cancelled: numbers(cancelled),
        lost,
        reason: Reason::First { tasks: 1 },
    })
}

#[test]
fn the_policy_says_whether_a_place_is_filled_again_and_failures_delay_its_launches() {
    let mut fleet = open(2);
    join(&mut fleet, s(0), id(0, 0));
    fleet.step(s(0), Input::Adapt { native: None });
    assert_eq!(stops(&fleet.step(s(1), left("0-0", false))), [id(0, 0)]);
    assert_eq!((fleet.desired(), fleet.is_blocked(s(1)), fleet.is_blocked(s(2))), (1, true, false));
    assert!(launches(&fleet.step(s(9), Input::Stopped(vec![id(0, 0)], Ok(())))).is_empty());
    assert_eq!(launches(&fleet.step(s(9), decided(1, &[], &[], 0))), [id(0, 1)]);
    // A request that is written off counts as a failure; one that is not needed any more does not.
    fleet.step(s(9), Input::Launched(vec![id(0, 1), id(1, 0)], Ok(())));
    let out = fleet.step(s(40), decided(0, &[], &[id(0, 1), id(1, 0)], 1));
    assert_eq!(stops(&out), [id(0, 1), id(1, 0)]);
    let told: Vec<_> = out.iter().filter(|action| matches!(action, Action::Report(ClusterEvent::Lost { .. }))).collect();
    assert!(
        matches!(told[..], [Action::Report(ClusterEvent::Lost { id: lost, reason })] if *lost == id(0, 1) && reason.contains("31 s")),
        "{told:?}"
    );
    assert!(fleet.is_blocked(s(40)) && fleet.desired() == 0);
    // Somebody says a number: no word of the policy counts any more.
    fleet.step(s(41), Input::Stopped(vec![id(0, 1), id(1, 0)], Ok(())));
    let out = fleet.step(s(41), Input::Scale { count: 1, victims: vec![] });
    assert!(matches!(out[0], Action::Report(ClusterEvent::AdaptingEnded { workers: 1 })), "{out:?}");
    assert_eq!(launches(&out), [id(0, 2)]);
    assert!(fleet.step(s(41), decided(5, &[], &[id(0, 2)], 0)).is_empty());
}

#[test]
fn victims_of_the_policy_finish_what_they_run_however_long_it_takes() {
    let mut fleet = open(3);
    (0..3).for_each(|index| join(&mut fleet, s(0), id(index, 0)));
    fleet.step(s(40), Input::Adapt { native: None });
    let retired = |out: Vec<Action>| match &calls(out)[..] {
        [Action::Retire(workers)] => workers.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(retired(fleet.step(s(40), decided(0, &[id(0, 0), id(1, 0)], &[], 0))), [id(0, 0), id(1, 0)]);
    assert_eq!((fleet.desired(), fleet.live().count()), (1, 1));
    assert!(fleet.step(s(4000), Input::Tick).is_empty(), "no deadline");
    let busy = Input::Retired { drained: vec![], busy: vec![id(0, 0), id(1, 0)], refused: vec![] };
    assert_eq!(retired(fleet.step(s(4000), busy)), [id(0, 0), id(1, 0)]);
    // One has finished, the other's results have no other place: it takes work again, and is not asked soon.
    let out = fleet.step(s(4001), Input::Retired { drained: vec![id(0, 0)], busy: vec![], refused: vec![id(1, 0)] });
    assert_eq!(stops(&out), [id(0, 0)]);
    let kept = |fleet: &mut Fleet, now| fleet.members(now).iter().filter(|member| member.kept).map(|member| member.id).collect::<Vec<_>>();
    assert_eq!((fleet.desired(), kept(&mut fleet, s(4001))), (2, vec![u64::from(id(1, 0))]));
    assert!(kept(&mut fleet, s(4031)).is_empty());
}

#[test]
fn a_cut_off_while_the_policy_wants_workers_is_the_end_but_not_while_it_wants_none() {
    for wanted in [0, 2] {
        let mut fleet = open(0);
        fleet.step(s(0), Input::Adapt { native: None });
        let launched = launches(&fleet.step(s(1), decided(1, &[], &[], 0)));
        fleet.step(s(2), Input::Launched(launched.clone(), Err(error(ErrorKind::PermissionDenied))));
        fleet.step(s(2), Input::Stopped(launched, Ok(())));
        let blocked = Decision { desired: 0, launch: 0, victims: vec![], cancelled: vec![], lost: 0, reason: Reason::Blocked { wanted } };
        assert!(fleet.is_blocked(s(999)));
        fleet.step(s(3), Input::Decided(blocked));
        assert!(fleet.failure().is_some(), "the first try was wanted");
        // A new try, with nothing to do: no failure.
        fleet.step(s(4), Input::Adapt { native: None });
        assert!(fleet.failure().is_none() && !fleet.is_blocked(s(4)));
    }
}

#[test]
fn a_platform_that_scales_by_itself_is_told_bounds() {
    let mut fleet = Fleet::new(Limits::default(), None);
    fleet.step(s(0), Input::Tick);
    fleet.step(s(0), Input::Adapt { native: Some((1, Some(9))) });
    let bounds = |out: Vec<Action>| matches!(out[..], [Action::SetTarget(Target::Between { minimum: 1, maximum: Some(9) })]);
    assert!(bounds(fleet.step(s(1), Input::Started(Ok((Scaling::Count, 4))))), "no number before");
    assert!(fleet.step(s(1), Input::TargetSet(Ok(()))).is_empty());
    assert_eq!(fleet.desired(), 1);
    (0..3).for_each(|index| drop(fleet.step(s(2), joined(id(index, 0)))));
    assert_eq!((fleet.desired(), fleet.snapshot().len()), (3, 3));
    let out = calls(fleet.step(s(3), Input::Scale { count: 2, victims: vec![] }));
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(2))]), "{out:?}");
    // One that counts, and does not scale by itself, is told what the policy decides.
    fleet.step(s(4), Input::TargetSet(Ok(())));
    let out = fleet.step(s(4), Input::Adapt { native: None });
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(2))]), "as it is, in case it was lost: {out:?}");
    fleet.step(s(4), Input::TargetSet(Ok(())));
    let out = fleet.step(s(5), decided(5, &[], &[], 0));
    assert!(matches!(out[..], [Action::SetTarget(Target::Exactly(5))]), "{out:?}");
    let starting = fleet.members(s(6)).iter().filter(|member| member.phase == Phase::Starting).count();
    assert_eq!(starting, 2);
}

/// What chance does to the cluster; `u8`s pick among what is possible at that moment.
#[derive(Debug, Clone)]
enum Chance {
    Answer(u8, Outcome),
    Join(u8),
    Die(u8, bool, bool),
    /// A worker whose launch took effect after its stop was confirmed appears.
    Late(u8),
    Scale(u8, u8),
    /// Adaptive scaling begins, or goes on.
    Adapt,
    /// It decides: so many launched; of those that may go, these bits.
    Decide(u8, u8, u8, bool),
    Wait(u16),
    List,
    SchedulerLost,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Ok,
    /// Refused, nothing happened.
    Refused,
    /// Done, but the answer was lost.
    LostAnswer,
    /// Refused, and it happens some time later.
    Later,
}

fn chance() -> impl Strategy<Value = Chance> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Ok),
        3 => Just(Outcome::Refused),
        1 => Just(Outcome::LostAnswer),
        1 => Just(Outcome::Later)
    ];
    prop_oneof![
        240 => (any::<u8>(), outcome).prop_map(|(n, o)| Chance::Answer(n, o)),
        180 => any::<u8>().prop_map(Chance::Join),
        90 => (any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(n, told, busy)| Chance::Die(n, told, busy)),
        40 => any::<u8>().prop_map(Chance::Late),
        60 => (0..9u8, any::<u8>()).prop_map(|(n, v)| Chance::Scale(n, v)),
        25 => Just(Chance::Adapt),
        90 => (0..4u8, any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(n, v, c, lost)| Chance::Decide(n, v, c, lost)),
        120 => (1..400u16).prop_map(Chance::Wait),
        30 => Just(Chance::List),
        1 => Just(Chance::SchedulerLost),
        10 => Just(Chance::Close),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
struct Worker {
    joined: bool,
    /// The keeper was told that it is there, while it wanted it.
    known: bool,
    /// It came after its stop had been confirmed, and nobody told the keeper yet.
    late: bool,
}

/// A platform and a scheduler that do what they are told, in the order chance picks.
#[derive(Default)]
struct World {
    now: Duration,
    desired: u32,
    most_desired: u32,
    /// Nobody but the policy says how many.
    adapting: bool,
    calls: Vec<Action>,
    exists: BTreeMap<WorkerId, Worker>,
    draining: BTreeMap<WorkerId, Duration>,
    drained: BTreeSet<WorkerId>,
    /// Launches that will take effect whenever chance likes.
    late: Vec<WorkerId>,
    close_asked: bool,
    closing: bool,
    finished: bool,
}

impl World {
    fn step(&mut self, fleet: &mut Fleet, input: Input) {
        let news = match &input {
            Input::Joined { name, .. } => WorkerId::from_name(name),
            _ => None,
        };
        let listing = matches!(input, Input::Platform(_));
        let actions = fleet.step(self.now, input);
        if self.adapting {
            // What a decision launches is what is wanted, from then on.
            self.desired = fleet.desired();
            self.most_desired = self.most_desired.max(self.desired);
        }
        let live: BTreeSet<WorkerId> = fleet.live().map(|(id, _)| id).collect();
        for (id, worker) in &mut self.exists {
            worker.known |= live.contains(id);
            worker.late &= !(listing || news == Some(*id));
        }
        self.obey(fleet, actions);
    }

    fn obey(&mut self, fleet: &Fleet, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.close_asked || matches!(action, Action::Report(_) | Action::Finished(_)), "after close: {action:?}");
            match action {
                Action::Launch(ref ids) => {
                    for id in ids {
                        let twin = self.exists.iter().find(|(other, worker)| other.index == id.index && !worker.late);
                        assert!(twin.is_none(), "{id} launched while {twin:?} lives");
                    }
                    self.calls.push(action);
                }
                Action::Drain(ref workers) => {
                    self.draining.extend(workers.iter().map(|(id, _)| (*id, self.now)));
                    self.calls.push(action);
                }
                Action::Retire(ref workers) => {
                    assert!(workers.iter().all(|(id, _)| !self.drained.contains(id)));
                    self.calls.push(action);
                }
                Action::Stop(ref ids) => {
                    for id in ids {
                        let launching = self.calls.iter().any(|c| matches!(c, Action::Launch(ids) if ids.contains(id)));
                        assert!(!launching, "{id} stopped while it is being launched");
                        let works = self.exists.get(id).is_some_and(|worker| worker.known);
                        let waited = self.draining.get(id).is_some_and(|since| self.now >= *since + Limits::default().drain);
                        assert!(!works || waited || self.drained.contains(id), "{id} stopped, not drained");
                    }
                    self.calls.push(action);
                }
                Action::SetTarget(_) => {
                    assert!(!self.calls.iter().any(|c| matches!(c, Action::SetTarget(_))), "two numbers at once");
                    self.calls.push(action);
                }
                Action::Start => self.calls.push(action),
                Action::Close => {
                    self.close_asked = true;
                    self.calls = vec![action]; // the loop drops the rest
                }
                Action::Finished(_) => self.finished = true,
                // From here on a worker that shows up late is the closing's to end.
                Action::Cancel => self.closing = true,
                Action::Report(_) | Action::Failed(_) => {}
            }
        }
        assert!(fleet.wake().is_none_or(|at| at > self.now), "the loop would spin: {:?}", fleet.wake());
        let launching: usize = self.calls.iter().map(|c| if let Action::Launch(ids) = c { ids.len() } else { 0 }).sum();
        let leaving = fleet.leaving();
        let held = self.exists.values().filter(|worker| !worker.late).count();
        assert!(
            self.closing || held <= self.most_desired as usize + launching + leaving,
            "{held} exist, {} desired, {launching} launching, {leaving} leaving",
            self.desired
        );
    }

    fn answer(&mut self, call: Action, outcome: Outcome, scaling: Scaling) -> Input {
        let result = if outcome == Outcome::Ok { Ok(()) } else { Err(error(ErrorKind::Unavailable)) };
        let happened = matches!(outcome, Outcome::Ok | Outcome::LostAnswer);
        match call {
            Action::Start => Input::Started(result.map(|()| (scaling, self.desired))),
            Action::Launch(ids) => {
                match outcome {
                    Outcome::Later => self.late.extend(&ids),
                    _ if happened => self.exists.extend(ids.iter().map(|id| (*id, Worker::default()))),
                    _ => {}
                }
                Input::Launched(ids, result)
            }
            Action::Stop(ids) => {
                if happened {
                    ids.iter().for_each(|id| self.forget(*id));
                }
                Input::Stopped(ids, result)
            }
            Action::Drain(workers) => {
                let ids: Vec<_> = workers.into_iter().map(|(id, _)| id).collect();
                self.drained.extend(&ids);
                Input::Drained(ids)
            }
            Action::Retire(workers) => {
                let ids: Vec<_> = workers.into_iter().map(|(id, _)| id).collect();
                let (drained, rest) = ids.split_at(if outcome == Outcome::Ok { ids.len() } else { ids.len() / 2 });
                self.drained.extend(drained);
                let (busy, refused) = if outcome == Outcome::LostAnswer { (vec![], rest.into()) } else { (rest.into(), vec![]) };
                Input::Retired { drained: drained.into(), busy, refused }
            }
            Action::SetTarget(_) => Input::TargetSet(result),
            Action::Close => {
                self.exists.clear();
                Input::Closed(Ok(CloseReport::default()))
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn forget(&mut self, id: WorkerId) {
        self.exists.remove(&id);
        self.draining.remove(&id);
    }

    fn input(&mut self, fleet: &mut Fleet, chance: &Chance, scaling: Scaling) -> Option<Input> {
        let pick = |n: u8, len: usize| (len > 0).then(|| n as usize % len);
        Some(match *chance {
            Chance::Answer(n, outcome) => {
                let call = self.calls.remove(pick(n, self.calls.len())?);
                self.answer(call, outcome, scaling)
            }
            Chance::Join(n) => {
                let waiting: Vec<_> = self.exists.iter().filter(|(_, worker)| !worker.joined).map(|(id, _)| *id).collect();
                let id = waiting[pick(n, waiting.len())?];
                self.exists.entry(id).and_modify(|worker| worker.joined = true);
                joined(id)
            }
            Chance::Die(n, told, busy) => {
                let ids: Vec<_> = self.exists.keys().copied().collect();
                let id = ids[pick(n, ids.len())?];
                self.forget(id);
                if !told {
                    return None; // noticed later, or by nobody but the join deadline
                }
                left(&id.to_string(), busy)
            }
            Chance::Late(n) => {
                let id = self.late.remove(pick(n, self.late.len())?);
                // Late for the keeper only if it holds the worker for gone.
                self.exists.insert(id, Worker { late: true, ..Worker::default() });
                return None;
            }
            Chance::Scale(count, victim) => {
                (self.desired, self.most_desired, self.adapting) = (count.into(), self.most_desired.max(count.into()), false);
                Input::Scale { count: count.into(), victims: vec![id(u32::from(victim % 8), 0)] }
            }
            Chance::Adapt => {
                self.adapting |= scaling != Scaling::None;
                Input::Adapt { native: None }
            }
            Chance::Decide(launch, victims, cancels, lost) => Input::Decided(decision(fleet, self.now, launch, [victims, cancels], lost)),
            Chance::Wait(seconds) => {
                self.now += s(seconds.into());
                Input::Tick
            }
            Chance::List => Input::Platform(self.exists.keys().map(|id| listed(*id, None, WorkerState::Running)).collect()),
            Chance::SchedulerLost => Input::SchedulerLost(error(ErrorKind::SchedulerLost)),
            Chance::Close => Input::Close,
        })
    }

    /// Everything is answered and told from now on, except drains.
    fn settle(&mut self, fleet: &mut Fleet, scaling: Scaling) {
        for _ in 0..30 {
            while let Some(at) = self.calls.iter().position(|call| !matches!(call, Action::Drain(_))) {
                let call = self.calls.remove(at);
                let input = self.answer(call, Outcome::Ok, scaling);
                self.step(fleet, input);
                if self.finished {
                    return;
                }
            }
            while let Some(input) = self.input(fleet, &Chance::Late(0), scaling).or_else(|| self.input(fleet, &Chance::Join(0), scaling)) {
                self.step(fleet, input);
            }
            let dead: Vec<_> = fleet.live().filter(|(id, _)| !self.exists.contains_key(id)).map(|(id, _)| id.to_string()).collect();
            for name in dead {
                self.step(fleet, left(&name, false));
            }
            if let Some(list) = self.input(fleet, &Chance::List, scaling) {
                self.step(fleet, list);
            }
            self.now += s(61);
            self.step(fleet, Input::Tick);
        }
    }
}

/// Some decision about the workers there are.
fn decision(fleet: &mut Fleet, now: Duration, launch: u8, [victims, cancels]: [u8; 2], lost: bool) -> Decision {
    let members = fleet.members(now);
    let chosen = |bits: u8, phase: fn(&Phase) -> bool| -> Vec<u64> {
        let of_phase = members.iter().filter(|member| phase(&member.phase));
        (0u8..8).zip(of_phase).filter(|(at, _)| bits >> at & 1 == 1).map(|(_, member)| member.id).collect()
    };
    let there = members.iter().filter(|member| member.phase != Phase::Draining).count() as u32;
    let launch = if fleet.is_blocked(now) { 0 } else { launch.into() };
    let victims = if launch > 0 { vec![] } else { chosen(victims, |phase| matches!(phase, Phase::Live(_))) };
    let cancelled = chosen(cancels, |phase| *phase == Phase::Starting);
    let desired = there + launch - (victims.len() + cancelled.len()) as u32;
    let lost = if lost { cancelled.len() as u32 / 2 } else { 0 };
    Decision { desired, launch, victims, cancelled, lost, reason: Reason::Asleep }
}

fn play(scaling: Scaling, first: u32, chances: &[Chance]) {
    let mut fleet = Fleet::new(Limits { crash_loop: 500, ..Limits::default() }, None);
    let mut world = World { desired: first, most_desired: first, ..World::default() };
    world.step(&mut fleet, Input::Tick);
    for chance in chances {
        if let Some(input) = world.input(&mut fleet, chance, scaling) {
            world.step(&mut fleet, input);
        }
        if world.finished {
            break;
        }
    }
    // Left in peace and kept open, it reaches what is desired, although no drain ever ends.
    if !world.close_asked && !world.finished {
        world.settle(&mut fleet, scaling);
        if !world.finished && scaling == Scaling::Workers {
            let there: Vec<_> = world.exists.keys().copied().collect();
            assert_eq!(there, fleet.live().map(|(id, _)| id).collect::<Vec<_>>());
            assert_eq!(there.len(), world.desired as usize, "{:?}", fleet.snapshot());
        }
    }
    // Closed at any time, it ends, and nothing is left.
    for _ in 0..3 {
        if world.finished {
            break;
        }
        world.step(&mut fleet, Input::Close);
        world.now += s(6);
        world.step(&mut fleet, Input::Tick);
        if let Some(call) = world.close_asked.then(|| world.calls.pop()).flatten() {
            let input = world.answer(call, Outcome::Ok, scaling);
            world.step(&mut fleet, input);
        }
    }
    assert!(world.finished && world.exists.is_empty());
}

/// `PROPTEST_CASES`, for long campaigns; else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_doubles_leaks_or_hangs(
        first in 0..6u32,
        counts in proptest::option::weighted(0.15, proptest::bool::ANY),
        chances in proptest::collection::vec(chance(), 0..160),
    ) {
        let scaling = counts.map_or(Scaling::Workers, |counts| if counts { Scaling::Count } else { Scaling::None });
        play(scaling, first, &chances);
    }
}
