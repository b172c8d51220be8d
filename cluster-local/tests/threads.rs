//! `processes: false`, end to end.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

mod support;

use std::{sync::Arc, time::Duration};

use remuda_core::{
    engine::Drain,
    task::{Annotations, Job, TaskError, TaskState},
};
use remuda_local::LocalConfig;
use support::{Stage, here, int, sync};
use tokio::sync::Notify;

fn threads(workers: u32, slots: u32) -> LocalConfig {
    LocalConfig { n_workers: Some(workers), threads_per_worker: Some(slots), processes: false, ..LocalConfig::default() }
}

#[tokio::test]
async fn a_graph_of_tasks_runs() {
    let mut stage = Stage::new(threads(2, 2)).await;
    let parts: Vec<_> = (0..100).map(|n| stage.run(sync(move |_, _| n as i64))).collect();
    let sum = stage.submit(
        sync(|_, inputs| inputs.iter().map(|input| int(input.as_ref().unwrap())).sum::<i64>()),
        &parts,
        Annotations::default(),
    );
    assert_eq!(stage.json(sum).await, 4950);
    stage.close().await;
}

#[tokio::test]
async fn an_async_body_has_timers_and_is_dropped_when_cancelled() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let slept = stage.run(here(|_, _| {
        Job::Future(Box::pin(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(remuda_core::value::Value::plain(&1).unwrap())
        }))
    }));
    assert_eq!(stage.json(slept).await, 1);
    let dropped = Arc::new(Notify::new());
    let tell = dropped.clone();
    struct Guard(Arc<Notify>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let endless = stage.run(here(move |_, _| {
        let guard = Guard(tell.clone());
        Job::Future(Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        }))
    }));
    stage.running(endless).await;
    stage.session.cancel(&[endless]);
    assert!(matches!(stage.error(endless).await, TaskError::Cancelled));
    dropped.notified().await;
    stage.close().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_and_the_slot_goes_on() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let bad = stage.run(here(|_, _| panic!("on purpose")));
    let error = stage.error(bad).await;
    assert!(matches!(&error, TaskError::Failed(f) if f.message == "panicked: on purpose"), "{error:?}");
    let good = stage.run(sync(|_, _| 7));
    assert_eq!(stage.json(good).await, 7);
    stage.close().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_interrupted_does_not_keep_its_slot() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let stuck = stage.run(sync(move |_, _| gate.lock().unwrap().recv().is_ok()));
    stage.running(stuck).await;
    stage.session.cancel(&[stuck]);
    assert!(matches!(stage.error(stuck).await, TaskError::Cancelled));
    let next = stage.run(sync(|_, _| 1));
    assert_eq!(stage.json(next).await, 1);
    release.send(()).unwrap();
    stage.close().await;
}

#[tokio::test]
async fn a_thread_that_outlives_the_cluster_is_reported() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let stuck = stage.run(sync(move |_, _| gate.lock().unwrap().recv().is_ok()));
    stage.running(stuck).await;
    stage.session.close().await.unwrap();
    let report = stage.cluster.close().await.unwrap();
    assert_eq!(report.remaining.len(), 1, "{report:?}");
    assert!(report.remaining[0].contains("t#1"), "{report:?}");
    release.send(()).unwrap();
}

#[tokio::test]
async fn a_timeout_ends_a_sync_body_for_everybody_but_its_thread() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    // Long enough that it has begun by then.
    let annotations = Annotations { timeout: Some(Duration::from_secs(1)), ..Annotations::default() };
    let slow = stage.submit(sync(move |_, _| gate.lock().unwrap().recv().is_ok()), &[], annotations);
    let error = stage.error(slow).await;
    assert!(error.to_string().contains("1s"), "{error}");
    release.send(()).unwrap();
    stage.close().await;
}

#[tokio::test]
async fn a_waiting_task_lends_its_only_slot() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let (tell, hear) = std::sync::mpsc::channel::<()>();
    let hear = Arc::new(std::sync::Mutex::new(hear));
    let outer = stage.run(sync(move |scope, _| {
        let slot = scope.slot.unwrap();
        slot.pause();
        hear.lock().unwrap().recv().unwrap();
        slot.resume();
        1
    }));
    let tell = std::sync::Mutex::new(tell);
    let inner = stage.run(sync(move |_, _| tell.lock().unwrap().send(()).is_ok()));
    assert_eq!(stage.json(outer).await, 1);
    assert_eq!(stage.json(inner).await, true);
    stage.close().await;
}

#[tokio::test]
async fn gather_waits_and_events_can_be_taken_over() {
    let mut stage = Stage::new(threads(1, 1)).await;
    let one = stage.run(sync(|_, _| 5i64));
    let values = stage.session.gather(&[one, one]).await.unwrap();
    assert_eq!(values.iter().map(int).collect::<Vec<_>>(), [5, 5]);
    assert!(matches!(stage.end(one).await, TaskState::Done(_)));
    let mut second = stage.session.events();
    let two = stage.run(sync(|_, _| 6i64));
    assert_eq!(second.recv().await.unwrap().key, two);
    stage.session.release(&[one]);
    assert!(stage.session.gather(&[one]).await.is_err());
    stage.session.close().await.unwrap();
    stage.cluster.close().await.unwrap();
}

#[tokio::test]
async fn a_scale_down_waits_for_what_runs() {
    let mut stage = Stage::new(threads(2, 1)).await;
    stage.cluster.wait_for_workers(2, Duration::from_secs(30)).await.unwrap();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let busy = stage.run(sync(move |_, _| gate.lock().unwrap().recv().is_ok()));
    stage.running(busy).await;
    stage.cluster.scale(0);
    let engine = stage.cluster.engine().unwrap();
    let drained = engine.drain(&["0-0".into(), "1-0".into()], Duration::from_millis(1)).await.unwrap();
    let drained: Vec<Drain> = drained.into_values().collect();
    assert!(matches!(drained[..], [Drain::Done, Drain::Busy] | [Drain::Busy, Drain::Done]), "{drained:?}");
    release.send(()).unwrap();
    assert_eq!(stage.json(busy).await, true);
    stage.close().await;
}
