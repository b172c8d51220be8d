//! Taking workers out of work: no new tasks, what runs ends, results move to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use remuda_core::{
    engine::{Drain, Drains},
    error::{ErrorKind, Result},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::Inner;
use crate::{
    Rpc,
    control::{Retirement, Retiring},
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
    // Closing gracefully: it is given nothing more, and moves what it has. Where that has nowhere to go, Dask itself lets it work again.
    let Ok(retired) = timeout_at(end, retire(&mut rpc, addresses.keys())).await else { return Ok(drained) };
    let retired = retired?;
    let (mut busy, mut looks) = (addresses, Looks { pause: Duration::ZERO, can_tell: true });
    let refused: Vec<String> = busy.keys().filter(|address| !retired.contains(*address)).cloned().collect();
    if !refused.is_empty() {
        let here = looks.unfinished(&mut rpc, refused.iter(), Duration::ZERO).await?;
        let became = |address: &String| if here.contains_key(address) { Drain::Refused } else { Drain::Done };
        drained.extend(refused.iter().filter_map(|address| Some((busy.get(address)?.clone(), became(address)))));
        busy.retain(|address, _| retired.contains(address));
        // One that was out of work before has not got it back from Dask.
        resume(&mut rpc, &refused).await?;
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
            resume(&mut rpc, &stuck).await?;
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
                resume(&mut rpc, &stuck).await?;
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

/// They take work again.
async fn resume(rpc: &mut Rpc, workers: &[String]) -> Result<()> {
    let workers = Value::Array(workers.iter().map(|address| address.as_str().into()).collect());
    rpc.call(&shim::op("resume"), [("workers", workers)]).await.map(drop)
}

/// Looks at what workers still have to do.
struct Looks {
    /// Before the next one, where the scheduler does not wait for us.
    pause: Duration,
    can_tell: bool,
}

impl Looks {
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
                // Somebody has forbidden it, or this version of Dask is not as it should be.
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Unexpected | ErrorKind::PermissionDenied) => {
                    self.can_tell = false
                }
                Err(error) => return Err(error),
            }
        }
        sleep(self.pause.min(wait)).await;
        self.pause = (self.pause * 2).clamp(LOOK, LOOK_MOST);
        // Asked without names: the scheduler fails on one that it does not know any more.
        let answer = rpc.call("processing", [("workers", Value::Nil)]).await?;
        let mut tasks = counts(answer.body(), |tasks| tasks.as_array().map(Vec::len).or_else(|| tasks.as_map().map(Vec::len)));
        tasks.retain(|address, _| wanted.contains(address.as_str()));
        Ok(tasks)
    }
}

fn counts(told: &Value, count: impl Fn(&Value) -> Option<usize>) -> BTreeMap<String, Option<usize>> {
    let entries = told.as_map().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|(address, tasks)| Some((address.as_str()?.to_owned(), count(tasks)))).collect()
}
