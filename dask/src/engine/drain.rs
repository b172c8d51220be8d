//! Taking workers out of work: no new tasks, what runs ends, results move to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use remuda_core::{
    engine::{Drain, Drains},
    error::{Error, ErrorKind, Result},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::Inner;
use crate::{
    Rpc,
    control::{Retirement, Retiring},
    identity::WorkerIdentity,
    protocol::Value,
    shim,
};

/// The scheduler is asked to say when a worker is out of work, and to say so after this in any case.
const TELL: Duration = Duration::from_secs(5);
/// Between two looks at one that cannot say it: at first, and at most. Its answer lists all tasks on all workers.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_MOST: Duration = Duration::from_secs(2);

/// One that is not known any more has nothing to lose. One whose results have nowhere to go takes work again.
pub(super) async fn drain(inner: &Inner, names: &[String], deadline: Duration) -> Result<Drains> {
    let end = Instant::now() + deadline;
    let addresses = inner.addresses(names);
    let mut drained: Drains =
        names.iter().filter(|name| !addresses.values().any(|known| known == *name)).map(|name| (name.clone(), Drain::Done)).collect();
    if addresses.is_empty() {
        return Ok(drained);
    }
    let mut rpc = inner.rpc().await?.with_patience(deadline + Duration::from_secs(5));
    let (mut busy, mut looks) = (addresses, Looks { inner, pause: Duration::ZERO, can_tell: true });
    if !can_resume(&mut rpc).await? {
        // One that has work would be out of it for good if it did not come to an end: it stays.
        let works = looks.working(&mut rpc).await?;
        drained.extend(busy.extract_if(.., |address, _| works.contains(address)).map(|(_, name)| (name, Drain::Refused)));
        if busy.is_empty() {
            return Ok(drained);
        }
    }
    // Closing gracefully: it is given nothing more, and moves what it has. Where that has nowhere to go, Dask itself lets it work again.
    let Ok(retired) = timeout_at(end, retire(&mut rpc, busy.keys())).await else { return Ok(drained) };
    let retired = retired?;
    let refused: Vec<String> = busy.keys().filter(|address| !retired.contains(*address)).cloned().collect();
    if !refused.is_empty() {
        let here = looks.unfinished(&mut rpc, refused.iter(), Duration::ZERO).await?;
        let became = |address: &String| if here.contains_key(address) { Drain::Refused } else { Drain::Done };
        drained.extend(refused.iter().filter_map(|address| Some((busy.get(address)?.clone(), became(address)))));
        busy.retain(|address, _| retired.contains(address));
        // One that was out of work before has not got it back from Dask.
        looks.resume(&mut rpc, &refused).await?;
    }
    // A future that is dropped, or runs out of time here, leaves them out of work.
    while !busy.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let running = timeout_at(end, looks.unfinished(&mut rpc, busy.keys(), left.min(TELL))).await;
        let Ok(running) = running else { break };
        let running = running?;
        let told = |address: &String| running.get(address).copied().unwrap_or(Some(0));
        let stuck: Vec<String> = busy.keys().filter(|address| told(address).is_none()).cloned().collect();
        if !stuck.is_empty() {
            drained.extend(stuck.iter().filter_map(|address| Some((busy.remove(address)?, Drain::Refused))));
            looks.resume(&mut rpc, &stuck).await?;
        }
        let empty: Vec<String> = busy.keys().filter(|address| told(address) == Some(0)).cloned().collect();
        if !empty.is_empty() {
            // What it has computed since is still there only.
            let moved = timeout_at(end, retire(&mut rpc, empty.iter())).await;
            let Ok(moved) = moved else { break };
            let moved = moved?;
            let (empty, stuck): (Vec<_>, Vec<_>) =
                empty.into_iter().partition(|address| moved.contains(address) || !running.contains_key(address));
            drained.extend(empty.iter().filter_map(|address| Some((busy.remove(address)?, Drain::Done))));
            if !stuck.is_empty() {
                drained.extend(stuck.iter().filter_map(|address| Some((busy.remove(address)?, Drain::Refused))));
                looks.resume(&mut rpc, &stuck).await?;
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    drained.extend(busy.into_values().map(|name| (name, Drain::Busy)));
    Ok(drained)
}

impl Inner {
    /// Addresses of workers by name.
    fn addresses(&self, names: &[String]) -> BTreeMap<String, String> {
        let workers = self.workers();
        let named = workers.known.iter().filter(|(_, known)| names.contains(&known.name));
        named.map(|(address, known)| (address.clone(), known.name.clone())).collect()
    }
}

/// Those whose results are elsewhere now.
async fn retire(rpc: &mut Rpc, workers: impl Iterator<Item = &String>) -> Result<BTreeSet<String>> {
    let retired = rpc.retire_workers(&Retiring::Addresses(workers.cloned().collect()), Retirement::Drain).await?;
    Ok(retired.into_keys().collect())
}

/// Whether workers that were taken out of work can be given some again: it is our shim that does it, and it may be forbidden.
async fn can_resume(rpc: &mut Rpc) -> Result<bool> {
    match rpc.call(&shim::op("resume"), [("workers", Value::Array(Vec::new()))]).await {
        Ok(_) => Ok(true),
        Err(error) if is_closed(&error) => {
            tracing::warn!(%error, "only workers without work are let go: others could not be given any again");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Somebody has forbidden it, or this version of Dask is not as it should be.
fn is_closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Unexpected | ErrorKind::PermissionDenied)
}

/// Workers that leave, run nothing and have something to do, as Dask tells: with what they told, each time they told it.
#[derive(Debug, Default)]
pub(super) struct Still(Mutex<BTreeMap<String, (f64, u32)>>);

/// What a worker told before it heard that it is to go, the first time after that, and once more.
const SURE: u32 = 3;

impl Still {
    /// Whether it has been so for long enough that it cannot be otherwise.
    fn look(&self, address: &str, told: &WorkerIdentity) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.status != "closing_gracefully" || told.executing + told.seceded > 0 {
            known.remove(address);
            return false;
        }
        let (last, times) = known.entry(address.to_owned()).or_insert((told.last_seen, 1));
        if *last < told.last_seen {
            (*last, *times) = (told.last_seen, *times + 1);
        }
        *times >= SURE
    }

    fn forget(&self, is_over: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| !is_over(address));
    }
}

/// Looks at what workers still have to do.
struct Looks<'a> {
    inner: &'a Inner,
    /// Before the next one, where the scheduler does not wait for us.
    pause: Duration,
    can_tell: bool,
}

