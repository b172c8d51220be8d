//! How a cluster is kept.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::runtime::Handle;

use super::Limits;
use crate::{
    adaptive::AdaptConfig,
    engine::{Connect, Engine},
    error::{Error, ErrorKind, Result},
    manager::Endpoint,
};

/// How a cluster is kept.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many workers. Default: what the class's kwargs ask for ([`ClusterInfo::workers`](crate::manager::ClusterInfo::workers)).
    pub workers: Option<u32>,
    /// Lets the number follow the work, from the start on: see [`Cluster::adapt`](super::Cluster::adapt). `workers` is then the number
    /// to begin with, as far as the bounds allow. Default: the number stays.
    pub adapt: Option<AdaptConfig>,
    /// Deadlines and delays.
    pub limits: Limits,
    /// How a scheduler's address becomes an engine. Default: embedded engines only.
    pub connect: Arc<dyn Connect>,
    /// Where the keeper runs. Default: on Remuda's own runtime. Tests give their own, with its paused clock; then a dropped handle
    /// does not wait, and a runtime that is dropped leaves the cluster behind.
    pub home: Option<Handle>,
    /// The cluster's name. Default: what the class's kwargs say, else `remuda-` and eight random hex digits.
    pub name: Option<String>,
    /// Put on everything that is created, where the platform has labels.
    pub labels: BTreeMap<String, String>,
    /// Where the ledger is kept. Default: [`state_dir`](crate::ledger::state_dir).
    pub state_dir: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            workers: None,
            adapt: None,
            limits: Limits::default(),
            connect: Arc::new(EmbeddedOnly),
            home: None,
            name: None,
            labels: BTreeMap::new(),
            state_dir: None,
        }
    }
}

#[derive(Debug)]
struct EmbeddedOnly;

#[async_trait::async_trait]
impl Connect for EmbeddedOnly {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        match endpoint {
            Endpoint::Embedded(engine) => Ok(engine.clone()),
            Endpoint::Dask { address, .. } => Err(Error::new(ErrorKind::Unsupported, format!("this build has no engine for {address}"))),
        }
    }
}
