//! Waiting for the ends of tasks, also of those that nobody reads, without keeping their results.

use std::{
    collections::HashMap,
    future::poll_fn,
    task::{Context, Poll},
};

use remuda_core::task::{Key, TaskError, TaskState};

use super::plain::Plain;
use crate::{AsCompleted, Flow, TaskFailed, TaskFuture};

/// Calls whose ends are waited for. Each future is dropped at its task's end; not before, since that would say that the task is not wanted.
#[derive(Default)]
pub(super) struct Ending {
    /// One for each time that some were added.
    waits: Vec<AsCompleted<Plain>>,
    /// Which call of which task.
    calls: HashMap<Key, (usize, usize)>,
}

/// A call that failed by itself.
pub(super) struct FailedCall {
    pub(super) task: usize,
    pub(super) call: usize,
    pub(super) failed: TaskFailed,
}

impl Ending {
    pub(super) fn add(&mut self, flow: &Flow, calls: impl IntoIterator<Item = ((usize, usize), TaskFuture<Plain>)>) {
        let futures: Vec<_> = calls
            .into_iter()
            .map(|(call, future)| {
                self.calls.insert(future.key(), call);
                future
            })
            .collect();
        if !futures.is_empty() {
            self.waits.push(flow.as_completed(futures));
        }
    }

    /// The next failure; `None` when all have ended. May be dropped at any time.
    pub(super) async fn failure(&mut self) -> Option<FailedCall> {
        loop {
            let future = poll_fn(|cx| self.poll_next(cx)).await?;
            let call = self.calls.remove(&future.key());
            match (future.state(), call) {
                // Whoever failed first is told; what depends on it only repeats that.
                (TaskState::Ended(TaskError::UpstreamFailed { .. }), _) => {}
                (TaskState::Ended(error), Some((task, call))) => {
                    let failed = TaskFailed { key: future.key(), name: future.name().into(), error };
                    return Some(FailedCall { task, call, failed });
                }
                _ => {}
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TaskFuture<Plain>>> {
        let mut at = 0;
        while let Some(wait) = self.waits.get_mut(at) {
            match wait.poll_next(cx) {
                Poll::Ready(Some(future)) => return Poll::Ready(Some(future)),
                Poll::Ready(None) => drop(self.waits.swap_remove(at)),
                Poll::Pending => at += 1,
            }
        }
        if self.waits.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}