impl Looks<'_> {
    /// They take work again.
    async fn resume(&self, rpc: &mut Rpc, workers: &[String]) -> Result<()> {
        self.inner.still.forget(|address| workers.iter().any(|worker| worker == address));
        let workers = Value::Array(workers.iter().map(|address| address.as_str().into()).collect());
        match rpc.call(&shim::op("resume"), [("workers", workers)]).await {
            Err(error) if is_closed(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Those that have something to do and are not leaving.
    async fn working(&self, rpc: &mut Rpc) -> Result<BTreeSet<String>> {
        let (tasks, identity) = (rpc.processing(None).await?, rpc.identity().await?);
        let works = |address: &str| tasks.get(address).is_some_and(|tasks| !tasks.is_empty());
        let staying = identity.workers.into_iter().filter(|(address, told)| told.status != "closing_gracefully" && works(address));
        Ok(staying.map(|(address, _)| address).collect())
    }

    /// Where the shim does not tell: a worker that leaves begins nothing any more, so one that runs nothing will never be through with what it
    /// has. Nobody moves that to others then, but Dask itself, which does so at once or not at all.
    async fn judged(&self, rpc: &mut Rpc, tasks: BTreeMap<String, Option<usize>>) -> Result<BTreeMap<String, Option<usize>>> {
        if tasks.values().all(|count| *count == Some(0)) {
            return Ok(tasks);
        }
        let workers = match rpc.identity().await {
            Ok(identity) => identity.workers,
            Err(error) if is_closed(&error) => return Ok(tasks),
            Err(error) => return Err(error),
        };
        self.inner.still.forget(|address| !workers.contains_key(address));
        let is_stuck = |address: &str| workers.get(address).is_some_and(|told| self.inner.still.look(address, told));
        let judge = |(address, count): (String, Option<usize>)| {
            let count = count.filter(|count| *count == 0 || !is_stuck(&address));
            (address, count)
        };
        Ok(tasks.into_iter().map(judge).collect())
    }

    /// How many tasks each of them has, as soon as one of them has none or is gone, or after `wait`; nothing for one that is gone. `None`:
    /// some that it has not begun, and no other may take.
    async fn unfinished(
        &mut self,
        rpc: &mut Rpc,
        workers: impl Iterator<Item = &String>,
        wait: Duration,
    ) -> Result<BTreeMap<String, Option<usize>>> {
        let wanted: BTreeSet<&str> = workers.map(String::as_str).collect();
        if self.can_tell {
            let addresses = Value::Array(wanted.iter().map(|address| (*address).into()).collect());
            match rpc.call(&shim::op("emptied"), [("workers", addresses), ("wait", wait.as_secs_f64().into())]).await {
                Ok(answer) => return Ok(counts(answer.body(), |count| usize::try_from(count.as_i64()?).ok())),
                Err(error) if is_closed(&error) => self.can_tell = false,
                Err(error) => return Err(error),
            }
        }
        sleep(self.pause.min(wait)).await;
        self.pause = (self.pause * 2).clamp(LOOK, LOOK_MOST);
        // Asked without names: the scheduler fails on one that it does not know any more.
        let answer = rpc.call("processing", [("workers", Value::Nil)]).await?;
        let mut tasks = counts(answer.body(), |tasks| tasks.as_array().map(Vec::len).or_else(|| tasks.as_map().map(Vec::len)));
        tasks.retain(|address, _| wanted.contains(address.as_str()));
        self.judged(rpc, tasks).await
    }
}

fn counts(told: &Value, count: impl Fn(&Value) -> Option<usize>) -> BTreeMap<String, Option<usize>> {
    let entries = told.as_map().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|(address, tasks)| Some((address.as_str()?.to_owned(), count(tasks)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_leaves_and_runs_nothing_is_stuck_when_it_has_said_so_for_long_enough() {
        let (still, told) = (Still::default(), |status: &str, executing: u64, last_seen: f64| {
            let mut told = WorkerIdentity::read(&Value::Nil);
            (told.status, told.executing, told.last_seen) = (status.to_owned(), executing, last_seen);
            told
        });
        let leaves = |executing, last_seen| told("closing_gracefully", executing, last_seen);
        assert!(!still.look("a", &leaves(0, 1.0)) && !still.look("a", &leaves(0, 1.0)), "it may not have heard of it");
        assert!(!still.look("a", &leaves(0, 2.0)));
        assert!(!still.look("a", &leaves(1, 3.0)), "it runs something");
        for seen in [4.0, 4.0, 5.0, 5.0] {
            assert!(!still.look("a", &leaves(0, seen)) && !still.look("b", &told("running", 0, seen)));
        }
        assert!(still.look("a", &leaves(0, 6.0)) && still.look("a", &leaves(0, 6.0)));
        still.forget(|address| address == "a");
        assert!(!still.look("a", &leaves(0, 7.0)), "another time");
    }
}
