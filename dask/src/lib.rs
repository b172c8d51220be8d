//! Talking to Dask schedulers and workers without Python: the wire protocol, connections, calls.
//!
//! From the bottom up:
//! - [`protocol`]: bytes to messages and back. No I/O; the wire is described there.
//! - [`Comm`]: a `tcp://` or `tls://` connection after its handshake, messages in both directions; or a reader and a writer.
//! - [`Rpc`]: questions and answers, typed where we ask ourselves ([`Rpc::identity`], [`Rpc::retire_workers`]); any other by [`Rpc::call`].
//! - [`shim`]: the Python source that we put into a scheduler and its workers, which submits, watches and fetches for us.
//! - [`DaskConnect`]: all of it as core's engine: workers watched and drained, sessions that survive cut connections, results fetched from the
//!   workers that have them.
//!
//! ```no_run
//! use remuda_dask::{Address, ConnectOptions, Rpc};
//!
//! # async fn ask() -> Result<(), remuda_core::error::Error> {
//! let address: Address = "tcp://10.0.0.7:8786".parse()?;
//! let mut scheduler = Rpc::connect(&address, &ConnectOptions::default()).await?;
//! println!("{} workers", scheduler.identity().await?.workers.len());
//! # Ok(())
//! # }
//! ```
//!
//! What every layer keeps to:
//! - **A pickle is never decoded.** It stays bytes ([`protocol::Part`]), so a peer cannot make us run anything; errors of the peer are told
//!   from the text that comes beside their pickles.
//! - **No length is believed** ([`protocol::Limits`]).
//! - **Nothing is waited for without end**: connection and handshake share one deadline, a call has its own. Only [`Comm::read`] and
//!   [`Comm::write`] wait for as long as the peer is there ([`ConnectOptions::dead_after`]).
//! - **A future that is dropped half-way** leaves no half-understood connection behind: it is refused from then on.
//!
//! Tested with `distributed` 2023.5, 2024.8, 2025.3, 2025.7 and 2026.8.

mod address;
mod comm;
mod control;
mod engine;
mod identity;
pub mod launch;
pub mod protocol;
mod rpc;
pub mod security;
mod session;
pub mod shim;
mod stream;
mod tls;

pub use address::{Address, Scheme};
pub use comm::{Comm, CommReader, CommWriter, ConnectOptions};
pub use control::{Audience, CallBy, LogLine, Retirement, Retiring, TaskState, ToClose};
pub use engine::{DaskConnect, DaskOptions};
pub use identity::{Identity, Versions, WorkerIdentity};
pub use rpc::Rpc;
