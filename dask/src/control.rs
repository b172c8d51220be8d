//! What a scheduler, and some of it a worker, can be asked: each operation that we use, with its types.
//!
//! Identical on every supported version, unless a method says otherwise.

use std::{collections::BTreeMap, fmt, time::Duration};

use remuda_core::error::{Error, ErrorKind, Result};

use crate::{
    Identity, Rpc, Versions, WorkerIdentity,
    protocol::{
        Message, Value,
        value::{elements, map, text},
    },
};

/// How a worker is called.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallBy {
    /// By address: unique for ever.
    #[default]
    Address,
    /// By name: that of a worker that was started again is the same.
    Name,
}

/// Which workers the scheduler would rather do without: idle ones first, then those with the least data. Without any of the numbers it
/// proposes none while all are busy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToClose {
    /// So many.
    pub n: Option<u64>,
    /// As many as are more than that.
    pub target: Option<u64>,
    /// Leave at least so many.
    pub minimum: Option<u64>,
    /// Those that stay must have so many times the room of the data that is there. Dask's default: 2.
    pub memory_ratio: Option<f64>,
    /// What the answer calls them by.
    pub call_by: CallBy,
}

/// Workers to retire.
#[derive(Debug, Clone, PartialEq)]
pub enum Retiring {
    /// By address; those that the scheduler does not know are left out.
    Addresses(Vec<String>),
    /// By name, likewise.
    Names(Vec<String>),
    /// The scheduler chooses.
    Chosen(ToClose),
}

/// How far a worker retires. Either way its results are moved to others first.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// It takes no new tasks, ends those it has, and stays connected: a true drain. Ask [`Rpc::processing`] when it is through.
    Drain,
    /// It leaves the scheduler at once, and its process ends after the tasks that are running there; those are run **again** elsewhere.
    Close,
}

/// Whom a broadcast goes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Audience {
    /// Every worker.
    #[default]
    All,
    /// Those at these addresses.
    Workers(Vec<String>),
    /// All on these hosts.
    Hosts(Vec<String>),
}

/// Where a task stands in the scheduler.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Not wanted, or not begun with.
    Released,
    /// Dependencies are missing.
    Waiting,
    /// No worker may run it.
    NoWorker,
    /// It may run, and workers are busy.
    Queued,
    /// Sent to a worker: it runs there, or waits its turn.
    Processing,
    /// Its result is there.
    Memory,
    /// It failed.
    Erred,
    /// One that this build does not know.
    Other(String),
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::NoWorker => "no-worker",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Memory => "memory",
            Self::Erred => "erred",
            Self::Other(other) => other,
        })
    }
}

impl From<&str> for TaskState {
    fn from(state: &str) -> Self {
        match state {
            "released" => Self::Released,
            "waiting" => Self::Waiting,
            "no-worker" => Self::NoWorker,
            "queued" => Self::Queued,
            "processing" => Self::Processing,
            "memory" => Self::Memory,
            "erred" => Self::Erred,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `INFO`, `WARNING`.
    pub level: String,
    /// May have several lines of its own.
    pub text: String,
}

/// Each fails as [`Rpc::call`] does; [`ErrorKind::Unexpected`] when the answer has not the shape that every supported version gives it.
impl Rpc {
    /// Who the peer is; of a scheduler also its workers.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn identity(&mut self) -> Result<Identity> {
        Identity::read(self.call("identity", []).await?.body())
    }

    /// The versions of the peer's Python and packages.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn versions(&mut self) -> Result<Versions> {
        Versions::read(self.call("versions", []).await?.body())
    }

