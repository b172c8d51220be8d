//! `local::DaskCluster`: Dask's own scheduler and workers, as processes of this machine.
//!
//! - [`config`], [`level`], [`refused`]: the kwargs.
//! - [`installation`]: which Python, and whether it has Dask.
//! - [`process`], [`output`], [`marks`]: one process, what it says, what it leaves behind.
//! - [`scheduler`]: starting it, and its address.
//! - [`manager`], [`memory`]: the cluster, and `memory_limit`.
//!
//! Everything dies with the driver, also when that is killed: each process holds the reading end of a pipe whose other end only the
//! driver has, and `guard.py`, which Dask preloads, ends the process when the pipe does.

mod config;
mod inner;
mod installation;
mod level;
mod manager;
mod marks;
mod memory;
mod output;
mod process;
mod refused;
mod scheduler;
mod starts;

pub use config::{DaskConfig, DaskSecurity};
pub use level::LogLevel;
pub use manager::DaskCluster;
