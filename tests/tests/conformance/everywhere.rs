//! What every engine is asked for: each item with a runner whose cluster has two slots, or one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use remuda::{Annotate, TaskContext, TaskError, TaskRunner, TaskState, allow_failure, unmapped};
use remuda_tests::gate::Gate;
use serde::{Deserialize, Serialize};

#[remuda::task]
pub(crate) fn echo(x: i64) -> i64 {
    x
}

#[remuda::task]
pub(crate) async fn add(a: i64, b: i64) -> i64 {
    tokio::task::yield_now().await;
    a + b
}

#[remuda::task]
fn fail(text: String) -> anyhow::Result<i64> {
    anyhow::bail!("{text}")
}

#[remuda::task]
pub(crate) async fn gate(address: String, label: String) -> anyhow::Result<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(address).await?);
    stream.get_mut().write_all(format!("{label}\n").as_bytes()).await?;
    let mut word = String::new();
    stream.read_line(&mut word).await?;
    anyhow::ensure!(word == "open\n", "the gate was closed");
    Ok(label)
}

pub(crate) async fn prefect_02_success(runner: &TaskRunner) {
    let result = runner
        .run(|flow| async move {
            let (a, b) = (flow.submit(echo(1)), flow.submit(echo(2)));
            let c = flow.submit(add(&b, 10));
            Ok((a.await?, b.await?, c.await?))
        })
        .await;
    assert_eq!(result.unwrap(), (1, 2, 12));
}

pub(crate) async fn prefect_03_failures_cascade(runner: &TaskRunner) {
    let finished = runner
        .run_until(std::future::pending(), |flow| async move {
            let a = flow.submit(fail("the reason".to_owned()));
            let b = flow.submit(add(&a, 1));
            let c = flow.submit(add(&b, 1));
            let fine = flow.submit(echo(1));
            for future in [&b, &c] {
                let TaskState::Ended(TaskError::UpstreamFailed { key, cause, .. }) = future.done().await else { panic!("{future:?}") };
                assert_eq!((key, cause.to_string()), (a.key(), "the reason".to_owned()));
            }
            assert_eq!(fine.await?, 1);
            Ok(a.await?)
        })
        .await;
    let error = finished.result.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().contains("the reason")), (1, true), "{error}");
    let tasks = finished.report.tasks;
    assert_eq!((tasks.done, tasks.failed, tasks.upstream_failed), (1, 1, 2));
}

pub(crate) async fn prefect_06_07_timeouts_end_the_task_and_what_needs_it(runner: &TaskRunner) {
    let mut gate_ = Gate::new().await.unwrap();
    let address = gate_.address().to_owned();
    let flow = runner.run(|flow| async move {
        // Long enough that it has come to the gate by then, on any machine.
        let short = Annotate::new().timeout(Duration::from_secs(3));
        let slow = flow.annotate(short).submit(gate(address, "slow".to_owned()));
        #[remuda::task]
        fn length(text: &str) -> usize {
            text.len()
        }
        let after = flow.submit(length(&slow));
        let other = flow.submit(echo(7));
        assert_eq!(slow.done().await.name(), "failed");
        assert_eq!(after.done().await.name(), "upstream_failed");
        Ok(other.await?)
    });
    let (result, arrival) = tokio::join!(flow, gate_.arrived("slow"));
    assert_eq!(result.unwrap(), 7);
    arrival.gone().await;
}

