//! A cluster class of one's own: a path, typed kwargs, and what its platform can do. `cargo run -p remuda-examples --bin custom_class`
//!
//! This one books what it uses and borrows its workers from `local::LocalCluster`. Replacing lost workers, draining before a scale-down and
//! closing in every case are the keeper's, for this class as for any other.
#![allow(clippy::print_stdout)]

use remuda::{Registry, Result, TaskRunner, local, manager::*};
use remuda_examples::no_arguments;

/// The kwargs, checked before anything is made.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
struct BookedConfig {
    /// Workers at the start.
    n_workers: u32,
}

#[derive(Debug)]
struct BookedCluster(local::LocalCluster);

impl remuda::ClusterConfig for BookedConfig {
    type Class = BookedCluster;
}

impl remuda::ClusterClass for BookedCluster {
    const PATH: &'static str = "example::BookedCluster";
    type Config = BookedConfig;

    fn from_config(config: BookedConfig) -> Result<Self> {
        let local = local::LocalConfig { n_workers: Some(config.n_workers), ..Default::default() };
        local::LocalCluster::from_config(local).map(Self)
    }
}

#[async_trait::async_trait]
impl ClusterManager for BookedCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { class: "example::BookedCluster".into(), ..self.0.info() }
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        self.0.start(cx).await
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        workers.iter().for_each(|id| println!("booked: worker {id}"));
        self.0.launch(cx, workers).await
    }

    async fn stop(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        self.0.stop(cx, workers).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WorkerInfo>> {
        self.0.list(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        println!("booked out: {} workers", self.list(cx).await?.len());
        self.0.close(cx).await
    }
}

#[remuda::task]
fn double(x: i64) -> i64 {
    2 * x
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    no_arguments()?;
    let mut registry = Registry::new();
    registry.register::<BookedCluster>()?;
    let by_path = TaskRunner::builder().registry(registry).cluster("example::BookedCluster").cluster_kwargs([("n_workers", 2)]);
    println!("{:?}", by_path.build()?.run(async |flow: remuda::Flow| Ok(flow.gather(flow.map(double, 0..5)?).await?)).await?);
    Ok(())
}
