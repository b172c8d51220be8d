//! What schedulers and workers say of themselves.

use std::collections::BTreeMap;

use remuda_core::error::{Error, ErrorKind, Result};

use crate::protocol::{
    Value,
    value::{get, text},
};

/// The answer to `identity`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// `Scheduler` or `Worker`.
    pub kind: String,
    /// Unique to its process: `Scheduler-5afbcc03-…`.
    pub id: String,
    /// Where others reach it. A worker does not say.
    pub address: Option<String>,
    /// Ports of what it serves besides: `dashboard`.
    pub services: BTreeMap<String, u16>,
    /// Of a scheduler: its workers by address.
    pub workers: BTreeMap<String, WorkerIdentity>,
}

impl Identity {
    /// That it is a scheduler who answers.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] where it is a worker.
    pub fn of_scheduler(self) -> Result<Self> {
        if self.kind == "Scheduler" { Ok(self) } else { Err(no_scheduler()) }
    }
}

pub(crate) fn no_scheduler() -> Error {
    Error::new(ErrorKind::ConfigInvalid, "a worker answers there, not a scheduler")
        .with_hint("write the address of its scheduler, which `dask scheduler` prints at its start")
}

/// A worker, as its scheduler knows it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerIdentity {
    /// Its name; a number is written out.
    pub name: String,
    /// Its host.
    pub host: String,
    /// How many tasks it runs at once.
    pub nthreads: u64,
    /// In bytes; 0: none.
    pub memory_limit: u64,
    /// Resources and how much of each.
    pub resources: BTreeMap<String, f64>,
    /// Memory that its process takes, in bytes, as it said last.
    pub memory: u64,
    /// Results that it holds, in bytes, those on its disk included, as it said last.
    pub managed: u64,
    /// How many tasks it was running, as it said last.
    pub executing: u64,
    /// How many tasks ran beside its threads, having seceded, as it said last.
    pub seceded: u64,
    /// When it said so, in seconds by the scheduler's clock.
    pub last_seen: f64,
    /// `running`, `paused`, `closing_gracefully`; empty where the scheduler does not say.
    pub status: String,
}

/// The answer to `versions`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// `3.11.7.final.0`.
    pub python: String,
    /// `2026.8.0`.
    pub dask: String,
    /// `2026.8.0`.
    pub distributed: String,
    /// Every package that it tells of; `None` for one that is not installed.
    pub packages: BTreeMap<String, Option<String>>,
}

impl Identity {
    pub(crate) fn read(body: &Value) -> Result<Self> {
        let field = |name| get(body, name).and_then(written).ok_or_else(|| lacking("identity", name));
        Ok(Self {
            kind: field("type")?,
            id: field("id")?,
            address: get(body, "address").and_then(text).map(str::to_owned),
            services: entries(body, "services", |port| u16::try_from(port.as_u64()?).ok()),
            workers: entries(body, "workers", |worker| Some(WorkerIdentity::read(worker))),
        })
    }
}

impl WorkerIdentity {
    pub(crate) fn read(worker: &Value) -> Self {
        let number = |name| get(worker, name).and_then(Value::as_u64).unwrap_or_default();
        let word = |name| get(worker, name).and_then(written).unwrap_or_default();
        Self {
            name: word("name"),
            host: word("host"),
            nthreads: number("nthreads"),
            memory_limit: number("memory_limit"),
            resources: entries(worker, "resources", Value::as_f64),
            memory: metric(worker, &["memory"]).unwrap_or_default(),
            managed: metric(worker, &["managed_bytes"]).unwrap_or_default(),
            executing: metric(worker, &["task_counts", "executing"]).unwrap_or_default(),
            seceded: metric(worker, &["task_counts", "long-running"]).unwrap_or_default(),
            last_seen: get(worker, "last_seen").and_then(Value::as_f64).unwrap_or_default(),
            status: word("status"),
        }
    }
}

impl Versions {
    pub(crate) fn read(body: &Value) -> Result<Self> {
        let packages = entries(body, "packages", |version| Some(text(version).map(str::to_owned)));
        let version = |name: &'static str| packages.get(name).cloned().flatten().ok_or_else(|| lacking("versions", name));
        Ok(Self { python: version("python")?, dask: version("dask")?, distributed: version("distributed")?, packages })
    }
}

fn metric(worker: &Value, path: &[&str]) -> Option<u64> {
    path.iter().try_fold(get(worker, "metrics")?, |value, name| get(value, name))?.as_u64()
}

/// A map with string keys; entries that do not fit are left out.
fn entries<T>(value: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> BTreeMap<String, T> {
    let entries = get(value, name).and_then(Value::as_map).map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), read(value)?))).collect()
}

fn written(value: &Value) -> Option<String> {
    text(value).map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

fn lacking(op: &str, field: &str) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the answer to `{op}` has no `{field}`"))
}
