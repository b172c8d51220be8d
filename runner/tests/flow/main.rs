//! Flows on the embedded engine, with threads: everything a body does.
#![allow(clippy::unwrap_used)]

mod ends;
#[path = "../tasks_of_tasks/mod.rs"]
mod tasks_of_tasks;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::Context as _;
use remuda::{
    Annotate, Arg, Error, ErrorKind, RunError, Scope, TaskContext, TaskError, TaskRunner, TaskState, allow_failure, local::LocalConfig,
    unmapped,
};

use self::tasks_of_tasks::fibonacci;

#[remuda::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[remuda::task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[remuda::task]
fn sum(values: Vec<i64>) -> i64 {
    values.iter().sum()
}

#[remuda::task]
fn fail(text: &str) -> Result<i64, io::Error> {
    Err(io::Error::new(io::ErrorKind::NotFound, text.to_owned()))
}

#[remuda::task]
async fn forever(cx: &TaskContext) -> i64 {
    cx.cancelled().await;
    std::future::pending().await
}

#[remuda::task]
fn meet(gate: Arc<std::sync::Barrier>) {
    gate.wait();
}

fn threads(slots: u32) -> TaskRunner {
    let config = LocalConfig { n_workers: Some(1), threads_per_worker: Some(slots), processes: false, ..Default::default() };
    TaskRunner::builder().cluster(config).build().unwrap()
}

#[tokio::test]
async fn futures_are_arguments_at_any_depth() {
    let total = threads(2)
        .run(|flow| async move {
            let one = flow.submit(add(1, 2));
            let two = flow.submit(add(&one, 3).priority(10));
            let many = flow.submit_all((1..=3).map(|i| add(i, &two)));
            let nested: Arg<Vec<i64>> = Arg::list([Arg::from(&one), 1000.into()]);
            let sums = [flow.submit(sum(many)), flow.submit(sum(nested))];
            Ok(flow.submit(sum(sums.to_vec())).await? + one.await?)
        })
        .await
        .unwrap();
    assert_eq!(total, 24 + 1003 + 3);
}

#[derive(Debug)]
struct Big(Vec<u8>);

#[remuda::task]
fn load() -> Big {
    Big(vec![7; 1000])
}

#[remuda::task]
async fn place(data: &Big, again: Arc<Big>) -> Result<usize, std::fmt::Error> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(std::ptr::eq(data, &*again));
    Ok(std::ptr::from_ref(data).addr())
}

