//! One decision with what it was made from: a log of them can be replayed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Decision, Fleet, Load};

/// A decision, and its input apart from the [`State`](super::State), which follows from those before. The keeper logs each as JSON
/// (target `remuda::adaptive`, level debug, field `tick`); the first line of a log has the configuration, the backend and the first
/// state (field `begin`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The time [`decide`](super::Adaptive::decide) was given.
    pub now: Duration,
    /// The work.
    pub load: Load,
    /// The workers.
    pub fleet: Fleet,
    /// What was decided.
    pub decision: Decision,
}
