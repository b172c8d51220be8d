//! `client_kwargs`: the keyword arguments of Dask's `Client`, and a few of ours.

use std::{fs, path::Path, sync::Arc, time::Duration};

use remuda_core::{
    duration::Seconds,
    error::{Error, Mistake, Result},
    kwargs::Kwargs,
    security::Security,
};
use remuda_dask::{DaskOptions, security::SecurityConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::Address;

/// How to connect to a scheduler, with the names of Dask's `Client`. The embedded engine has no connection.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "address": "it is a key of its own: write `address` beside `client_kwargs`",
    "asynchronous": "a run is always asynchronous inside: leave it out",
    "loop": "a run has its own loop: leave it out",
    "serializers": "values travel as MessagePack, and between Python tasks as Dask sends them: leave it out",
    "deserializers": "values travel as MessagePack, and between Python tasks as Dask sends them: leave it out",
    "extensions": "they are objects of a Python client: leave it out",
    "connection_limit": "at most three connections to each worker are held open: leave it out",
}))]
pub struct ClientConfig {
    /// What the run is called in the scheduler's log.
    pub name: Option<String>,
    /// How long connecting may take: seconds, or a text like "10s". Default: 10 s.
    pub timeout: Option<Seconds>,
    /// Time between two signs of life: seconds, or a text like "5s". At most half of `lease`; default: a quarter of it.
    pub heartbeat_interval: Option<Seconds>,
    /// Whether results are fetched from the workers themselves. False: through the scheduler, where only that can be reached.
    /// Default: from the workers, and through the scheduler from those that cannot be reached.
    pub direct_to_workers: Option<bool>,
    /// The file in which a scheduler that runs already wrote its address (`dask scheduler --scheduler-file`), in place of `address`.
    pub scheduler_file: Option<String>,
    /// Certificates, for `tls://`.
    pub security: Option<SecurityConfig>,
    /// The program that runs Rust tasks on the workers: its path there, or a name on their PATH; or `{path, args}`. It goes before
    /// REMUDA_TASK_HOST_BINARY of their environment. Default: that, or this program on workers of this machine.
    pub task_host: Option<TaskHost>,
    /// Without meaning, whatever it is: a run's client is nobody's default.
    pub set_as_default: Option<bool>,
    /// How long the scheduler keeps the run's tasks when the driver is not heard of: seconds, or a text like "1m". Default: 30 s.
    #[serde(deserialize_with = "lease")]
    pub lease: Option<Seconds>,
    /// How many small calls of a map may go as one Dask task. 1: each by itself. Default: as many as measured durations suggest.
    #[schemars(range(min = 1))]
    pub batch: Option<u32>,
}

/// A program on the workers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TaskHost {
    /// Its path.
    Path(#[schemars(length(min = 1))] String),
    /// With arguments.
    Program(TaskHostProgram),
}

/// A program on the workers, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskHostProgram {
    /// Its path, or a name on PATH.
    #[schemars(length(min = 1))]
    pub path: String,
    /// What makes it a task host: nothing, where `main` begins with `remuda::init()` or is `#[remuda::main]`.
    #[serde(default)]
    pub args: Vec<String>,
}

impl TaskHost {
    /// Program and arguments.
    pub(crate) fn command(&self) -> (String, Vec<String>) {
        match self {
            Self::Path(path) => (path.clone(), Vec::new()),
            Self::Program(TaskHostProgram { path, args }) => (path.clone(), args.clone()),
        }
    }
}

/// Below it a busy driver or scheduler is taken for a dead one.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// Judged while it is read, so that what is wrong with it is told with the other mistakes.
fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Seconds>, D::Error> {
    match Option::<Seconds>::deserialize(deserializer)? {
        Some(Seconds(lease)) if lease < SHORTEST_LEASE => Err(de::Error::custom(format!(
            "too short, the tasks would be given up between two signs of life: expected at least {SHORTEST_LEASE:?}, found {lease:?}; \
             leave it out for 30 s"
        ))),
        lease => Ok(lease),
    }
}

impl ClientConfig {
    /// Checks kwargs, all at once.
    ///
    /// # Errors
    /// [`remuda_core::error::ErrorKind::ConfigInvalid`]: unknown keys, wrong types, keys that a run cannot take, a `heartbeat_interval` that does not
    /// fit into `lease`.
    pub fn parse(kwargs: Kwargs) -> Result<Self> {
        Self::read(kwargs, true)
    }

    /// The same also where a `lease` is written that cannot be read: it is not said what would fit it.
    pub(crate) fn read(kwargs: Kwargs, knows_lease: bool) -> Result<Self> {
        let client = kwargs.parse::<Self>()?;
        let lease = client.lease.map_or(DaskOptions::default().lease, |lease| lease.0);
        match client.heartbeat_interval {
            Some(Seconds(beat)) if beat.is_zero() || knows_lease && beat > lease / 2 => {
                let why = if beat.is_zero() { "no time" } else { "longer than half of `lease`: one late sign of life would end the run" };
                let most = if knows_lease { format!("at most {:?}", lease / 2) } else { "more".to_owned() };
                let text = format!("{why}; expected {most}, found {beat:?}");
                let hint = "leave it out for a quarter of `lease`, or raise `lease`";
                Err(Error::invalid(vec![Mistake::new("heartbeat_interval", text).with_hint(hint)]))
            }
            _ => Ok(client),
        }
    }

    /// The certificates, read and looked at.
    ///
    /// # Errors
    /// As [`SecurityConfig::resolve`], with paths under `security`.
    pub(crate) fn certificates(&self) -> Result<Option<Arc<Security>>> {
        let resolved = self.security.as_ref().map(SecurityConfig::resolve).transpose();
        resolved.map(|security| security.map(Arc::new)).map_err(|error| error.under("security"))
    }
}

/// The address in a scheduler file.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn read_scheduler_file(file: &str) -> Result<Address, String> {
    let text = fs::read_to_string(Path::new(file))
        .map_err(|error| format!("\"{file}\" cannot be read ({error}): the scheduler writes it once it listens"))?;
    let tree: Value =
        serde_json::from_str(&text).map_err(|error| format!("\"{file}\" is not the JSON object that a scheduler writes: {error}"))?;
    let address = tree.get("address").and_then(Value::as_str);
    let address = address.ok_or_else(|| format!("\"{file}\" has no `address`: it is not the file that a scheduler writes"))?;
    Address::parse(address).map_err(|error| format!("\"{file}\": {error}"))
}

/// A `tls://` address needs certificates.
pub(crate) fn check_security(address: &Address, client: &ClientConfig) -> Result<()> {
    if address.scheme() != "tls" || client.security.is_some() {
        return Ok(());
    }
    let text = format!("{address} needs certificates: the cluster's authority, and a certificate of ours that it has signed");
    let hint = "write `client_kwargs: {security: {tls_ca_file: ca.pem, tls_cert: cert.pem, tls_key: key.pem}}`";
    Err(Error::invalid(vec![Mistake::new("client_kwargs.security", text).with_hint(hint)]))
}