    /// The threads of each worker, by address. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn ncores(&mut self) -> Result<BTreeMap<String, u64>> {
        entries("ncores", &self.call("ncores", []).await?, Value::as_u64)
    }

    /// How many workers the scheduler would have, to be through with everything in `target_duration`. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn adaptive_target(&mut self, target_duration: Duration) -> Result<u64> {
        let op = "adaptive_target";
        let answer = self.call(op, [("target_duration", target_duration.as_secs_f64().into())]).await?;
        answer.body().as_u64().ok_or_else(|| shapeless(op, "number"))
    }

    /// Which workers it would rather do without. Nothing happens to them. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn workers_to_close(&mut self, which: &ToClose) -> Result<Vec<String>> {
        let op = "workers_to_close";
        let answer = self.call(op, which.args()).await?;
        names(answer.body()).ok_or_else(|| shapeless(op, "list"))
    }

    /// Has workers leave, after their results were moved to others. Who is leaving; empty where nobody was meant, or where results have
    /// nowhere to go: then the worker goes on. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn retire_workers(&mut self, which: &Retiring, how: Retirement) -> Result<BTreeMap<String, WorkerIdentity>> {
        let op = "retire_workers";
        let mut args = match which {
            Retiring::Addresses(addresses) => vec![("workers", list(addresses))],
            Retiring::Names(names) => vec![("names", list(names))],
            Retiring::Chosen(which) => which.args(),
        };
        // The other two combinations do the same as the second, or lose workers with nannies.
        let is_last = how == Retirement::Close;
        args.extend([("close_workers", is_last.into()), ("remove", is_last.into())]);
        entries(op, &self.call(op, args).await?, |worker| Some(WorkerIdentity::read(worker)))
    }

    /// Its log, newest line first; at most `n`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn logs(&mut self, n: Option<u64>) -> Result<Vec<LogLine>> {
        let op = "get_logs";
        lines(self.call(op, [("n", optional(n))]).await?.body()).ok_or_else(|| shapeless(op, "list of lines"))
    }

    /// The logs of workers by address, newest line first; at most `n` each. `nanny`: of their nannies instead. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn worker_logs(&mut self, workers: Option<&[String]>, n: Option<u64>, nanny: bool) -> Result<BTreeMap<String, Vec<LogLine>>> {
        let args = [("n", optional(n)), ("workers", workers.map_or(Value::Nil, list)), ("nanny", nanny.into())];
        entries("worker_logs", &self.call("worker_logs", args).await?, lines)
    }

    /// Where tasks stand; `None`: the scheduler does not know the key. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn task_states(&mut self, keys: &[String]) -> Result<BTreeMap<String, Option<TaskState>>> {
        let op = "get_task_status";
        entries(op, &self.call(op, [("keys", list(keys))]).await?, |state| Some(text(state).map(TaskState::from)))
    }

    /// How many tasks are in each state, for each prefix of keys. Dask does not count those that wait for a worker here: queued ones, and
    /// those that no worker may run. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn prefix_states(&mut self) -> Result<BTreeMap<String, Vec<(TaskState, u64)>>> {
        let count = |(state, count): &(Value, Value)| Some((text(state)?.into(), count.as_u64()?));
        let op = "get_task_prefix_states";
        entries(op, &self.call(op, []).await?, |states| states.as_map()?.iter().map(count).collect())
    }

    /// The size of results in bytes; of all that are there without `keys`. Keys without a result are left out. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`ErrorKind::Unexpected`] when a key is not known there.
    pub async fn nbytes(&mut self, keys: Option<&[String]>) -> Result<BTreeMap<String, u64>> {
        let args = [("keys", keys.map_or(Value::Nil, list)), ("summary", false.into())];
        let sizes = entries("nbytes", &self.call("nbytes", args).await?, Value::as_i64)?;
        // Unknown ones are negative.
        Ok(sizes.into_iter().filter_map(|(key, size)| Some((key, u64::try_from(size).ok()?))).collect())
    }

    /// The keys of the tasks that were sent to each worker and have not ended. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`ErrorKind::Unexpected`] when a worker is not known there.
    pub async fn processing(&mut self, workers: Option<&[String]>) -> Result<BTreeMap<String, Vec<String>>> {
        entries("processing", &self.call("processing", workers.map(|workers| ("workers", list(workers)))).await?, names)
    }

    /// The addresses of the workers that have a result, for each key; none for one that is not there. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn who_has(&mut self, keys: Option<&[String]>) -> Result<BTreeMap<String, Vec<String>>> {
        entries("who_has", &self.call("who_has", keys.map(|keys| ("keys", list(keys)))).await?, names)
    }

    /// The keys of the results that each worker has. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn has_what(&mut self, workers: Option<&[String]>) -> Result<BTreeMap<String, Vec<String>>> {
        entries("has_what", &self.call("has_what", workers.map(|workers| ("workers", list(workers)))).await?, names)
    }

    /// Has workers, or with `nanny` their nannies, asked something; each one's answer by address. For a scheduler.
    ///
    /// # Errors
    /// As [`call`](Self::call); the whole fails when one of them does.
    pub async fn broadcast<'a>(
        &mut self,
        op: &str,
        args: impl IntoIterator<Item = (&'a str, Value)> + Send,
        audience: &Audience,
        nanny: bool,
    ) -> Result<BTreeMap<String, Value>> {
        let to = match audience {
            Audience::All => None,
            Audience::Workers(addresses) => Some(("workers", list(addresses))),
            Audience::Hosts(hosts) => Some(("hosts", list(hosts))),
        };
        let msg = map([("op", op.into())].into_iter().chain(args));
        let args = [("msg", msg), ("nanny", nanny.into())].into_iter().chain(to);
        entries("broadcast", &self.call("broadcast", args).await?, |answer| Some(answer.clone()))
    }

    /// Ends the process that is asked; of a scheduler with its workers. A scheduler or worker answers by hanging up.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it is still there afterwards; as [`call`](Self::call) when it refuses.
    pub async fn terminate(mut self) -> Result<()> {
        match self.call("terminate", []).await {
            // That is all the answer there is, if it was asked at all.
            Err(error) if error.kind() == ErrorKind::Unavailable && self.is_owed => Ok(()),
            ended => ended.map(|_| ()),
        }
    }
}

