//! The kwargs of `local::LocalCluster`: Dask's names and defaults, where they mean something here.

use std::{collections::BTreeMap, time::Duration};

use remuda_core::{
    class::ClusterConfig,
    error::{Error, Mistake, Result},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    engine::Options,
    kwargs::Workers,
    machine,
    manager::LocalCluster,
    scheduler::Limits,
    units::{self, MemoryLimit},
};

/// Workers on this machine, with Dask's names and defaults.
///
/// ```
/// use remuda_local::LocalConfig;
/// let config = LocalConfig { n_workers: Some(2), processes: false, ..LocalConfig::default() };
/// assert_eq!(config.threads_per_worker, None);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = crate::refused::refused()))]
pub struct LocalConfig {
    /// Workers at the start. Default: with processes as many as Dask's rule gives for this machine's processors, else 1. 0 is allowed.
    pub n_workers: Option<u32>,
    /// Tasks that one worker runs at once. Default: the processors divided among the workers.
    #[schemars(range(min = 1))]
    pub threads_per_worker: Option<u32>,
    /// Whether tasks run in processes of their own (this program started again) or in threads of this one.
    pub processes: bool,
    /// Memory of one worker: "auto" (its share of the machine), null or 0 for no limit, a fraction of the machine's memory up to 1,
    /// bytes, or a text like "4GiB". Held to with `processes: true` only: a worker's process that takes more is killed.
    pub memory_limit: MemoryLimit,
    /// What each worker offers beside its slots, for tasks that ask for it: {"GPU": 1}.
    pub resources: BTreeMap<String, f64>,
    /// The cluster's name, for messages.
    pub name: Option<String>,
    /// Environment variables for the workers' processes.
    pub env: BTreeMap<String, String>,
    /// The interpreter for Python tasks. Default: what REMUDA_PYTHON says, else `python3` on PATH.
    pub python: Option<String>,
    /// How many workers a task may lose before it is given up.
    pub allowed_failures: u32,
    /// How long a task waits for a worker that could run it when there is none: seconds, or a text like "5m". What none will ever be or
    /// offer is not waited for.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub no_workers_timeout: Duration,
}

impl Default for LocalConfig {
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
            allowed_failures: 3,
            no_workers_timeout: Duration::from_secs(60),
        }
    }
}

impl ClusterConfig for LocalConfig {
    type Class = LocalCluster;
}

/// A body in a process that does not end when it is told to is killed after this.
const GRACE: Duration = Duration::from_secs(1);

