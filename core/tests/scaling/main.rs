//! Rung 1: adaptive scaling from the handle to the platform, under a paused clock, one test for each promise.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod bounds;
mod hours;
mod log;
mod soak;
mod trouble;
mod yard;

use std::{collections::BTreeSet, time::Duration};

use remuda_core::{
    adaptive::{AdaptConfig, Backend, Decision, Entry, Reason, Replay},
    cluster::{Cluster, ClusterOptions, ClusterStatus, Limits, WorkerStage},
    duration::Seconds,
    engine::Outlook,
    error::{Error, ErrorKind},
    manager::{ClusterEvent, ClusterInfo, Scaling, Target},
};
use tokio::{
    runtime::Handle,
    sync::broadcast,
    time::{Instant, sleep, timeout},
};
use yard::{Blind, Plan, Yard};

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bounds(minimum: u32, maximum: u32) -> AdaptConfig {
    AdaptConfig { minimum: Some(minimum), maximum: Some(maximum), ..AdaptConfig::default() }
}

/// The keeper on the test's own runtime, under its paused clock.
fn here(adapt: AdaptConfig) -> ClusterOptions {
    ClusterOptions { adapt: Some(adapt), home: Some(Handle::current()), ..ClusterOptions::default() }
}

async fn open(plan: Plan, adapt: AdaptConfig) -> (Yard, Cluster) {
    let yard = Yard::new(plan);
    let cluster = Cluster::start(yard.clone(), here(adapt)).await.unwrap();
    (yard, cluster)
}

async fn until(cluster: &Cluster, reached: impl FnMut(&ClusterStatus) -> bool) -> ClusterStatus {
    timeout(s(3600), cluster.watch().wait_for(reached)).await.expect("it never comes to that").unwrap().clone()
}

fn heard(events: &mut broadcast::Receiver<ClusterEvent>) -> Vec<ClusterEvent> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn decisions(events: &[ClusterEvent]) -> Vec<Decision> {
    let decision = |event: &ClusterEvent| if let ClusterEvent::Scaled { decision, .. } = event { Some(decision.clone()) } else { None };
    events.iter().filter_map(decision).collect()
}

#[tokio::test(start_paused = true)]
async fn work_brings_workers_within_a_second_and_rest_sends_them_home_and_so_again() {
    for tells_arrivals in [true, false] {
        let plan = Plan { tells_arrivals, ..Plan::of("yard::Daily", s(5)) };
        let (yard, cluster) = open(plan, bounds(0, 10)).await;
        let mut events = cluster.events();
        sleep(s(60)).await;
        assert!(yard.launches().is_empty() && cluster.status().wanted == 0, "nothing to do, nobody there");
        for _ in 0..3 {
            let (before, asked) = (yard.launches().len(), Instant::now());
            yard.submit(100, s(2));
            let status = until(&cluster, |status| status.adapt.as_ref().unwrap().desired > 0).await;
            let issued = yard.launches()[before] - asked;
            assert!(issued <= Duration::from_millis(if tells_arrivals { 100 } else { 1100 }), "{issued:?}");
            assert_eq!(status.adapt.unwrap().running, 0);
            timeout(s(120), yard.done()).await.unwrap();
            let status = until(&cluster, |status| status.wanted == 0 && status.workers.is_empty()).await;
            let adapt = status.adapt.unwrap();
            assert_eq!((adapt.desired, adapt.starting, adapt.running, adapt.draining), (0, 0, 0, 0));
            assert!(adapt.usage.worker_seconds >= 200.0 && adapt.usage.idle_worker_seconds < adapt.usage.worker_seconds);
            sleep(s(300)).await;
        }
        assert!(yard.most() <= 10 && yard.killed() == 0);
        let told = decisions(&heard(&mut events));
        assert!(told.iter().any(|decision| decision.launch > 0) && told.iter().any(|decision| !decision.victims.is_empty()));
        assert!(told.len() < 100, "only what is new is told: {}", told.len());
        cluster.close().await.unwrap();
        assert!(cluster.status().adapt.unwrap().usage.launched > 0, "stays for the report");
    }
}

