//! The kwargs of `local::DaskCluster`: those of Dask's `LocalCluster`, and ours.

use std::{collections::BTreeMap, time::Duration};

use remuda_core::{
    class::ClusterConfig,
    error::{Error, Mistake, Result},
};
use remuda_dask::security::{Material, SecurityConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DaskCluster, installation, level::LogLevel, refused};
use crate::{
    kwargs::Workers,
    machine,
    units::{self, MemoryLimit},
};

/// Dask's scheduler and workers as processes of this machine, with the names and defaults of Dask's own `LocalCluster`.
///
/// ```
/// use remuda_local::DaskConfig;
/// let config = DaskConfig { n_workers: Some(2), worker_saturation: Some(f64::INFINITY), ..DaskConfig::default() };
/// assert_eq!(config.python, None);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = refused::refused()))]
pub struct DaskConfig {
    /// Workers at the start. Default: as many as Dask's rule gives for this machine's processors. 0 is allowed.
    pub n_workers: Option<u32>,
    /// Tasks that one worker runs at once. Default: the processors divided among the workers.
    #[schemars(range(min = 1))]
    pub threads_per_worker: Option<u32>,
    /// Always true: workers are processes. For threads of this program: `local::LocalCluster`.
    pub processes: bool,
    /// Memory of one worker with all it has started: "auto" (its share of the machine), null or 0 for no limit, a fraction of the machine's
    /// memory up to 1, bytes, or a text like "4GiB". Dask spills and pauses before; a worker that takes more is killed and replaced.
    pub memory_limit: MemoryLimit,
    /// What each worker offers beside its threads, for tasks that ask for it: {"GPU": 1}.
    pub resources: BTreeMap<String, f64>,
    /// The cluster's name, for messages.
    pub name: Option<String>,
    /// Environment variables for scheduler and workers.
    pub env: BTreeMap<String, String>,
    /// The interpreter, or the directory of its venv, that has `distributed`. Default: VIRTUAL_ENV, else that of `dask` on PATH, else
    /// `python3`.
    pub python: Option<String>,
    /// The program that runs Rust tasks, on the workers. Default: this one.
    pub task_host: Option<String>,
    /// Where scheduler and workers listen. Default: 127.0.0.1.
    pub host: Option<String>,
    /// The network interface to listen on, instead of `host`.
    pub interface: Option<String>,
    /// The scheduler's port. 0: any that is free.
    pub scheduler_port: u16,
    /// Where the dashboard listens: ":8787", "localhost:0"; null: no dashboard. Default: any free port of `host`.
    pub dashboard_address: Option<String>,
    /// Where each worker's own pages are served. Default: they are not.
    pub worker_dashboard_address: Option<String>,
    /// "tcp" or "tls". Default: what `tls` says.
    pub protocol: Option<String>,
    /// Whether the parties prove who they are, and nobody else can listen: with certificates made for this cluster.
    pub tls: bool,
    /// true: as `tls`. Or certificates of yours, the same for scheduler, workers and driver: {tls_ca_file, tls_cert, tls_key}, each a path
    /// or PEM text.
    pub security: Option<DaskSecurity>,
    /// `package.module.Class`, a subclass of Dask's `Worker`. Names of the nanny are taken for the plain worker: a lost worker is
    /// replaced in any case.
    pub worker_class: Option<String>,
    /// Where workers spill results to. Default: a temporary directory, which is removed.
    pub local_directory: Option<String>,
    /// Modules or files that each worker runs at its start.
    pub preload: Vec<String>,
    /// Operations that the scheduler refuses.
    pub blocked_handlers: Vec<String>,
    /// The least that Dask's processes write to their logs: "warning", 30; null or false: what Dask's configuration says.
    pub silence_logs: LogLevel,
    /// How many workers a task may lose before it is given up.
    pub allowed_failures: u32,
    /// How many tasks more than its threads a worker is given, as a factor; "inf": all at once, which is faster for many small tasks.
    /// Default: Dask's, 1.1.
    #[serde(with = "saturation")]
    #[schemars(with = "saturation::Text")]
    pub worker_saturation: Option<f64>,
    /// A worker ends when it has not seen the scheduler for so long: seconds, or a text like "1m".
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub death_timeout: Duration,
    /// The scheduler ends itself when it has not heard of this program for so long: seconds, or a text like "5m"; at least 1 s. Default: never;
    /// it ends with this program in any case, also when that is killed.
    #[serde(with = "optional")]
    #[schemars(with = "optional::Text")]
    pub lease: Option<Duration>,
}

/// `security` of a cluster of this machine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DaskSecurity {
    /// Whether there is any: with certificates that are made for the cluster.
    Made(bool),
    /// With these certificates.
    Given(SecurityConfig),
}

