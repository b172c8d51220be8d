//! The comings and goings of workers, for as long as the engine or one of its sessions is there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remuda_core::{
    engine::WorkerChange,
    error::{Error, ErrorKind, Result},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Inner, Known, Workers};
use crate::{
    Comm,
    protocol::{
        Message, Value,
        value::{get, map, text},
    },
    shim,
};

/// A connection on which the scheduler tells its workers, those that are there first.
pub(super) async fn attach(inner: &Inner) -> Result<Comm> {
    let mut comm = Comm::connect(&inner.address, &inner.connect).await?;
    let request = map([
        ("op", shim::op("watch").as_str().into()),
        ("owner", inner.options.owner.into()),
        ("lease", inner.options.lease.as_secs_f64().into()),
    ]);
    comm.write(&request.into()).await?;
    Ok(comm)
}

/// Ends with the scheduler, or when `stop` says so.
pub(super) async fn run(inner: Arc<Inner>, first: Comm, stop: CancellationToken) {
    stop.run_until_cancelled(keep(&inner, first)).await;
}

async fn keep(inner: &Inner, mut comm: Comm) {
    loop {
        let mut error = serve(inner, comm).await;
        let mut redial = inner.redial();
        comm = loop {
            match redial.next(std::time::Instant::now(), &error) {
                Ok(pause) => sleep(pause).await,
                Err(lost) => return inner.lose(&lost.with_context("address", &inner.address)),
            }
            match again(inner).await {
                Ok(comm) => break comm,
                Err(lost) if lost.kind() == ErrorKind::SchedulerLost => return inner.lose(&lost),
                Err(other) => error = other,
            }
        };
        tracing::info!(address = %inner.address, "connected to the scheduler again");
    }
}

/// The same scheduler as before, or none.
async fn again(inner: &Inner) -> Result<Comm> {
    let mut rpc = inner.rpc().await?;
    let answer = rpc.call(&shim::op("hello"), []).await;
    let id = match &answer {
        Ok(answer) => get(answer.body(), "id").and_then(text),
        // It has no shim.
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        Err(error) => return Err(error.clone()),
    };
    if id == Some(inner.hello.id.as_str()) {
        return attach(inner).await;
    }
    Err(Error::new(ErrorKind::SchedulerLost, "the scheduler is gone; another one listens at its address")
        .with_context("address", &inner.address)
        .with_hint("it was started again, and what the first had computed is lost: run the flow again"))
}

/// Returns why the connection ended.
async fn serve(inner: &Inner, comm: Comm) -> Error {
    let (mut reader, mut writer) = comm.split();
    let mut first = true;
    let read = async {
        loop {
            match reader.read().await {
                Ok(Some(message)) => take(inner, &message, std::mem::take(&mut first)),
                Ok(None) => return Error::new(ErrorKind::Unavailable, "the scheduler closed the connection"),
                Err(error) => return error,
            }
        }
    };
    let write = async {
        let mut tick = interval((inner.options.lease / 4).max(Duration::from_millis(50)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let alive: Message = map([("t", "alive".into())]).into();
        loop {
            tick.tick().await;
            if let Err(error) = writer.write(&alive).await {
                return error;
            }
        }
    };
    tokio::select! {
        error = read => error,
        error = write => error,
    }
}

/// `first`: these are all there are.
fn take(inner: &Inner, message: &Message, first: bool) {
    let events = get(message.body(), "events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut joined = BTreeMap::new();
    let mut workers = inner.workers();
    if first {
        let here: Vec<_> = events.iter().filter_map(arrival).map(|(address, _)| address).collect();
        let gone: Vec<_> =
            workers.known.iter().filter(|(address, _)| !here.contains(address)).map(|(_, known)| known.name.clone()).collect();
        gone.iter().for_each(|name| workers.leave(name, "it left while the connection was cut", false));
    }
    if events.iter().any(|event| event.as_array().and_then(|event| event.first()).and_then(text) == Some("arrived")) {
        inner.arrivals.send_modify(|count| *count += 1);
    }
    for event in events {
        if let Some((address, known)) = arrival(event) {
            joined.insert(address.clone(), known.name.clone());
            workers.join(address, known);
        } else if let Some([kind, name, reason, busy]) = event.as_array().map(Vec::as_slice)
            && text(kind) == Some("left")
        {
            let reason = text(reason).unwrap_or("it left");
            workers.leave(text(name).unwrap_or_default(), reason, busy.as_bool().unwrap_or(false));
        }
    }
    let here: Vec<String> = workers.known.keys().cloned().collect();
    let slots = workers.known.values().map(|known| known.slots).sum();
    drop(workers);
    inner.fetcher.keep(&here);
    joined.keys().for_each(|address| inner.fetcher.expect(address));
    inner.slots.send_if_modified(|known| std::mem::replace(known, slots) != slots);
}

fn arrival(event: &Value) -> Option<(String, Known)> {
    let [kind, name, host, address, threads, ..] = event.as_array()?.as_slice() else { return None };
    (text(kind) == Some("joined")).then_some(())?;
    let slots = u32::try_from(threads.as_u64()?).ok()?;
    Some((text(address)?.to_owned(), Known { name: text(name)?.to_owned(), host: text(host)?.to_owned(), slots }))
}

impl Workers {
    fn tell(&mut self, change: &WorkerChange) {
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }

    fn join(&mut self, address: String, known: Known) {
        // Told again after a cut.
        if self.known.get(&address) == Some(&known) {
            return;
        }
        let Known { name, host, slots } = known.clone();
        self.known.insert(address, known);
        self.tell(&WorkerChange::Joined { name, host, slots });
    }

    fn leave(&mut self, name: &str, reason: &str, busy: bool) {
        let address = self.known.iter().find(|(_, known)| known.name == name).map(|(address, _)| address.clone());
        if address.is_some_and(|address| self.known.remove(&address).is_some()) {
            self.tell(&WorkerChange::Left { name: name.to_owned(), reason: reason.to_owned(), busy });
        }
    }
}
