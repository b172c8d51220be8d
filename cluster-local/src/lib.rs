//! Clusters on this machine: `local::LocalCluster` with the embedded engine, `local::DaskCluster` with Dask's own scheduler and workers.
//!
//! **[`DaskCluster`]**, with the kwargs [`DaskConfig`]: `dask scheduler` and `dask worker` as child processes, in a Python that has
//! `distributed`. Any client of Dask's may use it beside us. Its working files are in a temporary directory, which goes with it. It keeps
//! workers to `memory_limit`, replaces lost ones, and ends with the driver, however that ends.
//!
//! **[`LocalCluster`]** needs no Python. [`LocalConfig`] are its kwargs. The scheduler is a part of the driver; workers are threads of it
//! (`processes: false`: values are passed on without being copied) or processes, which are the driver's program started again
//! (`processes: true`). Results live in the driver: a worker that dies loses only what it was running.
//!
//! Limits: one machine, nothing is written to disk, nothing outlives the driver.

mod calls;
mod child;
mod config;
mod converter;
mod dask;
mod engine;
mod face;
mod kwargs;
mod launch;
mod machine;
mod mailbox;
mod manager;
mod monitor;
mod nested;
mod outbox;
mod processes;
mod python;
mod refused;
mod runner;
mod scheduler;
mod session;
mod timer;
mod units;
mod workers;

pub use config::LocalConfig;
pub use dask::{DaskCluster, DaskConfig, DaskSecurity, LogLevel};
pub use manager::LocalCluster;
pub use units::MemoryLimit;