impl Default for DaskConfig {
    fn default() -> Self {
        Self {
            n_workers: None,
            threads_per_worker: None,
            processes: true,
            memory_limit: MemoryLimit::Auto,
            resources: BTreeMap::new(),
            name: None,
            env: BTreeMap::new(),
            python: None,
            task_host: None,
            host: None,
            interface: None,
            scheduler_port: 0,
            dashboard_address: Some(":0".to_owned()),
            worker_dashboard_address: None,
            protocol: None,
            tls: false,
            security: None,
            worker_class: None,
            local_directory: None,
            preload: Vec::new(),
            blocked_handlers: Vec::new(),
            silence_logs: LogLevel::default(),
            allowed_failures: 3,
            worker_saturation: None,
            death_timeout: Duration::from_secs(60),
            lease: None,
        }
    }
}

impl ClusterConfig for DaskConfig {
    type Class = DaskCluster;
}

/// What is left to know once the kwargs are in order.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) config: DaskConfig,
    pub(crate) n_workers: u32,
    pub(crate) nthreads: u32,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) tls: bool,
    /// The user's own; else some are made.
    pub(crate) material: Option<Material>,
    /// `None` where an interface was given.
    pub(crate) host: Option<String>,
}

impl DaskConfig {
    /// Fills in what was left out, and says everything that is wrong.
    pub(crate) fn resolve(self) -> Result<Plan> {
        let mut wrong = Vec::new();
        self.check_numbers(&mut wrong);
        self.check_texts(&mut wrong);
        let tls = self.check_connections(&mut wrong);
        let given = match &self.security {
            Some(DaskSecurity::Given(given)) => Some(given.resolve()),
            _ => None,
        };
        let given = given.transpose().unwrap_or_else(|error| {
            wrong.extend(error.under("security").mistakes().iter().cloned());
            None
        });
        let (n_workers, nthreads) = machine::split(self.n_workers, self.threads_per_worker, true, machine::cpu_count());
        let memory = machine::memory();
        let limit = self.memory_limit.bytes(n_workers, memory).unwrap_or_else(|text| {
            wrong.push(Mistake::new("memory_limit", text));
            None
        });
        if !wrong.is_empty() {
            return Err(Error::invalid(wrong));
        }
        let host = match (&self.host, &self.interface) {
            (None, Some(_)) => None,
            (host, _) => Some(host.clone().unwrap_or_else(|| LOOPBACK.to_owned())),
        };
        Ok(Plan {
            memory_limit: limit.map(|limit| limit.min(memory)),
            n_workers,
            nthreads,
            tls,
            material: given.map(Material::shared),
            host,
            config: self,
        })
    }

