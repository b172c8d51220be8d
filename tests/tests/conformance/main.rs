//! What Prefect's own tests of its Dask runner ask for (`prefect_NN`), and what goes wrong with it in the field (`aNN`), as tests of ours.
//! `docs/conformance.md` has the list, also of what other tests hold.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of a test may panic like a test")]

mod everywhere;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::Context as _;
use everywhere::{echo, gate};
use remuda::{
    Annotate, ClassRef, ClusterClass, ErrorKind, Kwargs, RunError, Scope, TaskError, TaskRunner, TaskState,
    local::{DaskConfig, LocalCluster, LocalConfig, MemoryLimit},
    python, unmapped,
};
use remuda_tests::{
    dask,
    fake::{Call, FakeCluster, Fault, Shape},
    gate::Gate,
};

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

/// An item of [`everywhere`] is a test for the classes of one machine, by the runners that it is given; the real Dask runs all of
/// them on one cluster.
macro_rules! everywhere {
    ($($item:ident: $runners:expr;)*) => {
        $(
            #[remuda::test]
            async fn $item() {
                for runner in $runners {
                    everywhere::$item(&runner).await;
                }
            }
        )*

        #[remuda::test]
        async fn on_dask() {
            if !dask::available("on_dask").await {
                return;
            }
            let runner = dask_runner();
            $(
                println!("{}", stringify!($item));
                everywhere::$item(&runner).await;
            )*
            runner.close().await.unwrap();
        }
    };
}

everywhere! {
    prefect_02_success: runners();
    prefect_03_failures_cascade: runners();
    prefect_06_07_timeouts_end_the_task_and_what_needs_it: runners();
    prefect_08_as_completed_follows_the_ends: runners();
    prefect_10_tasks_are_called_by_their_functions: [one_slot()];
    prefect_14_structs_are_arguments_and_results: runners();
    prefect_15_a12_nested_submission_on_one_slot: [one_slot()];
    prefect_16_17_wait_for_one_and_several: runners();
    a02_a11_a_shared_cluster_keeps_nothing_of_a_run: [shared()];
    a03_failure_is_allowed_as_argument_in_a_map_and_in_order: runners();
    a05_a_dead_worker_is_a_crash_with_its_cause: [processes()];
    a10_after_a_run_every_task_is_final: runners();
}

fn dask_runner() -> TaskRunner {
    let config = DaskConfig {
        n_workers: Some(2),
        threads_per_worker: Some(1),
        memory_limit: MemoryLimit::None,
        python: dask::python(),
        ..DaskConfig::default()
    };
    TaskRunner::builder().cluster(config).scope(Scope::Runner).build().unwrap()
}

fn processes() -> TaskRunner {
    TaskRunner::builder().cluster(config(true)).build().unwrap()
}

/// Its cluster can be made once only.
fn shared() -> TaskRunner {
    let made = AtomicUsize::new(0);
    let class = ClassRef::from_fn("mine::Cluster", move |_: Kwargs| {
        assert_eq!(made.fetch_add(1, SeqCst), 0, "a runner of this scope has one cluster");
        LocalCluster::from_config(config(false))
    });
    TaskRunner::builder().cluster(class).scope(Scope::Runner).build().unwrap()
}

fn fake(cluster: FakeCluster) -> TaskRunner {
    let class = ClassRef::from_fn("fake::FakeCluster", move |_: Kwargs| anyhow::Ok(cluster.clone()));
    let options = remuda::ClusterOptions { workers: Some(1), ..Default::default() };
    TaskRunner::builder().cluster(class).options(options).build().unwrap()
}

#[remuda::test]
async fn prefect_09_an_interrupt_inside_a_task_is_its_own() {
    let runner = processes();
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
async fn a08_every_wait_ends_with_the_reason() {
    let config = LocalConfig { no_workers_timeout: Duration::from_millis(200), ..config(false) };
    let runner = TaskRunner::builder().cluster(config).build().unwrap();
    let waits = [
        (Annotate::new().resource("UNICORN", 1.0), "UNICORN"),
        (Annotate::new().worker("nobody"), "nobody"),
        (Annotate::new().worker("7"), "for 200ms: no worker is called `7`"), // it may come yet
    ];
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
