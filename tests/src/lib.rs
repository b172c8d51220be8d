//! Tests that more than one crate needs.
//!
//! - [`behaviour`]: the suite that every cluster class passes. A class describes itself as a [`behaviour::Subject`] and calls
//!   [`behaviour::run`]; what it says it cannot do is reported by name, not left out in silence.
//! - [`fake`]: a platform and an engine in memory, with faults for every call.
//! - [`dask`]: a real scheduler and workers, as processes of the test.
//! - [`run`], [`bodies`], [`gate`]: one run's side of a session, task bodies that exist in threads and in processes, and the gate at
//!   which they wait, so that a test awaits an event where it would otherwise sleep.
//!
//! The library depends on the core only; what spans crates stands in the integration tests of this package.

pub mod behaviour;
pub mod bodies;
pub mod census;
pub mod dask;
pub mod fake;
pub mod gate;
pub mod run;
