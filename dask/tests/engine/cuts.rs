//! Connections that are cut, schedulers that go.

use remuda_core::engine::{Session, TaskEvents};

use super::*;

/// A session with a task that is done, and one that goes on without end.
async fn half_done(bench: &mut Bench) -> (Arc<dyn Session>, TaskEvents) {
    let session = bench.session().await;
    let mut events = session.events();
    session.submit(vec![bench::with(0, "builtins:int", &1), bench::with(1, "time:sleep", &600)]);
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    (session, events)
}

/// Waits until Dask has no task any more.
async fn emptied(bench: &Bench, why: &str) {
    let empty = async {
        while bench.tasks_at_dask().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, empty).await.expect(why);
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
async fn what_a_dead_driver_held_is_let_go_when_its_lease_is_over() {
    let options = DaskOptions { lease: Duration::from_secs(3), ..alone() };
    let Some(mut bench) = Bench::start_behind_a_proxy("what_a_dead_driver_held_is_let_go_when_its_lease_is_over", &["a"], options).await
    else {
        return;
    };
    let (session, mut events) = half_done(&mut bench).await;
    // Nothing gets through any more: neither side knows why.
    bench.proxy().close();
    let ended = finals(&mut events, 1).await;
    assert!(matches!(&ended[&1], TaskState::Ended(TaskError::Refused(error)) if error.kind() == ErrorKind::SchedulerLost), "{ended:?}");
    emptied(&bench, "the shim lets go of everything").await;
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
    let (session, _events) = half_done(&mut bench).await;
    bench.proxy().close();
    bench.proxy().open();
    bench.end_session(session).await;
    emptied(&bench, "it does not wait for the lease").await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_is_stopped_is_told_of() {
    let options = DaskOptions { lease: Duration::from_secs(8), ..alone() };
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
