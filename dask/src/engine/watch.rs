//! The comings and goings of workers, for as long as the engine or one of its sessions is there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use remuda_core::{
    engine::WorkerChange,
    error::{Error, ErrorKind, Result},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{Inner, Known, Workers, outlook};
use crate::{
    Comm,
    protocol::{
        Message, Value,
        value::{get, map, text},
    },
    shim,
};

/// Between two signs of life, at most: each is answered.
const BEAT: Duration = Duration::from_secs(2);
/// A scheduler that is stopped keeps its connections, and says nothing. One whose loop is held up by somebody's large graph does neither.
const SILENT: Duration = Duration::from_secs(12);

/// Signs of life that were not answered. Counted, not measured: our own process may have been stopped as well.
#[derive(Debug)]
struct Silence {
    beat: Duration,
    limit: Duration,
    unanswered: u32,
    is_told: bool,
}

impl Silence {
    fn new(beat: Duration, limit: Duration) -> Self {
        Self { beat, limit, unanswered: 0, is_told: false }
    }

    /// One more was sent. Returns how long there was no answer, once.
    fn asked(&mut self) -> Option<Duration> {
        // The one that was just sent cannot have been answered.
        let silent = self.beat * self.unanswered;
        self.unanswered = self.unanswered.saturating_add(1);
        let is_news = silent >= self.limit && !self.is_told;
        self.is_told |= is_news;
        is_news.then_some(silent)
    }

    /// Returns whether the silence had been told.
    fn heard(&mut self) -> bool {
        self.unanswered = 0;
        std::mem::take(&mut self.is_told)
    }
}

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
    let beat = (inner.options.lease / 4).clamp(Duration::from_millis(50), BEAT);
    let silence = Mutex::new(Silence::new(beat, SILENT.min(inner.options.lease / 2)));
    let heard = |silence: &Mutex<Silence>| {
        if silence.lock().unwrap_or_else(PoisonError::into_inner).heard() {
            inner.note(&format!("the scheduler at {} answers again", inner.address));
        }
    };
    let read = async {
        loop {
            match reader.read().await {
                Ok(Some(message)) => {
                    heard(&silence);
                    take(inner, &message, std::mem::take(&mut first));
                }
                Ok(None) => return Error::new(ErrorKind::Unavailable, "the scheduler closed the connection"),
                Err(error) => return error,
            }
        }
    };
    let write = async {
        let mut tick = interval(beat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let alive: Message = map([("t", "alive".into())]).into();
        // Whoever listened on an earlier connection has forgotten it.
        let mut expected = inner.outlook.subscribe();
        expected.mark_changed();
        loop {
            let message = tokio::select! {
                _ = tick.tick() => None,
                Ok(()) = expected.changed() => {
                    let outlook = expected.borrow_and_update();
                    let Some(message) = outlook.as_ref().and_then(|it| outlook::message(it, inner.options.no_workers_timeout)) else { continue };
                    Some(message)
                }
            };
            if let Err(error) = writer.write(message.as_ref().unwrap_or(&alive)).await {
                return error;
            }
            let silent = silence.lock().unwrap_or_else(PoisonError::into_inner).asked();
            if let Some(since) = silent {
                let text = format!(
                    "the scheduler at {} does not answer since {} s; its host or process may be stopped, or it is very busy",
                    inner.address,
                    since.as_secs()
                );
                inner.note(&text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_scheduler_is_told_of_once_and_when_it_is_over() {
        let mut silence = Silence::new(Duration::from_secs(2), SILENT);
        for _ in 0..100 {
            assert!(silence.asked().is_none() && !silence.heard());
        }
        let told: Vec<_> = (0..20).map(|_| silence.asked()).collect();
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), [&SILENT]);
        assert_eq!(told.iter().position(Option::is_some), Some(6), "as soon as it has lasted for so long");
        assert!(silence.heard() && !silence.heard());
    }
}
