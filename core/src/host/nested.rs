//! Tasks of tasks: a task in a host submits further ones to the cluster it runs on. Its driver opens a session for it and passes on what
//! is said, so that the host needs no scheduler and the keys of the two cannot clash.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::wire::{self, Reply};
use crate::{
    engine::{Session, TaskEvents},
    error::{Error, ErrorKind, Result},
    task::{Key, SlotLease, TaskError, TaskEvent, TaskSpec, TaskState},
    value::{PythonValue, Value},
};

/// A value between a host and its driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Parcel {
    /// MessagePack.
    Plain(Bytes),
    /// A pickled Python object.
    Python {
        /// Protocol 5.
        pickle: Bytes,
        /// For messages.
        type_name: Arc<str>,
    },
}

impl Parcel {
    /// Packs a value.
    ///
    /// # Errors
    /// [`ErrorKind::Unserializable`]: a value of the driver's memory that cannot leave it.
    pub fn pack(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::Python(object) => Self::Python { pickle: object.pickle.clone(), type_name: object.type_name.clone() },
            value => Self::Plain(value.to_plain()?),
        })
    }

    /// The value again.
    #[must_use]
    pub fn unpack(self) -> Value {
        match self {
            Self::Plain(bytes) => Value::Plain(bytes),
            Self::Python { pickle, type_name } => Value::Python(Arc::new(PythonValue { pickle, type_name })),
        }
    }
}

/// What a host asks its driver for, beside its answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// As [`Session::submit`].
    Submit(Vec<TaskSpec>),
    /// As [`Session::cancel`].
    Cancel(Vec<Key>),
    /// As [`Session::release`].
    Release(Vec<Key>),
    /// As [`Session::gather`]; answered with the same number.
    Gather(u64, Vec<Key>),
    /// As [`SlotLease::pause`].
    Pause,
    /// As [`SlotLease::resume`].
    Resume,
}

/// What the driver tells a host about the tasks of its task.
#[derive(Debug, Serialize, Deserialize)]
pub enum News {
    /// As [`TaskEvent`].
    Event {
        /// Which task.
        key: Key,
        /// Its name.
        name: Arc<str>,
        /// What it is now.
        state: State,
    },
    /// The answer to [`Ask::Gather`].
    Gathered(u64, std::result::Result<Vec<Parcel>, TaskError>),
}

/// As [`TaskState`].
#[derive(Debug, Serialize, Deserialize)]
pub enum State {
    /// Waits.
    Pending(Option<Arc<str>>),
    /// On a worker, at the attempt.
    Running(Arc<str>, u32),
    /// It returned.
    Done(Parcel),
    /// It will not.
    Ended(TaskError),
}

impl State {
    /// Packs a state.
    #[must_use]
    pub fn pack(state: &TaskState) -> Self {
        match state {
            TaskState::Pending { reason } => Self::Pending(reason.clone()),
            TaskState::Running { worker, attempt } => Self::Running(worker.clone(), *attempt),
            TaskState::Done(value) => Parcel::pack(value).map_or_else(|error| Self::Ended(error.into()), Self::Done),
            TaskState::Ended(error) => Self::Ended(error.clone()),
        }
    }

    fn unpack(self) -> TaskState {
        match self {
            Self::Pending(reason) => TaskState::Pending { reason },
            Self::Running(worker, attempt) => TaskState::Running { worker, attempt },
            Self::Done(parcel) => TaskState::Done(parcel.unpack()),
            Self::Ended(error) => TaskState::Ended(error),
        }
    }
}

/// The host's end of its control socket, for whoever of its threads has something to say.
#[derive(Debug)]
pub(super) struct Speaker(Mutex<UnixStream>);

