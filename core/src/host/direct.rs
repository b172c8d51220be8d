//! Tasks of tasks beside a worker of another engine than the embedded one: nobody relays for the host, so the task opens a session of its own
//! with the scheduler, when it first submits something. It ends with the task.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{CONNECT, wire::Access};
use crate::{
    engine::{Engine, Form, Session, Shown, TaskEvents},
    error::{Error, ErrorKind, Result},
    manager::Endpoint,
    security::Security,
    task::{Key, TaskError, TaskEvent, TaskSpec, TaskState},
    value::Value,
};

/// How long the end of a task waits for the end of what it has submitted. What is left then ends with its lease.
const CLOSE: Duration = Duration::from_secs(5);

/// The way to the scheduler, for all tasks of this host. The connection stays for the next task.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Endpoint,
    engine: Mutex<Option<Arc<dyn Engine>>>,
    runtime: OnceLock<Runtime>,
}

impl Link {
    pub(super) fn new(access: Access) -> Self {
        let security = access.security.map(|s| Arc::new(Security { ca: s.ca, cert: s.cert, key: s.key }));
        let endpoint = Endpoint::Dask { address: access.address, security, dashboard: None };
        Self { endpoint, engine: Mutex::default(), runtime: OnceLock::new() }
    }

    /// A runtime of its own: the task may block the thread that it runs on.
    fn runtime(&self) -> Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let built = Builder::new_multi_thread().worker_threads(1).thread_name("remuda session").enable_all().build();
        let built = built.map_err(|e| Error::new(ErrorKind::Unavailable, "no runtime for the tasks of a task").with_source(e))?;
        Ok(self.runtime.get_or_init(|| built).handle().clone())
    }

    async fn open(&self) -> Result<Arc<dyn Session>> {
        let known = lock(&self.engine).clone();
        if let Some(engine) = known
            && let Ok(session) = engine.open().await
        {
            return Ok(session);
        }
        let connect = CONNECT.get().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "this program's task host has no way to the scheduler, so its tasks cannot submit further tasks",
            )
            .with_hint("call `remuda::init()` first thing in its `main`")
        })?;
        let engine = connect.connect(&self.endpoint).await?;
        let session = engine.open().await?;
        *lock(&self.engine) = Some(engine);
        Ok(session)
    }
}

/// The session of one task.
#[derive(Debug)]
pub(super) struct DirectSession {
    link: Arc<Link>,
    /// The task is over, or cancelled.
    over: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Goes to the one who opens the session, and ends with that: whoever waits for events hears of it.
    tell: Option<mpsc::UnboundedSender<TaskEvent>>,
    events: Option<TaskEvents>,
    /// From the first use on.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    orders: mpsc::UnboundedSender<Order>,
    actor: JoinHandle<()>,
}

type Answer<T> = oneshot::Sender<std::result::Result<T, TaskError>>;

#[derive(Debug)]
enum Order {
    Submit(Vec<TaskSpec>),
    Cancel(Vec<Key>),
    Release(Vec<Key>),
    Gather(Vec<Key>, Answer<Vec<Value>>),
    Show(Key, Vec<Form>, Answer<Shown>),
}

impl DirectSession {
    /// What the task has submitted ends when `cancelled` is, also where the task does not look at it.
    pub(super) fn new(link: Arc<Link>, cancelled: &CancellationToken) -> Arc<Self> {
        let (tell, events) = mpsc::unbounded_channel();
        let state = State { tell: Some(tell), events: Some(events), open: None };
        Arc::new(Self { link, over: cancelled.child_token(), state: Mutex::new(state) })
    }

    /// The task is over, and with it what it has submitted. Waits for that, on the task's thread.
    pub(super) fn end(&self) {
        self.over.cancel();
        let open = {
            let mut state = lock(&self.state);
            state.tell = None;
            state.open.take()
        };
        if let (Some(Open { actor, orders }), Ok(runtime)) = (open, self.link.runtime()) {
            drop(orders);
            runtime.block_on(async {
                let _ = tokio::time::timeout(CLOSE, actor).await;
            });
        }
    }

