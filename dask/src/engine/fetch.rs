//! Results from where they are: directly from the workers, many with one question; through the scheduler where a worker cannot be reached.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use remuda_core::{
    engine::Shown,
    error::{Error, ErrorKind, Result},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use crate::{
    Address, ConnectOptions, Rpc,
    protocol::{Message, Value, value::text},
    session::wire::refusal,
    shim,
};

/// Questions to one worker at the same time.
const CONNECTIONS: usize = 3;
/// Results of one question.
const RESULTS: usize = 4000;
/// For a connection to a worker; then the scheduler is asked to pass its results on.
const REACH: Duration = Duration::from_secs(3);
/// For one answer: it may be large, and the network slow. A worker that is gone is noticed before.
const PATIENCE: Duration = Duration::from_secs(600);
/// Until a worker that was not reached is tried again: it may have been busy, and the scheduler has better things to do.
const FAR: Duration = Duration::from_secs(60);
/// Workers to which a connection is made before it is needed, and connections that wait for the next question: file descriptors are few.
const SPARE: usize = 128;

/// A result that somebody wants.
#[derive(Debug)]
pub(crate) struct Want {
    /// Dask's.
    pub(crate) key: String,
    /// -1: the whole.
    pub(crate) element: i64,
    pub(crate) forms: &'static [&'static str],
    pub(crate) tell: oneshot::Sender<Reply>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Reply {
    Here(Shown),
    /// It has none of the forms.
    Refused(Error),
    /// It is not there, or its worker is not: another place may have it by now.
    Missing(Option<Error>),
}

/// Connections to the workers of one scheduler.
#[derive(Debug)]
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    depots: Mutex<HashMap<String, Arc<Depot>>>,
}

#[derive(Debug)]
struct Shared {
    scheduler: Address,
    connect: ConnectOptions,
    /// Otherwise every worker is far.
    direct: bool,
    runtime: Handle,
    spare: Arc<Semaphore>,
}

/// One worker.
#[derive(Debug)]
struct Depot {
    worker: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Want>,
    /// Who asks at the moment.
    askers: usize,
    idle: Vec<(Rpc, OwnedSemaphorePermit)>,
    /// It could not be reached from here: not tried again before.
    far_until: Option<Instant>,
}

impl Depot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_far(&self) -> bool {
        self.state().far_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Fetcher {
    pub(crate) fn new(scheduler: Address, connect: ConnectOptions, direct: bool, runtime: Handle) -> Self {
        let spare = Arc::new(Semaphore::new(SPARE));
        Self { shared: Arc::new(Shared { scheduler, connect, direct, runtime, spare }), depots: Mutex::default() }
    }

    /// Asks a worker. Wants that come while others are asked go together with the next question.
    pub(crate) fn ask(&self, worker: &str, wants: Vec<Want>) {
        let depot = self.depot(worker);
        let mut state = depot.state();
        state.queue.extend(wants);
        if state.askers < CONNECTIONS {
            state.askers += 1;
            drop(state);
            self.shared.runtime.spawn(serve(self.shared.clone(), depot));
        }
    }

    /// A worker is there: the connection is made before it is needed.
    pub(crate) fn expect(&self, worker: &str) {
        let (shared, depot) = (self.shared.clone(), self.depot(worker));
        let spare = shared.spare.clone().try_acquire_owned();
        let Some(spare) = spare.ok().filter(|_| shared.direct) else { return };
        self.shared.runtime.spawn(async move {
            match shared.reach(&depot).await {
                Ok(rpc) => depot.state().idle.push((rpc, spare)),
                Err(error) => {
                    tracing::debug!(worker = depot.worker, %error, "a worker cannot be reached; its results come by the scheduler")
                }
            }
        });
    }

    /// Forgets all workers but these.
    pub(crate) fn keep(&self, workers: &[String]) {
        let mut depots = self.depots.lock().unwrap_or_else(PoisonError::into_inner);
        depots.retain(|worker, _| workers.contains(worker));
    }

    fn depot(&self, worker: &str) -> Arc<Depot> {
        let mut depots = self.depots.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Depot { worker: worker.to_owned(), state: Mutex::default() });
        depots.entry(worker.to_owned()).or_insert_with(new).clone()
    }
}

impl Shared {
    async fn reach(&self, depot: &Depot) -> Result<Rpc> {
        let options = ConnectOptions { timeout: REACH.min(self.connect.timeout), ..self.connect.clone() };
        let connected = Rpc::connect(&depot.worker.parse()?, &options).await;
        if connected.is_err() {
            depot.state().far_until = Some(Instant::now() + FAR);
        }
        connected.map(|rpc| rpc.with_patience(PATIENCE))
    }
}

/// One asker: until nothing is wanted of the worker any more.
async fn serve(shared: Arc<Shared>, depot: Arc<Depot>) {
    let mut rpc: Option<Rpc> = None;
    loop {
        let wants: Vec<Want> = {
            let mut state = depot.state();
            // Nobody waits for some of them any more.
            state.queue.retain(|want| !want.tell.is_closed());
            let many = state.queue.len().min(RESULTS);
            if many == 0 {
                state.askers -= 1;
                state.idle.extend(rpc.zip(shared.spare.clone().try_acquire_owned().ok()));
                return;
            }
            // The others may take the rest meanwhile.
            state.queue.drain(..many).collect()
        };
        let is_near = shared.direct && !depot.is_far();
        let answered = if is_near { direct(&shared, &depot, &mut rpc, &wants).await } else { relay(&shared, &depot, &wants).await };
        match answered {
            Ok(replies) => deliver(&depot, wants, replies),
            Err(error) => {
                rpc = None;
                tracing::debug!(worker = depot.worker, %error, "results did not come");
                wants.into_iter().for_each(|want| _ = want.tell.send(Reply::Missing(Some(error.clone()))));
            }
        }
    }
}

