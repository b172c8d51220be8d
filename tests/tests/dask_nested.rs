//! Tasks of tasks on a real Dask with one slot: Rust tasks through a session of their own, Python tasks through Dask's client.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

mod dask_tasks;
#[path = "../../runner/tests/tasks_of_tasks/mod.rs"]
mod tasks_of_tasks;

use std::sync::Arc;

use remuda::{ClusterOptions, TaskContext, TaskRunner, command, python};
use remuda_dask::DaskConnect;
use remuda_tests::dask::{Dask, PATIENCE, Site, available};

use self::{
    dask_tasks::{MODULE, inc, many},
    tasks_of_tasks::{all_kinds, fibonacci},
};

/// A cluster of one slot, or `None` where there is no Dask.
async fn one_slot(test: &str) -> Option<(Dask, TaskRunner)> {
    if !available(test).await {
        return None;
    }
    let dask = Dask::start(Site::default().module("of_a_user.py", MODULE), 1).await.unwrap();
    let options = ClusterOptions { connect: Arc::new(DaskConnect::default()), ..ClusterOptions::default() };
    let runner = TaskRunner::builder().address(&*dask.address).options(options).build().unwrap();
    Some((dask, runner))
}

#[remuda::task]
fn leaves_work_behind(cx: &TaskContext) -> anyhow::Result<()> {
    let flow = cx.flow()?;
    drop(flow.submit(command(["sleep", "3600"]).call()));
    let kept = flow.submit(command(["sleep", "3600"]).call());
    std::mem::forget(kept);
    Ok(())
}

#[remuda::test]
async fn rust_tasks_submit_tasks_and_wait_for_them_on_one_slot() {
    let Some((dask, runner)) = one_slot("rust_tasks_submit_tasks_and_wait_for_them_on_one_slot").await else { return };
    let run = runner.run(async |flow| {
        assert_eq!(flow.submit(many(200)).await?, 200 * 201 / 2);
        assert_eq!(flow.submit(fibonacci(5_u64)).await?, 5);
        assert_eq!(flow.submit(all_kinds()).await?, r#"("/a", "b") ["/a","b"]"#);
        flow.submit(leaves_work_behind()).await?;
        assert_eq!(flow.submit(inc(1)).await?, 2, "the slot is free again");
        Ok(())
    });
    run.await.unwrap();
    dask.forgets().await.unwrap();
}

#[remuda::task]
fn waits_for_ever(cx: &TaskContext, file: String) -> anyhow::Result<String> {
    let flow = cx.flow()?;
    let child = flow.submit(command(["sh", "-c", "echo here > $F; sleep 3600"]).env("F", file).call());
    Ok(child.wait()?.to_string())
}

#[remuda::test]
async fn what_a_cancelled_task_has_submitted_ends_with_it() {
    let Some((dask, runner)) = one_slot("what_a_cancelled_task_has_submitted_ends_with_it").await else { return };
    let file = dask.directory().join("begun");
    let run = runner.run(async |flow| {
        let parent = flow.submit(waits_for_ever(file.to_str().unwrap().to_owned()));
        let begun = async {
            while !file.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, begun).await.expect("the child runs, though its parent has the slot");
        parent.cancel();
        assert_eq!(flow.submit(inc(1)).await?, 2, "neither of them has the slot");
        Ok(())
    });
    run.await.unwrap();
    dask.forgets().await.unwrap();
}

#[remuda::test]
async fn python_tasks_have_dasks_own_client_on_one_slot() {
    let Some((dask, runner)) = one_slot("python_tasks_have_dasks_own_client_on_one_slot").await else { return };
    let run = runner.run(async |flow| {
        let names = ["by_client", "by_worker_client"].map(|name| format!("of_a_user:{name}"));
        for name in &names {
            assert_eq!(flow.submit(python(name).arg(10).call::<i64>()).await?, 55, "{name}");
        }
        assert_eq!(flow.submit(python("of_a_user:where").call::<String>()).await?, "0");
        Ok(())
    });
    run.await.unwrap();
    dask.forgets().await.unwrap();
}
