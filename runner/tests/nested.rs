//! Tasks that submit tasks from a worker process.
#![allow(clippy::unwrap_used)]

mod tasks_of_tasks;

use remuda::{TaskContext, TaskError, TaskFailed, TaskRunner, TaskState, command, local::LocalConfig};

use self::tasks_of_tasks::{all_kinds, fibonacci};

fn processes(workers: u32) -> TaskRunner {
    let config = LocalConfig { n_workers: Some(workers), threads_per_worker: Some(1), ..Default::default() };
    TaskRunner::builder().cluster(config).build().unwrap()
}

#[remuda::task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[remuda::task]
fn pid() -> u32 {
    std::process::id()
}

#[remuda::task]
async fn many(cx: &TaskContext, n: i64) -> anyhow::Result<(i64, bool)> {
    let flow = cx.flow()?;
    let parts = flow.map(inc, 0..n)?;
    let other = flow.submit(pid()).await?;
    Ok((flow.gather(parts).await?.into_iter().sum(), other != std::process::id()))
}

#[remuda::test]
async fn tasks_submit_tasks_and_wait_for_them_on_one_slot() {
    processes(1)
        .run(|flow| async move {
            assert_eq!(flow.submit(many(200)).await?, (200 * 201 / 2, true), "its tasks ran in another process");
            assert_eq!(flow.submit(fibonacci(5_u64)).await?, 5);
            assert_eq!(flow.submit(inc(1)).await?, 2);
            Ok(())
        })
        .await
        .unwrap();
}

#[remuda::test]
async fn its_tasks_are_of_every_kind_and_objects_are_converted() {
    let text = processes(1).run(|flow| async move { Ok(flow.submit(all_kinds()).await?) }).await.unwrap();
    assert_eq!(text, r#"("/a", "b") ["/a","b"]"#);
}

#[remuda::task]
fn fail() -> anyhow::Result<i64> {
    anyhow::bail!("no luck")
}

#[remuda::task]
async fn passes_failures_on(cx: &TaskContext) -> Result<i64, TaskFailed> {
    let flow = cx.flow().map_err(TaskError::from).unwrap();
    let bad = flow.submit(fail().named("the bad one"));
    flow.submit(inc(&bad)).await
}

#[remuda::test]
async fn a_failure_of_its_tasks_is_named() {
    let error = processes(1).run(|flow| async move { Ok(flow.submit(passes_failures_on()).await?) }).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`passes_failures_on`") && text.contains("`inc`") && text.contains("the bad one") && text.contains("no luck"),
        "{text}"
    );
}

#[remuda::task]
async fn starts_a_sleep(cx: &TaskContext, marker: &str, then: &str) -> anyhow::Result<String> {
    let flow = cx.flow()?;
    let mut events = flow.events();
    let sleep = flow.submit(command(["sh", "-c"]).arg(format!("echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 600")).call());
    while !matches!(events.recv().await.map(|event| event.state), Some(TaskState::Running { .. })) {}
    until(|| std::path::Path::new(marker).exists()).await;
    match then {
        "exit" => std::process::exit(7),
        "return" => Ok("returned".to_owned()),
        _ => Ok(sleep.await?),
    }
}

/// What happens in another process has no event here. The test's own time limit is the bound.
async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn gone(marker: &std::path::Path) {
    let pid = std::fs::read_to_string(marker).unwrap();
    until(|| !std::path::Path::new("/proc").join(pid.trim()).exists()).await;
}

#[remuda::test]
async fn its_tasks_end_with_it_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let [cancelled, exited, returned] = ["cancelled", "exited", "returned"].map(|name| dir.path().join(name));
    // Two: waiting for events does not give a slot back, only waiting for tasks does.
    processes(2)
        .run(|flow| async move {
            let task = flow.submit(starts_a_sleep(cancelled.to_str().unwrap(), "wait"));
            until(|| cancelled.exists()).await;
            task.cancel();
            gone(&cancelled).await;
            let crashed = flow.submit(starts_a_sleep(exited.to_str().unwrap(), "exit").allowed_failures(0)).await.unwrap_err();
            assert!(matches!(&crashed.error, TaskError::Crashed(crash) if crash.cause == "exit code 7"), "{crashed}");
            gone(&exited).await;
            assert_eq!(flow.submit(starts_a_sleep(returned.to_str().unwrap(), "return")).await?, "returned");
            gone(&returned).await;
            assert_eq!(flow.submit(inc(1)).await?, 2);
            Ok(())
        })
        .await
        .unwrap();
}
