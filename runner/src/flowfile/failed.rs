//! What a flow's failure tells beside the error itself.

use std::fmt;

use super::FlowPlan;
use crate::TaskFailed;

/// Where the failure stands that [`super::FlowPlan::run`] returned, and what else failed. It goes with the error as `anyhow`'s context:
/// `error.downcast_ref::<FlowFailed>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowFailed {
    /// `flow.yaml:3:3: name`, with `[4]` for a call of a mapped task.
    pub place: String,
    /// The other failures, in the order of the file, without what only depends on a failed task.
    pub others: Vec<OtherFailure>,
}

impl fmt::Display for FlowFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// One of several failures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherFailure {
    /// As [`FlowFailed::place`].
    pub place: String,
    /// `failed`, `crashed`, `cancelled`, `refused`.
    pub state: &'static str,
    /// The first line of why.
    pub cause: String,
}

impl fmt::Display for OtherFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, state, cause } = self;
        if cause == state { write!(f, "{place}: {state}") } else { write!(f, "{place}: {state}: {cause}") }
    }
}

/// A failure while the flow runs.
pub(super) struct Failed {
    /// Index of the task.
    pub(super) task: usize,
    pub(super) call: usize,
    pub(super) place: String,
    pub(super) error: anyhow::Error,
}

impl Failed {
    /// Of a call, with its place.
    pub(super) fn of(plan: &FlowPlan, at: usize, call: usize, failed: TaskFailed) -> Self {
        let task = &plan.tasks[at];
        let place = if task.is_mapped() { format!("{}: {}[{call}]", task.place, task.id) } else { format!("{}: {}", task.place, task.id) };
        Self { task: at, call, place, error: failed.into() }
    }

    /// The only one.
    pub(super) fn alone(self) -> anyhow::Error {
        self.error.context(FlowFailed { place: self.place, others: Vec::new() })
    }

    fn other(&self) -> OtherFailure {
        let (state, text) = match self.error.downcast_ref::<TaskFailed>() {
            Some(failed) => (failed.error.state_name(), failed.error.root().to_string()),
            None => ("failed", format!("{:#}", self.error)),
        };
        OtherFailure { place: self.place.clone(), state, cause: text.lines().next().unwrap_or_default().to_owned() }
    }
}

/// The first of them, with the others beside it.
pub(super) fn together(mut failures: Vec<Failed>) -> Option<anyhow::Error> {
    failures.sort_by_key(|failed| (failed.task, failed.call));
    let mut failures = failures.into_iter();
    let first = failures.next()?;
    let others = failures.map(|failed| failed.other()).collect();
    Some(first.error.context(FlowFailed { place: first.place, others }))
}