impl ToClose {
    fn args(&self) -> Vec<(&'static str, Value)> {
        let numbers = [("n", self.n), ("target", self.target), ("minimum", self.minimum)];
        let mut args: Vec<_> = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.into()))).collect();
        args.extend(self.memory_ratio.map(|ratio| ("memory_ratio", ratio.into())));
        let attribute = match self.call_by {
            CallBy::Address => "address",
            CallBy::Name => "name",
        };
        args.push(("attribute", attribute.into()));
        args
    }
}

fn list(strings: &[String]) -> Value {
    Value::Array(strings.iter().map(|string| string.as_str().into()).collect())
}

fn optional(number: Option<u64>) -> Value {
    number.map_or(Value::Nil, Value::from)
}

/// Strings; numbers, which names may be, are written out.
fn names(value: &Value) -> Option<Vec<String>> {
    let name = |value: &Value| text(value).map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()));
    // Keys may be tuples: not ours.
    Some(elements(value)?.iter().filter_map(name).collect())
}

fn lines(value: &Value) -> Option<Vec<LogLine>> {
    let line = |line: &Value| match elements(line)? {
        [level, said] => Some(LogLine { level: text(level)?.to_owned(), text: text(said)?.to_owned() }),
        _ => None,
    };
    elements(value)?.iter().map(line).collect()
}

/// A map with string keys. Others belong to somebody else, and are left out.
fn entries<T>(op: &'static str, answer: &Message, read: impl Fn(&Value) -> Option<T>) -> Result<BTreeMap<String, T>> {
    let entries = answer.body().as_map().ok_or_else(|| shapeless(op, "map"))?;
    let named = entries.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value)));
    named.map(|(key, value)| Ok((key, read(value).ok_or_else(|| shapeless(op, "map of what was asked for"))?))).collect()
}

fn shapeless(op: &str, wanted: &str) -> Error {
    Error::new(ErrorKind::Unexpected, format!("the answer to `{op}` is no {wanted}"))
        .with_hint("its version of `distributed` may be one that is not supported")
}
