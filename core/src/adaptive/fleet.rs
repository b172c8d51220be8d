//! What there is to do it with, and what is known of the platform beforehand.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The workers of a cluster at one moment. Times are on the clock that [`Adaptive::decide`](super::Adaptive::decide) is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Every worker that was asked for and has not ended.
    pub workers: Vec<Worker>,
    /// Tasks that a worker to come can run at once. 0 counts as 1.
    pub slots: u32,
    /// Memory of a worker to come, bytes. 0: no limit.
    pub memory_limit: u64,
    /// None can be asked for now: the last ones failed, and the next try is due later, or never.
    #[serde(default)]
    pub blocked: bool,
    /// How often in a row starting workers has failed; those that failed together count once. 0: the last went well.
    #[serde(default)]
    pub failed: u32,
}

/// One worker, asked for or there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Unique in the life of a [`State`](super::State).
    pub id: u64,
    /// How far it is.
    pub phase: Phase,
    /// When it was asked for. `None`: it was here before us, so nothing is learned from it.
    pub launched: Option<Duration>,
    /// Since when it costs. `None`: not yet.
    pub billed: Option<Duration>,
    /// Tasks it can run at once. 0 counts as 1.
    pub slots: u32,
    /// Tasks assigned to it, counted as [`Group::processing`](super::Group::processing) counts them.
    pub processing: u32,
    /// Bytes of results it holds.
    pub bytes: u64,
    /// Its memory, bytes. 0: no limit.
    pub memory_limit: u64,
    /// It must not be let go of although it looks idle: paused, a long-running task, actors.
    pub pinned: bool,
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Asked for, not connected.
    Starting,
    /// Connected, since then.
    Live(Duration),
    /// On its way out: takes no tasks.
    Draining,
}

impl Worker {
    /// Nothing assigned, and nothing that forbids to let go of it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Live(_)) && self.processing == 0 && !self.pinned
    }
}

/// What a cluster class knows of its platform. All of it is a hint: what is measured counts more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Usual time from the request to a connected worker.
    pub startup: Duration,
    /// The part of it that is paid for. More than `startup` counts as all of it.
    pub billed_startup: Duration,
    /// The least that is paid for a worker, however soon it ends.
    pub minimum_charge: Duration,
    /// Requests the platform takes at once. 0: no limit.
    pub launch_burst: u32,
    /// Requests per second it takes after that. Not above 0: no limit.
    pub launch_rate: f64,
}

impl Backend {
    /// A platform without launch limits and minimum charge, that bills from the request on.
    #[must_use]
    pub fn new(startup: Duration) -> Self {
        Self { startup, billed_startup: startup, minimum_charge: Duration::ZERO, launch_burst: 0, launch_rate: 0.0 }
    }

    /// Whether requests beyond a burst have to wait, and if so how they trickle: (burst, per second).
    pub(super) fn launch_limit(&self) -> Option<(f64, f64)> {
        (self.launch_burst > 0 && self.launch_rate.is_finite() && self.launch_rate > 0.0)
            .then(|| (f64::from(self.launch_burst), self.launch_rate))
    }
}