#[tokio::test(start_paused = true)]
async fn it_begins_with_the_minimum_or_the_number_that_was_asked_for_within_the_bounds() {
    let asked = |info: ClusterInfo| Plan { info, ..Plan::of("yard::First", s(1)) };
    let plain = Plan::of("yard::First", s(1)).info;
    let cases = [
        (ClusterInfo { workers: 4, ..plain.clone() }, None, 1),
        (ClusterInfo { workers: 4, workers_given: true, ..plain.clone() }, None, 4),
        (ClusterInfo { workers: 9, workers_given: true, ..plain.clone() }, None, 6),
        (ClusterInfo { workers: 9, workers_given: true, ..plain.clone() }, Some(3), 3),
        (plain, Some(0), 1),
    ];
    for (info, workers, first) in cases {
        let yard = Yard::new(asked(info));
        let options = ClusterOptions { workers, ..here(bounds(1, 6)) };
        let cluster = Cluster::start(yard.clone(), options).await.unwrap();
        cluster.wait_for_workers(first, s(5)).await.unwrap();
        assert_eq!(yard.launches().len(), first);
        // Nothing to do: the minimum, and never less.
        until(&cluster, |status| status.workers.len() == 1 && status.running == 1).await;
        sleep(s(600)).await;
        assert_eq!((cluster.status().running, yard.launches().len()), (1, first));
        let error = cluster.wait_for_workers(4, s(1)).await.unwrap_err();
        assert!(error.hint().unwrap().contains("`minimum`"), "{error:?}");
        cluster.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_got_work_meanwhile_finishes_it() {
    // Looks are old when they are answered, and work comes into the gap: most victims are busy by then.
    let plan = Plan { load_takes: Duration::from_millis(900), ..Plan::of("yard::Gap", s(1)) };
    let (yard, cluster) = open(plan, bounds(0, 5)).await;
    for round in 0..80u64 {
        yard.submit(5, s(3));
        yard.submit(1, s(90)); // longer than any deadline for drains
        yard.done().await;
        sleep(Duration::from_millis(400 * (round % 23))).await;
    }
    assert!(yard.met() > 0, "the gap was never met");
    assert_eq!(yard.killed(), 0);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_drained_works_again_while_others_still_finish_theirs() {
    let (yard, cluster) = open(Plan::of("yard::Stuck", s(1)), bounds(0, 2)).await;
    yard.surprise(s(300), 1);
    yard.submit(2, s(5));
    let stage = |status: &ClusterStatus, index: usize| status.workers.get(index).map(|worker| worker.stage);
    until(&cluster, |status| stage(status, 0) == Some(WorkerStage::Draining)).await;
    sleep(s(15)).await;
    let status = cluster.status();
    assert_eq!((stage(&status, 0), stage(&status, 1)), (Some(WorkerStage::Draining), Some(WorkerStage::Running)), "{status:?}");
    yard.done().await;
    assert_eq!(yard.killed(), 0);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_workers_that_are_let_go() {
    let (yard, cluster) = open(Plan::of("yard::Hasty", s(1)), bounds(0, 2)).await;
    yard.surprise(s(300), 9);
    yard.submit(2, s(5));
    until(&cluster, |status| status.draining > 0).await;
    let begin = Instant::now();
    cluster.close().await.unwrap();
    assert!(begin.elapsed() < s(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_ends_with_a_worker_on_its_way_out_starts_nobody() {
    let (yard, cluster) = open(Plan::of("yard::Leaving", s(1)), bounds(0, 4)).await;
    yard.surprise(s(200), 9);
    yard.submit(1, s(5));
    until(&cluster, |status| status.draining == 1).await;
    assert_eq!((yard.left(), yard.launches().len()), (1, 1), "it runs on the one that goes");
    yard.done().await;
    until(&cluster, |status| status.workers.is_empty()).await;
    assert_eq!((yard.launches().len(), yard.killed()), (1, 0));
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn workers_to_begin_with_count_as_started_and_a_number_does_not_make_the_bill_forgotten() {
    let (_yard, cluster) = open(Plan::of("yard::Bill", s(1)), bounds(3, 3)).await;
    until(&cluster, |status| status.running == 3).await;
    sleep(s(100)).await;
    assert_eq!(cluster.status().adapt.unwrap().usage.launched, 3);
    cluster.scale(1);
    until(&cluster, |status| status.running == 1 && status.adapt.is_none()).await;
    let told = |cluster: &Cluster| cluster.status().adapt_ended.unwrap().usage;
    assert!(told(&cluster).launched == 3 && told(&cluster).worker_seconds > 250.0, "{:?}", told(&cluster));
    let usage = told(&cluster);
    cluster.close().await.unwrap();
    assert_eq!(told(&cluster), usage, "stays for the report");
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_a_number_held_is_not_in_the_bill() {
    let (_yard, cluster) = open(Plan::of("yard::Between", s(1)), bounds(3, 3)).await;
    until(&cluster, |status| status.running == 3).await;
    sleep(s(10)).await;
    cluster.scale(3);
    let before = until(&cluster, |status| status.adapt.is_none()).await.adapt_ended.unwrap().usage.worker_seconds;
    sleep(s(50)).await;
    cluster.adapt(bounds(3, 3)).unwrap();
    sleep(s(2)).await;
    let after = cluster.status().adapt.unwrap().usage.worker_seconds;
    assert!((before + 3.0..before + 10.0).contains(&after), "{before} {after}");
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_bill_is_made_up_to_the_end_however_long_the_interval() {
    for ends in ["closed", "scaled"] {
        for (tasks, idle) in [(0, 3.0), (2, 1.0)] {
            let config = AdaptConfig { interval: Seconds(s(60)), ..bounds(3, 3) };
            let (yard, cluster) = open(Plan::of("yard::Settled", s(1)), config).await;
            yard.submit(tasks, s(600));
            sleep(s(100)).await;
            let before = cluster.status().adapt.unwrap().usage;
            let usage = if ends == "closed" {
                cluster.close().await.unwrap();
                cluster.status().adapt.unwrap().usage
            } else {
                cluster.scale(1);
                until(&cluster, |status| status.adapt.is_none()).await.adapt_ended.unwrap().usage
            };
            let near = |a: f64, b: f64| (a - b).abs() < 7.0;
            assert!(near(usage.worker_seconds, 300.0), "{ends}, {tasks} tasks: {before:?} {usage:?}");
            assert!(near(usage.idle_worker_seconds, 100.0 * idle), "{ends}, {tasks} tasks: {before:?} {usage:?}");
            assert_eq!(usage.launched, 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn scaling_ends_it_and_says_so_and_adapting_again_replaces_the_bounds() {
    let (yard, cluster) = open(Plan::of("yard::Turns", s(1)), bounds(0, 4)).await;
    let mut events = cluster.events();
    yard.submit(40, s(60));
    until(&cluster, |status| status.running == 4).await;
    cluster.adapt(bounds(2, 6)).unwrap();
    until(&cluster, |status| status.running == 6).await;
    cluster.scale(1);
    let status = until(&cluster, |status| status.adapt.is_none()).await;
    assert_eq!(status.wanted, 1);
    let before = status.adapt_ended.unwrap().usage.worker_seconds;
    let looks = yard.looks();
    sleep(s(30)).await;
    assert_eq!((cluster.status().wanted, yard.looks()), (1, looks), "nobody looks any more");
    let news = heard(&mut events);
    assert!(news.iter().any(|event| matches!(event, ClusterEvent::Adapting(config) if config.maximum == Some(6))));
    assert!(news.iter().any(|event| matches!(event, ClusterEvent::AdaptingEnded { workers: 1 })));
    cluster.adapt(bounds(2, 3)).unwrap();
    until(&cluster, |status| status.running == 3).await;
    let adapt = until(&cluster, |status| status.adapt.as_ref().is_some_and(|adapt| adapt.decision.is_some())).await.adapt.unwrap();
    assert!(before > 6.0 && adapt.usage.worker_seconds >= before && adapt.startup.is_some(), "what was learned and used before: {adapt:?}");
    yard.done().await;
    until(&cluster, |status| status.wanted == 2).await;
    assert!(yard.most() <= 6);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_closed_at_any_moment_also_while_it_looks_or_launches() {
    for millis in (0..4000).step_by(130) {
        let plan = Plan { load_takes: Duration::from_millis(600), launch_waits: true, ..Plan::of("yard::Closed", s(2)) };
        let (yard, cluster) = open(plan, bounds(1, 4)).await;
        yard.submit(10, s(1));
        sleep(Duration::from_millis(millis)).await;
        let begin = Instant::now();
        cluster.close().await.unwrap();
        assert!(begin.elapsed() <= s(6), "{:?}", begin.elapsed());
        assert!(cluster.adapt(bounds(0, 1)).unwrap_err().kind() == ErrorKind::Closed);
        let (looks, launches) = (yard.looks(), yard.launches().len());
        sleep(s(60)).await;
        assert_eq!((yard.looks(), yard.launches().len()), (looks, launches), "nothing goes on after the close");
    }
}

#[tokio::test(start_paused = true)]
async fn start_up_times_are_remembered_by_class_for_the_next_cluster_unless_the_user_says_one() {
    let mut plan = Plan::of("yard::Learner", s(20));
    plan.info.backend = Backend::new(s(1)); // it is wrong about itself
    let (yard, cluster) = open(plan.clone(), bounds(0, 5)).await;
    yard.submit(50, s(30));
    yard.done().await;
    let learned = cluster.status().adapt.unwrap().startup.unwrap();
    assert!(learned > s(3), "{learned:?}");
    cluster.close().await.unwrap();
    let (_, next) = open(plan.clone(), bounds(0, 5)).await;
    assert_eq!(next.status().adapt.unwrap().startup, Some(learned));
    let (_, said) = open(plan, AdaptConfig { startup: Some(Seconds(s(7))), ..bounds(0, 5) }).await;
    assert_eq!(said.status().adapt.unwrap().startup, None);
}

#[tokio::test(start_paused = true)]
async fn the_log_can_be_replayed_from_the_start_and_from_wherever_one_begins_to_listen() {
    let lines = log::record();
    let (yard, cluster) = open(Plan::of("yard::Logged", s(3)), bounds(0, 6)).await;
    yard.submit(60, s(2));
    sleep(s(10)).await;
    let mut late = cluster.decisions();
    yard.blind(Some(Blind::Fails(Error::new(ErrorKind::Unavailable, "no answer"))));
    sleep(s(3)).await;
    yard.blind(None);
    yard.done().await;
    cluster.adapt(bounds(1, 7)).unwrap();
    until(&cluster, |status| status.wanted == 1).await;
    cluster.close().await.unwrap();
    let logged: Vec<Entry> = lines.lock().unwrap().iter().map(|line| Entry::parse(line).unwrap()).collect();
    let heard: Vec<Entry> = std::iter::from_fn(|| late.try_recv().ok()).map(|entry| (*entry).clone()).collect();
    assert!(late.is_closed());
    for (entries, least) in [(logged, 20), (heard, 10)] {
        let (mut replay, mut made) = (Replay::default(), 0);
        for entry in &entries {
            let again = replay.next(entry).unwrap();
            assert_eq!(again.as_ref(), entry.decision().map(|(_, decision)| decision));
            made += usize::from(again.is_some());
        }
        assert!(made >= least && entries.iter().any(|entry| matches!(entry, Entry::Held(_))), "{made}");
        assert_eq!(entries.iter().filter(|entry| matches!(entry, Entry::Begin(_))).count(), 2);
        // One that is cut out is missed, whatever was decided behind it.
        for gone in 1..entries.len() - 1 {
            let mut replay = Replay::default();
            entries[..gone].iter().for_each(|entry| drop(replay.next(entry).unwrap()));
            let missed = replay.next(&entries[gone + 1]).unwrap_err();
            assert!(missed.to_string().contains("a line of the log is missing before this one"), "{missed}");
        }
        let mut replay = Replay::default();
        let twice = [&entries[0], &entries[1], &entries[1]].map(|entry| replay.next(entry));
        assert!(twice[2].as_ref().is_err_and(|error| error.to_string().contains("not in order")), "{twice:?}");
    }
}

/// The limits of a keeper leave adaptive victims alone: a minute's drain is the rule for those the user sends away.
#[test]
fn the_usual_drain_is_shorter_than_the_long_tasks_here() {
    assert!(Limits::default().drain < s(90));
}
