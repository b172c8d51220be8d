//! Clusters on this machine: `local::LocalCluster` with the embedded engine.
//!
//! [`LocalConfig`] are its kwargs, [`LocalCluster`] is the class. The scheduler is a part of the driver; workers are threads of it
//! (`processes: false`: values are passed on without being copied) or processes, which are the driver's program started again
//! (`processes: true`). Results live in the driver: a worker that dies loses only what it was running.
//!
//! Limits: one machine, nothing is written to disk, nothing outlives the driver.

mod calls;
mod child;
mod config;
mod converter;
mod engine;
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
pub use manager::LocalCluster;
pub use units::MemoryLimit;
