//! The connection of one session: what is to be sent goes out, what happens comes in, cuts are mended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use remuda_core::error::{Error, ErrorKind, Result};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    CLOSING, Shared,
    book::Backlog,
    wire::{self, News},
};
use crate::{Comm, CommReader, CommWriter, shim};

/// Messages of events after which the shim is told that it may forget them.
const FORGET: u64 = 50;

/// Bytes of a message that may take longer than the lease lasts: the shim hears nothing of us while it is on its way.
const LARGE: usize = 1 << 20;

/// Between two words about the calls that are held back.
const BACKLOG: Duration = Duration::from_millis(250);

/// For a connection on which a session is closed whose own is cut. Less than [`CLOSING`].
const GOODBYE: Duration = Duration::from_secs(4);

/// How a connection ended.
enum End {
    /// Everything is released.
    Closed,
    /// By accident: it may be made again.
    Cut(Error),
    /// The session is no more.
    Lost(Error),
}

/// Opens the session, or finds it again.
///
/// # Errors
/// As [`Comm::connect`]; [`ErrorKind::SchedulerLost`] when the scheduler does not know it any more.
pub(super) async fn attach(shared: &Arc<Shared>, resume: bool) -> Result<Comm> {
    let inner = &shared.inner;
    let mut comm = Comm::connect(&inner.address, &inner.connect).await?;
    let op = shim::op("stream");
    let request = wire::open(&op, &shared.id, &inner.options.name, inner.options.lease.as_secs_f64(), resume, shared.seen());
    comm.write(&request.into()).await?;
    let answer = timeout(inner.connect.timeout, comm.read()).await;
    let answer = answer.map_err(|_| Error::new(ErrorKind::Timeout, "the scheduler did not answer to a session"))??;
    let answer = answer.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the scheduler closed the connection of a session"))?;
    if answer.body().is_nil() {
        return Err(unknown("the scheduler was started again, and what it had computed is lost"));
    }
    match wire::read(answer.body())? {
        News::Attached { received } => {
            shared.update(|book| book.attached(received));
            Ok(comm)
        }
        News::Unknown => {
            let lease = inner.options.lease;
            Err(unknown(&format!("it had not heard of us for {lease:?}, or was started again")))
        }
        other => Err(Error::new(ErrorKind::Unexpected, format!("the scheduler answered {other:?} to a session"))),
    }
}

fn unknown(why: &str) -> Error {
    Error::new(ErrorKind::SchedulerLost, format!("the scheduler does not know this run any more: {why}"))
        .with_hint("its tasks and results are gone: run the flow again; a longer `lease` survives longer cuts")
}

fn refused(why: &Error) -> Error {
    Error::new(ErrorKind::SchedulerLost, "the scheduler, or what stands before it, cuts each connection over the same message")
        .with_source(why.clone())
        .with_hint("its log says why; it takes no message larger than half of its memory: pass large arguments as files")
}

/// Ends when the session is closed, or lost.
pub(super) async fn run(shared: Arc<Shared>, comm: Comm) {
    let lost = keep(&shared, comm).await;
    if let Err(error) = lost {
        let error = error.with_context("address", &shared.inner.address);
        tracing::warn!(session = %shared.id, %error, "a session is lost");
        shared.update(|book| book.give_up(error));
    }
    shared.ended.cancel();
}

async fn keep(shared: &Arc<Shared>, mut comm: Comm) -> Result<()> {
    let (mut redial, mut stuck) = (shared.inner.redial(), None);
    loop {
        let begun = Instant::now();
        let mut error = match serve(shared, comm).await {
            End::Closed => return Ok(()),
            End::Lost(error) => return Err(error),
            End::Cut(error) => error,
        };
        tracing::info!(session = %shared.id, %error, "the connection of a session is cut");
        // Where each connection is cut over the same message, there is no use in yet another one.
        let (unsent, before) = (shared.unacknowledged(), stuck);
        let again = unsent.is_some() && unsent == before && begun.elapsed() < shared.inner.options.lease;
        if !again {
            redial = shared.inner.redial();
        }
        stuck = unsent;
        comm = loop {
            let pause = redial.next(Instant::now(), &error).map_err(|lost| if again { refused(&error) } else { lost });
            let attached = async {
                sleep(pause?).await;
                Ok(attach(shared, true).await)
            };
            let Some(attached) = shared.closing.run_until_cancelled(attached).await else { return goodbye(shared).await };
            match attached? {
                Ok(comm) => break comm,
                Err(lost) if lost.kind() == ErrorKind::SchedulerLost => return Err(lost),
                Err(other) => error = other,
            }
        };
    }
}

/// A session whose connection is cut as it closes says so on another one, if that is to be had: else its lease ends it.
async fn goodbye(shared: &Arc<Shared>) -> Result<()> {
    let said = timeout(GOODBYE, async { Ok::<_, Error>(serve(shared, attach(shared, true).await?).await) });
    if let Ok(Err(error)) = said.await {
        tracing::debug!(session = %shared.id, %error, "a session whose connection is cut was not closed; its lease will do it");
    }
    Ok(())
}

