//! What is told of workers that are to come, and what ends the wait for them.

use std::time::Duration;

use remuda_core::{
    engine::{Outlook, TaskEvents},
    error::ErrorKind,
    task::{Key, TaskError, TaskState},
};
use remuda_dask::DaskOptions;
use tokio::time::timeout;

use crate::{
    alone,
    bench::{self, Bench, finals},
    real::PATIENCE,
};

/// Until it is told of each of so many tasks that it waits for this.
async fn until_told(events: &mut TaskEvents, many: u64, reason: &str) {
    let mut told = std::collections::BTreeSet::new();
    let all = timeout(PATIENCE, async {
        while (told.len() as u64) < many {
            let event = events.recv().await.expect("the events go on");
            match event.state {
                TaskState::Pending { reason: Some(why) } if &*why == reason => _ = told.insert(event.key),
                TaskState::Pending { .. } | TaskState::Running { .. } => {}
                other => panic!("{}: {other:?}", event.key),
            }
        }
    });
    all.await.unwrap_or_else(|_| panic!("{reason:?} was told of {told:?} only"));
}

fn spent() -> Outlook {
    Outlook::Nobody { reason: "the budget is spent".into(), hint: "raise the budget".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_waits_while_a_worker_may_come_and_is_refused_where_none_will() {
    let test = "a_task_waits_while_a_worker_may_come_and_is_refused_where_none_will";
    let options = DaskOptions { no_workers_timeout: Duration::from_millis(1500), ..alone() };
    let Some(mut bench) = Bench::start_with(test, &[], options).await else { return };
    let engine = bench.engine().clone();
    engine.expect(Outlook::Fixed(2));
    let session = bench.session().await;
    let mut events = session.events();
    // So many that Dask keeps them itself, and one that it does not.
    let many = 20;
    session.submit((0..many).map(|key| bench::with(key, "time:sleep", &0.0)).collect());
    session.submit(vec![bench::with_inputs(many, "builtins:str", &[0])]);
    until_told(&mut events, many, "no workers yet: 0 of 2 joined").await;
    engine.expect(Outlook::Adaptive { held: None });
    until_told(&mut events, many, "no workers now: adaptive scaling starts them").await;
    engine.expect(spent());
    let ended = finals(&mut events, many as usize + 1).await;
    for (key, state) in &ended {
        match state {
            TaskState::Ended(TaskError::Refused(error)) if *key < many => {
                assert_eq!(error.kind(), ErrorKind::Unschedulable);
                assert_eq!(error.message(), "no worker could run it for 1.5s: the budget is spent");
                assert_eq!(error.hint(), Some("raise the budget"));
            }
            TaskState::Ended(TaskError::UpstreamFailed { key: Key(0), .. }) if *key == many => {}
            other => panic!("{key}: {other:?}"),
        }
    }
    // With a worker there is nothing to wait for.
    bench.add_worker("a").await;
    session.submit(vec![bench::with(100, "builtins:int", &1)]);
    assert!(matches!(finals(&mut events, 1).await[&100], TaskState::Done(_)));
    bench.end_session(session).await;
    assert_eq!(bench.tasks_at_dask().await, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_last_worker_leaves_behind_says_why_it_waits() {
    let test = "what_the_last_worker_leaves_behind_says_why_it_waits";
    let Some(mut bench) = Bench::start_with(test, &["a"], alone()).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    bench.engine().expect(spent());
    let many = 20;
    session.submit((0..many).map(|key| bench::with(key, "time:sleep", &3600.0)).collect());
    loop {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if event.state.name() == "running" {
            break;
        }
    }
    bench.kill_worker("a").await;
    until_told(&mut events, many, "the budget is spent").await;
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_that_is_not_ours_a_worker_may_always_come() {
    let test = "on_a_cluster_that_is_not_ours_a_worker_may_always_come";
    let options = DaskOptions { owner: false, no_workers_timeout: Duration::ZERO, ..alone() };
    let Some(mut bench) = Bench::start_with(test, &[], options).await else { return };
    bench.engine().expect(Outlook::Fixed(0));
    let session = bench.session().await;
    let mut events = session.events();
    session.submit(vec![bench::with(0, "builtins:int", &1)]);
    until_told(&mut events, 1, "the cluster has no workers").await;
    bench.add_worker("a").await;
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    bench.end_session(session).await;
    bench.end().await;
}
