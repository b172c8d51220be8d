//! What runs when and where: a plain struct without threads and without a clock, so that it can be tested as one.
//!
//! Every method takes `now` and changes the state; what has to happen outside is collected in [`Effects`]. Nothing of the user's is
//! dropped or called in here: the caller holds a lock, and a user's `Drop` may do anything.

mod dispatch;
mod graph;
mod load;
mod reason;
mod shape;
mod workers;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use remuda_core::{
    engine::Outlook,
    manager::WorkerId,
    task::{Key, Outcome, TaskError, TaskEvent, TaskSpec},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(crate) use self::workers::Place;
use self::{graph::Task, load::Tally, shape::Groups, workers::Worker};

/// Never used twice; ascending, so that it is a task's age as well.
pub(crate) type TaskId = u64;
/// One attempt at one task. What an older attempt still reports is recognised by it.
pub(crate) type RunId = u64;
pub(crate) type SessionId = u64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) allowed_failures: u32,
    pub(crate) no_workers_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    /// Which workers are still to come, as the keeper says.
    outlook: Outlook,
    /// What each of them will offer. `None`: nobody knows before one is there.
    kind: Option<Worker>,
    tasks: HashMap<TaskId, Task>,
    sessions: HashMap<SessionId, Listener>,
    groups: Groups,
    workers: BTreeMap<WorkerId, Worker>,
    /// By index, how many workers had it: no name comes twice.
    incarnations: BTreeMap<u32, u32>,
    runs: HashMap<RunId, Run>,
    timeouts: BTreeSet<(Instant, RunId)>,
    next: u64,
    tally: Tally,
    effects: Effects,
}

#[derive(Debug)]
struct Listener {
    events: mpsc::UnboundedSender<TaskEvent>,
    keys: HashMap<Key, TaskId>,
    depth: u32,
}

#[derive(Debug)]
struct Run {
    task: TaskId,
    session: SessionId,
    worker: WorkerId,
    shape: Arc<shape::Shape>,
    cancel: CancellationToken,
    paused: bool,
    /// When it began; later by as long as it paused.
    since: Instant,
    /// When it paused last.
    paused_at: Instant,
    deadline: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself, one way or the other.
    Outcome(Outcome),
    /// With its worker.
    Lost(String),
}

/// What the caller has to do: the first two under its lock, the rest after it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) starts: Vec<Start>,
    /// Attempts whose result nobody waits for any more.
    pub(crate) interrupts: Vec<RunId>,
    /// What listeners are to hear, in this order.
    pub(crate) events: Vec<Letter>,
    pub(crate) after: After,
}

/// An event and who hears it.
pub(crate) type Letter = (mpsc::UnboundedSender<TaskEvent>, TaskEvent);

/// What must not happen under the lock, because it may run the user's code.
#[derive(Debug, Default)]
pub(crate) struct After {
    pub(crate) cancel: Vec<CancellationToken>,
    outcomes: Vec<Outcome>,
    specs: Vec<Arc<TaskSpec>>,
}

/// A panic in a user's `Drop` is his; the thread is ours.
pub(crate) fn drop_safely<T>(value: T) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::error!("a value of a task panicked when it was dropped");
    }
}

impl After {
    pub(crate) fn run(self) {
        for token in &self.cancel {
            token.cancel();
        }
        self.outcomes.into_iter().for_each(drop_safely);
        self.specs.into_iter().for_each(drop_safely);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.cancel.extend(other.cancel);
        self.outcomes.extend(other.outcomes);
        self.specs.extend(other.specs);
    }

    fn discard(&mut self, ended: Ended) {
        if let Ended::Outcome(outcome) = ended {
            self.outcomes.push(outcome);
        }
    }
}

/// An attempt to be run.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) run: RunId,
    pub(crate) worker: WorkerId,
    pub(crate) worker_name: Arc<str>,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) inputs: Vec<Outcome>,
    pub(crate) attempt: u32,
    pub(crate) cancel: CancellationToken,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, planned: u32) -> Self {
        Self {
            limits,
            outlook: Outlook::Fixed(planned),
            kind: None,
            tasks: HashMap::new(),
            sessions: HashMap::new(),
            groups: Groups::default(),
            workers: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            runs: HashMap::new(),
            timeouts: BTreeSet::new(),
            next: 0,
            tally: Tally::default(),
            effects: Effects::default(),
        }
    }

    /// All workers are of one kind.
    pub(crate) fn with_kind(self, place: Place) -> Self {
        Self { kind: Some(Worker::of_kind(place)), ..self }
    }

    /// Other workers are to come than before.
    pub(crate) fn expect(&mut self, outlook: Outlook, now: Instant) {
        if !matches!(outlook, Outlook::Adaptive { .. } | Outlook::Nobody { .. }) {
            self.tally.unwatch();
        }
        self.outlook = outlook;
        self.review(now);
    }

    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::tick`] has something to do, if nothing else happens.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        timeout.into_iter().chain(self.groups.first_unrunnable()).min()
    }

    /// Ends attempts that take too long, and tasks that nothing can run.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((at, run)) = self.timeouts.first().copied()
            && at <= now
        {
            self.timeouts.pop_first();
            self.time_out(run, now);
        }
        self.refuse_unrunnable(now);
        self.dispatch(now);
    }

    /// `under`: the attempt whose task the session's tasks will be.
    pub(crate) fn open(&mut self, under: Option<RunId>) -> (SessionId, mpsc::UnboundedReceiver<TaskEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let id = self.fresh();
        let above = under.and_then(|run| self.runs.get(&run)).and_then(|run| self.tasks.get(&run.task)).map(|task| task.depth);
        let depth = above.map_or(0, |depth| depth + 1);
        self.sessions.insert(id, Listener { events, keys: HashMap::new(), depth });
        (id, receiver)
    }

    /// A new listener for a session, instead of the one before.
    pub(crate) fn listen(&mut self, session: SessionId) -> mpsc::UnboundedReceiver<TaskEvent> {
        let (events, receiver) = mpsc::unbounded_channel();
        if let Some(listener) = self.sessions.get_mut(&session) {
            listener.events = events;
        }
        receiver
    }

    /// Ends everything of a session, and its event stream with it.
    pub(crate) fn close_session(&mut self, session: SessionId, now: Instant) {
        let Some(listener) = self.sessions.get(&session) else { return };
        let mut keys: Vec<Key> = listener.keys.keys().copied().collect();
        keys.sort_unstable();
        self.cancel(session, &keys, now);
        self.release(session, &keys, now);
        self.sessions.remove(&session);
    }

    /// Ends every session.
    pub(crate) fn close_all(&mut self, now: Instant) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close_session(session, now);
        }
    }

    /// Attempts of a session that still occupy a slot.
    pub(crate) fn running_of(&self, session: SessionId) -> usize {
        self.runs.values().filter(|run| run.session == session).count()
    }

    /// Calls back when the task is final.
    pub(crate) fn wait(&mut self, session: SessionId, key: Key) -> oneshot::Receiver<Outcome> {
        let (tell, receiver) = oneshot::channel();
        let task = self.sessions.get(&session).and_then(|s| s.keys.get(&key)).and_then(|id| self.tasks.get_mut(id));
        match task {
            Some(task) => {
                self.effects.after.outcomes.extend(task.await_outcome(tell));
            }
            None => {
                let _ = tell.send(Err(TaskError::Refused(graph::unknown(key))));
            }
        }
        receiver
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A queue of consequences, so that no chain of tasks is too long for the stack.
type Todo = VecDeque<graph::Step>;
