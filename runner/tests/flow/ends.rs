//! Failures, cancellation, and the ends of runs.

use super::*;

#[tokio::test]
async fn a_failure_keeps_its_type_names_its_task_and_ends_what_depends_on_it() {
    threads(1)
        .run(|flow| async move {
            let bad = flow.submit(fail("no such thing").named("fetch"));
            let next = flow.submit(inc(&bad));
            let last = flow.submit(inc(&next));
            let error = bad.clone().await.unwrap_err();
            assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
            assert_eq!(error.to_string(), "task `fetch` (#0) failed: no such thing");
            let error = last.await.unwrap_err();
            assert!(matches!(&error.error, TaskError::UpstreamFailed { key, .. } if *key == bad.key()), "{error}");
            assert!(error.to_string().contains("fetch") && error.to_string().contains("no such thing"), "{error}");
            assert_eq!(next.state().name(), "upstream_failed");
            assert_eq!(flow.counts().failed, 1);
            assert_eq!(flow.counts().upstream_failed, 2);
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::task]
fn or_zero(part: Result<i64, TaskError>) -> i64 {
    part.unwrap_or_default()
}

#[tokio::test]
async fn failures_may_be_allowed_and_order_needs_no_data() {
    threads(2)
        .run(|flow| async move {
            let bad = flow.submit(fail("x"));
            assert_eq!(flow.submit(or_zero(allow_failure(&bad))).await?, 0);
            let good = flow.submit(inc(1));
            assert_eq!(flow.submit(or_zero(allow_failure(&good))).await?, 2);
            assert_eq!(flow.submit(inc(5).wait_for_end_of(&bad).wait_for(&good)).await?, 6);
            let never = flow.submit(inc(5).wait_for(&bad)).await.unwrap_err();
            assert!(matches!(never.error, TaskError::UpstreamFailed { .. }));
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn cancelled_and_dropped_tasks_do_not_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    threads(1)
        .run(|flow| async move {
            let mut events = flow.events();
            let first = flow.submit(forever());
            while !matches!(events.recv().await.unwrap().state, TaskState::Running { .. }) {}
            let second = flow.submit(inc(1));
            let third = flow.submit(inc(&second));
            drop(flow.spawn(move || count.fetch_add(1, SeqCst)));
            second.cancel();
            assert!(matches!(second.clone().await.unwrap_err().error, TaskError::Cancelled));
            assert!(matches!(third.await.unwrap_err().error, TaskError::UpstreamFailed { key, .. } if key == second.key()));
            first.cancel();
            assert!(matches!(first.await.unwrap_err().error, TaskError::Cancelled));
            assert_eq!(flow.submit(inc(1)).await?, 2);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(ran.load(SeqCst), 0);
}

#[tokio::test]
async fn errors_stay_what_they_were_and_have_the_right_exit_code() {
    let lost = || Error::new(ErrorKind::SchedulerLost, "gone");
    let mine = threads(1).run(|_| async { Err::<(), _>(std::fmt::Error.into()) }).await.unwrap_err();
    assert!(matches!(&mine, RunError::Flow(e) if e.is::<std::fmt::Error>()) && mine.exit_code() == 1);
    let infra = threads(1).run(|_| async { Err::<(), _>(lost()).context("while counting") }).await.unwrap_err();
    assert_eq!((infra.exit_code(), infra.to_string().as_str()), (3, "while counting: gone"));
    let task = threads(1).run(|flow| async move { Ok(flow.submit(fail("no luck")).await?) }).await.unwrap_err();
    assert_eq!((task.exit_code(), task.to_string().as_str()), (1, "task `fail` (#0) failed: no luck"));
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_message() {
    threads(1)
        .run(|flow| async move {
            let error = flow.spawn(|| -> i64 { panic!("oh no") }).await.unwrap_err();
            assert!(error.to_string().contains("oh no"), "{error}");
            assert_eq!(flow.submit(inc(1)).await?, 2, "the slot lives on");
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_still_runs_when_the_body_returns_is_cancelled_and_counted() {
    let finished = threads(1)
        .run_until(std::future::pending(), |flow| async move {
            let mut events = flow.events();
            let running = flow.submit(forever());
            let waiting = flow.submit(inc(1));
            while !matches!(events.recv().await.unwrap().state, TaskState::Running { .. }) {}
            std::mem::forget((running, waiting));
            Ok(7)
        })
        .await;
    assert_eq!(finished.result.unwrap(), 7);
    assert_eq!(finished.report.tasks.cancelled, 2);
    assert_eq!(finished.report.problems(), [] as [String; 0]);
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_says_so() {
    let (tell, stop) = tokio::sync::oneshot::channel::<()>();
    let finished = threads(1)
        .run_until(async { drop(stop.await) }, |flow| async move {
            let task = flow.submit(forever());
            tell.send(()).unwrap();
            Ok(task.await?)
        })
        .await;
    let error = finished.result.unwrap_err();
    assert_eq!((error.exit_code(), finished.report.tasks.cancelled), (130, 1));
    assert!(matches!(finished.report.close, Some(Ok(_))));
}

#[tokio::test]
async fn a_run_that_is_dropped_half_way_ends_its_tasks_and_leaves_a_shared_cluster_to_the_others() {
    let config = LocalConfig { n_workers: Some(1), threads_per_worker: Some(1), processes: false, ..Default::default() };
    let runner = TaskRunner::builder().cluster(config).scope(Scope::Runner).build().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let run = runner.run(|flow| async move {
        let task = flow.submit(forever());
        let elsewhere = tokio::spawn(task.clone());
        assert!(tell.send((flow, elsewhere)).is_ok());
        Ok(task.await?)
    });
    let (flow, elsewhere) = tokio::select! {
        biased;
        _ = run => unreachable!("it waits for ever"),
        told = told => told.unwrap(),
    };
    assert!(matches!(elsewhere.await.unwrap().unwrap_err().error, TaskError::Cancelled));
    let late = flow.submit(inc(1)).await.unwrap_err();
    assert!(late.to_string().contains("the run has ended"), "{late}");
    assert_eq!(runner.run(|flow| async move { Ok(flow.submit(inc(1)).await?) }).await.unwrap(), 2, "the slot is free");
    runner.close().await.unwrap();
}

struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("in a Drop");
    }
}

#[remuda::task]
fn arm() -> Grenade {
    Grenade
}

#[remuda::task]
fn hold(_grenade: &Grenade) {}

#[tokio::test]
async fn a_value_that_panics_when_it_is_dropped_costs_no_slot() {
    threads(1)
        .run(|flow| async move {
            let armed = flow.submit(arm());
            flow.submit(hold(&armed)).await?;
            armed.done().await;
            // Both the engine's hold and ours: the value may go in either thread.
            let _ours = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(armed)));
            for x in 0..10 {
                assert_eq!(flow.submit(inc(x)).await?, x + 1);
            }
            Ok(())
        })
        .await
        .unwrap();
}
