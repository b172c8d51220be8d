//! Workers that are to go: when they may, and when they take work again.

use std::{sync::Arc, time::Duration};

use remuda_core::{
    engine::{Drain, Observation, Session},
    task::{Annotations, Key, TaskSpec},
    value::decode,
};
use remuda_dask::{DaskOptions, shim};
use tempfile::NamedTempFile;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    bench::{self, Bench},
    load::{forbidden, load_where},
    real::PATIENCE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_results_have_nowhere_to_go_works_on() {
    let Some(mut bench) = Bench::start("a_worker_whose_results_have_nowhere_to_go_works_on", &["a", "b"]).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let (gate, held) = bench::gate();
    let on_a = Arc::new(Annotations { workers: vec!["a".into()], ..Annotations::default() });
    let mut busy = bench::with(0, "builtins:exec", &held);
    busy.annotations = on_a;
    session.submit(vec![busy]);
    loop {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if event.state.name() == "running" {
            break;
        }
    }
    // With `b` there it may go, when its task is over; by then `b` is not there any more.
    let engine = bench.engine().clone();
    let drain = tokio::spawn(async move { engine.drain(&["a".to_owned()], PATIENCE).await });
    load_where(bench.engine(), "a leaves", |observed| observed.workers.iter().any(|worker| worker.name == "a" && worker.pinned)).await;
    bench.kill_worker("b").await;
    drop(gate);
    assert_eq!(timeout(PATIENCE, drain).await.unwrap().unwrap().unwrap()["a"], Drain::Refused);
    // It takes work again, and the next attempt finds that at once.
    session.submit(vec![bench::with(1, "builtins:int", &7)]);
    let seven = timeout(PATIENCE, session.gather(&[Key(1)])).await.expect("it works").unwrap().remove(0);
    assert_eq!(decode::<i64>(&seven.to_plain().unwrap()).unwrap(), 7);
    assert_eq!(bench.engine().drain(&["a".to_owned()], PATIENCE).await.unwrap()["a"], Drain::Refused);
    session.submit(vec![bench::with(2, "builtins:int", &8)]);
    assert!(timeout(PATIENCE, session.gather(&[Key(2), Key(0)])).await.expect("it works").is_ok());
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_results_have_nowhere_to_go_is_told_although_another_is_busy() {
    let test = "whose_results_have_nowhere_to_go_is_told_although_another_is_busy";
    let Some(mut bench) = Bench::start(test, &["a", "b"]).await else { return };
    let session = bench.session().await;
    let on = |name: &str| Arc::new(Annotations { workers: vec![name.into()], ..Annotations::default() });
    let (mut busy, mut kept) = (bench::with(0, "time:sleep", &600), bench::with(1, "builtins:int", &7));
    (busy.annotations, kept.annotations) = (on("a"), on("b"));
    session.submit(vec![kept]);
    timeout(PATIENCE, session.gather(&[Key(1)])).await.unwrap().unwrap();
    session.submit(vec![busy]);
    load_where(bench.engine(), "a works", |observed| observed.load.prefixes.iter().any(|prefix| !prefix.running.is_empty())).await;
    let names = ["a", "b"].map(str::to_owned);
    let told = timeout(PATIENCE, bench.engine().drain(&names, Duration::from_secs(1))).await.unwrap().unwrap();
    assert_eq!((told["a"], told["b"]), (Drain::Busy, Drain::Refused));
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_works_for_long_is_let_go_when_it_is_done() {
    // In any case; the scheduler does not tell what all workers have to do; it tells nothing else.
    for forbid in [vec![], vec!["processing".to_owned()], vec![shim::op("emptied")]] {
        let ops: Vec<&str> = forbid.iter().map(String::as_str).collect();
        let variable = [("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", &*forbidden(&ops))];
        let test = "a_worker_that_works_for_long_is_let_go_when_it_is_done";
        let Some(mut bench) = Bench::start_configured(test, &["a", "b"], DaskOptions::default(), &variable).await else { return };
        let session = bench.session().await;
        let (gate, held) = bench::gate();
        let on_a = Arc::new(Annotations { workers: vec!["a".into()], ..Annotations::default() });
        let mut busy = bench::with(0, "builtins:exec", &held);
        busy.annotations = on_a;
        session.submit(vec![busy]);
        load_where(bench.engine(), "a works", |observed| observed.load.prefixes.iter().any(|prefix| !prefix.running.is_empty())).await;
        let drain = |deadline| {
            let engine = bench.engine().clone();
            async move { timeout(PATIENCE, engine.drain(&["a".to_owned()], deadline)).await.unwrap().unwrap() }
        };
        assert_eq!(drain(Duration::from_millis(300)).await["a"], Drain::Busy, "{ops:?}");
        drop(gate);
        assert_eq!(drain(PATIENCE).await["a"], Drain::Done, "{ops:?}");
        assert!(timeout(PATIENCE, session.gather(&[Key(0)])).await.unwrap().is_ok(), "its result has moved");
        bench.end_session(session).await;
        bench.end().await;
    }
}

/// Runs tasks on `a`, more than it has threads; for as long as the file is there.
async fn crowd(bench: &mut Bench, only_a: bool) -> (Arc<dyn Session>, NamedTempFile) {
    let session = bench.session().await;
    let workers = if only_a { vec!["a".into()] } else { vec![] };
    let annotations = Arc::new(Annotations { workers, ..Annotations::default() });
    let (gate, held) = bench::gate();
    let nap = |key| TaskSpec { annotations: annotations.clone(), ..bench::with(key, "builtins:exec", &held) };
    // So few that Dask gives them to the worker at once.
    session.submit((0..4).map(nap).collect());
    let runs = |observed: &Observation| observed.load.prefixes.iter().any(|prefix| prefix.running.len() == 2);
    load_where(bench.engine(), "it runs", |observed| runs(observed) && observed.load.processing() == 4).await;
    (session, gate)
}

/// Takes it out of work as well. What it runs may end then.
async fn crowded(bench: &mut Bench, only_a: bool) -> (Arc<dyn Session>, JoinHandle<Drain>) {
    let (session, gate) = crowd(bench, only_a).await;
    if !only_a {
        bench.add_worker("b").await;
    }
    let engine = bench.engine().clone();
    let drain = tokio::spawn(async move { timeout(PATIENCE, engine.drain(&["a".to_owned()], PATIENCE)).await.unwrap().unwrap()["a"] });
    let is_leaving = |observed: &Observation| observed.workers.iter().any(|worker| worker.name == "a" && worker.pinned);
    let left = load_where(bench.engine(), "a leaves", is_leaving).await;
    let a = left.workers.iter().find(|worker| worker.name == "a").unwrap();
    assert_eq!(a.processing, 2, "what it has not begun is for others: {left:?}");
    drop(gate);
    (session, drain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_that_leaves_has_not_begun_is_done_by_others() {
    let test = "what_a_worker_that_leaves_has_not_begun_is_done_by_others";
    // Dask itself moves nothing.
    let variable = [("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING_INTERVAL", "1h")];
    let Some(mut bench) = Bench::start_configured(test, &["a"], DaskOptions::default(), &variable).await else { return };
    let (session, drain) = crowded(&mut bench, false).await;
    assert_eq!(drain.await.unwrap(), Drain::Done);
    bench.kill_worker("a").await;
    let keys: Vec<Key> = (0..4).map(Key).collect();
    timeout(PATIENCE, session.gather(&keys)).await.expect("they end").unwrap();
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_has_what_no_other_may_do_stays() {
    // The shim tells it, or Dask itself.
    for forbid in [vec![], vec![shim::op("emptied")]] {
        let ops: Vec<&str> = forbid.iter().map(String::as_str).collect();
        let variable = [("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", &*forbidden(&ops))];
        let test = "a_worker_that_has_what_no_other_may_do_stays";
        let Some(mut bench) = Bench::start_configured(test, &["a", "b"], DaskOptions::default(), &variable).await else { return };
        let (session, drain) = crowded(&mut bench, true).await;
        assert_eq!(drain.await.unwrap(), Drain::Refused, "{ops:?}");
        let keys: Vec<Key> = (0..4).map(Key).collect();
        timeout(PATIENCE, session.gather(&keys)).await.expect("it works on").unwrap();
        bench.end_session(session).await;
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_could_not_be_given_work_again_keeps_what_it_has() {
    let op = shim::op("resume");
    let variable = [("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", &*forbidden(&[&op]))];
    let test = "a_worker_that_could_not_be_given_work_again_keeps_what_it_has";
    let Some(mut bench) = Bench::start_configured(test, &["a", "b"], DaskOptions::default(), &variable).await else { return };
    let (session, gate) = crowd(&mut bench, true).await;
    let names = ["a", "b"].map(str::to_owned);
    let told = timeout(PATIENCE, bench.engine().drain(&names, PATIENCE)).await.unwrap().unwrap();
    assert_eq!((told["a"], told["b"]), (Drain::Refused, Drain::Done), "who has no work may go");
    drop(gate);
    let keys: Vec<Key> = (0..4).map(Key).collect();
    timeout(PATIENCE, session.gather(&keys)).await.expect("it works on").unwrap();
    bench.end_session(session).await;
    bench.end().await;
}
