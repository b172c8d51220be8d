//! The owner of one cluster: a thin loop that feeds [`fleet::Fleet`] and carries out what it says.

pub mod fleet;
pub use fleet::Limits;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, OnceLock},
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{Id, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::fleet::{Action, Fleet, Input};
use crate::{
    class::Recipe,
    engine::{Connect, Engine, WorkerChange},
    error::{Error, ErrorKind, Result},
    manager::{CloseReport, ClusterEvent, ClusterManager, Context, Scaling, WorkerId},
};

#[derive(Debug)]
pub(crate) enum Command {
    Scale { count: u32, victims: Vec<WorkerId> },
    Close,
}

/// What the handle sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub engine: Option<Arc<dyn Engine>>,
    pub failed: Option<Error>,
    pub closed: Option<Result<CloseReport>>,
    pub live: usize,
}

/// What the start call has reached: the manager is here before its `start` is polled, so `close` can always be called.
#[derive(Debug, Default)]
struct Made {
    manager: OnceLock<Arc<dyn ClusterManager>>,
    engine: OnceLock<Arc<dyn Engine>>,
}

type Fallback = Box<dyn FnOnce(Error) -> Input + Send>;

pub(crate) struct Keeper {
    fleet: Fleet,
    limits: Limits,
    recipe: Option<Recipe>,
    connect: Arc<dyn Connect>,
    made: Arc<Made>,
    changes: Option<mpsc::UnboundedReceiver<WorkerChange>>,
    cx: Context,
    cancel: CancellationToken,
    calls: JoinSet<Input>,
    fallbacks: HashMap<Id, Fallback>,
    events: broadcast::Sender<ClusterEvent>,
    status: watch::Sender<Status>,
}

