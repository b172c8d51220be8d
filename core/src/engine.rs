//! A running scheduler, seen from two sides: the keeper's ([`Engine`]: its workers) and one run's ([`Session`]: its tasks).

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    adaptive::Load,
    error::{Error, ErrorKind, Result},
    manager::Endpoint,
    task::{Key, TaskError, TaskEvent, TaskSpec},
    value::Value,
};

/// The keeper's side of a scheduler.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The client side of one run. Several runs share one cluster; closing a session touches its own keys only.
    async fn open(&self) -> Result<Arc<dyn Session>>;

    /// Takes workers (by their scheduler names) out of work, waits for what they run, moves their results. Returns when none of them
    /// is busy any more, at the deadline at the latest, with what became of each; one that is not in the answer counts as busy.
    /// Dropping the future leaves them out of work, and so does an error.
    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains>;

    /// Joins, departures, and the end of the scheduler itself. Workers that joined before the call are told first.
    fn changes(&self) -> WorkerChanges;

    /// What the scheduler knows of its work now, for adaptive scaling. Cheap: what it costs depends on the groups and workers there
    /// are, not on the tasks. Workers that are not listed are taken for busy.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), the default: this engine cannot tell. Any other: it is asked again at the next turn.
    async fn load(&self) -> Result<Observation> {
        Err(Error::new(ErrorKind::Unsupported, "this engine cannot tell its load"))
    }

    /// A number that changes when work arrives, so that adaptive scaling looks at once where it would have waited. `None`, the
    /// default: it looks every `interval` only.
    fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Told by the keeper whenever it changes: which workers are still to come, for what the engine says and does about tasks that
    /// have none. Default: nothing.
    fn expect(&self, outlook: Outlook) {
        drop(outlook);
    }

    /// A page for people, where the scheduler has one. The endpoint's own word goes before this.
    fn dashboard(&self) -> Option<String> {
        None
    }
}

/// What became of workers that were to be drained, by their scheduler names.
pub type Drains = BTreeMap<String, Drain>;

/// What became of a worker that was to be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// It runs nothing and its results are elsewhere, or it is not there any more: it may be stopped.
    Done,
    /// It takes no new work, and has not finished what it runs or handed over its results.
    Busy,
    /// It takes work again: no other worker has room for its results.
    Refused,
}

/// Which workers are still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outlook {
    /// So many there are to be, whatever the work.
    Fixed(u32),
    /// Adaptive scaling starts them as the work asks for.
    Adaptive {
        /// Why it does not do so just now.
        held: Option<String>,
    },
    /// None, although the number follows the work.
    Nobody {
        /// Why, for people.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

impl Outlook {
    /// Why there is no worker at all, for those whose tasks wait for one.
    #[must_use]
    pub fn absence(&self) -> String {
        match self {
            Self::Fixed(0) => "the cluster has no workers, and none are wanted".to_owned(),
            Self::Fixed(wanted) => format!("no workers yet: 0 of {wanted} joined"),
            Self::Adaptive { held: None } => "no workers now: adaptive scaling starts them".to_owned(),
            Self::Adaptive { held: Some(held) } => format!("no workers now: {held}"),
            Self::Nobody { reason, .. } => reason.clone(),
        }
    }
}

/// A scheduler's work at one moment, for [`adaptive`](crate::adaptive) scaling.
///
/// Tasks that none of the workers there are could ever run are no work: another worker of the same kind would not help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// The tasks. Numbers of prefixes and ids of groups stay the same for the life of the engine.
    pub load: Load,
    /// The workers at the scheduler, draining ones too.
    pub workers: Vec<WorkerLoad>,
}

/// One worker, as the scheduler sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Its name there: the one of [`WorkerChange::Joined`].
    pub name: String,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Tasks assigned to it, those that wait for a slot of it included.
    pub processing: u32,
    /// Results it holds, bytes; spilled ones too. 0 where results do not stay with workers.
    pub bytes: u64,
    /// Its memory, bytes. 0: no limit.
    pub memory_limit: u64,
    /// It must stay although it looks idle: paused, a long-running task, actors.
    pub pinned: bool,
}

/// What happens to the workers, in order.
pub type WorkerChanges = mpsc::UnboundedReceiver<WorkerChange>;

