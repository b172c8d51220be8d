//! What Prefect's own tests of its Dask runner ask for (`prefect_NN`), and what goes wrong with it in the field (`aNN`), as tests of ours.
//! `docs/conformance.md` has the list, also of what other tests hold.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::Context as _;
use remuda::{
    Annotate, ClassRef, ClusterClass, ErrorKind, Kwargs, RunError, Scope, TaskContext, TaskError, TaskRunner, TaskState, allow_failure,
    local::{LocalCluster, LocalConfig},
    python, unmapped,
};
use remuda_tests::{
    fake::{Call, FakeCluster, Fault, Shape},
    gate::Gate,
};
use serde::{Deserialize, Serialize};

fn config(processes: bool) -> LocalConfig {
    LocalConfig { n_workers: Some(2), threads_per_worker: Some(1), processes, ..LocalConfig::default() }
}

/// The same flow has to do with threads and with processes.
fn runners() -> [TaskRunner; 2] {
    [false, true].map(|processes| TaskRunner::builder().cluster(config(processes)).build().unwrap())
}

fn one_slot() -> TaskRunner {
    let config = LocalConfig { n_workers: Some(1), threads_per_worker: Some(1), processes: false, ..LocalConfig::default() };
    TaskRunner::builder().cluster(config).build().unwrap()
}

fn fake(cluster: FakeCluster) -> TaskRunner {
    let class = ClassRef::from_fn("fake::FakeCluster", move |_: Kwargs| anyhow::Ok(cluster.clone()));
    let options = remuda::ClusterOptions { workers: Some(1), ..Default::default() };
    TaskRunner::builder().cluster(class).options(options).build().unwrap()
}

#[remuda::task]
fn echo(x: i64) -> i64 {
    x
}

#[remuda::task]
async fn add(a: i64, b: i64) -> i64 {
    tokio::task::yield_now().await;
    a + b
}

#[remuda::task]
fn fail(text: String) -> anyhow::Result<i64> {
    anyhow::bail!("{text}")
}

#[remuda::task]
async fn gate(address: String, label: String) -> anyhow::Result<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(address).await?);
    stream.get_mut().write_all(format!("{label}\n").as_bytes()).await?;
    let mut word = String::new();
    stream.read_line(&mut word).await?;
    anyhow::ensure!(word == "open\n", "the gate was closed");
    Ok(label)
}

#[remuda::test]
async fn prefect_02_success() {
    for runner in runners() {
        let result = runner
            .run(|flow| async move {
                let (a, b) = (flow.submit(echo(1)), flow.submit(echo(2)));
                let c = flow.submit(add(&b, 10));
                Ok((a.await?, b.await?, c.await?))
            })
            .await;
        assert_eq!(result.unwrap(), (1, 2, 12));
    }
}

