//! Somebody else's cluster: it runs already, and it runs on.

use std::sync::Arc;

use async_trait::async_trait;
use remuda_core::{
    error::Result,
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, Scaling, WorkerInfo},
    security::Security,
};

use crate::config::Address;

/// The manager of a cluster that is not ours: nothing of it is made, scaled or ended. What a run leaves behind there is its session's
/// business, and that is nothing.
#[derive(Debug)]
pub(crate) struct ExistingCluster {
    address: Address,
    security: Option<Arc<Security>>,
}

impl ExistingCluster {
    /// What its handle says that it is.
    pub(crate) const CLASS: &'static str = "existing";

    pub(crate) fn new(address: Address, security: Option<Arc<Security>>) -> Self {
        Self { address, security }
    }
}

#[async_trait]
impl ClusterManager for ExistingCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { scaling: Scaling::None, ..ClusterInfo::new(Self::CLASS) }
    }

    async fn start(&self, _cx: &Context) -> Result<Endpoint> {
        Ok(Endpoint::Dask { address: self.address.to_string(), security: self.security.clone(), dashboard: None })
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        Ok(Vec::new())
    }

    async fn close(&self, _cx: &Context) -> Result<CloseReport> {
        Ok(CloseReport::default())
    }
}
