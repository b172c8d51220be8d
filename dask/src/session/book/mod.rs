//! The books of one session: which tasks there are, what Dask was told of them, what it has said. A plain struct without I/O and
//! without a clock, so that it can be tested as one.
//!
//! Every method changes the state; what has to happen outside is collected in [`Effects`]. What is to be sent is asked for by
//! [`Book::next_order`], so that nothing is encoded before the connection can take it.
//!
//! The unit of work at Dask is one task, under the number of its key, or a batch of them, under a number of its own ([`BATCH`]).

mod ahead;
mod defs;
mod graph;
mod lanes;
mod news;
mod outbox;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use remuda_core::{
    error::{Error, ErrorKind},
    task::{Input, Key, TaskError, TaskEvent, TaskState},
    value::Template,
};

pub(crate) use self::lanes::Backlog;
use self::{
    ahead::{Ahead, Copied},
    defs::Defs,
    lanes::Lanes,
    outbox::Outbox,
};
use super::call::Gate;

/// Set in the numbers of batches: keys of tasks never have it.
pub(crate) const BATCH: u64 = 1 << 63;

/// What stands at Dask: which unit, and which element of its result (-1: the whole).
pub(crate) type Unit = (u64, i64);

#[derive(Debug)]
pub(crate) struct Book {
    tasks: HashMap<Key, Task>,
    batches: HashMap<u64, Batch>,
    next_batch: u64,
    defs: Defs,
    lanes: Lanes,
    gates: HashMap<Gate, Standing>,
    outbox: Outbox,
    ahead: Ahead,
    /// The last message of events that was taken in.
    seen: u64,
    /// Somebody waits for these.
    watched: HashSet<Key>,
    /// Why a result that was lost is not computed again yet, as it was told last.
    noted: Option<Arc<str>>,
    /// Why nothing ends any more.
    over: Option<TaskError>,
    out: Effects,
}

#[derive(Debug)]
struct Task {
    name: Arc<str>,
    def: u32,
    /// Gone once nobody needs to send it again.
    args: Option<Template>,
    inputs: Vec<Input>,
    after: Vec<Input>,
    phase: Phase,
    /// Where it is at Dask. `None` before, and after it was let go.
    unit: Option<Unit>,
    /// The shim was sent it.
    is_sent: bool,
    /// Whether its like may share a unit with it.
    lane: Option<u32>,
    /// It counts as in flight in its lane.
    in_flight: bool,
    /// What keeps it from being given to Dask.
    missing: usize,
    /// Who waits for this one, and whether its failure is as good as a result.
    dependents: Vec<(Key, bool)>,
    /// Those who take results only need not wait any more: they may refer to its unit.
    is_open: bool,
    /// Somebody may ask for the result.
    held: bool,
    /// Edges of tasks that are not final.
    users: usize,
    /// Attempts that ended under earlier units.
    base: u32,
    /// Failures that are counted here, not by Dask.
    failures: u32,
    /// Hosts and workers that it has lost under earlier units.
    losses: u32,
    /// The last attempt that was told to run.
    told: Option<u32>,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    /// In its lane.
    Queued,
    /// Given to Dask.
    Placed,
    Done(Place),
    Ended(TaskError),
}

/// Where a result is.
#[derive(Debug, Clone)]
enum Place {
    At {
        address: Arc<str>,
        /// Bytes of it, about.
        size: u64,
        /// It came along with another one.
        copy: Option<Arc<Copied>>,
    },
    /// Lost with its worker; Dask computes it again.
    Nowhere,
    /// It will not come back.
    Gone(TaskError),
}

#[derive(Debug)]
struct Batch {
    members: Vec<Key>,
    /// Members that have not let go.
    live: usize,
    def: u32,
    lane: u32,
    is_sent: bool,
    in_flight: bool,
    /// Kept until the shim has it.
    packed: Option<Vec<u8>>,
}

/// What is known of the workers.
#[derive(Debug)]
enum Standing {
    Asked(Vec<Key>),
    Open,
    Shut(Error),
}

/// What the caller has to do.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// What the listener is to hear, in this order.
    pub(crate) events: Vec<TaskEvent>,
    /// Watched tasks that have a result, or an end, or a result at a new place.
    pub(crate) settled: Vec<Key>,
    /// For people: what no state of a task says.
    pub(crate) notes: Vec<String>,
    /// To be found out: [`Book::gate`] takes the answer.
    pub(crate) checks: Vec<Gate>,
    /// There may be something to send.
    pub(crate) is_due: bool,
}

/// What is known of a result.
#[derive(Debug, Clone)]
pub(crate) enum Whereabouts {
    /// Not final, or being computed again.
    Pending,
    At {
        unit: Unit,
        prefix: String,
        address: Arc<str>,
        is_python: bool,
        /// It is here already, in its plain form.
        copy: Option<Bytes>,
    },
    Ended(TaskError),
}

/// A consequence that is still to be drawn.
#[derive(Debug)]
enum Step {
    End(Key, Result<Place, TaskError>),
    /// Forget it, or do not run it, if nobody needs it.
    Collect(Key),
}