    fn order(&self, order: Order) {
        let mut state = lock(&self.state);
        if !self.over.is_cancelled()
            && let Some(tell) = state.tell.take()
        {
            match self.link.runtime() {
                Ok(runtime) => {
                    let (orders, inbox) = mpsc::unbounded_channel();
                    let actor = runtime.spawn(attend(self.link.clone(), inbox, tell, self.over.clone()));
                    state.open = Some(Open { orders, actor });
                }
                Err(error) => {
                    refuse(order, &tell, &error);
                    state.tell = Some(tell);
                    return;
                }
            }
        }
        // When it is over the events have ended, and whoever asks hears that nobody answers.
        if let Some(open) = &state.open {
            let _ = open.orders.send(order);
        }
    }

    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> std::result::Result<T, TaskError> {
        let (tell, answer) = oneshot::channel();
        self.order(order(tell));
        answer.await.map_err(|_| Error::new(ErrorKind::Closed, "the task that asked is over"))?
    }
}

/// The session's life, on the link's runtime. What is ordered while it connects waits.
async fn attend(
    link: Arc<Link>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::UnboundedSender<TaskEvent>,
    over: CancellationToken,
) {
    let session = match over.run_until_cancelled(link.open()).await {
        Some(Ok(session)) => session,
        Some(Err(error)) => {
            let error = error.with_context("wanted by", "a task that submits further tasks");
            while let Some(Some(order)) = over.run_until_cancelled(orders.recv()).await {
                refuse(order, &tell, &error);
            }
            return;
        }
        None => return,
    };
    let mut events = session.events();
    loop {
        tokio::select! {
            () = over.cancelled() => break,
            order = orders.recv() => match order {
                Some(order) => carry_out(&session, order),
                None => break,
            },
            Some(event) = events.recv() => {
                // Nobody listens: the task needs no news.
                let _ = tell.send(event);
            }
        }
    }
    drop((tell, orders));
    if let Err(error) = session.close().await {
        tracing::warn!(error = %error.report(), "what a task has submitted could not be ended; it ends with its lease");
    }
}

fn carry_out(session: &Arc<dyn Session>, order: Order) {
    match order {
        Order::Submit(tasks) => session.submit(tasks),
        Order::Cancel(keys) => session.cancel(&keys),
        Order::Release(keys) => session.release(&keys),
        Order::Gather(keys, answer) => {
            let session = session.clone();
            tokio::spawn(async move {
                let _ = answer.send(session.gather(&keys).await);
            });
        }
        Order::Show(key, forms, answer) => {
            let session = session.clone();
            tokio::spawn(async move {
                let _ = answer.send(session.show(key, &forms).await);
            });
        }
    }
}

fn refuse(order: Order, tell: &mpsc::UnboundedSender<TaskEvent>, error: &Error) {
    match order {
        Order::Submit(tasks) => {
            for TaskSpec { key, name, .. } in tasks {
                let _ = tell.send(TaskEvent { key, name, state: TaskState::Ended(error.clone().into()) });
            }
        }
        Order::Gather(_, answer) => {
            let _ = answer.send(Err(error.clone().into()));
        }
        Order::Show(_, _, answer) => {
            let _ = answer.send(Err(error.clone().into()));
        }
        Order::Cancel(_) | Order::Release(_) => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Session for DirectSession {
    fn shares_memory(&self) -> bool {
        false
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        self.order(Order::Submit(tasks));
    }

    fn cancel(&self, keys: &[Key]) {
        self.order(Order::Cancel(keys.to_vec()));
    }

    fn release(&self, keys: &[Key]) {
        self.order(Order::Release(keys.to_vec()));
    }

    fn events(&self) -> TaskEvents {
        // A second listener would need the first one's channel: there is one run per task.
        lock(&self.state).events.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    async fn gather(&self, keys: &[Key]) -> std::result::Result<Vec<Value>, TaskError> {
        let keys = keys.to_vec();
        self.ask(|answer| Order::Gather(keys, answer)).await
    }

    async fn show(&self, key: Key, forms: &[Form]) -> std::result::Result<Shown, TaskError> {
        let forms = forms.to_vec();
        self.ask(|answer| Order::Show(key, forms, answer)).await
    }

    async fn close(&self) -> Result<()> {
        // The task's end waits for it.
        self.over.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
