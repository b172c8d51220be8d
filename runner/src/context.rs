//! What a running task may ask: which attempt it is, whether it was cancelled, and to run further tasks.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll, Wake, Waker},
};

use remuda_core::{
    error::{Error, ErrorKind},
    task::{Key, Outcome, SlotLease, TaskScope},
};

use crate::{flow::Flow, run::Run};

/// A task may take `cx: &TaskContext` as its first parameter.
///
/// ```
/// use remuda::TaskContext;
///
/// #[remuda::task]
/// fn long(cx: &TaskContext, steps: u64) -> u64 {
///     (0..steps).take_while(|_| !cx.is_cancelled()).count() as u64
/// }
/// ```
#[derive(Clone)]
pub struct TaskContext {
    scope: TaskScope,
    run: Option<Weak<Run>>,
    /// In a task host: the run of this task's own tasks, from the first time it is asked for.
    own: Arc<OnceLock<Arc<Run>>>,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskContext").field(&self.scope).finish()
    }
}

impl TaskContext {
    pub(crate) fn new(scope: TaskScope, run: Option<Weak<Run>>) -> Self {
        Self { scope, run, own: Arc::default() }
    }

    /// The task's key.
    #[must_use]
    pub fn key(&self) -> Key {
        self.scope.key
    }

    /// 0 for the first attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.scope.attempt
    }

    /// The name of the worker that runs it.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.scope.worker
    }

    /// Whether the task was cancelled, or its time is over: its result is not wanted any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.scope.cancel.is_cancelled()
    }

    /// Returns when the task is cancelled.
    pub async fn cancelled(&self) {
        self.scope.cancel.cancelled().await;
    }

    /// Further tasks on the same cluster. Waiting for them gives the slot back, so that they can run even where there is one slot only.
    /// (Waiting for [`Flow::events`] does not: who waits for those holds on to the slot.)
    ///
    /// The slot is given back where the task itself waits: in its `.await`, or in [`TaskFuture::wait`](crate::TaskFuture::wait) on its own
    /// thread. Waiting in a thread or a tokio task that it has started does not count.
    ///
    /// In a worker process they are a run of their own: what they have not finished when the task ends is cancelled. With
    /// `processes: false` they belong to the flow's run.
    ///
    /// ```
    /// use remuda::TaskContext;
    ///
    /// #[remuda::task]
    /// fn fibonacci(cx: &TaskContext, n: u64) -> anyhow::Result<u64> {
    ///     if n < 2 {
    ///         return Ok(n);
    ///     }
    ///     let flow = cx.flow()?;
    ///     let (a, b) = (flow.submit(fibonacci(n - 1)), flow.submit(fibonacci(n - 2)));
    ///     Ok(*a.wait()? + *b.wait()?)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`]: the run is over. [`ErrorKind::Unsupported`]: the engine does not let tasks submit tasks.
    pub fn flow(&self) -> Result<Flow, Error> {
        match (&self.run, &self.scope.session) {
            (Some(run), _) => {
                let run = run.upgrade().ok_or_else(|| Error::new(ErrorKind::Closed, "the run has ended"))?;
                Ok(Flow::of(run))
            }
            (None, Some(session)) => Ok(Flow::of(self.own.get_or_init(|| Run::pumped(session.clone())).clone())),
            (None, None) => Err(Error::new(ErrorKind::Unsupported, "this engine does not let a task submit further tasks")
                .with_hint("submit them from the flow")),
        }
    }
}

thread_local! {
    /// The task that this thread runs now.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

struct Current {
    lease: Arc<dyn SlotLease>,
    /// The slot is given back.
    paused: bool,
    /// It has looked for the end of another task, in vain. Whether it goes on all the same is seen when it returns or parks.
    waits: bool,
}

/// The task that runs on this thread, if any, waits for another one; its slot is given back when it does nothing else.
pub(crate) fn waits() {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.waits = true;
        }
    });
}

/// Nothing else is done now. The lease is called outside of the borrow: what it does may run code that comes here again.
fn pause() {
    let lease = CURRENT.with_borrow_mut(|current| {
        let current = current.as_mut().filter(|current| current.waits && !current.paused)?;
        current.paused = true;
        Some(current.lease.clone())
    });
    if let Some(lease) = lease {
        lease.pause();
    }
}

fn resume() {
    let lease = CURRENT.with_borrow_mut(|current| {
        let current = current.as_mut()?;
        current.waits = false;
        std::mem::take(&mut current.paused).then(|| current.lease.clone())
    });
    if let Some(lease) = lease {
        lease.resume();
    }
}

/// Makes `lease` current for the length of `body`, and puts back what was. `paused` is carried from poll to poll.
fn entered<R>(lease: &Arc<dyn SlotLease>, paused: &mut bool, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Current>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let restore = Restore(CURRENT.replace(Some(Current { lease: lease.clone(), paused: *paused, waits: false })));
    resume();
    let result = body();
    *paused = CURRENT.with_borrow(|current| current.as_ref().is_some_and(|current| current.paused));
    drop(restore);
    result
}

/// A sync body with its lease at hand.
pub(crate) fn run_sync<R>(lease: Option<&Arc<dyn SlotLease>>, body: impl FnOnce() -> R) -> R {
    match lease {
        Some(lease) => entered(lease, &mut false, body),
        None => body(),
    }
}

/// An async body that gives its slot back whenever it waits for a task.
pub(crate) struct Leased<F> {
    pub(crate) lease: Arc<dyn SlotLease>,
    pub(crate) paused: bool,
    pub(crate) body: Pin<Box<F>>,
}

impl<F: Future<Output = Outcome>> Future for Leased<F> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        entered(&this.lease, &mut this.paused, || {
            let polled = this.body.as_mut().poll(cx);
            if polled.is_pending() {
                pause();
            }
            polled
        })
    }
}

impl<F> Drop for Leased<F> {
    fn drop(&mut self) {
        if self.paused {
            self.lease.resume();
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread.
pub(crate) fn park_on<F: Future>(future: F) -> F::Output {
    park(future, || {})
}

fn park<F: Future>(future: F, before: impl Fn()) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                before();
                std::thread::park();
            }
        }
    }
}

/// Waits on this thread, with the slot of the task that runs on it given back.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let output = park(future, pause);
    resume();
    output
}