/// `None`: later.
type Replies = Vec<Option<Reply>>;

fn deliver(depot: &Depot, wants: Vec<Want>, replies: Replies) {
    let mut later = Vec::new();
    let mut replies = replies.into_iter();
    for want in wants {
        match replies.next() {
            Some(Some(reply)) => _ = want.tell.send(reply),
            Some(None) => later.push(want),
            None => _ = want.tell.send(Reply::Missing(None)),
        }
    }
    let mut state = depot.state();
    later.into_iter().rev().for_each(|want| state.queue.push_front(want));
}

async fn direct(shared: &Shared, depot: &Depot, rpc: &mut Option<Rpc>, wants: &[Want]) -> Result<Replies> {
    let mut was_idle = rpc.is_some();
    if rpc.is_none() {
        let idle = depot.state().idle.pop();
        was_idle = idle.is_some();
        *rpc = idle.map(|(rpc, _)| rpc);
    }
    loop {
        let mut connection = match rpc.take() {
            Some(rpc) => rpc,
            None => match shared.reach(depot).await {
                Ok(rpc) => rpc,
                Err(_) => return relay(shared, depot, wants).await,
            },
        };
        match question(&mut connection, wants, []).await {
            Ok(replies) => {
                *rpc = Some(connection);
                return Ok(replies);
            }
            // It may have been closed while nobody looked.
            Err(error) if was_idle && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed) => was_idle = false,
            Err(error) => return Err(error),
        }
    }
}

/// Through the scheduler, which gives everything within one message: what workers compress for it would be passed on compressed.
async fn relay(shared: &Shared, depot: &Depot, wants: &[Want]) -> Result<Replies> {
    let mut rpc = Rpc::connect(&shared.scheduler, &shared.connect).await?.with_patience(PATIENCE);
    question(&mut rpc, wants, [("worker", depot.worker.as_str().into()), ("inline", true.into())]).await
}

async fn question<const N: usize>(rpc: &mut Rpc, wants: &[Want], more: [(&str, Value); N]) -> Result<Replies> {
    let key = |want: &Want| {
        let forms = want.forms.iter().map(|form| Value::from(*form)).collect();
        Value::Array(vec![want.key.as_str().into(), want.element.into(), Value::Array(forms)])
    };
    let keys = Value::Array(wants.iter().map(key).collect());
    let op = shim::op("fetch");
    let mut answer = rpc.call(&op, more.into_iter().chain([("keys", keys)])).await?;
    let Value::Map(fields) = answer.take_body() else { return Err(unreadable("an answer without results")) };
    let results = fields.into_iter().find(|(name, _)| name.as_str() == Some("results"));
    let Some((_, Value::Array(results))) = results else { return Err(unreadable("an answer without results")) };
    results.into_iter().map(|result| read(&mut answer, result)).collect()
}

fn unreadable(what: &str) -> Error {
    Error::new(ErrorKind::Unexpected, what)
}

fn read(answer: &mut Message, result: Value) -> Result<Option<Reply>> {
    let Value::Array(mut fields) = result else { return Ok(Some(Reply::Missing(None))) };
    let word = |fields: &[Value], at: usize| fields.get(at).and_then(text).unwrap_or_default().to_owned();
    let mut bytes = |fields: &mut Vec<Value>| match fields.get_mut(1).map(|field| mem::replace(field, Value::Nil)) {
        Some(Value::Binary(bytes)) => Ok(bytes.into()),
        // Taken out, so that nobody else holds its memory.
        Some(other) => answer.take_part(&other).ok_or_else(|| unreadable("a result that is no bytes"))?.into_bytes(),
        None => Err(unreadable("a result without bytes")),
    };
    Ok(Some(match word(&fields, 0).as_str() {
        "plain" => Reply::Here(Shown::Plain(bytes(&mut fields)?)),
        "bytes" => Reply::Here(Shown::Plain(binary(bytes(&mut fields)?)?)),
        "arrow" => Reply::Here(Shown::Arrow { bytes: bytes(&mut fields)?, type_name: word(&fields, 2).into() }),
        "text" => Reply::Here(Shown::Text { text: word(&fields, 1), type_name: word(&fields, 2).into() }),
        "error" => Reply::Refused(refusal(&word(&fields, 1), word(&fields, 2), None)),
        "later" => return Ok(None),
        _ => Reply::Missing(None),
    }))
}

/// As MessagePack: within the same memory, as long as it has room before its end, which the decoder sees to.
fn binary(content: Bytes) -> Result<Bytes> {
    let length = u32::try_from(content.len()).map_err(|_| unreadable("a result of more than 4 GiB"))?;
    let mut head = Vec::new();
    rmp::encode::write_bin_len(&mut head, length).map_err(|error| unreadable("bytes without a head").with_source(error))?;
    let mut whole = Vec::from(content);
    whole.splice(0..0, head);
    Ok(whole.into())
}
