//! The vocabulary of Remuda: what the other crates say to each other. It names no platform and no protocol.
//!
//! # Who is who
//! - A **cluster class** is a recipe for clusters, named `crate::Type`, with typed kwargs: [`class`], [`kwargs`].
//! - A **cluster manager** makes and ends one cluster on its platform: the trait [`manager::ClusterManager`].
//! - The **keeper** owns a cluster inside this process: it launches, replaces, drains, stops and closes: [`keeper`].
//! - [`cluster::Cluster`] is the user's handle on a keeper.
//! - The **ledger** is what a driver wrote down before it created it: [`ledger`].
//! - An **engine** is our side of a running scheduler, a **session** one run's part of it: [`engine`].
//! - A **task** is one call: [`task`]; what it takes and returns is a [`value::Value`]. The **task host** executes tasks in a process
//!   of its own: [`host`].
//! - Every failure of all of these is an [`error::Error`].
//!
//! # To write a cluster class
//! Implement [`manager::ClusterManager`] (`start`, `launch`, `stop`, `list`, `close`: single steps, the keeper does the rest), a
//! struct of kwargs with serde and schemars, and tie them together with [`class::ClusterClass`] and [`class::ClusterConfig`]:
//!
//! ```
//! use async_trait::async_trait;
//! use remuda_core::{
//!     class::{ClassRef, ClusterClass, ClusterConfig},
//!     error::{Error, ErrorKind, Result},
//!     kwargs::Kwargs,
//!     manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, WorkerInfo},
//! };
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// Clusters on the machines of the barn.
//! #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
//! #[serde(default)]
//! pub struct BarnConfig {
//!     /// How many workers.
//!     #[schemars(range(min = 1))]
//!     pub n_workers: Option<u32>,
//! }
//!
//! #[derive(Debug)]
//! pub struct BarnCluster(BarnConfig);
//!
//! impl ClusterConfig for BarnConfig {
//!     type Class = BarnCluster;
//! }
//!
//! impl ClusterClass for BarnCluster {
//!     const PATH: &'static str = "barn::BarnCluster";
//!     type Config = BarnConfig;
//!     fn from_config(config: BarnConfig) -> Result<Self> {
//!         Ok(Self(config))
//!     }
//! }
//!
//! #[async_trait]
//! impl ClusterManager for BarnCluster {
//!     fn info(&self) -> ClusterInfo {
//!         ClusterInfo { workers: self.0.n_workers.unwrap_or(1), ..ClusterInfo::new(Self::PATH) }
//!     }
//!     async fn start(&self, _cx: &Context) -> Result<Endpoint> {
//!         Err(Error::new(ErrorKind::Unavailable, "the barn is locked"))
//!     }
//!     async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
//!         Ok(vec![])
//!     }
//!     async fn close(&self, _cx: &Context) -> Result<CloseReport> {
//!         Ok(CloseReport::default())
//!     }
//! }
//!
//! let ClassRef::Entry(class) = ClassRef::of::<BarnCluster>() else { unreachable!() };
//! assert!(class.prepare(Kwargs::from([("n_workers", 4)])).is_ok());
//! assert!(class.prepare(Kwargs::from([("n_workers", 0)])).is_err());
//! ```

pub mod adaptive;
pub mod class;
pub mod cluster;
pub mod duration;
pub mod engine;
pub mod error;
pub mod host;
pub mod keeper;
pub mod kwargs;
pub mod ledger;
pub mod manager;
pub mod security;
pub mod task;
pub mod value;