#[tokio::test]
async fn references_and_arcs_copy_nothing_and_need_no_serde() {
    threads(2)
        .run(|flow| async move {
            let big = flow.submit(load());
            let (a, b) = (flow.submit(place(&big, &big)).await?, flow.submit(place(&big, &big)).await?);
            let here = big.shared().await?;
            assert_eq!((a, b), (std::ptr::from_ref(&*here).addr(), a), "the tasks saw this very object");
            assert_eq!(here.0.len(), 1000);
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn maps_take_values_futures_several_columns_and_what_is_the_same_for_all() {
    threads(2)
        .run(|flow| async move {
            let incs = flow.map(inc, 0..10)?;
            let adds = flow.map(add, (&incs, 100..110))?;
            let last = flow.map(add, (adds, unmapped(1000)))?;
            assert_eq!(flow.gather(last).await?, (0..10).map(|i| 1101 + 2 * i).collect::<Vec<_>>());
            assert!(flow.map(inc, Vec::<i64>::new())?.is_empty());
            let error = flow.map(add, (&incs, 0..3)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            assert!(error.to_string().contains("10, 3"), "{error}");
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn as_completed_gives_the_order_of_ends_and_wait_tells_who_is_not_there() {
    threads(3)
        .run(|flow| async move {
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let slow = flow.try_spawn(move || gate.blocking_recv());
            let quick = flow.spawn(|| ());
            let mut ended = flow.as_completed([slow.clone(), quick]);
            let first = ended.next().await.unwrap();
            assert_ne!(first.key(), slow.key());
            let futures = [slow, flow.spawn(|| ())];
            futures[1].done().await;
            let (done, not_done) = flow.wait(&futures, Some(Duration::from_millis(1))).await;
            assert_eq!((done.len(), not_done.len()), (1, 1));
            open.send(()).unwrap();
            assert_eq!(ended.next().await.unwrap().key(), futures[0].key());
            assert!(ended.next().await.is_none());
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::task]
async fn nested(cx: &TaskContext) -> anyhow::Result<i64> {
    let flow = cx.flow()?;
    let parts = flow.map(inc, 0..5)?;
    Ok(flow.gather(parts).await?.into_iter().sum())
}

#[tokio::test]
async fn tasks_submit_tasks_and_wait_for_them_on_one_slot() {
    threads(1)
        .run(|flow| async move {
            assert_eq!(flow.submit(nested()).await?, 15);
            assert_eq!(flow.submit(fibonacci(7_u64)).await?, 13);
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn annotations_nest_and_the_innermost_wins() {
    threads(1)
        .run(|flow| async move {
            let tries = Arc::new(AtomicUsize::new(0));
            let retried = flow.annotate(Annotate::new().retries(1).timeout(Duration::from_secs(60)));
            #[remuda::task(retries = 5)]
            fn flaky(tries: Arc<AtomicUsize>) -> anyhow::Result<usize> {
                anyhow::bail!("try {}", tries.fetch_add(1, SeqCst))
            }
            let error = retried.submit(flaky(tries.clone())).await.unwrap_err();
            assert_eq!(
                (tries.load(SeqCst), error.to_string().contains("try 1")),
                (2, true),
                "the scope wins over the declaration: {error}"
            );
            retried.submit(flaky(tries.clone()).retries(0)).await.unwrap_err();
            assert_eq!(tries.load(SeqCst), 3, "the call wins over the scope");
            flow.submit(flaky(tries.clone())).await.unwrap_err();
            assert_eq!(tries.load(SeqCst), 9, "the declaration counts where nothing else is said");
            let error = flow.submit(inc(1).resource("GPU", f64::NAN)).await.unwrap_err();
            assert!(error.to_string().contains("resources.GPU"), "{error}");
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn runs_of_one_runner_may_share_a_cluster_and_keep_their_tasks_apart() {
    let config = LocalConfig { n_workers: Some(1), processes: false, ..Default::default() };
    let runner = TaskRunner::builder().cluster(config).scope(Scope::Runner).build().unwrap();
    let foreign = runner.run(|flow| async move { Ok(flow.submit(forever())) }).await.unwrap();
    assert_eq!(foreign.state().name(), "cancelled", "what a run leaves unawaited is over with it");
    let finished = runner
        .run_until(std::future::pending(), |flow| async move {
            let error = flow.submit(inc(&foreign)).await.unwrap_err();
            assert!(error.to_string().contains("another run"), "{error}");
            Ok(flow.submit(inc(20)).await?)
        })
        .await;
    assert_eq!(finished.result.unwrap(), 21);
    assert!(finished.report.close.is_none());
    runner.close().await.unwrap();
}

#[derive(Clone, remuda::Inputs)]
struct Job {
    start: Arg<i64>,
    steps: Arg<Vec<i64>>,
    factor: i64,
}

#[remuda::task]
fn run_job(job: &Job) -> i64 {
    (job.start.get() + job.steps.get().iter().sum::<i64>()) * job.factor
}

#[tokio::test]
async fn futures_stand_in_fields() {
    threads(2)
        .run(|flow| async move {
            let (one, many) = (flow.submit(inc(0)), flow.map(inc, 0..3)?);
            let job = Job { start: (&one).into(), steps: many.into(), factor: 10 };
            let first = flow.submit(run_job(job.clone()));
            assert_eq!((first.await?, flow.submit(run_job(job)).await?), (70, 70));
            assert_eq!(flow.submit(run_job(Job { start: 5.into(), steps: vec![1].into(), factor: 1 })).await?, 6);
            let bad =
                flow.submit(run_job(Job { start: flow.submit(fail("x")).into(), steps: vec![0].into(), factor: 1 })).await.unwrap_err();
            assert_eq!(bad.error.state_name(), "upstream_failed");
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_may_block_and_so_may_a_task_whose_run_is_blocked() {
    threads(1)
        .run(|flow| async move {
            assert_eq!(*flow.submit(inc(1)).wait()?, 2);
            assert_eq!(*flow.submit(fibonacci(5_u64)).wait()?, 5);
            assert_eq!(flow.submit(inc(2)).await?, 3);
            let inner = flow.clone();
            let join = std::thread::spawn(move || inner.submit(fibonacci(5_u64)).wait().map(|n| *n));
            assert_eq!(join.join().unwrap()?, 5, "also from a thread that the body waits for");
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_run_can_be_spawned() {
    let spawn = |n: i64| {
        let runner = threads(2);
        tokio::spawn(async move { runner.run(|flow| async move { Ok(flow.submit(add(n, n)).await?) }).await })
    };
    let (a, b) = (spawn(1), spawn(2));
    assert_eq!((a.await.unwrap().unwrap(), b.await.unwrap().unwrap()), (2, 4));
}

#[tokio::test]
async fn ten_thousand_small_tasks() {
    let total = threads(2).run(|flow| async move { Ok(flow.submit(sum(flow.map(inc, 0..10_000)?)).await?) }).await.unwrap();
    assert_eq!(total, 50_005_000);
}

#[tokio::test]
async fn a_runner_from_a_file_and_from_layers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.toml");
    std::fs::write(&path, "cluster_class = \"local::LocalCluster\"\n[cluster_kwargs]\nn_workers = 1\nprocesses = false\n").unwrap();
    let from_file = TaskRunner::from_file(&path).unwrap();
    let layers = remuda::config::Loader::new()
        .file(&path)
        .env([("REMUDA_CLUSTER_KWARGS".to_owned(), r#"{"threads_per_worker": 3}"#.to_owned())].into())
        .load()
        .unwrap();
    let from_layers = TaskRunner::from_config(&layers).unwrap();
    for (runner, slots) in [(from_file, 1), (from_layers, 3)] {
        let gate = Arc::new(std::sync::Barrier::new(slots));
        let all = runner.run(|flow| async move {
            let met = flow.submit_all((0..slots).map(|_| meet(gate.clone())));
            Ok(flow.gather(met).await?.len())
        });
        assert_eq!(all.await.unwrap(), slots, "as many run at once");
    }
    std::fs::write(&path, "cluster_class = \"local::LocalCluster\"\n[cluster_kwargs]\nn_worker = 1\n").unwrap();
    let error = TaskRunner::from_file(&path).unwrap_err();
    assert!(error.to_string().contains("cluster.toml:3:1") && error.report().contains("n_workers"), "{error}");
}

#[remuda::task]
async fn looks_and_goes_on(cx: &TaskContext, busy: Arc<AtomicUsize>) -> anyhow::Result<usize> {
    let other = cx.flow()?.submit(inc(1));
    let at_once = busy.fetch_add(1, SeqCst);
    tokio::select! { biased; _ = other.done() => {} () = std::future::ready(()) => {} }
    std::thread::sleep(Duration::from_millis(20)); // it computes
    busy.fetch_sub(1, SeqCst);
    drop(other);
    Ok(at_once)
}

#[tokio::test]
async fn a_task_that_only_looks_at_another_keeps_its_slot() {
    let busy = Arc::new(AtomicUsize::new(0));
    let runner = threads(1);
    let most = runner.run(|flow| async move {
        let all = flow.submit_all((0..4).map(|_| looks_and_goes_on(busy.clone())));
        Ok(flow.gather(all).await?.into_iter().max())
    });
    assert_eq!(most.await.unwrap(), Some(0), "one slot, one body at once");
}
