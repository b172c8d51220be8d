//! A cluster class of one's own: a path, typed kwargs, and the six things a platform can do.
//!
//!     cargo run -p remuda-examples --bin custom_class
//!
//! This one borrows its workers from `local::LocalCluster` and keeps a book of what was made and what was ended. Replacing lost workers,
//! draining before a scale-down and closing in every case are the keeper's, for this class as for any other.
#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use remuda::{
    ClassRef, ClusterClass, ClusterConfig, Registry, Result, TaskRunner,
    local::{LocalCluster, LocalConfig},
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, WorkerId, WorkerInfo},
};
use schemars::JsonSchema;
use serde::Deserialize;

static MADE: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// The kwargs, checked before anything is made.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BookedConfig {
    /// Workers at the start.
    n_workers: u32,
}

impl ClusterConfig for BookedConfig {
    type Class = BookedCluster;
}

#[derive(Debug)]
struct BookedCluster(LocalCluster);

impl ClusterClass for BookedCluster {
    const PATH: &'static str = "example::BookedCluster";
    type Config = BookedConfig;

    fn from_config(config: BookedConfig) -> Result<Self> {
        LocalCluster::from_config(LocalConfig { n_workers: Some(config.n_workers), ..LocalConfig::default() }).map(Self)
    }
}

#[async_trait]
impl ClusterManager for BookedCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { class: Self::PATH.into(), ..self.0.info() }
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        self.0.start(cx).await
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        MADE.fetch_add(workers.len(), SeqCst);
        self.0.launch(cx, workers).await
    }

    async fn stop(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        ENDED.fetch_add(workers.len(), SeqCst);
        self.0.stop(cx, workers).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WorkerInfo>> {
        self.0.list(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        ENDED.fetch_add(self.0.list(cx).await?.len(), SeqCst);
        self.0.close(cx).await
    }
}

#[remuda::task]
fn double(x: i64) -> i64 {
    2 * x
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    let mut registry = Registry::with_builtins();
    registry.register::<BookedCluster>()?;
    // By path, as a configuration file would name it; `ClassRef::of::<BookedCluster>()` names it by type.
    let by_path = ClassRef::from("example::BookedCluster");
    let runner = TaskRunner::builder().registry(registry).cluster(by_path).cluster_kwargs([("n_workers", 3)]).build()?;
    let doubled = runner.run(|flow| async move { Ok(flow.gather(flow.map(double, 0..5)?).await?) }).await?;
    println!("{doubled:?}");
    println!("made {}, ended {}", MADE.load(SeqCst), ENDED.load(SeqCst));
    Ok(())
}
