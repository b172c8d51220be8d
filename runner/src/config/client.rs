//! `client_kwargs`: the keyword arguments of Dask's `Client`.

use remuda_core::{duration::Seconds, error::Result, kwargs::Kwargs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `client_kwargs`, with Dask's names. They speak about the connection to a scheduler elsewhere; the embedded engine has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "address": "it is a key of its own: write `address` beside `client_kwargs`",
    "asynchronous": "a run is always asynchronous inside: leave it out",
    "loop": "a run has its own loop: leave it out",
    "scheduler_file": "not read by this build: write `address`",
    "security": "not read by this build: certificates come with the class of the cluster",
    "serializers": "values travel as MessagePack: leave it out",
    "deserializers": "values travel as MessagePack: leave it out",
}))]
pub struct ClientConfig {
    /// How the scheduler calls this client.
    pub name: Option<String>,
    /// How long connecting may take: seconds, or a text like "10s".
    pub timeout: Option<Seconds>,
    /// Time between two signs of life: seconds, or a text like "5s".
    pub heartbeat_interval: Option<Seconds>,
    /// Whether the client talks to workers directly.
    pub direct_to_workers: Option<bool>,
    /// Connections held open at most.
    #[schemars(range(min = 1))]
    pub connection_limit: Option<u32>,
    /// Only false makes sense: a run's client is nobody's default.
    pub set_as_default: Option<bool>,
    /// Extensions of the client.
    pub extensions: Option<Value>,
}

impl ClientConfig {
    /// Checks kwargs, all at once.
    ///
    /// # Errors
    /// [`remuda_core::error::ErrorKind::ConfigInvalid`]: unknown keys, wrong types, keys that a run cannot take.
    pub fn parse(kwargs: Kwargs) -> Result<Self> {
        kwargs.parse()
    }
}
