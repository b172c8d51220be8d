//! The engine against real schedulers and workers.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

#[path = "engine/bench.rs"]
mod bench;
#[path = "engine/load.rs"]
mod load;
#[path = "engine/places.rs"]
mod places;
#[path = "engine/proxy.rs"]
mod proxy;
mod real;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remuda_core::{
    engine::{Drain, Form, Shown, WorkerChange},
    error::ErrorKind,
    task::{Annotations, Input, Key, TaskError, TaskState},
    value::{Template, Value, decode},
};
use remuda_dask::DaskOptions;
use tokio::time::timeout;

use self::{
    bench::{Bench, call, finals},
    real::PATIENCE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_tasks_run_and_their_results_come() {
    let Some(mut bench) = Bench::start("python_tasks_run_and_their_results_come", &["a", "b"]).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let sum = Template::value(&((&[1, 2],), BTreeMap::<String, u8>::new())).unwrap();
    session.submit(vec![
        call(0, "builtins:sum", sum),
        bench::with_inputs(1, "operator:neg", &[0]),
        bench::with_inputs(2, "no_such_module_of_ours:f", &[1]),
        bench::with_inputs(3, "operator:neg", &[2]),
        bench::with(4, "builtins:int", &"seven"),
        bench::with(5, "builtins:complex", &1),
    ]);
    let ended = finals(&mut events, 6).await;
    assert!(matches!(ended[&0], TaskState::Done(Value::There)), "{ended:?}");
    let error = |key: u64| match &ended[&key] {
        TaskState::Ended(error) => error.clone(),
        other => panic!("{key}: {other:?}"),
    };
    assert!(matches!(error(2), TaskError::Refused(error) if error.message().contains("no_such_module_of_ours") && error.hint().is_some()));
    assert!(matches!(error(3), TaskError::UpstreamFailed { key: Key(2), .. }));
    // Without a frame of the user's: a traceback would say the message again.
    assert!(matches!(error(4), TaskError::Failed(failure) if failure.kind.as_deref() == Some("ValueError") && failure.traceback.is_none()));
    let values = session.gather(&[Key(1), Key(0), Key(1)]).await.unwrap();
    let values: Vec<i64> = values.iter().map(|value| decode(&value.to_plain().unwrap()).unwrap()).collect();
    assert_eq!(values, [-3, 3, -3]);
    // Beyond any buffer, and what Dask cuts into pieces by itself.
    session.submit(vec![bench::with(6, "builtins:bytes", &80_000_000)]);
    let large = session.gather(&[Key(6)]).await.unwrap().remove(0).to_plain().unwrap();
    assert!(large.len() == 80_000_005 && large[5..].iter().all(|byte| *byte == 0), "{} bytes", large.len());
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_without_a_plain_form_are_named_and_shown() {
    let Some(mut bench) = Bench::start("objects_without_a_plain_form_are_named_and_shown", &["a"]).await else { return };
    let session = bench.session().await;
    session.submit(vec![bench::with(0, "builtins:complex", &7)]);
    let error = session.gather(&[Key(0)]).await.unwrap_err();
    assert!(
        matches!(&error, TaskError::Refused(error) if error.kind() == ErrorKind::Unserializable && error.message().contains("`complex`")),
        "{error:?}"
    );
    let shown = session.show(Key(0), &[Form::Plain, Form::Arrow, Form::Text]).await.unwrap();
    assert_eq!(shown, Shown::Text { text: "(7+0j)".to_owned(), type_name: "complex".into() });
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_map_goes_in_batches_and_fails_call_by_call() {
    let Some(mut bench) = Bench::start("a_large_map_goes_in_batches_and_fails_call_by_call", &["a", "b"]).await else { return };
    const CALLS: u64 = 50_000;
    let session = bench.session().await;
    let mut events = session.events();
    let retries = Arc::new(Annotations { retries: 1, ..Annotations::default() });
    let calls = (0..CALLS).map(|key| {
        // Every thousandth is no number.
        let mut spec = if key % 1000 == 7 { bench::with(key, "builtins:int", &"x") } else { bench::with(key, "builtins:int", &key) };
        spec.annotations = retries.clone();
        spec
    });
    session.submit(calls.collect());
    let ended = finals(&mut events, CALLS as usize).await;
    let failed: Vec<u64> = ended.iter().filter(|(_, state)| state.name() == "failed").map(|(key, _)| *key).collect();
    assert_eq!(failed, (0..CALLS).filter(|key| key % 1000 == 7).collect::<Vec<_>>());
    let done: Vec<Key> = ended.iter().filter(|(_, state)| state.name() == "done").map(|(key, _)| Key(*key)).collect();
    assert_eq!(done.len() + failed.len(), CALLS as usize);
    let values = timeout(PATIENCE, session.gather(&done)).await.unwrap().unwrap();
    for (key, value) in done.iter().zip(values) {
        assert_eq!(decode::<u64>(&value.to_plain().unwrap()).unwrap(), key.0);
    }
    // Far fewer units than calls.
    assert!(bench.tasks_at_dask().await < CALLS as usize / 5);
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancellations_leave_nothing() {
    let Some(mut bench) = Bench::start_with("ten_thousand_cancellations_leave_nothing", &["a"], alone()).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    session.submit((0..10_000).map(|key| bench::with(key, "time:sleep", &0.2)).collect());
    session.cancel(&(0..10_000).map(Key).collect::<Vec<_>>());
    let ended = finals(&mut events, 10_000).await;
    assert!(ended.values().all(|state| state.name() == "cancelled"));
    session.submit(vec![bench::with(10_000, "builtins:int", &5)]);
    assert!(matches!(finals(&mut events, 1).await[&10_000], TaskState::Done(_)));
    assert_eq!(bench.tasks_at_dask().await, 1);
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_loses_and_doubles_nothing() {
    let Some(mut bench) = Bench::start_behind_a_proxy("a_cut_connection_loses_and_doubles_nothing", &["a", "b"], alone()).await else {
        return;
    };
    const CALLS: u64 = 3000;
    let session = bench.session().await;
    let mut events = session.events();
    session.submit((0..CALLS).map(|key| bench::with(key, "builtins:int", &key)).collect());
    let mut ended = BTreeMap::new();
    while (ended.len() as u64) < CALLS {
        let event = timeout(PATIENCE, events.recv()).await.expect("events go on").expect("and do not end");
        if event.state.is_final() {
            assert!(matches!(event.state, TaskState::Done(_)), "{event:?}");
            assert!(ended.insert(event.key.0, ()).is_none(), "{event:?} is told twice");
            if ended.len() % 700 == 100 {
                bench.proxy().cut();
            }
        }
    }
    assert!(bench.proxy().cuts() >= 4);
    let values = session.gather(&(0..CALLS).map(Key).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(decode::<u64>(&values[2999].to_plain().unwrap()).unwrap(), 2999);
    assert_eq!(bench.tasks_at_dask().await, CALLS as usize);
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_may_be_awaited_one_after_the_other() {
    let Some(mut bench) = Bench::start("results_may_be_awaited_one_after_the_other", &["a", "b"]).await else { return };
    const CALLS: u64 = 1000;
    let session = bench.session().await;
    let mut events = session.events();
    session.submit((0..CALLS).map(|key| bench::with(key, "builtins:int", &key)).collect());
    // Has no plain form, which concerns nobody but who asks for it.
    session.submit(vec![bench::with(CALLS, "builtins:iter", &[(); 0])]);
    finals(&mut events, CALLS as usize + 1).await;
    for key in 0..CALLS {
        let values = session.gather(&[Key(key)]).await.unwrap();
        assert_eq!(decode::<u64>(&values[0].to_plain().unwrap()).unwrap(), key);
        if key % 2 == 0 {
            session.release(&[Key(key)]);
        }
    }
    assert!(matches!(session.gather(&[Key(CALLS)]).await, Err(TaskError::Refused(error)) if error.kind() == ErrorKind::Unserializable));
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_get_through_is_not_tried_for_ever() {
    let options = DaskOptions { lease: Duration::from_secs(2), ..alone() };
    let test = "a_message_that_does_not_get_through_is_not_tried_for_ever";
    let Some(mut bench) = Bench::start_behind_a_proxy(test, &["a"], options).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    bench.proxy().limit(100_000);
    session.submit(vec![bench::with(0, "builtins:len", &"x".repeat(200_000))]);
    let ended = finals(&mut events, 1).await;
    let TaskState::Ended(TaskError::Refused(error)) = &ended[&0] else { panic!("{ended:?}") };
    assert!(error.kind() == ErrorKind::SchedulerLost && error.message().contains("same message"), "{error:?}");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_scheduler_is_noticed_named_and_final() {
    let Some(mut bench) = Bench::start("the_end_of_the_scheduler_is_noticed_named_and_final", &["a"]).await else { return };
    let session = bench.session().await;
    let (mut events, mut changes) = (session.events(), bench.engine().changes());
    session.submit(vec![bench::with(0, "builtins:int", &1), bench::with(1, "time:sleep", &600)]);
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    bench.kill_scheduler().await;
    let ended = finals(&mut events, 1).await;
    assert!(
        matches!(&ended[&1], TaskState::Ended(TaskError::Refused(error)) if error.kind() == ErrorKind::SchedulerLost && error.hint().is_some()),
        "{ended:?}"
    );
    let told = timeout(PATIENCE, async {
        loop {
            if let Some(WorkerChange::SchedulerLost(error)) = changes.recv().await {
                return error;
            }
        }
    });
    assert_eq!(told.await.expect("the keeper is told").kind(), ErrorKind::SchedulerLost);
    assert!(session.gather(&[Key(0)]).await.is_err());
    assert_eq!(bench.engine().open().await.unwrap_err().kind(), ErrorKind::SchedulerLost);
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_kills_its_workers_crashes_with_its_cause() {
    let Some(mut bench) = Bench::start("a_task_that_kills_its_workers_crashes_with_its_cause", &["a", "b"]).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let mut spec = bench::with(0, "os:_exit", &3);
    spec.annotations = Arc::new(Annotations { allowed_failures: Some(1), ..Annotations::default() });
    session.submit(vec![spec]);
    let mut states = Vec::new();
    let crash = loop {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        states.push(event.state.name());
        if let TaskState::Ended(error) = event.state {
            break error;
        }
    };
    assert!(matches!(&crash, TaskError::Crashed(crash) if crash.attempts == 2 && !crash.worker.is_empty()), "{crash:?}");
    assert!(states.contains(&"pending"), "the second attempt is told: {states:?}");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_ends_its_task_and_hands_on_its_results() {
    let Some(mut bench) = Bench::start("a_drained_worker_ends_its_task_and_hands_on_its_results", &["a", "b"]).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let on_a = Arc::new(Annotations { workers: vec!["a".into()], ..Annotations::default() });
    let mut specs = vec![bench::with(0, "builtins:int", &7), bench::with(1, "time:sleep", &1.0), bench::with(2, "builtins:complex", &1)];
    specs.iter_mut().for_each(|spec| spec.annotations = on_a.clone());
    session.submit(specs);
    loop {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if event.key == Key(1) && event.state.name() == "running" {
            break;
        }
    }
    let drained = bench.engine().drain(&["a".to_owned(), "nobody".to_owned()], PATIENCE).await.unwrap();
    assert!(drained.len() == 2 && drained.values().all(|drain| *drain == Drain::Done), "{drained:?}");
    bench.kill_worker("a").await;
    let ended = session.gather(&[Key(0), Key(1)]).await.unwrap();
    assert_eq!(decode::<i64>(&ended[0].to_plain().unwrap()).unwrap(), 7);
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sessions_share_a_scheduler_and_only_end_their_own() {
    let Some(mut bench) = Bench::start("two_sessions_share_a_scheduler_and_only_end_their_own", &["a"]).await else { return };
    let (first, second) = (bench.session().await, bench.session().await);
    for session in [&first, &second] {
        session.submit(vec![bench::with(0, "builtins:int", &1), bench::with_inputs(1, "operator:neg", &[0])]);
    }
    assert!(first.gather(&[Key(1)]).await.is_ok() && second.gather(&[Key(1)]).await.is_ok());
    bench.end_session(first).await;
    assert!(second.gather(&[Key(0)]).await.is_ok());
    bench.end_session(second).await;
    assert_eq!(bench.tasks_at_dask().await, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go_and_what_nobody_offers_is_said() {
    let options = DaskOptions { owner: false, ..DaskOptions::default() };
    let Some(mut bench) = Bench::start_with("workers_come_and_go_and_what_nobody_offers_is_said", &[], options).await else { return };
    let session = bench.session().await;
    let (mut events, mut changes) = (session.events(), bench.engine().changes());
    let gpu = Arc::new(Annotations { resources: BTreeMap::from([("GPU".to_owned(), 1.0)]), ..Annotations::default() });
    let mut spec = bench::with(1, "builtins:int", &1);
    spec.annotations = gpu;
    session.submit(vec![bench::with(0, "builtins:int", &1), spec]);
    bench.add_worker("late").await;
    assert!(
        matches!(timeout(PATIENCE, changes.recv()).await.unwrap(), Some(WorkerChange::Joined { name, slots: 2, .. }) if name == "late")
    );
    let (mut reason, mut is_done) = (None, false);
    while !is_done || reason.is_none() {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        match event.state {
            TaskState::Pending { reason: Some(why) } if event.key == Key(1) && why.contains("GPU") => reason = Some(why),
            TaskState::Done(_) => is_done = true,
            _ => {}
        }
    }
    bench.kill_worker("late").await;
    assert!(matches!(timeout(PATIENCE, changes.recv()).await.unwrap(), Some(WorkerChange::Left { name, .. }) if name == "late"));
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_taken_where_they_are_allowed() {
    let Some(mut bench) = Bench::start("failures_are_taken_where_they_are_allowed", &["a"]).await else { return };
    let session = bench.session().await;
    let mut spec = bench::with_inputs(1, "builtins:str", &[0]);
    spec.inputs = vec![Input { key: Key(0), allow_failure: true }];
    let mut fine = bench::with_inputs(3, "builtins:str", &[2]);
    fine.inputs = vec![Input { key: Key(2), allow_failure: true }];
    session.submit(vec![bench::with(0, "builtins:int", &"x"), spec, bench::with(2, "builtins:int", &"4"), fine]);
    let values = session.gather(&[Key(1), Key(3)]).await.unwrap();
    let texts: Vec<String> = values.iter().map(|value| decode(&value.to_plain().unwrap()).unwrap()).collect();
    assert!(texts[0].contains("invalid literal") && texts[1] == "4", "{texts:?}");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_driver_held_is_let_go_when_its_lease_is_over() {
    let options = DaskOptions { lease: Duration::from_secs(1), ..alone() };
    let Some(mut bench) = Bench::start_behind_a_proxy("what_a_dead_driver_held_is_let_go_when_its_lease_is_over", &["a"], options).await
    else {
        return;
    };
    let session = bench.session().await;
    let mut events = session.events();
    session.submit(vec![bench::with(0, "builtins:int", &1), bench::with(1, "time:sleep", &600)]);
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    // Nothing gets through any more: neither side knows why.
    bench.proxy().close();
    let ended = finals(&mut events, 1).await;
    assert!(matches!(&ended[&1], TaskState::Ended(TaskError::Refused(error)) if error.kind() == ErrorKind::SchedulerLost), "{ended:?}");
    timeout(PATIENCE, async {
        while bench.tasks_at_dask().await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the shim lets go of everything");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_closes_while_its_connection_is_cut_leaves_nothing() {
    let options = DaskOptions { lease: Duration::from_secs(3600), refused: PATIENCE, ..alone() };
    let Some(mut bench) =
        Bench::start_behind_a_proxy("a_session_that_closes_while_its_connection_is_cut_leaves_nothing", &["a"], options).await
    else {
        return;
    };
    let session = bench.session().await;
    let mut events = session.events();
    session.submit(vec![bench::with(0, "builtins:int", &1), bench::with(1, "time:sleep", &600)]);
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    bench.proxy().close();
    bench.proxy().open();
    bench.end_session(session).await;
    timeout(PATIENCE, async {
        while bench.tasks_at_dask().await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it does not wait for the lease");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_is_stopped_is_told_of() {
    let options = DaskOptions { lease: Duration::from_secs(4), ..alone() };
    let Some(mut bench) = Bench::start_with("a_scheduler_that_is_stopped_is_told_of", &["a"], options).await else { return };
    let session = bench.session().await;
    let mut changes = bench.engine().changes();
    let mut told = async |part: &str| loop {
        match timeout(PATIENCE, changes.recv()).await.expect("it is told") {
            Some(WorkerChange::Note(text)) if text.contains(part) => return,
            Some(WorkerChange::Joined { .. } | WorkerChange::Note(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    bench.signal_scheduler("-STOP");
    told("does not answer since").await;
    bench.signal_scheduler("-CONT");
    told("answers again").await;
    session.submit(vec![bench::with(0, "builtins:int", &1)]);
    assert!(session.gather(&[Key(0)]).await.is_ok(), "nothing is lost");
    bench.end_session(session).await;
    bench.end().await;
}

/// Each call is a task of Dask's.
fn alone() -> DaskOptions {
    DaskOptions { batch: Some(1), ..DaskOptions::default() }
}
