//! Parameters of Dask's `LocalCluster` that mean nothing here, each with the reason and what to use instead.

use serde_json::{Map, Value};

const TABLE: &[(&[&str], &str)] = &[
    (&["ip"], "Dask itself replaced it: use `host`"),
    (&["asynchronous", "loop"], "clusters run on a runtime of Remuda's own; use the cluster from any thread or runtime as it is"),
    (&["start"], "a cluster starts when its runner does"),
    (&["services", "worker_services", "service_kwargs"], "use `dashboard_address`, or `preload` for what a worker shall serve besides"),
    (
        &["scheduler_kwargs", "scheduler_sync_interval"],
        "the scheduler is a process of its own; what it takes are `host`, `scheduler_port`, `dashboard_address`, `blocked_handlers`, \
         `allowed_failures`, `worker_saturation`, and DASK_.. variables in `env`",
    ),
    (&["worker_kwargs"], "give each of them as a kwarg of its own: `resources`, `env`, `memory_limit`"),
    (&["nthreads", "ncores"], "use `threads_per_worker`"),
    (&["dashboard"], "use `dashboard_address`; null means none"),
    (&["quiet"], "use `silence_logs`"),
    (&["local_dir"], "use `local_directory`"),
    (
        &["nanny", "preload_nanny", "preload_nanny_argv", "reconnect"],
        "there is no nanny: lost workers are replaced by the cluster's keeper; `allowed_failures` says how many a task may lose",
    ),
    (&["preload_argv"], "modules are run without arguments; pass what they need in `env`"),
    (
        &["lifetime", "lifetime_stagger", "lifetime_restart"],
        "workers live as long as their cluster, and lost ones are replaced; scale the cluster instead",
    ),
    (&["contact_address", "port", "worker_port"], "ports of workers are chosen by the system; `host` or `interface` say where"),
    (&["http_prefix", "dashboard_prefix"], "set DASK_DISTRIBUTED__DASHBOARD__.. variables in `env`"),
    (
        &["heartbeat_interval", "profile_cycle_interval", "validate", "config"],
        "set DASK_DISTRIBUTED__.. variables in `env`: they are Dask's configuration",
    ),
    (
        &["executor", "data", "extensions", "metrics", "startup_information", "plugins"],
        "objects of Python cannot be given here; use `preload`",
    ),
    (
        &["memory_target_fraction", "memory_spill_fraction", "memory_pause_fraction", "memory_terminate_fraction"],
        "set DASK_DISTRIBUTED__WORKER__MEMORY__TARGET, __SPILL or __PAUSE in `env`; over `memory_limit` a worker is killed",
    ),
];

pub(super) fn refused() -> Value {
    let pairs = TABLE.iter().flat_map(|(names, why)| names.iter().map(|name| ((*name).to_owned(), Value::from(*why))));
    Value::Object(pairs.collect::<Map<_, _>>())
}
