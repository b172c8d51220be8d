//! The handle on a task's result.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use remuda_core::{
    engine::{Form, Shown},
    error::Error,
    task::{Key, Outcome, TaskError, TaskState},
    value::{Codec, Value},
};

use crate::{
    context, gather,
    run::{Cell, Held},
};

/// A task has no result. What `.await` on a [`TaskFuture`] answers with, naming the task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskFailed {
    /// Which task.
    pub key: Key,
    /// Its name.
    pub name: Arc<str>,
    /// Why.
    pub error: TaskError,
}

impl fmt::Display for TaskFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task `{}` ({}) {}: {}", self.name, self.key, verb(&self.error), self.error)?;
        match self.error.root() {
            TaskError::Refused(error) => remedy(f, error),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for TaskFailed {
    /// What lies behind the text: a failure's text has all its causes in it already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.error.root() {
            TaskError::Refused(error) => error.source(),
            _ => None,
        }
    }
}

impl TaskFailed {
    /// The user's own error, where the task ran in this process and returned an `E`.
    ///
    /// ```
    /// # fn f(failed: remuda::TaskFailed) {
    /// if let Some(io) = failed.downcast_ref::<std::io::Error>() {
    ///     println!("{:?}", io.kind());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn downcast_ref<E: fmt::Display + fmt::Debug + Send + Sync + 'static>(&self) -> Option<&E> {
        match self.error.root() {
            TaskError::Failed(failure) => failure.source.as_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

/// What to do about it, where the text may be all that is shown.
pub(crate) fn remedy(f: &mut fmt::Formatter<'_>, error: &Error) -> fmt::Result {
    error.hint().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
}

fn verb(error: &TaskError) -> &'static str {
    match error {
        TaskError::Failed(_) => "failed",
        TaskError::Crashed(_) => "crashed",
        TaskError::Cancelled => "ended",
        TaskError::UpstreamFailed { .. } => "was not run",
        TaskError::Refused(_) => "could not be run",
    }
}

/// A handle on a task's result: awaited, given to other calls, cancelled, or dropped.
///
/// `.await` gives the value (by clone, as the engine and other holders may keep theirs) or [`TaskFailed`]; [`shared`](Self::shared) gives it
/// without a copy. The last handle dropped releases the result: what has not begun by then, and no other task needs, is not run; what runs is
/// told by its context that it is not wanted any more, and with `processes: false` an async body is dropped where it waits.
#[must_use = "dropping a future releases its task"]
pub struct TaskFuture<T> {
    pub(crate) held: Arc<Held>,
    pub(crate) cell: Arc<Cell>,
    pub(crate) codec: Codec<T>,
    /// In a mutex only to be `Sync`; it is never locked.
    gather: Mutex<Option<Gather>>,
}

type Gather = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl<T> fmt::Debug for TaskFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskFuture({} {} {})", self.cell.name, self.held.key, self.cell.state().name())
    }
}

impl<T> Clone for TaskFuture<T> {
    fn clone(&self) -> Self {
        Self::new(self.held.clone(), self.cell.clone(), self.codec)
    }
}

impl<T> TaskFuture<T> {
    pub(crate) fn new(held: Arc<Held>, cell: Arc<Cell>, codec: Codec<T>) -> Self {
        Self { held, cell, codec, gather: Mutex::default() }
    }

    /// The task's key, unique in its run.
    #[must_use]
    pub fn key(&self) -> Key {
        self.held.key
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// Where the task is now.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.held.run.catch_up();
        self.cell.state()
    }

    /// Ends the task as cancelled, and with it what depends on it. Does nothing to a task that is final.
    pub fn cancel(&self) {
        self.held.run.session.cancel(&[self.held.key]);
    }

    /// Waits until the task is final, however it ends, and leaves the result where it is.
    pub async fn done(&self) -> TaskState {
        poll_fn(|cx| self.poll_final(cx)).await
    }