impl Keeper {
    pub fn new(
        recipe: Recipe,
        connect: Arc<dyn Connect>,
        limits: Limits,
        workers: u32,
        events: broadcast::Sender<ClusterEvent>,
        status: watch::Sender<Status>,
    ) -> Self {
        let cancel = CancellationToken::new();
        let cx = Context::new(recipe.path(), Default::default(), events.clone()).with_cancel(cancel.clone());
        Self {
            fleet: Fleet::new(limits.clone(), workers),
            limits,
            recipe: Some(recipe),
            connect,
            made: Arc::default(),
            changes: None,
            cx,
            cancel,
            calls: JoinSet::new(),
            fallbacks: HashMap::new(),
            events,
            status,
        }
    }

    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let begin = Instant::now();
        let mut poll = interval(self.limits.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut owned = true;
        let mut input = Input::Tick;
        loop {
            for action in self.fleet.step(begin.elapsed(), input) {
                if let Some(result) = self.carry_out(action) {
                    self.cx.end_tasks().await;
                    self.status.send_modify(|s| s.closed = Some(result));
                    return;
                }
            }
            self.status.send_if_modified(|s| std::mem::replace(&mut s.live, self.fleet.live().count()) != s.live);
            let wake = self.fleet.wake();
            input = tokio::select! {
                biased;
                command = commands.recv(), if owned => match command {
                    Some(Command::Scale { count, victims }) => Input::Scale { count, victims },
                    Some(Command::Close) | None => { owned = false; Input::Close }
                },
                Some(done) = self.calls.join_next_with_id() => self.answered(done),
                Some(change) = next(&mut self.changes) => match change {
                    WorkerChange::Joined { name, host, .. } => Input::Joined { name, host },
                    WorkerChange::Left { name, reason } => Input::Left { name, reason },
                    WorkerChange::SchedulerLost(error) => Input::SchedulerLost(error),
                },
                () = sleep_until(begin + wake.unwrap_or_default()), if wake.is_some() => Input::Tick,
                _ = poll.tick(), if self.changes.is_some() => { self.list(); Input::Tick }
            };
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Result<CloseReport>> {
        match action {
            Action::Start => self.start(),
            Action::Launch(ids) => self.call(ids, Input::Launched, |m, cx, ids| async move { m.launch(&cx, &ids).await }),
            Action::Stop(ids) => self.call(ids, Input::Stopped, |m, cx, ids| async move { m.stop(&cx, &ids).await }),
            Action::SetTarget(target) => {
                self.call(vec![], |_, r| Input::TargetSet(r), move |m, cx, _| async move { m.scale(&cx, target).await })
            }
            Action::Drain(workers) => self.drain(workers),
            Action::Cancel => self.cancel.cancel(),
            Action::Close => self.close(),
            Action::Report(event) => drop(self.events.send(event)),
            Action::Failed(error) => self.status.send_modify(|s| s.failed = s.failed.take().or(Some(error))),
            Action::Finished(result) => return Some(result),
        }
        None
    }

    fn start(&mut self) {
        let (recipe, connect, made, cx) =
            (self.recipe.take().expect("started once"), self.connect.clone(), self.made.clone(), self.cx.clone());
        self.spawn(|error| Input::Started(Err(error)), async move {
            let start = async {
                let manager = recipe.make(CancellationToken::new()).await?;
                let manager = made.manager.get_or_init(|| manager);
                let engine = connect.connect(&manager.start(&cx).await?).await?;
                made.engine.get_or_init(|| engine);
                Ok(manager.info().scaling)
            };
            let result: Result<Scaling> = start.await;
            Input::Started(result)
        });
    }

    fn answered(&mut self, done: std::result::Result<(Id, Input), tokio::task::JoinError>) -> Input {
        let input = match done {
            Ok((id, input)) => {
                self.fallbacks.remove(&id);
                input
            }
            Err(error) => {
                let fallback = self.fallbacks.remove(&error.id()).expect("every call has one");
                fallback(Error::new(ErrorKind::Unexpected, "the cluster manager panicked").with_source(error))
            }
        };
        if let (Input::Started(Ok(_)), Some(engine)) = (&input, self.made.engine.get()) {
            self.changes = Some(engine.changes());
            self.status.send_modify(|s| s.engine = Some(engine.clone()));
        }
        input
    }

    fn drain(&mut self, workers: Vec<(WorkerId, String)>) {
        let (engine, limit) = (self.made.engine.get().expect("open").clone(), self.limits.drain);
        let (ids, names): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let all = ids.clone();
        // Drained or not by the deadline: the worker is stopped, and the engine tells its tasks why.
        self.spawn(move |_| Input::Drained(all), async move {
            let _ = timeout(limit, engine.drain(&names, limit)).await;
            Input::Drained(ids)
        });
    }

    fn list(&mut self) {
        let (manager, cx) = (self.made.manager.get().expect("open").clone(), self.cx.clone());
        self.spawn(|_| Input::Tick, async move { manager.list(&cx).await.map_or(Input::Tick, Input::Platform) });
    }

    fn close(&mut self) {
        self.calls.abort_all(); // drops their futures; what they may have created is the manager's to find
        (self.calls, self.changes) = (JoinSet::new(), None);
        let (made, cx, limit) = (self.made.clone(), self.cx.with_cancel(CancellationToken::new()), self.limits.close);
        self.spawn(|error| Input::Closed(Err(error)), async move {
            let Some(manager) = made.manager.get() else { return Input::Closed(Ok(CloseReport::default())) };
            Input::Closed(
                timeout(limit, manager.close(&cx))
                    .await
                    .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, format!("the cluster did not close within {limit:?}")))),
            )
        });
    }

    fn call<Fut>(
        &mut self,
        ids: Vec<WorkerId>,
        answer: fn(Vec<WorkerId>, Result<()>) -> Input,
        call: impl FnOnce(Arc<dyn ClusterManager>, Context, Vec<WorkerId>) -> Fut,
    ) where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let manager = self.made.manager.get().expect("open").clone();
        let (future, panicked) = (call(manager, self.cx.clone(), ids.clone()), ids.clone());
        self.spawn(move |error| answer(panicked, Err(error)), async move { answer(ids, future.await) });
    }

    fn spawn(&mut self, fallback: impl FnOnce(Error) -> Input + Send + 'static, call: impl Future<Output = Input> + Send + 'static) {
        let id = self.calls.spawn(call).id();
        self.fallbacks.insert(id, Box::new(fallback));
    }
}

async fn next(changes: &mut Option<mpsc::UnboundedReceiver<WorkerChange>>) -> Option<WorkerChange> {
    match changes {
        Some(changes) => changes.recv().await,
        None => None,
    }
}
