//! One run's side of a Dask scheduler.

mod book;
mod call;
mod check;
mod gather;
mod stream;
pub(crate) mod wire;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Form, Session, Shown, TaskEvents},
    error::{Error, ErrorKind, Result},
    task::{Key, TaskError, TaskEvent, TaskSpec},
    value::Value,
};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{book::Book, call::Translator};
use crate::engine::Inner;

/// How long the scheduler has to say that everything is released. Its lease does it otherwise.
const CLOSING: Duration = Duration::from_secs(5);

/// One run at a Dask scheduler. A task of the engine's runtime owns its connection.
#[derive(Debug)]
pub(crate) struct DaskSession {
    shared: Arc<Shared>,
    /// Until somebody listens, nothing is lost.
    events: Mutex<Option<TaskEvents>>,
    _hold: Arc<DropGuard>,
}

/// What the session and its background tasks share.
pub(crate) struct Shared {
    pub(crate) inner: Arc<Inner>,
    /// 32 hexadecimal digits, never used twice.
    pub(crate) id: Arc<str>,
    state: Mutex<State>,
    /// There is something to send.
    pub(crate) due: Notify,
    /// Nobody wants anything of it any more.
    pub(crate) closing: CancellationToken,
    /// The connection has ended, for good.
    pub(crate) ended: CancellationToken,
}

pub(crate) struct State {
    pub(crate) book: Book,
    listener: mpsc::UnboundedSender<TaskEvent>,
    waiters: HashMap<Key, Vec<oneshot::Sender<()>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).field("scheduler", &self.inner.address).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change of the books and what follows from it.
    pub(crate) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Book) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state.book);
        let effects = state.book.take_effects();
        // Under the lock, so that they are heard in order.
        for event in effects.events {
            let _ = state.listener.send(event);
        }
        if !state.waiters.is_empty() {
            effects.settled.iter().filter_map(|key| state.waiters.remove(key)).flatten().for_each(|waiter| _ = waiter.send(()));
        }
        drop(state);
        effects.notes.iter().for_each(|text| self.inner.note(text));
        effects.checks.into_iter().for_each(|gate| self.ask(gate));
        if effects.is_due {
            self.due.notify_one();
        }
        result
    }

    fn close(self: &Arc<Self>) {
        self.update(Book::close);
        self.closing.cancel();
    }

    /// The books hear the answer.
    fn ask(self: &Arc<Self>, gate: call::Gate) {
        let shared = self.clone();
        self.inner.runtime.spawn(async move {
            let answer = check::check(&shared.inner, &gate).await;
            shared.update(|book| book.gate(gate, answer));
        });
    }

    /// What is to be sent next. Changes nothing that anybody hears of.
    pub(crate) fn next_order(&self) -> Option<(u64, wire::Order)> {
        self.state().book.next_order()
    }

    pub(crate) fn seen(&self) -> u64 {
        self.state().book.seen()
    }

    fn backlog(&self) -> Vec<book::Backlog> {
        self.state().book.backlog()
    }

    /// The first message that is sent and not known to have arrived.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.state().book.unacknowledged()
    }

    /// Where results are; for those that are nowhere yet, what ends the wait.
    fn find(&self, keys: &[Key]) -> Vec<std::result::Result<book::Whereabouts, oneshot::Receiver<()>>> {
        let mut state = self.state();
        let mut find = |key: &Key| match state.book.find(*key) {
            book::Whereabouts::Pending => {
                let (tell, wait) = oneshot::channel();
                state.waiters.entry(*key).or_default().push(tell);
                Err(wait)
            }
            known => Ok(known),
        };
        keys.iter().map(&mut find).collect()
    }
}

impl DaskSession {
    pub(crate) async fn open(inner: Arc<Inner>, hold: Arc<DropGuard>) -> Result<Self> {
        let id: Arc<str> = fresh_id().into();
        let (listener, events) = mpsc::unbounded_channel();
        let mut book = Book::new(inner.options.batch);
        book.set_slots(*inner.slots.borrow());
        let state = State { book, listener, waiters: HashMap::new() };
        let (due, closing, ended) = (Notify::new(), CancellationToken::new(), CancellationToken::new());
        let shared = Arc::new(Shared { inner, id, state: Mutex::new(state), due, closing, ended });
        let attached = stream::attach(&shared, false).await?;
        shared.inner.runtime.spawn(stream::run(shared.clone(), attached));
        Ok(Self { shared, events: Mutex::new(Some(events)), _hold: hold })
    }
}

#[async_trait]
impl Session for DaskSession {
    fn shares_memory(&self) -> bool {
        false
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        // Before the lock is taken: what is dropped here may be the user's.
        let mut translator = Translator::new(self.shared.inner.named_host.clone());
        let submissions = tasks.into_iter().map(|spec| translator.translate(spec)).collect();
        self.shared.update(|book| book.submit(submissions));
    }

    fn cancel(&self, keys: &[Key]) {
        self.shared.update(|book| book.cancel(keys));
    }

    fn release(&self, keys: &[Key]) {
        self.shared.update(|book| book.release(keys));
    }

    fn events(&self) -> TaskEvents {
        let first = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| {
            let (listener, events) = mpsc::unbounded_channel();
            self.shared.state().listener = listener;
            events
        })
    }

    async fn gather(&self, keys: &[Key]) -> Result<Vec<Value>, TaskError> {
        let shown = gather::gather(&self.shared, keys, &[Form::Plain]).await?;
        shown.into_iter().map(plain).collect()
    }

    async fn show(&self, key: Key, forms: &[Form]) -> Result<Shown, TaskError> {
        let mut shown = gather::gather(&self.shared, &[key], forms).await?;
        shown.pop().ok_or(TaskError::Cancelled)
    }

    async fn close(&self) -> Result<()> {
        self.shared.close();
        if timeout(CLOSING, self.shared.ended.cancelled()).await.is_err() {
            tracing::warn!(session = %self.shared.id, "the scheduler did not say that it has released our tasks; the lease will");
        }
        Ok(())
    }
}

impl Drop for DaskSession {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn plain(shown: Shown) -> Result<Value, TaskError> {
    match shown {
        Shown::Plain(bytes) => Ok(Value::Plain(bytes)),
        other => Err(Error::new(ErrorKind::Unexpected, format!("a result came as {other:?}")).into()),
    }
}

/// Of this process, this moment, and a number: nobody has to guess it, it only must not come twice.
fn fresh_id() -> String {
    use std::{
        fmt::Write as _,
        hash::{BuildHasher, RandomState},
        sync::atomic::{AtomicU64, Ordering},
    };
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let random = RandomState::new().hash_one(now);
    let text = format!("{} {now} {random} {}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    Sha256::digest(text).iter().take(16).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