/// What happens to the tasks of a session, in order.
pub type TaskEvents = mpsc::UnboundedReceiver<TaskEvent>;

/// One run's side of a scheduler.
#[async_trait]
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// Whether slots share the driver's memory: then [`crate::task::RustWork::here`] is called and nothing is serialised.
    /// Otherwise the arguments must be there as MessagePack.
    fn shares_memory(&self) -> bool;

    /// One message for a whole map. Not async: it is queued in order, and what goes wrong is an event of each task.
    /// Inputs must have been submitted before, or stand earlier in `tasks`.
    fn submit(&self, tasks: Vec<TaskSpec>);

    /// Ends tasks that are not final as cancelled; their dependents end as `upstream_failed`. Idempotent.
    fn cancel(&self, keys: &[Key]);

    /// Nobody holds these results any more. What has not begun and nobody needs is not run. Never waits: it is called from `Drop`.
    fn release(&self, keys: &[Key]);

    /// Every change of state with its cause. One listener: a second call takes over from the first.
    fn events(&self) -> TaskEvents;

    /// Results as plain values: converts what is still a Python object. Waits for tasks that are not final.
    ///
    /// # Errors
    /// The first task without a result, or the first object that has no plain form, named with its type.
    async fn gather(&self, keys: &[Key]) -> std::result::Result<Vec<Value>, TaskError>;

    /// A result for people or for other programs, in the first of `forms` that it has. Waits for a task that is not final. Default:
    /// plain, or not at all.
    ///
    /// # Errors
    /// The task has no result, or one that has none of these forms.
    async fn show(&self, key: Key, forms: &[Form]) -> std::result::Result<Shown, TaskError> {
        if !forms.contains(&Form::Plain) {
            return Err(Error::new(ErrorKind::Unsupported, "this engine shows results in plain form only").into());
        }
        let value = self.gather(&[key]).await?.pop().ok_or(TaskError::Cancelled)?;
        Ok(Shown::Plain(value.to_plain()?))
    }

    /// Cancels what is not final and releases this session's keys. Returns when every task of the session is final; a thread
    /// whose body cannot be interrupted may still run. Idempotent.
    async fn close(&self) -> Result<()>;
}

/// A form in which a result may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// MessagePack: numbers, text, bytes, lists, mappings with text as keys. Every Rust result and every command's has it.
    Plain,
    /// An Arrow IPC stream: a table of pandas, polars or pyarrow, where its worker has pyarrow.
    Arrow,
    /// The type and what Python's `repr` says. Every Python result has it.
    Text,
}

/// A result in one of its forms.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    /// One MessagePack value.
    Plain(Bytes),
    /// A table.
    Arrow {
        /// An Arrow IPC stream.
        bytes: Bytes,
        /// `module.QualName` of the object's class.
        type_name: Arc<str>,
    },
    /// Anything else.
    Text {
        /// What `repr` says.
        text: String,
        /// `module.QualName` of the object's class.
        type_name: Arc<str>,
    },
}

/// Without what the user computed.
impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(bytes) => write!(f, "Plain({} bytes)", bytes.len()),
            Self::Arrow { bytes, type_name } => write!(f, "Arrow({type_name}, {} bytes)", bytes.len()),
            Self::Text { text, type_name } => write!(f, "Text({type_name}, {} bytes)", text.len()),
        }
    }
}

/// How an address becomes an engine. Core names no protocol: the runner hands this to the keeper.
#[async_trait]
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Returns when the scheduler has answered.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>>;
}

/// A worker came or went.
#[derive(Debug, Clone)]
pub enum WorkerChange {
    /// It takes tasks.
    Joined {
        /// Its name at the scheduler: `index-incarnation` where the platform lets us choose.
        name: String,
        /// The host part of its address.
        host: String,
        /// How many tasks it runs at once.
        slots: u32,
    },
    /// It is gone.
    Left {
        /// Its name at the scheduler.
        name: String,
        /// For people.
        reason: String,
        /// It was running tasks, one of which may have ended it: `allowed_failures` bounds that, so the keeper does not take it for a
        /// sign of a crash loop.
        busy: bool,
    },
    /// What whoever waits should know: that the scheduler does not answer, that a result waits for workers. Nothing follows from it.
    Note(String),
    /// The scheduler itself is gone: no task of any session will end any more.
    SchedulerLost(Error),
}
