//! The task model: one model, several engines.

use std::{borrow::Cow, collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

mod error;

pub use self::error::{Crash, Failure, TaskError};
use crate::{
    engine::Session,
    value::{Template, Value},
};

/// A task of one session. Keys are never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u64);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One call, as an engine takes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Given by the session's user.
    pub key: Key,
    /// For people: progress, errors, logs.
    pub name: Arc<str>,
    /// Results that go into the call, in the order of its holes. The same key may stand here more than once.
    pub inputs: Vec<Input>,
    /// Tasks that must be final first, without passing a result.
    pub after: Vec<Input>,
    /// What to run.
    pub work: Work,
    /// How to run it.
    pub annotations: Arc<Annotations>,
}

/// Another task's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Whose result.
    pub key: Key,
    /// Its failure is passed on as a value (`Result` in Rust, an exception object in Python) instead of failing this task.
    pub allow_failure: bool,
}

impl From<Key> for Input {
    fn from(key: Key) -> Self {
        Self { key, allow_failure: false }
    }
}

/// The kinds of task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// A Rust function of the user's binary.
    Rust(RustWork),
    /// A Python function, run by a resident interpreter.
    Python(PythonWork),
    /// A program.
    Command(CommandWork),
}

/// A Rust function in the form the session asked for (see [`crate::engine::Session::shares_memory`]).
#[derive(Clone, Serialize, Deserialize)]
pub struct RustWork {
    /// `module::path::function`, as registered by `#[remuda::task]`; closures have a name for people only.
    pub function: Cow<'static, str>,
    /// For slots that share our memory. `Fn`, because a lost worker's task is tried again.
    #[serde(skip)]
    pub here: Option<HereFn>,
    /// For every other slot: an array of the arguments.
    pub args: Option<Template>,
}

/// A task body over the values of its inputs (one for each of [`TaskSpec::inputs`], in order).
pub type HereFn = Arc<dyn Fn(TaskScope, Vec<Outcome>) -> Job + Send + Sync>;

impl fmt::Debug for RustWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RustWork").field("function", &self.function).finish_non_exhaustive()
    }
}

/// A Python function by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PythonWork {
    /// `pkg.mod:func` (or `pkg.mod:Class.method`).
    pub target: Arc<str>,
    /// `[[positional ...], {keyword: ...}]`.
    pub args: Template,
    /// Directories put first on `sys.path`: where the flow file lies.
    pub path: Arc<[String]>,
}

/// A program to run. Its result is what it wrote to standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandWork {
    /// A map that decodes as [`CommandCall`].
    pub call: Template,
}

/// What a command's template decodes to, once its holes are filled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandCall {
    /// Program and arguments. Values that are not text are written as JSON.
    pub argv: Vec<serde_json::Value>,
    /// Added to the worker's environment.
    #[serde(default)]
    pub env: BTreeMap<String, serde_json::Value>,
    /// Working directory; the driver's when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Given to standard input: text and bytes as they are, anything else as JSON. Empty when absent.
    #[serde(default)]
    pub stdin: Stdin,
    /// The result is bytes. Otherwise it is text without the line ends at its end, as `$(..)` in a shell.
    #[serde(default)]
    pub binary: bool,
}

/// Standard input of a command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stdin {
    /// End of file at once.
    #[default]
    Empty,
    /// As it is.
    Text(String),
    /// As it is.
    Bytes(#[serde(serialize_with = "serde_bytes::serialize", deserialize_with = "only_bytes")] Vec<u8>),
    /// As JSON.
    Json(serde_json::Value),
}

/// Bytes that were written as bytes. `serde_bytes` reads a list of small numbers, too, which is JSON here.
fn only_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;
    impl serde::de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
    deserializer.deserialize_bytes(Bytes)
}

/// What a task body needs to know about the attempt it is.
#[derive(Debug, Clone)]
pub struct TaskScope {
    /// Which task.
    pub key: Key,
    /// 0 for the first attempt.
    pub attempt: u32,
    /// Scheduler name of the worker.
    pub worker: Arc<str>,
    /// Cancelled when the task is; a body that runs long looks at it.
    pub cancel: CancellationToken,
    /// Gives the slot back while the task waits for other tasks, so that they can run even where there is one slot only.
    pub slot: Option<Arc<dyn SlotLease>>,
    /// In a task host: the way to submit further tasks. Where the task runs in the driver's memory the run itself is at hand.
    pub session: Option<Arc<dyn Session>>,
}

/// A running task's hold on its slot.
pub trait SlotLease: fmt::Debug + Send + Sync {
    /// The task waits for other tasks: something else may run in its slot.
    fn pause(&self);
    /// It goes on. Does not wait for a free slot: the worker is over its number for as long as both run.
    fn resume(&self);
}

/// A task body that was called.
pub enum Job {
    /// A sync body has already run when this exists.
    Ready(Result<Value, TaskError>),
    /// An async body, driven by its slot.
    Future(Pin<Box<dyn Future<Output = Result<Value, TaskError>> + Send>>),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Ready(_)) { "Ready" } else { "Future" })
    }
}

/// How a task is to be run. Dask's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    /// Higher first, across all workers. Default 0.
    pub priority: i64,
    /// How often the task is tried again after it failed by itself. Default 0.
    pub retries: u32,
    /// How often it is tried again after its worker was lost. `None`: the cluster's default (Dask's: 3).
    pub allowed_failures: Option<u32>,
    /// Abstract resources held while it runs, on one worker, e.g. `GPU: 1`.
    pub resources: BTreeMap<String, f64>,
    /// Slots held while it runs, on one worker. Default 1; 0 for tasks that only wait.
    pub slots: u32,
    /// Workers (by name or host) it may run on. Empty: any.
    pub workers: Vec<String>,
    /// `workers` is a preference, not a condition.
    pub allow_other_workers: bool,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            priority: 0,
            retries: 0,
            allowed_failures: None,
            resources: BTreeMap::new(),
            slots: 1,
            workers: Vec::new(),
            allow_other_workers: false,
            timeout: None,
        }
    }
}

/// A result, or why there is none.
pub type Outcome = Result<Value, TaskError>;

/// A change in a task's life. A task that was submitted is pending; that is not told.
#[derive(Debug, Clone)]
pub struct TaskEvent {
    /// Which task.
    pub key: Key,
    /// Its name.
    pub name: Arc<str>,
    /// What it is now.
    pub state: TaskState,
}

/// Where a task is. The last two are final.
#[derive(Debug, Clone)]
pub enum TaskState {
    /// Waits; `reason` where it is not just its turn ("no worker offers GPU=2").
    Pending {
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// A worker has begun it.
    Running {
        /// Scheduler name of the worker.
        worker: Arc<str>,
        /// 0 for the first attempt.
        attempt: u32,
    },
    /// It returned.
    Done(Value),
    /// It will not.
    Ended(TaskError),
}

impl TaskState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Ended(_))
    }

    /// `pending`, `running`, `done`, `failed`, `crashed`, `cancelled`, `upstream_failed` or `refused`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Running { .. } => "running",
            Self::Done(_) => "done",
            Self::Ended(error) => error.state_name(),
        }
    }
}
