//! How a scheduler's address becomes an engine.

use std::sync::Arc;

use async_trait::async_trait;
use remuda_core::{
    engine::{Connect, Engine},
    error::{ErrorKind, Result},
    manager::Endpoint,
};

/// First the user's own, then ours where that does not speak the protocol.
#[derive(Debug)]
pub(crate) struct Either {
    pub(crate) given: Arc<dyn Connect>,
    pub(crate) ours: Arc<dyn Connect>,
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

pub(crate) fn with_dask(given: Arc<dyn Connect>, _client: &crate::config::ClientConfig, _owns: bool) -> Arc<dyn Connect> {
    given
}
