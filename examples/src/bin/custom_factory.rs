//! A cluster from a function: any callable that answers with a cluster manager is a cluster class.
//!
//!     cargo run -p remuda-examples --bin custom_factory
#![allow(clippy::print_stdout)]

use remuda::{
    ClassRef, ClusterClass, Kwargs, TaskRunner,
    local::{LocalCluster, LocalConfig},
};
use remuda_examples::no_arguments;

#[remuda::task]
fn square(x: i64) -> i64 {
    x * x
}

/// Stands for whatever knows how big the cluster may be today: a quota, a calendar, a colleague.
async fn ask_for_quota(team: &str) -> anyhow::Result<u32> {
    tokio::task::yield_now().await;
    anyhow::ensure!(!team.is_empty(), "no team, no quota");
    Ok(2)
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    no_arguments()?;
    let team = String::from("images");
    // Async, and with captured state. It is called once per run, when the cluster is made, under the deadline for that.
    let within_quota = ClassRef::from_fn("team::WithinQuota", async move |mut kwargs: Kwargs| -> anyhow::Result<LocalCluster> {
        kwargs.insert("n_workers", ask_for_quota(&team).await?);
        Ok(LocalCluster::from_config(kwargs.parse::<LocalConfig>()?)?)
    });
    let runner = TaskRunner::builder().cluster(within_quota).build()?;
    let squares = runner.run(|flow| async move { Ok(flow.gather(flow.map(square, 1..=5)?).await?) }).await?;
    println!("{squares:?}");
    Ok(())
}
