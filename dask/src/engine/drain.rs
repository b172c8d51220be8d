//! Taking workers out of work: no new tasks, what runs ends, results move to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use remuda_core::{
    engine::{Drain, Drains},
    error::Result,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::Inner;
use crate::{
    Rpc,
    control::{Retirement, Retiring},
    protocol::Value,
    shim,
};

/// Between two looks at what a worker still runs.
const LOOK: Duration = Duration::from_millis(100);

/// One that is not known any more has nothing to lose. One whose results have nowhere to go takes work again.
pub(super) async fn drain(inner: &Inner, names: &[String], deadline: Duration) -> Result<Drains> {
    let end = Instant::now() + deadline;
    let addresses = inner.addresses(names);
    let mut drained: Drains =
        names.iter().filter(|name| !addresses.values().any(|known| known == *name)).map(|name| (name.clone(), Drain::Done)).collect();
    if addresses.is_empty() {
        return Ok(drained);
    }
    let mut rpc = inner.rpc().await?.with_patience(deadline.max(Duration::from_secs(1)));
    // Closing gracefully: it is given nothing more, and moves what it has. Where that has nowhere to go, Dask itself lets it work again.
    let retired = retire(&mut rpc, addresses.keys()).await?;
    let mut busy = addresses;
    let refused: Vec<String> = busy.keys().filter(|address| !retired.contains(*address)).cloned().collect();
    if !refused.is_empty() {
        let here = processing(&mut rpc, refused.iter()).await?;
        let became = |address: &String| if here.contains_key(address) { Drain::Refused } else { Drain::Done };
        drained.extend(refused.iter().filter_map(|address| Some((busy.get(address)?.clone(), became(address)))));
        busy.retain(|address, _| retired.contains(address));
        // One that was out of work before has not got it back from Dask.
        resume(&mut rpc, &refused).await?;
    }
    // A future that is dropped, or runs out of time here, leaves them out of work.
    while !busy.is_empty() {
        let running = timeout_at(end, processing(&mut rpc, busy.keys())).await;
        let Ok(running) = running else { break };
        let running = running?;
        let empty: Vec<String> = busy.keys().filter(|address| running.get(*address).is_none_or(|count| *count == 0)).cloned().collect();
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
        if busy.is_empty() || Instant::now() >= end {
            break;
        }
        sleep(LOOK).await;
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

/// How many tasks each of them has; nothing for one that is gone.
async fn processing(rpc: &mut Rpc, workers: impl Iterator<Item = &String>) -> Result<BTreeMap<String, usize>> {
    let wanted: Vec<&String> = workers.collect();
    // Asked without names: the scheduler fails on one that it does not know any more.
    let answer = rpc.call("processing", [("workers", Value::Nil)]).await?;
    let entries = answer.body().as_map().map(Vec::as_slice).unwrap_or_default();
    let count = |tasks: &Value| tasks.as_array().map(Vec::len).or_else(|| tasks.as_map().map(Vec::len)).unwrap_or_default();
    Ok(entries
        .iter()
        .filter_map(|(address, tasks)| Some((address.as_str()?.to_owned(), count(tasks))))
        .filter(|(address, _)| wanted.contains(&address))
        .collect())
}
