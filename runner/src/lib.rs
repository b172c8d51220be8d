//! Run flows of many tasks, each on its own temporary cluster.
//!
//! A *flow* is a program of many tasks: the body of [`TaskRunner::run`]. The runner makes a cluster for it, as configured, hands the body a
//! [`Flow`] to submit tasks with, and ends the cluster when the body returns, whatever happened.
//!
//! ```
//! use remuda::{TaskRunner, local::LocalConfig};
//!
//! #[remuda::task]
//! fn inc(x: i64) -> i64 {
//!     x + 1
//! }
//!
//! #[remuda::task]
//! fn total(parts: Vec<i64>) -> i64 {
//!     parts.iter().sum()
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // `#[remuda::main]` on `main` makes the default, worker processes, possible; threads need no preparation.
//! let runner = TaskRunner::builder().cluster(LocalConfig { processes: false, ..Default::default() }).build()?;
//! let sum = runner
//!     .run(|flow| async move {
//!         let incs = flow.map(inc, 0..100)?;
//!         Ok(flow.submit(total(incs)).await?)
//!     })
//!     .await?;
//! assert_eq!(sum, 5050);
//! # anyhow::Ok(())
//! # })
//! # }
//! ```
//!
//! - Tasks: Rust functions under [`task`], Python functions ([`python`]), programs ([`command`]), closures ([`Flow::spawn`]).
//! - A [`TaskFuture`] is awaited, or given to other calls as an argument; then data goes from task to task, and the engine orders them.
//! - [`Annotate`] says how tasks are run: priority, retries, resources, workers, time.

mod annotate;
mod arg;
mod builder;
mod call;
pub mod config;
mod connect;
mod context;
mod dynamic;
mod entry;
mod existing;
mod fields;
mod flow;
pub mod flowfile;
mod future;
mod gather;
mod interrupts;
mod map;
mod report;
mod run;
mod runner;
mod wait;

pub use annotate::Annotate;
pub use arg::{AllowFailure, Arg, allow_failure};
pub use builder::Builder;
pub use call::Call;
pub use context::TaskContext;
pub use dynamic::{CommandCall, PythonCall, Tree, command, python};
pub use entry::{MainResult, exit_code, init, leave};
pub use fields::Inputs;
pub use flow::{Flow, Waited};
pub use future::{TaskFailed, TaskFuture};
pub use interrupts::Interrupts;
pub use map::{Cells, Column, MapInputs, Unmapped, unmapped};
pub use remuda_core::{
    adaptive,
    class::{ClassRef, ClusterClass, ClusterConfig},
    cluster::{AdaptStatus, Cluster, ClusterOptions, ClusterStatus, Limits, join_all, join_at_exit},
    engine::{Form, Shown},
    error::{Error, ErrorKind, Result},
    kwargs::{Kwargs, did_you_mean},
    ledger, manager, security,
    task::{Crash, Failure, Key, TaskError, TaskEvent, TaskState},
    value::Value,
};
pub use remuda_macros::{Inputs, main, task, test};
pub use remuda_registry::Registry;
pub use report::{Counts, RunReport};
pub use run::Held;
pub use runner::{Finished, RunError, Scope, TaskRunner};
pub use wait::AsCompleted;

/// Talking to Dask schedulers: calls, certificates, the shim's text.
pub mod dask {
    pub use remuda_dask::{
        Address, ConnectOptions, Identity, LogLine, Rpc, Scheme, TaskState, Versions, WorkerIdentity, protocol, security::SecurityConfig,
        shim,
    };
}

/// The cluster classes of this machine.
#[cfg(feature = "local")]
pub mod local {
    pub use remuda_local::{DaskCluster, DaskConfig, LocalCluster, LocalConfig, LogLevel, MemoryLimit};
}

/// What the macros write refers to this. Not for use by hand.
#[doc(hidden)]
pub mod __private;
