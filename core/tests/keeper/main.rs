//! Rung 1: the whole keeper under a paused clock, one test for each promise.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod factories;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use remuda_core::{
    class::{ClassRef, Recipe},
    cluster::{Cluster, ClusterOptions, Limits, WorkerStage},
    engine::WorkerChange,
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
    manager::{ClusterEvent, ClusterInfo, ClusterManager, Scaling, WorkerId},
};
use support::{Fake, Fault};
use tokio::{runtime::Handle, time};

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

const MINUTE: Duration = s(60);

/// The keeper on the test's own runtime, under its paused clock.
fn here(workers: u32) -> ClusterOptions {
    ClusterOptions { workers: Some(workers), home: Some(Handle::current()), ..ClusterOptions::default() }
}

async fn open(fault: Fault, workers: u32) -> (Fake, Cluster) {
    let fake = Fake::with(fault);
    let cluster = Cluster::start(fake.clone(), here(workers)).await.unwrap();
    (fake, cluster)
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_comes_back_as_a_new_incarnation_after_growing_delays() {
    let (fake, cluster) = open(Fault { lifetime: Some(s(10)), ..Fault::default() }, 1).await;
    time::sleep(s(34)).await; // lives 10, waits 1, lives 10, waits 2, lives 10
    assert_eq!(fake.said(), ["start", "launch 0-0", "stop 0-0", "launch 0-1", "stop 0-1", "launch 0-2", "stop 0-2"]);
    cluster.close().await.unwrap();
    assert_eq!(fake.said().last().unwrap(), "closed");
}

#[tokio::test(start_paused = true)]
async fn workers_that_only_die_are_cut_off_and_the_owner_hears_why() {
    let (fake, cluster) = open(Fault { lifetime: Some(s(1)), ..Fault::default() }, 1).await;
    let mut events = cluster.events();
    assert_eq!(cluster.failed().await.kind(), ErrorKind::CrashLoop);
    time::sleep(s(600)).await;
    assert_eq!(fake.said().iter().filter(|l| l.starts_with("launch")).count(), 5);
    let error = cluster.wait_for_workers(1, MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CrashLoop);
    assert!(error.to_string().contains("exit 1"), "{error}");
    assert!(std::iter::from_fn(|| events.try_recv().ok()).any(|e| matches!(e, ClusterEvent::Degraded(_))));
    // Scaling is a new try.
    cluster.scale(1);
    cluster.wait_for_workers(1, MINUTE).await.unwrap();
    assert!(cluster.status().failure.is_none());
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_during_a_start_that_listens_ends_at_once_and_one_that_does_not_after_the_grace() {
    for (deaf, at_most) in [(false, s(1)), (true, s(6))] {
        let fake = Fake::with(Fault { start_hangs: Some(deaf), ..Fault::default() });
        let begin = time::Instant::now();
        let start = time::timeout(s(3), Cluster::start(fake.clone(), here(1))).await;
        assert!(start.is_err(), "dropped half-way");
        fake.hears("closed").await;
        assert_eq!(fake.said(), ["start", "close", "closed"]);
        assert!(begin.elapsed() - s(3) < at_most, "{:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_panics_or_never_returns_is_closed_before_the_caller_hears_of_it() {
    let denied = Error::new(ErrorKind::PermissionDenied, "no such role");
    for (fault, kind, text) in [
        (Fault { start_fails: Some(denied), ..Fault::default() }, ErrorKind::PermissionDenied, "start: no such role · class=fake::Fake"),
        (Fault { panics_on: Some("start"), ..Fault::default() }, ErrorKind::Unexpected, "panicked: bad day"),
        (Fault { start_hangs: Some(true), ..Fault::default() }, ErrorKind::Timeout, "did not start within 600s"),
        (Fault { start_hangs: Some(false), ..Fault::default() }, ErrorKind::Timeout, "did not start within 600s"),
    ] {
        let fake = Fake::with(fault);
        let error = Cluster::start(fake.clone(), here(1)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(fake.said(), ["start", "close", "closed"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_says_what_its_close_left_behind() {
    let error = Error::new(ErrorKind::Capacity, "no nodes");
    let fake = Fake::with(Fault { start_fails: Some(error), remaining: vec!["pod/a".into(), "pod/b".into()], ..Fault::default() });
    let error = Cluster::start(fake, here(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "start: no nodes · class=fake::Fake, remaining=pod/a pod/b");
}

#[tokio::test(start_paused = true)]
async fn scaling_down_drains_the_chosen_before_it_stops_them() {
    let (fake, cluster) = open(Fault::default(), 3).await;
    cluster.wait_for_workers(3, MINUTE).await.unwrap();
    assert_eq!(cluster.status().slots, 6);
    cluster.scale_down(1, vec![WorkerId { index: 0, incarnation: 0 }]);
    time::sleep(s(1)).await;
    assert_eq!(*fake.engine.drained.lock().unwrap(), ["0-0", "2-0"]);
    assert_eq!(fake.alive.lock().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), ["1-0"]);
    let (a, b) = tokio::join!(cluster.close(), cluster.close());
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(fake.said().iter().filter(|line| *line == "close").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_never_ends_meets_its_deadline() {
    let (fake, cluster) = open(Fault { drain_hangs: true, ..Fault::default() }, 2).await;
    cluster.wait_for_workers(2, MINUTE).await.unwrap();
    cluster.scale(1);
    time::sleep(s(59)).await;
    let stages: Vec<_> = cluster.workers().iter().map(|worker| worker.stage).collect();
    assert_eq!(stages, [WorkerStage::Running, WorkerStage::Draining]);
    assert_eq!((cluster.status().running, cluster.status().draining), (1, 1));
    time::sleep(s(2)).await;
    assert_eq!(fake.said().last().unwrap(), "stop 1-0");
    assert_eq!(cluster.workers().len(), 1);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_panics_is_an_error_and_the_cluster_is_still_closed() {
    let (fake, cluster) = open(Fault { panics_on: Some("launch"), ..Fault::default() }, 1).await;
    let error = cluster.wait_for_workers(1, MINUTE).await.unwrap_err();
    assert!(error.to_string().contains("the cluster manager panicked: bad day"), "{error}");
    drop(cluster); // injected home: does not block, the keeper closes as soon as it is polled
    fake.hears("closed").await;
    // Also where it is the close that panics, or the calls nobody waits for.
    let (_, cluster) = open(Fault { panics_on: Some("close"), ..Fault::default() }, 1).await;
    assert!(cluster.close().await.unwrap_err().to_string().contains("panicked"));
    let (_, cluster) = open(Fault { panics_on: Some("list"), ..Fault::default() }, 1).await;
    time::sleep(s(30)).await;
    assert_eq!(cluster.live_workers(), 1);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_never_returns_is_given_up_and_tried_again() {
    let (fake, cluster) = open(Fault { launch_hangs: true, ..Fault::default() }, 1).await;
    time::sleep(s(122)).await;
    assert_eq!(fake.said(), ["start", "launch 0-0", "stop 0-0", "launch 0-1"]);
    let begin = time::Instant::now();
    cluster.close().await.unwrap();
    assert!(begin.elapsed() < s(6), "waits for the launch no longer than the grace: {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn workers_that_never_join_are_written_off_and_the_wait_says_so() {
    let (fake, cluster) = open(Fault { silent: true, ..Fault::default() }, 1).await;
    let error = cluster.wait_for_workers(1, s(10)).await.unwrap_err();
    assert_eq!(error.to_string(), "0 of 1 workers joined within 10s · class=fake::Fake");
    time::sleep(s(292)).await;
    assert_eq!(fake.said(), ["start", "launch 0-0", "stop 0-0", "launch 0-1"]);
    let error = cluster.wait_for_workers(1, s(1)).await.unwrap_err();
    assert!(error.to_string().contains("worker 0-0: it did not join the scheduler within 300s"), "{error}");
    let error = cluster.wait_for_workers(7, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_refused_is_repeated_and_nothing_takes_the_place_meanwhile() {
    let fault = Fault { stops_refused: Arc::new(Mutex::new(6)), ..Fault::default() };
    let (fake, cluster) = open(fault, 1).await;
    cluster.wait_for_workers(1, MINUTE).await.unwrap();
    fake.engine.tell(WorkerChange::Left { name: "0-0".into(), reason: "gone".into(), busy: false });
    fake.hears("launch 0-1").await;
    let said = fake.said();
    assert_eq!(said[2..], [vec!["stop 0-0"; 7], vec!["launch 0-1"]].concat());
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_scheduler_is_the_end_and_is_told_to_everybody() {
    let (fake, cluster) = open(Fault::default(), 1).await;
    cluster.wait_for_workers(1, MINUTE).await.unwrap();
    fake.engine.tell(WorkerChange::SchedulerLost(Error::new(ErrorKind::SchedulerLost, "connection reset")));
    assert_eq!(cluster.failed().await.kind(), ErrorKind::SchedulerLost);
    fake.hears("closed").await;
    cluster.close().await.unwrap();
    assert_eq!(cluster.engine().unwrap_err().kind(), ErrorKind::SchedulerLost);
    assert_eq!(cluster.failed().await.kind(), ErrorKind::SchedulerLost);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_fails_or_never_returns_says_so_and_ends() {
    let denied = Error::new(ErrorKind::PermissionDenied, "not yours");
    let (_, cluster) = open(Fault { close_fails: Some(denied), ..Fault::default() }, 1).await;
    assert_eq!(cluster.close().await.unwrap_err().to_string(), "close: not yours");
    let (_, cluster) = open(Fault { close_hangs: true, ..Fault::default() }, 1).await;
    let begin = time::Instant::now();
    assert_eq!(cluster.close().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begin.elapsed() <= s(66), "{:?}", begin.elapsed());
    let (_, cluster) = open(Fault { remaining: vec!["task/7".into()], ..Fault::default() }, 1).await;
    assert_eq!(cluster.close().await.unwrap().remaining, ["task/7"]);
}

#[tokio::test(start_paused = true)]
async fn after_the_close_nothing_runs_and_everything_says_closed() {
    let (fake, cluster) = open(Fault { lifetime: Some(s(10)), ..Fault::default() }, 2).await;
    cluster.wait_for_workers(2, MINUTE).await.unwrap();
    let mut events = cluster.events();
    // A close that is dropped goes on; the next one gets its report.
    assert!(time::timeout(Duration::from_millis(1), cluster.close()).await.is_err());
    cluster.close().await.unwrap();
    assert_eq!(cluster.wait_for_workers(1, MINUTE).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cluster.engine().unwrap_err().kind(), ErrorKind::Closed);
    assert!(time::timeout(MINUTE, cluster.failed()).await.is_err(), "closed in peace");
    cluster.scale(9);
    time::sleep(MINUTE).await;
    assert_eq!(fake.said().iter().filter(|line| line.starts_with("launch")).count(), 2);
    assert!(cluster.workers().is_empty());
    let news: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(matches!(news.last(), Some(ClusterEvent::Closed)), "{news:?}");
    assert!(!news.iter().any(|event| matches!(event, ClusterEvent::Progress(_))), "watch tasks ended with the cluster");
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_and_a_scope_always_does() {
    let (fake, cluster) = open(Fault::default(), 1).await;
    let other = cluster.clone();
    drop(cluster);
    time::sleep(s(10)).await;
    assert!(!fake.said().contains(&"close".to_owned()));
    drop(other);
    fake.hears("closed").await;

    let fake = Fake::default();
    let result: anyhow::Result<()> = Cluster::scope(fake.clone(), here(1), |_| async { anyhow::bail!("the body's own") }).await;
    assert_eq!(result.unwrap_err().to_string(), "the body's own");
    assert_eq!(fake.said().last().unwrap(), "closed");

    let fake = Fake::with(Fault { close_fails: Some(Error::new(ErrorKind::Unavailable, "later")), ..Fault::default() });
    assert_eq!(Cluster::scope(fake, here(1), |_| async { anyhow::Ok(7) }).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn name_and_number_come_from_the_options_then_the_class_then_chance() {
    let mut fake = Fake::default();
    let options = || ClusterOptions { workers: None, ..here(0) };
    let random = Cluster::start(fake.clone(), options()).await.unwrap();
    let digits = random.name().strip_prefix("remuda-").unwrap();
    assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits}");
    let other = Cluster::start(fake.clone(), options()).await.unwrap();
    assert_ne!(random.name(), other.name());
    fake.info = ClusterInfo { workers: 2, name: Some("mine".into()), ..fake.info };
    let theirs = Cluster::start(fake.clone(), options()).await.unwrap();
    theirs.wait_for_workers(2, MINUTE).await.unwrap();
    assert_eq!((theirs.name(), theirs.status().wanted), ("mine", 2));
    let ours = Cluster::start(fake, ClusterOptions { name: Some("ours".into()), ..here(1) }).await.unwrap();
    ours.wait_for_workers(1, MINUTE).await.unwrap();
    assert_eq!((ours.name(), ours.status().wanted), ("ours", 1));
    assert_eq!(ours.info().unwrap().name.as_deref(), Some("mine"));
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_counts_is_only_told_numbers() {
    let fake = Fake { info: ClusterInfo { scaling: Scaling::Count, workers: 2, ..ClusterInfo::new("fake::Count") }, ..Fake::default() };
    let cluster = Cluster::start(fake.clone(), ClusterOptions { workers: None, ..here(0) }).await.unwrap();
    fake.engine.tell(WorkerChange::Joined { name: "dask-worker-a".into(), host: "h".into(), slots: 4 });
    cluster.wait_for_workers(1, MINUTE).await.unwrap();
    assert_eq!((cluster.status().running, cluster.status().starting, cluster.status().slots), (1, 1, 4));
    cluster.scale(5);
    fake.hears("scale Exactly(5)").await;
    cluster.close().await.unwrap();
    assert_eq!(fake.said(), ["start", "scale Exactly(2)", "scale Exactly(5)", "close", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn of_somebody_else_s_cluster_nothing_is_launched_stopped_or_drained() {
    let fake = Fake { info: ClusterInfo { scaling: Scaling::None, ..ClusterInfo::new("fake::Theirs") }, ..Fake::default() };
    let cluster = Cluster::start(fake.clone(), here(3)).await.unwrap();
    assert_eq!(cluster.dashboard().as_deref(), Some("http://fake/status"), "the engine's word, as the endpoint has none");
    let error = cluster.wait_for_workers(1, MINUTE).await.unwrap_err();
    assert!(error.hint().unwrap().contains("its owner"), "{error}");
    fake.engine.tell(WorkerChange::Joined { name: "0-0".into(), host: "h".into(), slots: 4 });
    cluster.wait_for_workers(1, MINUTE).await.unwrap();
    let status = cluster.status();
    assert_eq!((status.running, status.starting, status.wanted, status.slots, status.workers[0].id), (1, 0, 1, 4, None));
    let mut events = cluster.events();
    cluster.scale(0);
    assert!(matches!(events.recv().await.unwrap(), ClusterEvent::Degraded(text) if text.contains("somebody else")));
    fake.engine.tell(WorkerChange::Left { name: "0-0".into(), reason: "scaled".into(), busy: false });
    cluster.watch().wait_for(|status| status.running == 0).await.unwrap();
    time::sleep(s(600)).await;
    cluster.close().await.unwrap();
    assert_eq!(fake.said(), ["start", "close", "closed"]);
    assert!(fake.engine.drained.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_watch_shows_every_stage_without_holding_the_cluster() {
    let (fake, cluster) = open(Fault { silent: true, ..Fault::default() }, 1).await;
    let mut watch = cluster.watch();
    watch.wait_for(|status| status.starting == 1 && status.workers.len() == 1).await.unwrap();
    fake.engine.tell(WorkerChange::Joined { name: "0-0".into(), host: "h".into(), slots: 3 });
    watch.wait_for(|status| (status.running, status.starting, status.slots) == (1, 0, 3)).await.unwrap();
    drop(cluster);
    watch.wait_for(|status| matches!(status.closed, Some(Ok(_)))).await.unwrap();
}