impl Book {
    /// `batch`: how many calls one unit may have; `None`: as the measured durations say.
    pub(crate) fn new(batch: Option<u32>) -> Self {
        Self {
            tasks: HashMap::new(),
            batches: HashMap::new(),
            next_batch: BATCH,
            defs: Defs::default(),
            lanes: Lanes::new(batch),
            gates: HashMap::new(),
            outbox: Outbox::default(),
            ahead: Ahead::default(),
            seen: 0,
            watched: HashSet::new(),
            noted: None,
            over: None,
            out: Effects::default(),
        }
    }

    pub(crate) fn take_effects(&mut self) -> Effects {
        self.out.is_due = self.outbox.is_due() || self.defs.has_forgotten();
        std::mem::take(&mut self.out)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls that Dask is not given yet, although they could run.
    pub(crate) fn backlog(&self) -> Vec<Backlog> {
        self.lanes.backlog()
    }

    /// How many slots the cluster has.
    pub(crate) fn set_slots(&mut self, slots: u32) {
        self.lanes.set_slots(slots);
        self.pump();
    }

    /// The answer to one of [`Effects::checks`].
    pub(crate) fn gate(&mut self, gate: Gate, answer: Result<(), Error>) {
        let now = match &answer {
            Ok(()) => Standing::Open,
            Err(error) => Standing::Shut(error.clone()),
        };
        let Some(Standing::Asked(waiting)) = self.gates.insert(gate, now) else { return };
        for key in waiting {
            match &answer {
                Ok(()) => self.one_less(key),
                Err(error) => self.conclude(Step::End(key, Err(TaskError::Refused(error.clone())))),
            }
        }
        self.pump();
    }

    /// Where the result of a task is. Pending ones are watched from now on.
    pub(crate) fn find(&mut self, key: Key) -> Whereabouts {
        let Some(task) = self.tasks.get(&key) else { return Whereabouts::Ended(TaskError::Refused(unknown(key))) };
        match (&task.phase, task.unit) {
            (Phase::Ended(error) | Phase::Done(Place::Gone(error)), _) => Whereabouts::Ended(error.clone()),
            (Phase::Done(Place::At { address, copy, .. }), Some(unit)) => match &self.over {
                Some(error) => Whereabouts::Ended(error.clone()),
                None => {
                    let is_python = self.defs.get(task.def).is_some_and(|def| def.kind == "python");
                    let copy = copy.as_ref().map(|copy| copy.bytes.clone());
                    Whereabouts::At { unit, prefix: self.prefix(task.def), address: address.clone(), is_python, copy }
                }
            },
            _ => {
                self.watched.insert(key);
                Whereabouts::Pending
            }
        }
    }

    /// The name of a unit at Dask begins with it.
    fn prefix(&self, def: u32) -> String {
        self.defs.get(def).map(|def| def.name.clone()).unwrap_or_default()
    }

    /// Ends everything and lets go of it; the last order is `close`.
    pub(crate) fn close(&mut self) {
        self.end_all(&TaskError::Cancelled);
        self.outbox.close();
    }

    /// No task will end any more, and no result can be had.
    pub(crate) fn give_up(&mut self, error: Error) {
        self.end_all(&TaskError::Refused(error));
        self.outbox.drop_all();
        // Whoever waits for a result that was to be computed again.
        self.out.settled.extend(self.watched.drain());
    }

    fn end_all(&mut self, error: &TaskError) {
        self.over.get_or_insert_with(|| error.clone());
        let mut keys: Vec<Key> = self.tasks.iter().filter(|(_, task)| !task.is_final()).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            self.conclude(Step::End(key, Err(error.clone())));
        }
        for task in self.tasks.values_mut() {
            if let Phase::Done(place @ Place::Nowhere) = &mut task.phase {
                *place = Place::Gone(error.clone());
            }
        }
        self.out.settled.extend(self.watched.drain());
    }

    /// How many tasks are not final.
    #[cfg(test)]
    pub(crate) fn open_tasks(&self) -> usize {
        self.tasks.values().filter(|task| !task.is_final()).count()
    }

    fn tell(&mut self, key: Key, state: TaskState) {
        let Some(task) = self.tasks.get(&key) else { return };
        self.out.events.push(TaskEvent { key, name: task.name.clone(), state });
    }

    /// An attempt runs, or ran: told once.
    fn tell_running(&mut self, key: Key, worker: &Arc<str>, attempt: u32) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let attempt = task.base.saturating_add(attempt);
        if task.told.is_some_and(|told| told >= attempt) || worker.is_empty() {
            return;
        }
        task.told = Some(attempt);
        self.tell(key, TaskState::Running { worker: worker.clone(), attempt });
    }
}

impl Task {
    fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Done(_) | Phase::Ended(_))
    }

    fn edges(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter().chain(&self.after)
    }
}

fn unknown(key: Key) -> Error {
    Error::new(ErrorKind::Unexpected, format!("task {key} is not known: it was never submitted, or its result was released"))
}

fn upstream(key: Key, name: &Arc<str>, error: &TaskError) -> TaskError {
    match error {
        TaskError::UpstreamFailed { .. } => error.clone(),
        cause => TaskError::UpstreamFailed { key, name: name.clone(), cause: Box::new(cause.clone()) },
    }
}

/// A queue of consequences, so that no chain of tasks is too long for the stack.
type Todo = VecDeque<Step>;
