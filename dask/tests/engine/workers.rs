//! Workers that die, drain, come late.

use super::*;

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
