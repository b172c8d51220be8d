//! How a scheduler's address becomes an engine.

use std::sync::Arc;

use remuda_core::engine::Connect;

use crate::config::ClientConfig;

/// Whoever was given, until there is one of our own.
pub(crate) fn with_dask(given: Arc<dyn Connect>, _client: &ClientConfig, _owns: bool) -> Arc<dyn Connect> {
    given
}