impl Speaker {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self(Mutex::new(socket))
    }

    pub(super) fn say(&self, reply: &Reply) -> std::io::Result<()> {
        wire::write(&mut *lock(&self.0), reply)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The session of the task that a host runs.
#[derive(Debug)]
pub(super) struct HostSession {
    speaker: Arc<Speaker>,
    inbox: Mutex<Inbox>,
    /// Whether the task still runs. Held while something is said, so that nothing of this task is said after its answer.
    open: Mutex<bool>,
}

type Gathered = oneshot::Sender<std::result::Result<Vec<Parcel>, TaskError>>;

#[derive(Debug)]
struct Inbox {
    /// `None`: the task is over.
    tell: Option<mpsc::UnboundedSender<TaskEvent>>,
    events: Option<TaskEvents>,
    gathers: HashMap<u64, Gathered>,
    next: u64,
}

impl HostSession {
    pub(super) fn new(speaker: Arc<Speaker>) -> Arc<Self> {
        let (tell, events) = mpsc::unbounded_channel();
        let inbox = Inbox { tell: Some(tell), events: Some(events), gathers: HashMap::new(), next: 0 };
        Arc::new(Self { speaker, inbox: Mutex::new(inbox), open: Mutex::new(true) })
    }

    pub(super) fn hear(&self, news: News) {
        let mut inbox = lock(&self.inbox);
        match news {
            News::Event { key, name, state } => {
                let tell = inbox.tell.clone();
                drop(inbox);
                if let Some(tell) = tell {
                    let _ = tell.send(TaskEvent { key, name, state: state.unpack() });
                }
            }
            News::Gathered(number, result) => {
                let waiter = inbox.gathers.remove(&number);
                drop(inbox);
                if let Some(waiter) = waiter {
                    let _ = waiter.send(result);
                }
            }
        }
    }

    /// The task is over, and with it what it has submitted.
    pub(super) fn end(&self) {
        *lock(&self.open) = false;
        let mut inbox = lock(&self.inbox);
        let (tell, gathers) = (inbox.tell.take(), std::mem::take(&mut inbox.gathers));
        drop(inbox);
        drop((tell, gathers));
    }

    /// A driver that is gone needs nothing: the thread that listens to it ends this process.
    ///
    /// # Errors
    /// What is asked for does not fit into a frame.
    fn ask(&self, ask: Ask) -> Result<()> {
        let open = lock(&self.open);
        match open.then(|| self.speaker.say(&Reply::Ask(ask))) {
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(Error::new(ErrorKind::Unserializable, "a call is too long to be submitted").with_source(error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Session for HostSession {
    fn shares_memory(&self) -> bool {
        false
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        let all: Vec<_> = tasks.iter().map(|task| (task.key, task.name.clone())).collect();
        if let Err(error) = self.ask(Ask::Submit(tasks)) {
            for (key, name) in all {
                self.hear(News::Event { key, name, state: State::Ended(error.clone().into()) });
            }
        }
    }

    fn cancel(&self, keys: &[Key]) {
        let _ = self.ask(Ask::Cancel(keys.to_vec()));
    }

    fn release(&self, keys: &[Key]) {
        let _ = self.ask(Ask::Release(keys.to_vec()));
    }

    fn events(&self) -> TaskEvents {
        // A second listener would need the first one's channel: there is one run per task.
        lock(&self.inbox).events.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    async fn gather(&self, keys: &[Key]) -> std::result::Result<Vec<Value>, TaskError> {
        let (tell, answer) = oneshot::channel();
        let number = {
            let mut inbox = lock(&self.inbox);
            inbox.next += 1;
            let number = inbox.next;
            inbox.gathers.insert(number, tell);
            number
        };
        self.ask(Ask::Gather(number, keys.to_vec()))?;
        let parcels = answer.await.map_err(|_| Error::new(ErrorKind::Closed, "the task that asked is over"))??;
        Ok(parcels.into_iter().map(Parcel::unpack).collect())
    }

    async fn close(&self) -> Result<()> {
        // The driver closes its side when the task ends.
        self.end();
        Ok(())
    }
}

/// The slot of the task that a host runs.
#[derive(Debug)]
pub(super) struct HostLease(pub(super) Arc<HostSession>);

impl SlotLease for HostLease {
    fn pause(&self) {
        let _ = self.0.ask(Ask::Pause);
    }

    fn resume(&self) {
        let _ = self.0.ask(Ask::Resume);
    }
}
