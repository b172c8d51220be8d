//! What one run shares: its session, its futures, its listeners.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use remuda_core::{
    engine::{Session, TaskEvents},
    error::{Error, ErrorKind},
    task::{Key, TaskError, TaskEvent, TaskState},
};
use tokio::sync::mpsc;

use crate::{context::park_on, report::Counts};

/// A run, as its futures and its flow handles see it.
pub(crate) struct Run {
    pub(crate) session: Arc<dyn Session>,
    next: AtomicU64,
    cells: Mutex<HashMap<Key, Arc<Cell>>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<TaskEvent>>>,
    events: Mutex<TaskEvents>,
    pumps: Arc<Pumps>,
    pub(crate) counts: Mutex<Counts>,
    /// Set when the cluster is of no use any more: nothing that is submitted will run.
    broken: OnceLock<Error>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("session", &self.session).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(crate) fn new(session: Arc<dyn Session>) -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::new(session.events()),
            pumps: Arc::default(),
            session,
            next: AtomicU64::new(0),
            cells: Mutex::default(),
            listeners: Mutex::default(),
            counts: Mutex::default(),
            broken: OnceLock::new(),
        })
    }

    /// A run whose events a thread passes on, where nobody drives it: in a task host. It ends when the session says nothing more.
    pub(crate) fn pumped(session: Arc<dyn Session>) -> Arc<Self> {
        let run = Self::new(session);
        let pumped = run.clone();
        let pump = move || {
            park_on(poll_fn(|cx| pumped.pump(cx)));
            pumped.end();
        };
        if let Err(error) = std::thread::Builder::new().name("remuda events".to_owned()).spawn(pump) {
            run.fail(Error::new(ErrorKind::Unavailable, "a thread for a task's tasks could not be started").with_source(error));
        }
        run
    }

    pub(crate) fn key(&self) -> Key {
        Key(self.next.fetch_add(1, Relaxed))
    }

    pub(crate) fn watch(&self, key: Key, cell: Arc<Cell>) {
        lock(&self.cells).insert(key, cell);
    }

    pub(crate) fn listen(&self) -> TaskEvents {
        let (tell, listen) = mpsc::unbounded_channel();
        lock(&self.listeners).push(tell);
        listen
    }

    /// Passes on what the engine has said. `Pending`: all of it, and the waker is set, beside those of others who do the same.
    pub(crate) fn pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.pumps.add(cx.waker());
        let waker = Waker::from(self.pumps.clone());
        let mut cx = Context::from_waker(&waker);
        let mut events = lock(&self.events);
        while let Some(event) = std::task::ready!(events.poll_recv(&mut cx)) {
            self.pass_on(event);
        }
        Poll::Ready(())
    }

    /// The same where nobody waits: what is there now. The waker of whoever waits stays as it is.
    pub(crate) fn catch_up(&self) {
        let Ok(mut events) = self.events.try_lock() else { return };
        while let Ok(event) = events.try_recv() {
            self.pass_on(event);
        }
    }

    /// An event of the engine, or one that the runner makes itself for a task that never reached the engine.
    pub(crate) fn pass_on(&self, event: TaskEvent) {
        let mut cells = lock(&self.cells);
        let cell = if event.state.is_final() { cells.remove(&event.key) } else { cells.get(&event.key).cloned() };
        drop(cells);
        // A task that is final here (the run was failed) stays as it is, whatever the engine says later.
        if let Some(cell) = cell {
            self.tell(&event);
            cell.set(event.state);
        }
    }

    /// The cluster is of no use any more: what is not final ends here, since the engine will not say so.
    pub(crate) fn fail(&self, error: Error) {
        let waiting = std::mem::take(&mut *lock(&self.cells));
        let _ = self.broken.set(error.clone());
        let keys: Vec<_> = waiting.keys().copied().collect();
        self.session.cancel(&keys);
        for (key, cell) in waiting {
            let event = TaskEvent { key, name: cell.name.clone(), state: TaskState::Ended(TaskError::Refused(error.clone())) };
            self.tell(&event);
            cell.set(event.state);
        }
    }

    /// Why nothing runs any more, if so.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn tell(&self, event: &TaskEvent) {
        lock(&self.counts).add(event);
        lock(&self.listeners).retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// The run is over: whoever still waits hears it, and nothing more is submitted. Idempotent.
    pub(crate) fn end(&self) {
        // First this: a task that is submitted meanwhile is either among the cells, or refused.
        let _ = self.broken.set(Error::new(ErrorKind::Closed, "the run has ended"));
        let waiting = std::mem::take(&mut *lock(&self.cells));
        let keys: Vec<_> = waiting.keys().copied().collect();
        if !keys.is_empty() {
            self.session.cancel(&keys);
        }
        for (key, cell) in waiting {
            let event = TaskEvent { key, name: cell.name.clone(), state: TaskState::Ended(TaskError::Cancelled) };
            self.tell(&event);
            cell.set(event.state);
        }
        lock(&self.listeners).clear();
    }
}

/// Whoever passes events on: the run's own body, and threads that wait for a task. A channel wakes one; each of these may be the only one
/// that is not blocked.
#[derive(Debug, Default)]
struct Pumps(Mutex<Vec<Waker>>);

impl Pumps {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Pumps {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Ends a run also where its future is dropped half-way.
pub(crate) struct EndOnDrop(pub(crate) Arc<Run>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Where one task is, for all who hold its future.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: Arc<str>,
    state: Mutex<(TaskState, Vec<Waker>)>,
}

impl Cell {
    pub(crate) fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self { name, state: Mutex::new((TaskState::Pending { reason: None }, Vec::new())) })
    }

    pub(crate) fn state(&self) -> TaskState {
        lock(&self.state).0.clone()
    }

    pub(crate) fn set(&self, state: TaskState) {
        let (old, wakers) = {
            let mut cell = lock(&self.state);
            let wakers = if state.is_final() { std::mem::take(&mut cell.1) } else { Vec::new() };
            (std::mem::replace(&mut cell.0, state), wakers)
        };
        drop(old);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready when the task is final.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<TaskState> {
        let mut cell = lock(&self.state);
        if cell.0.is_final() {
            return Poll::Ready(cell.0.clone());
        }
        if !cell.1.iter().any(|waker| waker.will_wake(cx.waker())) {
            cell.1.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Keeps a result alive; the last one dropped releases it.
#[derive(Debug)]
pub struct Held {
    pub(crate) key: Key,
    pub(crate) run: Arc<Run>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.run.session.release(&[self.key]);
    }
}