async fn serve(shared: &Arc<Shared>, comm: Comm) -> End {
    let (mut reader, mut writer) = comm.split();
    // The last message of events that the shim may forget.
    let told = AtomicU64::new(shared.seen());
    let mut lost = shared.inner.lost.subscribe();
    tokio::select! {
        end = read(shared, &mut reader, &told) => end,
        Err(error) = write(shared, &mut writer, &told) => End::Cut(error),
        Ok(error) = lost.wait_for(Option::is_some) => {
            End::Lost(error.clone().unwrap_or_else(|| Error::new(ErrorKind::SchedulerLost, "the scheduler is lost")))
        }
        () = closed_in_vain(shared) => End::Closed,
        () = follow_slots(shared) => End::Closed,
    }
}

async fn read(shared: &Arc<Shared>, reader: &mut CommReader, told: &AtomicU64) -> End {
    loop {
        let message = match reader.read().await {
            Ok(Some(message)) => message,
            Ok(None) => return End::Cut(Error::new(ErrorKind::Unavailable, "the scheduler closed the connection")),
            Err(error) => return End::Cut(error),
        };
        match wire::read(message.body()) {
            Ok(News::Events { seq, received, events }) => {
                if seq > shared.seen() + 1 {
                    // Never seen; a task would wait for ever. Attached again, the shim tells it once more.
                    return End::Cut(Error::new(ErrorKind::Unexpected, "a message of events is missing"));
                }
                shared.update(|book| book.hear(seq, received, events));
                if seq >= told.load(Ordering::Relaxed) + FORGET {
                    shared.due.notify_one();
                }
            }
            Ok(News::Attached { received }) => shared.update(|book| book.attached(received)),
            Ok(News::Closed) => return End::Closed,
            Ok(News::Unknown) => return End::Lost(unknown("it let go of it")),
            // A shim of the same hash says nothing else; a new connection would bring the same again.
            Err(error) => return End::Lost(error),
        }
    }
}

/// Never ends by itself but with an error.
async fn write(shared: &Arc<Shared>, writer: &mut CommWriter, told: &AtomicU64) -> Result<()> {
    let options = &shared.inner.options;
    let beat = options.heartbeat.unwrap_or(options.lease / 4).min(options.lease / 2);
    let mut tick = interval(beat.max(Duration::from_millis(20)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backlog = Told { is: None, at: Instant::now() };
    loop {
        let due = shared.due.notified();
        tokio::pin!(due);
        due.as_mut().enable();
        while let Some((n, order)) = shared.next_order() {
            // What is sent is held back no more: said apart, it would be counted twice until then.
            let held = (matches!(order, wire::Order::Submit { .. }) && backlog.goes_on()).then(|| backlog.tell(shared.backlog()));
            let order = order.encode(n, held)?;
            if order.len() > LARGE {
                writer.write_packed(wire::alive(shared.seen(), Some(order.len())).into()).await?;
            }
            writer.write_packed(order.into()).await?;
        }
        if let Some(now) = backlog.news(shared) {
            writer.write_packed(wire::waiting(now).into()).await?;
        }
        let seen = shared.seen();
        let is_late = seen >= told.load(Ordering::Relaxed) + FORGET;
        if !is_late {
            tokio::select! {
                () = due => continue,
                () = sleep(BACKLOG), if backlog.goes_on() => continue,
                _ = tick.tick() => {}
            }
        }
        told.store(seen, Ordering::Relaxed);
        writer.write_packed(wire::alive(seen, None).into()).await?;
    }
}

/// What was said of the calls that are held back.
struct Told {
    /// `None`: nothing on this connection.
    is: Option<Vec<Backlog>>,
    at: Instant,
}

impl Told {
    fn goes_on(&self) -> bool {
        self.is.as_ref().is_some_and(|told| !told.is_empty())
    }

    /// What is to be said now: at once where there was nothing before, else now and then.
    fn news(&mut self, shared: &Shared) -> Option<&[Backlog]> {
        if self.goes_on() && self.at.elapsed() < BACKLOG {
            return None;
        }
        let now = shared.backlog();
        if self.is.as_ref() == Some(&now) {
            return None;
        }
        Some(self.tell(now))
    }

    fn tell(&mut self, now: Vec<Backlog>) -> &[Backlog] {
        self.at = Instant::now();
        self.is.insert(now)
    }
}

/// Whoever closes a session does not wait without end for the scheduler to say so.
async fn closed_in_vain(shared: &Arc<Shared>) {
    shared.closing.cancelled().await;
    sleep(CLOSING).await;
}

async fn follow_slots(shared: &Arc<Shared>) {
    let mut slots = shared.inner.slots.subscribe();
    loop {
        let now = *slots.borrow_and_update();
        shared.update(|book| book.set_slots(now));
        if slots.changed().await.is_err() {
            return;
        }
    }
}
