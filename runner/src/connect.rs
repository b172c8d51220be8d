//! How a scheduler's address becomes an engine.

use std::sync::Arc;

use async_trait::async_trait;
use remuda_core::{
    engine::{Connect, Engine},
    error::{ErrorKind, Result},
    manager::Endpoint,
    security::Security,
};
use remuda_dask::{DaskConnect, DaskOptions};

use crate::config::{ClientConfig, TaskHost};

/// `given`, and for what that does not speak Dask's protocol. `owns`: the cluster is made for the run.
pub(crate) fn with_dask(given: Arc<dyn Connect>, client: &ClientConfig, security: Option<Arc<Security>>, owns: bool) -> Arc<dyn Connect> {
    let ours = DaskConnect::new(options(client, security, owns));
    Arc::new(Either { given, ours })
}

fn options(client: &ClientConfig, security: Option<Arc<Security>>, owns: bool) -> DaskOptions {
    let usual = DaskOptions::default();
    DaskOptions {
        name: client.name.clone().unwrap_or(usual.name),
        timeout: client.timeout.map_or(usual.timeout, |seconds| seconds.0),
        lease: client.lease.map_or(usual.lease, |seconds| seconds.0),
        batch: client.batch,
        heartbeat: client.heartbeat_interval.map(|seconds| seconds.0),
        direct: client.direct_to_workers.unwrap_or(usual.direct),
        security,
        owner: owns,
        task_host: client.task_host.as_ref().map(TaskHost::command),
        ..usual
    }
}

/// First the user's own, then ours where that does not speak the protocol.
#[derive(Debug)]
struct Either {
    given: Arc<dyn Connect>,
    ours: DaskConnect,
}

#[async_trait]
impl Connect for Either {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        match self.given.connect(endpoint).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.ours.connect(endpoint).await,
            connected => connected,
        }
    }
}
