//! The engine against real schedulers and workers.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

#[path = "engine/bench.rs"]
mod bench;
#[path = "engine/cuts.rs"]
mod cuts;
#[path = "engine/leaving.rs"]
mod leaving;
#[path = "engine/load.rs"]
mod load;
#[path = "engine/outlook.rs"]
mod outlook;
#[path = "engine/places.rs"]
mod places;
#[path = "engine/proxy.rs"]
mod proxy;
mod real;
#[path = "engine/workers.rs"]
mod workers;

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

/// Each call is a task of Dask's.
fn alone() -> DaskOptions {
    DaskOptions { batch: Some(1), ..DaskOptions::default() }
}
