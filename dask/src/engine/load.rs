//! What there is to do and who is there to do it: counts from the shim, or guesses from what every scheduler answers.

use std::time::Duration;

use remuda_core::{
    adaptive::{Group, Load, Prefix},
    engine::{Observation, WorkerLoad},
    error::{Error, ErrorKind, Result},
};

use super::Inner;
use crate::{
    Rpc,
    protocol::{
        Value,
        value::{get, text},
    },
    shim,
};

/// An answer that takes longer would be of no use any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection on which the load is asked for, again and again.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Nothing while somebody asks, so that a question that is given up takes it along.
    rpc: Option<Rpc>,
    /// It was said that the answers are guesses.
    guesses: bool,
}

pub(super) async fn load(inner: &Inner) -> Result<Observation> {
    let mut asking = inner.asking.lock().await;
    if let Some(mut rpc) = asking.rpc.take()
        && let Ok(observed) = asking.ask(&mut rpc).await
    {
        asking.rpc = Some(rpc);
        return Ok(observed);
    }
    let mut rpc = inner.rpc().await?.with_patience(PATIENCE);
    let observed = asking.ask(&mut rpc).await?;
    asking.rpc = Some(rpc);
    Ok(observed)
}

impl Asking {
    async fn ask(&mut self, rpc: &mut Rpc) -> Result<Observation> {
        match rpc.call(&shim::op("load"), []).await {
            Ok(answer) => read(answer.body()),
            // The shim is not there, may not be asked, or does not know its way about this version: better a guess than a cluster that
            // stays as it is.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Unexpected | ErrorKind::PermissionDenied) => {
                if !std::mem::replace(&mut self.guesses, true) {
                    tracing::warn!(%error, "adaptive scaling goes by guesses: the scheduler's groups of tasks could not be counted");
                }
                guess(rpc).await
            }
            Err(error) => Err(error),
        }
    }
}

fn read(body: &Value) -> Result<Observation> {
    let list = |name: &'static str| {
        let entries = get(body, name).and_then(Value::as_array).map(Vec::as_slice);
        entries.ok_or_else(|| Error::new(ErrorKind::Unexpected, format!("the scheduler's load has no `{name}`")))
    };
    let prefixes = list("prefixes")?.iter().map(prefix).collect();
    let groups = list("groups")?.iter().map(group).collect();
    Ok(Observation { load: Load { prefixes, groups }, workers: list("workers")?.iter().map(worker).collect() })
}

fn prefix(told: &Value) -> Prefix {
    let running = get(told, "running").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Prefix {
        completions: number(told, "completions"),
        total: get(told, "total").map(seconds).unwrap_or_default(),
        longest: get(told, "longest").map(seconds).unwrap_or_default(),
        running: running.iter().map(seconds).collect(),
        arrived: number(told, "arrived"),
    }
}

fn group(told: &Value) -> Group {
    let dependencies = get(told, "dependencies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Group {
        id: number(told, "id"),
        prefix: usize::try_from(number(told, "prefix")).unwrap_or(usize::MAX),
        waiting: number(told, "waiting"),
        ready: number(told, "ready"),
        processing: number(told, "processing"),
        done: number(told, "done"),
        dependencies: dependencies.iter().filter_map(Value::as_u64).collect(),
    }
}

fn worker(told: &Value) -> WorkerLoad {
    let small = |name| u32::try_from(number(told, name)).unwrap_or(u32::MAX);
    WorkerLoad {
        name: get(told, "name").and_then(text).unwrap_or_default().to_owned(),
        slots: small("slots"),
        processing: small("processing"),
        bytes: number(told, "bytes"),
        memory_limit: number(told, "memory_limit"),
        pinned: get(told, "pinned").and_then(Value::as_bool).unwrap_or(true),
    }
}

fn number(told: &Value, name: &str) -> u64 {
    get(told, name).and_then(Value::as_u64).unwrap_or_default()
}

