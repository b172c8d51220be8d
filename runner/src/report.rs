//! What a run did, beside its result.

use std::time::Duration;

use remuda_core::{
    error::Result,
    manager::CloseReport,
    task::{TaskEvent, TaskState},
};

/// How many tasks are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Returned.
    pub done: u64,
    /// Failed by themselves.
    pub failed: u64,
    /// Lost with their workers.
    pub crashed: u64,
    /// Cancelled, by the user or because the run ended.
    pub cancelled: u64,
    /// Not run, because a task they need has no result.
    pub upstream_failed: u64,
    /// Could not be run at all.
    pub refused: u64,
    /// Attempts after the first.
    pub retried: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, event: &TaskEvent) {
        match &event.state {
            TaskState::Pending { .. } => {}
            TaskState::Running { attempt, .. } => self.retried += u64::from(*attempt > 0),
            state => match state.name() {
                "done" => self.done += 1,
                "failed" => self.failed += 1,
                "crashed" => self.crashed += 1,
                "cancelled" => self.cancelled += 1,
                "upstream_failed" => self.upstream_failed += 1,
                _ => self.refused += 1,
            },
        }
    }

    /// Tasks that are final.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.done + self.failed + self.crashed + self.cancelled + self.upstream_failed + self.refused
    }
}

/// A run, after its end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunReport {
    /// Tasks by final state.
    pub tasks: Counts,
    /// From the call of `run` to the cluster's end.
    pub elapsed: Duration,
    /// How the session's end went. A failure here never replaces the run's own result.
    pub session: Result<()>,
    /// How the cluster's end went; `None` where it lives on (shared by several runs), and where it did not start: what there was of it
    /// is closed then, without a report.
    pub close: Option<Result<CloseReport>>,
}

impl RunReport {
    /// Everything that teardown could not do, for people. Empty when nothing is left.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = &self.session {
            problems.push(format!("the run's tasks were not released: {error}"));
        }
        match &self.close {
            Some(Err(error)) => problems.push(format!("the cluster was not closed: {error}")),
            Some(Ok(report)) => problems.extend(report.remaining.iter().map(|what| format!("still there: {what}"))),
            None => {}
        }
        problems
    }
}