#[remuda::test]
async fn prefect_03_failures_cascade() {
    for runner in runners() {
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
}

#[remuda::test]
async fn prefect_06_07_timeouts_end_the_task_and_what_needs_it() {
    for runner in runners() {
        let mut gate_ = Gate::new().await.unwrap();
        let address = gate_.address().to_owned();
        let flow = runner.run(|flow| async move {
            let short = Annotate::new().timeout(Duration::from_millis(200));
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
}

#[remuda::test]
async fn prefect_08_as_completed_follows_the_ends() {
    for runner in runners() {
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
}

#[remuda::test]
async fn prefect_09_an_interrupt_inside_a_task_is_its_own() {
    let [_, runner] = runners();
    let result = runner
        .run(|flow| async move {
            let bad = flow.submit(python("signal:raise_signal").arg(2).call::<i64>());
            let state = bad.done().await;
            assert!(matches!(state, TaskState::Ended(_)), "{state:?}");
            Ok(flow.submit(echo(1)).await?)
        })
        .await;
    assert_eq!(result.unwrap(), 1);
}

#[remuda::test]
async fn prefect_10_tasks_are_called_by_their_functions() {
    let result = one_slot()
        .run(|flow| async move {
            let (plain, named) = (flow.submit(echo(1)), flow.submit(echo(1).named("the first")));
            Ok((plain.name().to_owned(), named.name().to_owned()))
        })
        .await;
    assert_eq!(result.unwrap(), ("echo".to_owned(), "the first".to_owned()));
}

#[remuda::test]
async fn prefect_12_a_class_by_path() {
    let kwargs = Kwargs::new().with("n_workers", 1).with("processes", false);
    let runner = TaskRunner::builder().cluster("local::LocalCluster").cluster_kwargs(kwargs).build().unwrap();
    assert_eq!(runner.run(|flow| async move { Ok(flow.submit(echo(5)).await?) }).await.unwrap(), 5);
    // Python's names mean the real Dask, whose own tests run it.
    for path in ["distributed.LocalCluster", "dask.distributed.LocalCluster"] {
        let runner = TaskRunner::builder().cluster(path).cluster_kwargs([("n_workers", 1)]).build();
        assert!(runner.is_ok(), "{path}: {runner:?}");
    }
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

#[remuda::test]
async fn prefect_14_structs_are_arguments_and_results() {
    for runner in runners() {
        let result = runner
            .run(|flow| async move {
                let one = flow.submit(moved(Point { x: 1, label: Some("p".to_owned()) }, 1));
                let all = flow.map(moved, (unmapped(Point { x: 0, label: None }), 0..3))?;
                Ok((flow.submit(moved(&one, 5)).await?, flow.gather(all).await?.into_iter().map(|p| p.x).collect::<Vec<_>>()))
            })
            .await;
        assert_eq!(result.unwrap(), (Point { x: 7, label: Some("p".to_owned()) }, vec![0, 1, 2]));
    }
}

#[remuda::test]
async fn prefect_15_a12_nested_submission_on_one_slot() {
    #[remuda::task]
    async fn outer(cx: &TaskContext, depth: i64) -> anyhow::Result<i64> {
        if depth == 0 {
            return Ok(1);
        }
        Ok(cx.flow()?.submit(outer(depth - 1)).await? + 1)
    }
    let result = one_slot().run(|flow| async move { Ok(flow.submit(outer(5)).await?) }).await;
    assert_eq!(result.unwrap(), 6);
}

#[remuda::test]
async fn prefect_16_17_wait_for_one_and_several() {
    for runner in runners() {
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
}

#[remuda::test]
async fn a01_a_runner_does_what_it_was_told_whatever_else_runs() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let mine = ClassRef::from_fn("mine::Cluster", move |_: Kwargs| {
        count.fetch_add(1, SeqCst);
        LocalCluster::from_config(config(false))
    });
    let inner = TaskRunner::builder().cluster(mine).build().unwrap();
    // Inside another run, with another cluster alive.
    let result = one_slot().run(|_| async move { Ok(inner.run(|flow| async move { Ok(flow.submit(echo(3)).await?) }).await?) }).await;
    assert_eq!((result.unwrap(), seen.load(SeqCst)), (3, 1));
}

#[remuda::test]
async fn a02_a11_a_shared_cluster_keeps_nothing_of_a_run() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let class = ClassRef::from_fn("mine::Cluster", move |_: Kwargs| {
        count.fetch_add(1, SeqCst);
        LocalCluster::from_config(config(false))
    });
    let runner = TaskRunner::builder().cluster(class).scope(Scope::Runner).build().unwrap();
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
    assert_eq!(made.load(SeqCst), 1);
    runner.close().await.unwrap();
}

#[remuda::test]
async fn a03_failure_is_allowed_as_argument_in_a_map_and_in_order() {
    #[remuda::task]
    fn was_error(part: Result<i64, TaskError>) -> bool {
        part.is_err()
    }
    for runner in runners() {
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
}

#[remuda::test]
async fn a05_a_dead_worker_is_a_crash_with_its_cause() {
    #[remuda::task(allowed_failures = 1)]
    fn dies() -> i64 {
        std::process::exit(9)
    }
    let [_, runner] = runners();
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

#[remuda::test]
async fn a08_every_wait_ends_with_the_reason() {
    let config = LocalConfig { no_workers_timeout: Duration::from_millis(200), ..config(false) };
    let runner = TaskRunner::builder().cluster(config).build().unwrap();
    let waits: [(Annotate, &str); 2] =
        [(Annotate::new().resource("UNICORN", 1.0), "UNICORN"), (Annotate::new().worker("nobody"), "nobody")];
    for (annotate, name) in waits {
        let error = runner.run(|flow| async move { Ok(flow.annotate(annotate).submit(echo(1)).await?) }).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.exit_code(), 1, "{error:?}");
    }
}

#[remuda::test]
async fn a09_all_mistakes_before_anything_is_made() {
    let kwargs = Kwargs::new().with("n_worker", 4).with("threads_per_worker", -1).with("memory_limit", "lots");
    let error = TaskRunner::builder().cluster("local::LocalCluster").cluster_kwargs(kwargs).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    let text = format!("{error:?}");
    for part in ["n_worker", "n_workers", "threads_per_worker", "-1", "memory_limit", "lots"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let error = TaskRunner::builder().cluster("local::LocalClustre").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownClass);
    assert!(error.hint().is_some_and(|hint| hint.contains("local::LocalCluster")), "{error:?}");
    let error = TaskRunner::builder().cluster("local::LocalCluster").address("tcp://127.0.0.1:1").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{error:?}");
}

#[remuda::test]
async fn a10_after_a_run_every_task_is_final() {
    for runner in runners() {
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
}

#[remuda::test]
async fn a15_a_teardown_error_stays_beside_the_result() {
    let broken = || FakeCluster::new(Shape::default()).with_fault(Call::Close, Fault::Refuse(ErrorKind::PermissionDenied));
    let finished = fake(broken()).run_until(std::future::pending(), |flow| async move { Ok(flow.spawn(|| 11).await?) }).await;
    assert_eq!(finished.result.unwrap(), 11);
    assert!(finished.report.problems().iter().any(|problem| problem.contains("refused Close")), "{:?}", finished.report);
    let finished = fake(broken())
        .run_until(std::future::pending(), |_| async move { Err::<(), _>(anyhow::anyhow!("mine")).context("around it") })
        .await;
    match finished.result.unwrap_err() {
        RunError::Flow(error) => assert_eq!(format!("{error:#}"), "around it: mine"),
        other => panic!("{other:?}"),
    }
    let remains = FakeCluster::new(Shape::default()).with_remaining(&["vm-7"]);
    let finished = fake(remains).run_until(std::future::pending(), |_| async move { Ok(()) }).await;
    assert!(finished.report.problems().iter().any(|problem| problem.contains("vm-7")), "{:?}", finished.report);
}

#[remuda::test]
async fn a_stop_while_the_cluster_starts_ends_the_run_and_closes_it() {
    // Nobody would wait an hour here: the start is given up because of the stop, not of its deadline.
    let limits = remuda::Limits { start: Duration::from_secs(3600), grace: Duration::from_millis(100), ..Default::default() };
    for fault in [Fault::HangUntilCancelled, Fault::Deaf] {
        let cluster = FakeCluster::default().with_fault(Call::Start, fault.clone());
        let seen = cluster.clone();
        let class = ClassRef::from_fn("fake::FakeCluster", move |_: Kwargs| anyhow::Ok(cluster.clone()));
        let options = remuda::ClusterOptions { workers: Some(1), limits: limits.clone(), ..Default::default() };
        let runner = TaskRunner::builder().cluster(class).options(options).build().unwrap();
        let starting = async {
            while seen.said().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let run = runner.run_until(starting, |_| async move { Ok(()) });
        let finished = tokio::time::timeout(Duration::from_secs(60), run).await.expect("a stop is heard while the cluster starts");
        assert!(matches!(finished.result, Err(RunError::Interrupted)), "{fault:?}: {:?}", finished.result);
        assert_eq!(seen.said(), ["start", "close"], "{fault:?}");
        assert!(seen.is_closed(), "{fault:?}: closed when the call returns");
    }
}

#[remuda::test]
async fn a17_any_callable_is_a_class() {
    fn plain(_: Kwargs) -> remuda::Result<LocalCluster> {
        LocalCluster::from_config(config(false))
    }
    let workers = vec![1, 2];
    let classes = [
        ClassRef::from_fn("a::Function", plain),
        ClassRef::from_fn("a::Closure", {
            let workers = workers.clone();
            move |_: Kwargs| LocalCluster::from_config(LocalConfig { n_workers: workers.first().copied(), ..config(false) })
        }),
        ClassRef::from_fn("an::Async", async move |_: Kwargs| {
            tokio::task::yield_now().await;
            LocalCluster::from_config(LocalConfig { n_workers: workers.last().copied(), ..config(false) })
        }),
    ];
    for class in classes {
        let runner = TaskRunner::builder().cluster(class).build().unwrap();
        assert_eq!(runner.run(|flow| async move { Ok(flow.submit(echo(6)).await?) }).await.unwrap(), 6);
    }
    let failing = ClassRef::from_fn("a::Failure", |_: Kwargs| Err::<LocalCluster, _>(anyhow::anyhow!("no quota today")));
    let runner = TaskRunner::builder().cluster(failing).build().unwrap();
    let error = runner.run(|flow| async move { Ok(flow.submit(echo(6)).await?) }).await.unwrap_err();
    assert!(format!("{error:?}").contains("no quota today"), "{error:?}");
    assert_eq!(error.exit_code(), 3);
}

#[remuda::test]
async fn a19_priority_holds_across_workers() {
    // Both workers are busy; what then waits begins by priority, whoever is free first.
    let (order, mut gate_) = (Arc::new(Mutex::new(Vec::new())), Gate::new().await.unwrap());
    let (address, begun) = (gate_.address().to_owned(), order.clone());
    let runner = TaskRunner::builder().cluster(config(false)).build().unwrap();
    let (busy, both_busy) = tokio::sync::oneshot::channel();
    let (submitted, all_wait) = tokio::sync::oneshot::channel();
    let flow = runner.run(|flow| async move {
        let gates = flow.map(gate, (unmapped(address), ["a", "b"].map(str::to_owned)))?;
        both_busy.await?;
        let tasks: Vec<_> = [0, 1, 2, 10, 11, 12]
            .map(|priority| {
                let begun = begun.clone();
                flow.annotate(Annotate::new().priority(priority)).spawn(move || begun.lock().unwrap().push(priority))
            })
            .into();
        let _ = submitted.send(());
        let _ = flow.gather(gates).await?;
        flow.gather(tasks).await?;
        Ok(())
    });
    let opener = async {
        let both = gate_.together(2).await;
        busy.send(()).unwrap();
        all_wait.await.unwrap();
        // One worker only, so that the order is that of the queue.
        let mut both = both.into_iter();
        both.next().unwrap().open().await;
        while order.lock().unwrap().len() < 6 {
            tokio::task::yield_now().await;
        }
        both.next().unwrap().open().await;
    };
    let (result, ()) = tokio::join!(flow, opener);
    result.unwrap();
    assert_eq!(*order.lock().unwrap(), [12, 11, 10, 2, 1, 0]);
}

#[remuda::test]
async fn a07_a_cluster_whose_workers_only_die_ends_the_run_with_the_cause() {
    let cluster = FakeCluster::new(Shape { boot: Some(Duration::from_secs(3600)), ..Shape::default() })
        .with_faults(Call::Launch, std::iter::repeat_n(Some(Fault::Refuse(ErrorKind::PermissionDenied)), 100));
    let class = ClassRef::from_fn("fake::FakeCluster", move |_: Kwargs| anyhow::Ok(cluster.clone()));
    let options = remuda::ClusterOptions { workers: Some(1), ..Default::default() };
    let runner = TaskRunner::builder().cluster(class).options(options).build().unwrap();
    let finished = runner
        .run_until(std::future::pending(), |flow| async move {
            let waiting = flow.submit(echo(1));
            let needs_it = flow.submit(echo(&waiting));
            let error = waiting.await.unwrap_err();
            assert!(matches!(&error.error, TaskError::Refused(refused) if refused.to_string().contains("refused Launch")), "{error}");
            assert!(needs_it.state().is_final(), "{needs_it:?}");
            let later = flow.submit(echo(2)).await.unwrap_err();
            assert!(later.to_string().contains("refused Launch"), "what is submitted afterwards hears it at once: {later}");
            Err::<(), _>(error.into())
        })
        .await;
    assert_eq!(finished.result.unwrap_err().exit_code(), 3);
    assert_eq!(finished.report.tasks.refused, 3, "{:?}", finished.report);
}