impl LocalConfig {
    /// Fills in what was left out, and says everything that is wrong.
    pub(crate) fn resolve(&self) -> Result<Options> {
        let (n_workers, threads_per_worker) = (self.n_workers, self.threads_per_worker);
        let mut mistakes = Workers { n_workers, threads_per_worker, resources: &self.resources, env: &self.env }.check();
        let (n_workers, slots) = machine::split(self.n_workers, self.threads_per_worker, self.processes, machine::cpu_count());
        let memory = machine::memory();
        let limit = self.memory_limit.bytes(n_workers, memory);
        match limit {
            Err(text) => {
                mistakes.push(Mistake::new("memory_limit", text));
                Err(Error::invalid(mistakes))
            }
            Ok(_) if !mistakes.is_empty() => Err(Error::invalid(mistakes)),
            Ok(limit) => {
                if limit.is_some_and(|limit| limit > memory) {
                    tracing::warn!(
                        memory_limit = limit,
                        machine = memory,
                        "memory_limit is more than this machine has; its memory is taken instead"
                    );
                }
                Ok(Options {
                    limits: Limits { allowed_failures: self.allowed_failures, no_workers_timeout: self.no_workers_timeout },
                    n_workers,
                    slots,
                    processes: self.processes,
                    resources: self.resources.clone(),
                    memory_limit: limit.map(|limit| limit.min(memory)),
                    env: self.env.clone(),
                    python: self.python.clone(),
                    grace: GRACE,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_core::kwargs::Kwargs;
    use serde_json::json;

    use super::*;

    fn parse(value: serde_json::Value) -> Result<LocalConfig> {
        let kwargs: Kwargs = serde_json::from_value(value).unwrap();
        kwargs.parse()
    }

    fn mistakes(value: serde_json::Value) -> Vec<String> {
        let error = parse(value).and_then(|config| config.resolve().map(drop)).unwrap_err();
        error.mistakes().iter().map(|m| m.path.clone()).collect()
    }

    #[test]
    fn nothing_given_is_dasks_defaults() {
        let config = parse(json!({})).unwrap();
        assert_eq!(config, LocalConfig::default());
        assert!(config.processes);
        let options = config.resolve().unwrap();
        assert_eq!((options.n_workers, options.slots), machine::processes_and_threads(machine::cpu_count()));
        assert!(options.memory_limit.is_some());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let found = mistakes(
            json!({"n_workers": -1, "n_worker": 2, "processes": "yes", "scheduler_port": 0, "memory_limit": "lots", "threads_per_worker": 0}),
        );
        for key in ["n_workers", "n_worker", "processes", "scheduler_port", "memory_limit", "threads_per_worker"] {
            assert!(found.iter().any(|path| path == key), "{key} is missing in {found:?}");
        }
        assert_eq!(
            mistakes(json!({"resources": {"GPU": 0, "CPU": -1}, "env": {"A=B": "1"}})),
            ["resources.CPU", "resources.GPU", "env.A=B"]
        );
    }

    #[test]
    fn what_does_not_fit_says_what_to_use() {
        let error = parse(json!({"dashboard_address": ":8787", "worker_class": "x"})).unwrap_err();
        assert_eq!(error.mistakes().len(), 2, "{error:?}");
        assert!(error.mistakes()[0].problem.len() > 20, "{error:?}");
    }

    #[test]
    fn memory_limits_as_dask_reads_them() {
        let bytes = |value: serde_json::Value| {
            parse(json!({"n_workers": 2, "memory_limit": value})).and_then(|config| Ok(config.resolve()?.memory_limit))
        };
        let all = machine::memory();
        assert_eq!(bytes(json!("auto")).unwrap(), Some(all / 2));
        assert_eq!(bytes(json!(null)).unwrap(), None);
        assert_eq!(bytes(json!(0)).unwrap(), None);
        assert_eq!(bytes(json!("0")).unwrap(), None);
        assert_eq!(bytes(json!(1)).unwrap(), Some(all));
        assert_eq!(bytes(json!("0.5")).unwrap(), Some(all / 2));
        assert_eq!(bytes(json!("256MiB")).unwrap(), Some(256 << 20));
        assert_eq!(bytes(json!("256 MB")).unwrap(), Some(256_000_000));
        assert_eq!(bytes(json!(1u64 << 28)).unwrap(), Some(1 << 28));
        assert_eq!(bytes(json!("1000 TiB")).unwrap(), Some(all));
        for wrong in [json!("500"), json!("lots"), json!(-1), json!("3 parsecs"), json!(500), json!(true)] {
            assert!(bytes(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(bytes(json!("500")).unwrap_err().to_string().contains("500"));
    }

    #[test]
    fn durations_are_seconds_or_text() {
        let timeout = |value: serde_json::Value| parse(json!({"no_workers_timeout": value})).map(|config| config.no_workers_timeout);
        assert_eq!(timeout(json!("5s")).unwrap(), Duration::from_secs(5));
        assert_eq!(timeout(json!(1.5)).unwrap(), Duration::from_millis(1500));
        assert_eq!(timeout(json!("5 minutes")).unwrap(), Duration::from_secs(300));
        assert!(timeout(json!(-1)).is_err());
        assert!(timeout(json!("soon")).is_err());
    }
}
