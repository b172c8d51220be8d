//! What the handle sees.

use std::{sync::Arc, time::Duration};

use crate::{
    adaptive::{AdaptConfig, Decision, Usage},
    engine::Engine,
    error::{Error, Result},
    ledger::Ledger,
    manager::{CloseReport, ClusterInfo, Endpoint, WorkerId},
};

/// How a cluster is at one moment. Waiting, launching and being replaced all count as starting.
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub struct ClusterStatus {
    /// The cluster's name; empty until its manager is made.
    pub name: Arc<str>,
    /// How many workers there should be.
    pub wanted: u32,
    /// Wanted, and not at the scheduler yet, or again.
    pub starting: u32,
    /// Taking tasks.
    pub running: u32,
    /// On their way out.
    pub draining: u32,
    /// How many tasks those that run can run at once.
    pub slots: u32,
    /// A page for people about the scheduler, where it has one.
    pub dashboard: Option<Arc<str>>,
    /// Each worker, by index.
    pub workers: Vec<WorkerSnapshot>,
    /// Adaptive scaling. `None`: somebody said a number. Stays after the close, for the report.
    pub adapt: Option<AdaptStatus>,
    /// Adaptive scaling as it was when somebody said a number, for the report: what it has used.
    pub adapt_ended: Option<AdaptStatus>,
    /// Why the cluster is of no use any more. The first reason stays.
    pub failure: Option<Error>,
    /// The last trouble with a worker, for messages about those that do not come.
    pub trouble: Option<String>,
    /// What a finished close said.
    pub closed: Option<Result<CloseReport>>,
    /// The last command that is in these figures.
    pub(crate) heard: u64,
    pub(crate) info: Option<ClusterInfo>,
    pub(crate) engine: Option<Arc<dyn Engine>>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) ledger: Option<Ledger>,
}

/// Adaptive scaling at one moment. The counts do not overlap, and without draining and stopping ones they make up `desired`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptStatus {
    /// What was asked for.
    pub config: AdaptConfig,
    /// The platform scales by itself within the bounds: there are no decisions.
    pub native: bool,
    /// Workers that should be there or on their way.
    pub desired: u32,
    /// Asked for, not at the scheduler yet.
    pub starting: u32,
    /// Taking tasks.
    pub running: u32,
    /// Finishing what they run, then going.
    pub draining: u32,
    /// The last decision, with its reason.
    pub decision: Option<Decision>,
    /// What was used until then, as far as the cluster was adaptive.
    pub usage: Usage,
    /// How long a start takes, as learned.
    pub startup: Option<Duration>,
    /// Why the last look at the load failed; the number of workers stays as it is meanwhile.
    pub trouble: Option<String>,
}

/// One worker at one moment.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// `None`: the platform made it by itself.
    pub id: Option<WorkerId>,
    /// Its name at the scheduler, once it joined.
    pub name: Option<String>,
    /// How far it is.
    pub stage: WorkerStage,
    /// How many tasks it runs at once; 0 until it joined.
    pub slots: u32,
}

/// How far a worker is.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStage {
    /// To be launched after a delay.
    Waiting,
    /// Asked for, not at the scheduler yet.
    Starting,
    /// Takes tasks.
    Running,
    /// Finishes what it runs.
    Draining,
    /// The platform ends it.
    Stopping,
}

impl WorkerStage {
    /// `waiting`, `starting`, `running`, `draining` or `stopping`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}
