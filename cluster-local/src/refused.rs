//! Parameters of Dask's `LocalCluster` that mean nothing here, each with the reason and what to use instead.

use serde_json::{Map, Value};

const NO_SERVERS: &str =
    "nothing listens on a port here: the scheduler is part of this process and its workers are its threads and children";
const NO_DASHBOARD: &str = "the embedded engine has no web dashboard; follow the run with the progress on stderr or the session's events";
const NO_LOOP: &str = "clusters run on a runtime of Remuda's own; use the cluster from any thread or runtime as it is";
const LOGS: &str = "set the log level with RUST_LOG or your tracing subscriber; what tasks print has the target `remuda::task_output`";
const PRELOAD: &str = "there is no worker start-up hook; do it in the task, or in `main` before `remuda::init()`";
const NO_NANNY: &str = "lost workers are always replaced by the cluster's keeper; `allowed_failures` says how many a task may lose";

const TABLE: &[(&[&str], &str)] = &[
    (&["host", "ip", "port", "scheduler_port", "protocol", "interface", "contact_address", "http_prefix"], NO_SERVERS),
    (&["security"], "nothing leaves this machine or listens on a port, so there is no connection to secure"),
    (&["dashboard_address", "worker_dashboard_address", "dashboard", "dashboard_prefix"], NO_DASHBOARD),
    (&["worker_class"], "workers are threads or processes of this program; choose with `processes`"),
    (&["asynchronous", "loop"], NO_LOOP),
    (&["silence_logs", "quiet"], LOGS),
    (
        &["services", "worker_services", "service_kwargs", "blocked_handlers", "plugins"],
        "there are no scheduler or worker servers that could be extended",
    ),
    (
        &["scheduler_kwargs", "scheduler_sync_interval"],
        "the scheduler is built in; what it takes are `allowed_failures` and `no_workers_timeout`",
    ),
    (&["worker_kwargs"], "give each of them as a kwarg of its own: `resources`, `env`, `memory_limit`"),
    (&["nthreads", "ncores"], "use `threads_per_worker`"),
    (&["start"], "a cluster starts when its runner does"),
    (&["local_directory", "local_dir"], "results stay in the memory of this process and are never spilled to disk"),
    (&["preload", "preload_argv", "preload_nanny", "preload_nanny_argv"], PRELOAD),
    (&["death_timeout", "nanny", "reconnect", "lifetime", "lifetime_stagger", "lifetime_restart", "heartbeat_interval"], NO_NANNY),
    (
        &["executor", "data", "extensions", "metrics", "startup_information", "validate", "profile_cycle_interval", "config"],
        "this is a part of Dask's worker that does not exist here; leave it out",
    ),
    (
        &["memory_target_fraction", "memory_spill_fraction", "memory_pause_fraction", "memory_terminate_fraction"],
        "nothing is spilled or paused: a worker's process over `memory_limit` is killed",
    ),
];

pub(crate) fn refused() -> Value {
    let pairs = TABLE.iter().flat_map(|(names, why)| names.iter().map(|name| ((*name).to_owned(), Value::from(*why))));
    Value::Object(pairs.collect::<Map<_, _>>())
}