fn seconds(told: &Value) -> Duration {
    told.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

/// From `adaptive_target`, which sees the tasks that run or could: asked for as good as no time it tells how many they are, asked for one
/// second how long they take together; both in workers, and only while there are more of these than of workers. Nothing of groups,
/// stages and arrivals: what depends on them is not foreseen.
async fn guess(rpc: &mut Rpc) -> Result<Observation> {
    let identity = rpc.identity().await?;
    let assigned = rpc.processing(None).await?;
    let count = rpc.adaptive_target(Duration::from_nanos(1)).await?;
    let work = rpc.adaptive_target(Duration::from_secs(1)).await?;
    let workers: Vec<WorkerLoad> = (identity.workers.iter())
        .map(|(address, known)| WorkerLoad {
            name: known.name.clone(),
            slots: u32::try_from(known.nthreads).unwrap_or(u32::MAX),
            processing: assigned.get(address).map_or(0, |keys| u32::try_from(keys.len()).unwrap_or(u32::MAX)),
            // Not what the process takes: one without results takes memory as well, and may go.
            bytes: known.managed,
            memory_limit: known.memory_limit,
            pinned: !known.status.is_empty() && known.status != "running",
        })
        .collect();
    Ok(Observation { load: guessed(count, work, &workers), workers })
}

fn guessed(count: u64, work: u64, workers: &[WorkerLoad]) -> Load {
    let here = workers.len() as u64;
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.slots)).sum();
    let processing = workers.iter().map(|worker| u64::from(worker.processing)).sum();
    // Without a worker it counts in threads.
    let threads = slots.checked_div(here).unwrap_or(1).max(1);
    let tasks = if count > here { count * threads } else { 0 };
    let ready = tasks.saturating_sub(processing);
    let mut prefix = Prefix::default();
    if count > here && work > here {
        let mean = Duration::from_secs_f64(work as f64 / count as f64);
        prefix = Prefix { completions: 1, total: mean, longest: mean, ..prefix };
    }
    let groups = if ready + processing > 0 { vec![Group { id: 1, ready, processing, ..Group::default() }] } else { vec![] };
    Load { prefixes: vec![prefix], groups }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::value::map;

    #[test]
    fn what_is_not_known_is_left_out() {
        let empty = || Value::Array(vec![]);
        let told = map([("name", "inc".into()), ("total", 1.5.into()), ("running", Value::Array(vec![0.25.into(), (-1.0).into()]))]);
        let group = map([("id", 7.into()), ("ready", 3.into()), ("dependencies", Value::Array(vec![5.into()])), ("new", true.into())]);
        let worker = map([("name", "0-0".into()), ("slots", 2.into()), ("bytes", 10.into()), ("pinned", false.into())]);
        let body = [("prefixes", told), ("groups", group), ("workers", worker)].map(|(name, entry)| (name, Value::Array(vec![entry])));
        let observed = read(&map(body)).unwrap();
        let millis = Duration::from_millis;
        let prefix = Prefix { total: millis(1500), running: vec![millis(250), Duration::ZERO], ..Prefix::default() };
        assert_eq!(observed.load.prefixes, [prefix]);
        assert_eq!(observed.load.groups, [Group { id: 7, ready: 3, dependencies: vec![5], ..Group::default() }]);
        assert_eq!(observed.workers, [WorkerLoad { name: "0-0".into(), slots: 2, bytes: 10, ..WorkerLoad::default() }]);
        let error = read(&map([("prefixes", empty()), ("workers", empty())])).unwrap_err();
        assert!(error.message().contains("groups"), "{error}");
    }

    #[test]
    fn a_target_is_taken_for_tasks_while_it_is_above_the_workers() {
        let load = guessed(100, 50, &[]);
        assert_eq!((load.ready(), load.prefixes[0].total), (100, Duration::from_millis(500)));
        let busy = WorkerLoad { slots: 2, processing: 3, ..WorkerLoad::default() };
        let load = guessed(10, 2, &[busy.clone(), busy.clone()]);
        assert_eq!((load.ready(), load.processing(), load.prefixes[0].completions), (14, 6, 0));
        assert_eq!(guessed(1, 1, &[busy.clone(), busy]).ready(), 0);
        assert!(guessed(0, 0, &[]).groups.is_empty());
    }
}