pub(crate) async fn prefect_08_as_completed_follows_the_ends(runner: &TaskRunner) {
    let mut gate_ = Gate::new().await.unwrap();
    let address = gate_.address().to_owned();
    let (tell, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let flow = runner.run(|flow| async move {
        let futures = flow.map(gate, (unmapped(address), ["first", "second"].map(str::to_owned)))?;
        let mut completed = flow.as_completed(futures);
        while let Some(future) = completed.next().await {
            tell.send(future.await?)?;
        }
        Ok(())
    });
    let opener = async {
        let (first, second) = (gate_.arrived("first").await, gate_.arrived("second").await);
        second.open().await;
        assert_eq!(ended.recv().await.unwrap(), "second");
        first.open().await;
        assert_eq!(ended.recv().await.unwrap(), "first");
    };
    let (result, ()) = tokio::join!(flow, opener);
    result.unwrap();
}

pub(crate) async fn prefect_10_tasks_are_called_by_their_functions(runner: &TaskRunner) {
    let result = runner
        .run(|flow| async move {
            let (plain, named) = (flow.submit(echo(1)), flow.submit(echo(1).named("the first")));
            Ok((plain.name().to_owned(), named.name().to_owned()))
        })
        .await;
    assert_eq!(result.unwrap(), ("echo".to_owned(), "the first".to_owned()));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i64,
    label: Option<String>,
}

#[remuda::task]
fn moved(point: Point, by: i64) -> Point {
    Point { x: point.x + by, ..point }
}

pub(crate) async fn prefect_14_structs_are_arguments_and_results(runner: &TaskRunner) {
    let result = runner
        .run(|flow| async move {
            let one = flow.submit(moved(Point { x: 1, label: Some("p".to_owned()) }, 1));
            let all = flow.map(moved, (unmapped(Point { x: 0, label: None }), 0..3))?;
            Ok((flow.submit(moved(&one, 5)).await?, flow.gather(all).await?.into_iter().map(|p| p.x).collect::<Vec<_>>()))
        })
        .await;
    assert_eq!(result.unwrap(), (Point { x: 7, label: Some("p".to_owned()) }, vec![0, 1, 2]));
}

pub(crate) async fn prefect_15_a12_nested_submission_on_one_slot(runner: &TaskRunner) {
    #[remuda::task]
    async fn outer(cx: &TaskContext, depth: i64) -> anyhow::Result<i64> {
        if depth == 0 {
            return Ok(1);
        }
        Ok(cx.flow()?.submit(outer(depth - 1)).await? + 1)
    }
    let result = runner.run(|flow| async move { Ok(flow.submit(outer(5)).await?) }).await;
    assert_eq!(result.unwrap(), 6);
}

pub(crate) async fn prefect_16_17_wait_for_one_and_several(runner: &TaskRunner) {
    let mut gate_ = Gate::new().await.unwrap();
    let address = gate_.address().to_owned();
    let flow = runner.run(|flow| async move {
        let gates = flow.map(gate, (unmapped(address), ["a", "b"].map(str::to_owned)))?;
        let after = flow.submit(echo(1).wait_for(&gates[0]).wait_for(&gates[1]));
        after.done().await;
        let states: Vec<_> = gates.iter().map(|gate| gate.state().name()).collect();
        assert_eq!(states, ["done", "done"]);
        let bad = flow.submit(fail("x".to_owned()));
        let never = flow.submit(echo(1).wait_for(&bad));
        let always = flow.submit(echo(2).wait_for_end_of(&bad));
        assert_eq!(never.done().await.name(), "upstream_failed");
        Ok(always.await?)
    });
    let opener = async {
        gate_.arrived("b").await.open().await;
        gate_.arrived("a").await.open().await;
    };
    assert_eq!(tokio::join!(flow, opener).0.unwrap(), 2);
}

pub(crate) async fn a02_a11_a_shared_cluster_keeps_nothing_of_a_run(runner: &TaskRunner) {
    let mut gate_ = Gate::new().await.unwrap();
    let address = gate_.address().to_owned();
    // Two tasks still wait at the gate when the body returns: both slots there are.
    let (go, wait) = tokio::sync::oneshot::channel();
    let first = runner.run(|flow| async move {
        let waiting = flow.map(gate, (unmapped(address), ["a", "b"].map(str::to_owned)))?;
        wait.await?;
        drop(waiting);
        Ok(())
    });
    let arrivals = async {
        let here = gate_.together(2).await;
        go.send(()).unwrap();
        here
    };
    let (first, here) = tokio::join!(first, arrivals);
    first.unwrap();
    for arrival in here {
        arrival.gone().await;
    }
    assert_eq!(runner.run(|flow| async move { Ok(flow.submit(echo(4)).await?) }).await.unwrap(), 4);
}

pub(crate) async fn a03_failure_is_allowed_as_argument_in_a_map_and_in_order(runner: &TaskRunner) {
    #[remuda::task]
    fn was_error(part: Result<i64, TaskError>) -> bool {
        part.is_err()
    }
    let result = runner
        .run(|flow| async move {
            let parts = [flow.submit(fail("x".to_owned())), flow.submit(echo(1))];
            let single = flow.submit(was_error(allow_failure(&parts[0])));
            let mapped = flow.map(was_error, parts.iter().map(allow_failure))?;
            Ok((single.await?, flow.gather(mapped).await?))
        })
        .await;
    assert_eq!(result.unwrap(), (true, vec![true, false]));
}

pub(crate) async fn a05_a_dead_worker_is_a_crash_with_its_cause(runner: &TaskRunner) {
    #[remuda::task(allowed_failures = 1)]
    fn dies() -> i64 {
        std::process::exit(9)
    }
    let finished = runner
        .run_until(std::future::pending(), |flow| async move {
            let dead = flow.submit(dies());
            let after = flow.submit(add(&dead, 1));
            let TaskState::Ended(TaskError::Crashed(crash)) = dead.done().await else { panic!("{dead:?}") };
            assert_eq!(crash.attempts, 2, "tried again once");
            assert!(crash.cause.contains('9'), "{crash}");
            assert_eq!(after.done().await.name(), "upstream_failed");
            Ok(dead.await?)
        })
        .await;
    assert_eq!(finished.result.unwrap_err().exit_code(), 1);
    assert_eq!((finished.report.tasks.crashed, finished.report.tasks.retried), (1, 1));
}

pub(crate) async fn a10_after_a_run_every_task_is_final(runner: &TaskRunner) {
    let mut gate_ = Gate::new().await.unwrap();
    let address = gate_.address().to_owned();
    let (kept, states) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
    let keep = kept.clone();
    let (go, wait) = tokio::sync::oneshot::channel();
    let flow = runner.run_until(std::future::pending(), |flow| async move {
        let running = flow.submit(gate(address, "it".to_owned()));
        let waiting = flow.submit(echo(1).wait_for(&running));
        wait.await?;
        keep.lock().unwrap().push(waiting);
        // The handle on the running task goes with the body; the other outlives it.
        anyhow::bail!("the body's own error")
    });
    let arrived = async {
        let arrival = gate_.arrived("it").await;
        go.send(()).unwrap();
        arrival
    };
    let (finished, arrival): (remuda::Finished<()>, _) = tokio::join!(flow, arrived);
    arrival.gone().await;
    states.lock().unwrap().extend(kept.lock().unwrap().iter().map(|future| future.state()));
    assert!(states.lock().unwrap().iter().all(TaskState::is_final), "{states:?}");
    assert_eq!(finished.result.unwrap_err().to_string(), "the body's own error");
    assert_eq!(finished.report.tasks.total(), 2, "{:?}", finished.report);
}