    fn check_numbers(&self, wrong: &mut Vec<Mistake>) {
        let (n_workers, threads_per_worker) = (self.n_workers, self.threads_per_worker);
        wrong.extend(Workers { n_workers, threads_per_worker, resources: &self.resources, env: &self.env }.check());
        for name in self.resources.keys() {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '=')) {
                let text = "the name of a resource goes to Dask's command line, where blanks, `,` and `=` stand between the resources";
                wrong.push(Mistake::new(format!("resources.{name}"), text));
            }
        }
        if self.worker_saturation.is_some_and(|value| value.is_nan() || value <= 0.0) {
            wrong.push(Mistake::new("worker_saturation", "expected a number above 0, or \"inf\""));
        }
        if self.death_timeout < Duration::from_secs(1) {
            wrong.push(Mistake::new("death_timeout", format!("expected at least 1s, found {:?}", self.death_timeout)));
        }
        if let Some(lease) = self.lease.filter(|lease| *lease < Duration::from_secs(1)) {
            wrong.push(Mistake::new("lease", format!("expected at least 1s, found {lease:?}")));
        }
    }

    fn check_texts(&self, wrong: &mut Vec<Mistake>) {
        let given = [
            ("python", &self.python),
            ("task_host", &self.task_host),
            ("host", &self.host),
            ("interface", &self.interface),
            ("dashboard_address", &self.dashboard_address),
            ("worker_dashboard_address", &self.worker_dashboard_address),
            ("worker_class", &self.worker_class),
            ("local_directory", &self.local_directory),
        ];
        let listed = self.preload.iter().map(|text| ("preload", text));
        let listed = listed.chain(self.blocked_handlers.iter().map(|text| ("blocked_handlers", text)));
        for (name, text) in given.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))).chain(listed) {
            if text.trim().is_empty() || text.contains('\0') || text.starts_with('-') {
                wrong.push(Mistake { value: Some(text.clone().into()), ..Mistake::new(name, "this cannot be one") });
            }
        }
        // An empty one is told above.
        wrong.extend(self.python.as_deref().filter(|named| !named.trim().is_empty()).and_then(installation::check));
        if !self.processes {
            let text = "the workers of a Dask cluster are processes; for threads of this program use `local::LocalCluster`";
            wrong.push(Mistake::new("processes", text));
        }
    }

    /// Whether TLS is on.
    fn check_connections(&self, wrong: &mut Vec<Mistake>) -> bool {
        let protocol = self.protocol.as_deref().map(|text| text.trim_end_matches("://"));
        if let Some(other) = protocol.filter(|name| !matches!(*name, "tcp" | "tls")) {
            wrong.push(Mistake::new("protocol", format!("expected \"tcp\" or \"tls\", found \"{other}\"")));
        }
        let refused = self.security == Some(DaskSecurity::Made(false));
        let asked = self.tls || self.security.is_some() && !refused;
        if self.tls && refused {
            wrong.push(Mistake::new("security", "false, while `tls` is true: they mean the same; keep one"));
        }
        if asked && protocol == Some("tcp") {
            wrong.push(Mistake::new("protocol", "\"tcp\" has no TLS, which `tls` or `security` asks for; leave it out"));
        }
        if refused && protocol == Some("tls") {
            wrong.push(Mistake::new("protocol", "\"tls\", while `security` is false; leave one of them out"));
        }
        if self.host.is_some() && self.interface.is_some() {
            wrong.push(Mistake::new("interface", "`host` says already where to listen; keep one of them"));
        }
        if let Some(host) = self.host.as_ref().filter(|host| host.contains("://")) {
            let mistake =
                Mistake { value: Some(host.clone().into()), ..Mistake::new("host", "expected a name or number without protocol") };
            wrong.push(mistake.with_hint("the protocol is `protocol`, the port `scheduler_port`"));
        }
        asked || protocol == Some("tls")
    }
}

impl Plan {
    /// A listening address of which only the port was given gets our host: nothing is opened to the network by accident.
    pub(crate) fn here(&self, address: &str) -> String {
        match (address.strip_prefix(':'), &self.host) {
            (Some(port), Some(host)) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
            (Some(port), Some(host)) => format!("{host}:{port}"),
            _ => address.to_owned(),
        }
    }

    pub(crate) fn protocol(&self) -> &'static str {
        if self.tls { "tls" } else { "tcp" }
    }

    /// What every process runs first: files that are in the cluster's directory.
    pub(crate) fn preload(&self, directory: &str) -> Vec<String> {
        [GUARD_FILE, SHIM_FILE].map(|file| format!("{directory}/{file}")).to_vec()
    }

    /// Names of the nanny mean the plain worker.
    pub(crate) fn worker_class(&self) -> Option<String> {
        let class = self.config.worker_class.as_deref()?;
        let plain = matches!(class.rsplit('.').next(), Some("Nanny" | "Worker"))
            && (!class.contains('.') || class.starts_with("distributed.") || class.starts_with("dask.distributed."));
        (!plain).then(|| class.to_owned())
    }
}

const LOOPBACK: &str = "127.0.0.1";

/// The names of modules in the cluster's directory.
pub(crate) const GUARD_FILE: &str = "remuda_guard.py";
pub(crate) const SHIM_FILE: &str = "remuda_shim.py";

/// A number or "inf": JSON has no infinity.
mod saturation {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::super::level::json_text;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(f64),
        Text(String),
        Nothing(()),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        let wrong = || D::Error::custom("expected a number above 0, or \"inf\"");
        match Given::deserialize(deserializer).map_err(|_| wrong())? {
            Given::Number(number) => Ok(Some(number)),
            Given::Text(text) => text.trim().trim_start_matches('.').parse().map(Some).map_err(|_| wrong()),
            Given::Nothing(()) => Ok(None),
        }
    }

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) if value.is_infinite() => serializer.serialize_str("inf"),
            Some(value) => serializer.serialize_f64(*value),
            None => serializer.serialize_unit(),
        }
    }

    json_text!(Text, "Saturation", ["string", "number", "null"], [1.1, "inf"]);
}

/// A duration or nothing.
mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{super::level::json_text, units};

    #[derive(Deserialize)]
    struct Given(#[serde(with = "units::duration")] Duration);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Given>::deserialize(deserializer)?.map(|given| given.0))
    }

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => units::duration::serialize(value, serializer),
            None => serializer.serialize_unit(),
        }
    }

    json_text!(Text, "OptionalDuration", ["string", "number", "null"], ["5m", 30]);
}

#[cfg(test)]
mod tests;