    fn poll_final(&self, cx: &mut Context<'_>) -> Poll<TaskState> {
        // Register first, then pass on what the engine has said: an event between the two would be lost the other way round.
        let _ = self.cell.poll(cx);
        self.held.run.catch_up();
        let polled = self.cell.poll(cx);
        if polled.is_pending() {
            context::waits();
        }
        polled
    }

    pub(crate) fn failed(&self, error: TaskError) -> TaskFailed {
        TaskFailed { key: self.held.key, name: self.cell.name.clone(), error }
    }

    /// The value in a form that can be read here: what is still a Python object is converted first.
    fn poll_value(&mut self, cx: &mut Context<'_>) -> Poll<Result<Value, TaskFailed>> {
        loop {
            let gather = self.gather.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = gather {
                let outcome = ready!(running.as_mut().poll(cx));
                *gather = None;
                return Poll::Ready(outcome.map_err(|error| self.failed(error)));
            }
            match ready!(self.poll_final(cx)) {
                TaskState::Done(Value::Python(_) | Value::There) => {
                    let (session, key) = (self.held.run.session.clone(), self.held.key);
                    self.gather = Mutex::new(Some(Box::pin(async move { gather::one(&*session, key).await })));
                }
                TaskState::Done(value) => return Poll::Ready(Ok(value)),
                TaskState::Ended(error) => return Poll::Ready(Err(self.failed(error))),
                TaskState::Pending { .. } | TaskState::Running { .. } => return Poll::Pending,
            }
        }
    }

    /// The result in the first of `forms` that it has: for people, for other programs. Waits for the task's end.
    ///
    /// # Errors
    /// The task has no result, or one that has none of these forms.
    pub async fn show(&self, forms: &[Form]) -> Result<Shown, TaskFailed> {
        if let TaskState::Ended(error) = self.done().await {
            return Err(self.failed(error));
        }
        let shown = self.held.run.session.show(self.held.key, forms).await;
        shown.map_err(|error| self.failed(error))
    }

    /// The result as it travels, undecoded: for tools that pass values on.
    ///
    /// # Errors
    /// The task has no result, or it is a Python object without a plain form.
    pub async fn value(mut self) -> Result<Value, TaskFailed> {
        poll_fn(|cx| self.poll_value(cx)).await
    }
}

impl<T: Send + Sync + 'static> TaskFuture<T> {
    /// The result without a copy, also for types that are not `Clone`.
    ///
    /// # Errors
    /// The task has no result, or one that is not a `T`.
    pub async fn shared(mut self) -> Result<Arc<T>, TaskFailed> {
        poll_fn(|cx| self.poll_shared(cx)).await
    }

    fn poll_shared(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<T>, TaskFailed>> {
        let value = ready!(self.poll_value(cx))?;
        Poll::Ready(self.codec.unwrap_owned(value).map_err(|error| self.failed(error.into())))
    }

    /// Waits on this thread. For task bodies that are not async: the task's slot is given back meanwhile, so that what it waits for can
    /// run. Elsewhere in a flow `.await` instead, which lets the thread do other things.
    ///
    /// # Errors
    /// As `.await`.
    pub fn wait(mut self) -> Result<Arc<T>, TaskFailed> {
        // Whoever drives the run may be blocked himself, or be this very thread: so events are passed on from here, too.
        let run = self.held.run.clone();
        context::block_on(poll_fn(|cx| {
            let _ = run.pump(cx);
            self.poll_shared(cx)
        }))
    }
}

impl<T: Clone + Send + Sync + 'static> TaskFuture<T> {
    /// What is already here, as what it is.
    pub(crate) fn take(self, value: Value) -> Result<T, TaskFailed> {
        self.codec.unwrap_owned(value).map(Arc::unwrap_or_clone).map_err(|error| self.failed(error.into()))
    }
}

impl<T> Unpin for TaskFuture<T> {}

impl<T: Clone + Send + Sync + 'static> Future for TaskFuture<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_shared(cx).map(|result| result.map(Arc::unwrap_or_clone))
    }
}
