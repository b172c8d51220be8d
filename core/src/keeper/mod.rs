//! The owner of one cluster: a thin loop that feeds [`fleet::Fleet`] and carries out what it says.
//!
//! The loop takes the recipe before anything exists, so whatever happens later (a dropped start, a dropped handle, a lost scheduler)
//! it is there to close what was made. It runs on a thread of Remuda's own unless
//! [`ClusterOptions::home`](crate::cluster::ClusterOptions::home) says otherwise.

mod calls;
pub mod fleet;
mod limits;
mod made;
pub(crate) mod roll;
mod scaler;
mod scaling;
pub(crate) mod status;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::limits::Limits;
use self::{
    fleet::{Action, Fleet, Input},
    made::Made,
    scaler::{Log, Scaler},
    scaling::{count, due, status as adapt_status},
    status::{AdaptStatus, ClusterStatus, WorkerSnapshot, WorkerStage},
};
pub(crate) use self::{made::Making, scaling::can_adapt};
use crate::{
    adaptive::{AdaptConfig, Entry},
    engine::{Connect, Engine, Observation, Outlook, WorkerChange, WorkerChanges},
    error::{Error, ErrorKind, Result},
    manager::{CloseReport, ClusterEvent, Endpoint, WorkerId},
};

#[derive(Debug)]
pub(crate) enum Command {
    /// `number`: counts up, so that the handle knows when the status includes it.
    Scale {
        count: u32,
        victims: Vec<WorkerId>,
        number: u64,
    },
    Adapt {
        config: AdaptConfig,
        number: u64,
    },
    /// To hear every decision, with all it was made from.
    Listen(mpsc::UnboundedSender<Arc<Entry>>),
    Close,
}

/// What a keeper needs besides the recipe.
pub(crate) struct Setup {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) limits: Limits,
    pub(crate) workers: Option<u32>,
    pub(crate) adapt: Option<AdaptConfig>,
    pub(crate) events: broadcast::Sender<ClusterEvent>,
    pub(crate) status: watch::Sender<ClusterStatus>,
}

/// A scheduler that answered.
struct Opened {
    engine: Arc<dyn Engine>,
    changes: WorkerChanges,
    endpoint: Endpoint,
    dashboard: Option<Arc<str>>,
}

/// What a call's end means when it panicked or was aborted.
type Fallback = Box<dyn FnOnce(Error) -> Input + Send>;

pub(crate) struct Keeper {
    fleet: Fleet,
    limits: Limits,
    connect: Arc<dyn Connect>,
    making: Option<Making>,
    made: Arc<Made>,
    opened: mpsc::UnboundedReceiver<Opened>,
    opening: mpsc::UnboundedSender<Opened>,
    engine: Option<Arc<dyn Engine>>,
    changes: Option<WorkerChanges>,
    /// Cancels the calls, not the close.
    cancel: CancellationToken,
    calls: JoinSet<Input>,
    fallbacks: HashMap<Id, Fallback>,
    listing: Option<Id>,
    /// Until the cluster is open: how many workers, and whether it adapts.
    wish: (Option<u32>, Option<AdaptConfig>),
    scaler: Option<Scaler>,
    /// The last one, until there is another: what it has learned and spent counts on.
    retired: Option<Scaler>,
    ended: Option<AdaptStatus>,
    /// What the engine was told of workers to come.
    outlook: Option<Outlook>,
    log: Log,
    /// One look at the load, at most.
    looks: JoinSet<Result<Observation>>,
    begin: Instant,
    heard: u64,
    events: broadcast::Sender<ClusterEvent>,
    status: watch::Sender<ClusterStatus>,
}

impl Keeper {
    pub(crate) fn new(making: Making, cancel: CancellationToken, setup: Setup) -> Self {
        let (opening, opened) = mpsc::unbounded_channel();
        Self {
            fleet: Fleet::new(setup.limits.clone(), setup.workers.filter(|_| setup.adapt.is_none())),
            limits: setup.limits,
            connect: setup.connect,
            made: making.made.clone(),
            making: Some(making),
            opened,
            opening,
            engine: None,
            changes: None,
            cancel,
            calls: JoinSet::new(),
            fallbacks: HashMap::new(),
            listing: None,
            wish: (setup.workers, setup.adapt),
            scaler: None,
            retired: None,
            ended: None,
            outlook: None,
            log: Log::default(),
            looks: JoinSet::new(),
            begin: Instant::now(), // set again where the loop runs: that may be another clock
            heard: 0,
            events: setup.events,
            status: setup.status,
        }
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        self.begin = Instant::now();
        let mut poll = interval(self.limits.poll.max(Duration::from_millis(10)));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut owned = true;
        let mut inputs = VecDeque::from([Input::Tick]);
        loop {
            while let Some(input) = inputs.pop_front() {
                for action in self.fleet.step(self.begin.elapsed(), input) {
                    if let Some(result) = self.carry_out(action) {
                        return self.end(result).await;
                    }
                }
            }
            self.publish();
            let wake = self.fleet.wake();
            tokio::select! {
                biased;
                // Before commands: who scales down has perhaps seen workers arrive, and a worker that is here is drained, not just stopped.
                Some(change) = next(&mut self.changes) => inputs.push_back(changed(change)),
                command = commands.recv(), if owned => {
                    owned = !matches!(command, Some(Command::Close) | None);
                    inputs.push_back(self.commanded(command.unwrap_or(Command::Close)));
                }
                Some(done) = self.calls.join_next_with_id() => inputs.extend(self.answered(done)),
                Some(seen) = self.looks.join_next() => inputs.push_back(self.looked(seen)),
                () = sleep_until(moment(self.begin, wake)), if wake.is_some() => inputs.push_back(Input::Tick),
                () = due(&mut self.scaler), if self.looks.is_empty() && self.changes.is_some() => self.look(),
                _ = poll.tick(), if self.changes.is_some() => { self.list(); inputs.push_back(Input::Tick); }
            };
        }
    }

    fn commanded(&mut self, command: Command) -> Input {
        match command {
            Command::Scale { count, victims, number } => {
                self.heard = self.heard.max(number);
                self.wish = (Some(count), None);
                self.settle();
                if let Some(scaler) = self.scaler.take() {
                    self.ended = Some(adapt_status(&scaler, count, &self.fleet.snapshot()));
                    self.retired = Some(scaler);
                }
                Input::Scale { count, victims }
            }
            Command::Adapt { config, number } => {
                self.heard = self.heard.max(number);
                self.adapt(config)
            }
            Command::Listen(listener) => {
                self.listen(listener);
                Input::Tick
            }
            Command::Close => {
                self.looks.abort_all();
                self.settle();
                Input::Close
            }
        }
    }

    async fn end(mut self, result: Result<CloseReport>) {
        self.settle();
        if let Some(cx) = self.made.context() {
            cx.end_tasks().await;
            cx.ledger().end(&result).await;
        }
        self.status.send_modify(|status| {
            *status = ClusterStatus { wanted: 0, starting: 0, running: 0, draining: 0, slots: 0, workers: vec![], ..status.clone() };
            if let (Some(adapt), Some(scaler)) = (&mut status.adapt, &self.scaler) {
                adapt.usage = scaler.state().usage();
                (adapt.desired, adapt.starting, adapt.running, adapt.draining) = (0, 0, 0, 0);
            }
            status.failure = self.fleet.failure().cloned();
            (status.engine, status.endpoint, status.ledger, status.closed) = (None, None, None, Some(result));
        });
    }

    /// Tells the handle how things are, if they changed.
    fn publish(&mut self) {
        let (workers, wanted) = (self.fleet.snapshot(), self.fleet.desired());
        let failed = self.fleet.failure().cloned();
        let adapt = self.scaler.as_ref().map(|scaler| adapt_status(scaler, wanted, &workers));
        self.foretell(wanted);
        self.status.send_if_modified(|status| {
            let same = status.workers == workers
                && status.wanted == wanted
                && status.heard == self.heard
                && status.adapt == adapt
                && status.failure.is_some() == failed.is_some()
                && status.trouble.as_deref() == self.fleet.trouble();
            if same {
                return false;
            }
            status.running = count(&workers, WorkerStage::Running);
            status.starting = wanted.saturating_sub(status.running);
            status.draining = count(&workers, WorkerStage::Draining);
            let running = |worker: &&WorkerSnapshot| worker.stage == WorkerStage::Running;
            status.slots = workers.iter().filter(running).map(|worker| worker.slots).sum();
            (status.wanted, status.failure, status.workers) = (wanted, failed, workers);
            (status.heard, status.adapt) = (self.heard, adapt);
            status.adapt_ended = self.ended.clone().filter(|_| status.adapt.is_none());
            status.trouble = self.fleet.trouble().map(str::to_owned);
            true
        });
    }

    fn carry_out(&mut self, action: Action) -> Option<Result<CloseReport>> {
        match action {
            Action::Start => self.start(),
            Action::Launch(ids) => self.call(ids, Input::Launched, |m, cx, ids| async move { m.launch(&cx, &ids).await }),
            Action::Stop(ids) => self.call(ids, Input::Stopped, |m, cx, ids| async move { m.stop(&cx, &ids).await }),
            Action::SetTarget(target) => {
                self.call(vec![], |_, result| Input::TargetSet(result), move |m, cx, _| async move { m.scale(&cx, target).await });
            }
            Action::Drain(workers) => self.drain(workers),
            Action::Retire(workers) => self.retire(workers),
            Action::Cancel => self.cancel.cancel(),
            Action::Close => self.close(),
            Action::Report(event) => self.report(event),
            Action::Failed(error) => {
                tracing::error!(error = %error, "the cluster is of no use any more");
                self.report(ClusterEvent::Failed(error));
            }
            Action::Finished(result) => return Some(result),
        }
        None
    }

    fn report(&mut self, event: ClusterEvent) {
        // A target of its own: whoever listens to the events need not log them, too.
        match &event {
            ClusterEvent::Lost { id, reason } => tracing::warn!(target: "remuda_core::keeper::told", worker = %id, reason, "worker lost"),
            ClusterEvent::Degraded(text) => tracing::warn!(target: "remuda_core::keeper::told", text, "cluster degraded"),
            event => tracing::debug!(?event),
        }
        if let (ClusterEvent::Lost { .. }, Some(scaler)) = (&event, &mut self.scaler) {
            scaler.hurry(); // whether somebody is to come instead is its to say
        }
        let _ = self.events.send(event);
    }

    fn start(&mut self) {
        let Some(making) = self.making.take() else { return };
        // A task of its own: dropping it would not end a factory that blocks, and what that makes must be closed.
        let making = tokio::spawn(making.run());
        let (connect, opening) = (self.connect.clone(), self.opening.clone());
        let wish = self.wish.clone();
        let start = async move {
            let (manager, cx) = making.await.unwrap_or_else(|error| Err(Error::from_join("the cluster's constructor", error)))?;
            if wish.1.is_some() {
                can_adapt(&manager.info())?;
            }
            let endpoint = manager.start(&cx).await?;
            let engine = connect.connect(&endpoint).await?;
            let (changes, info) = (engine.changes(), manager.info());
            let dashboard = match &endpoint {
                Endpoint::Dask { dashboard: Some(dashboard), .. } => Some(dashboard.clone()),
                _ => engine.dashboard(),
            };
            let _ = opening.send(Opened { engine, changes, endpoint, dashboard: dashboard.map(Into::into) });
            let first = wish.1.map_or(info.workers, |config| Scaler::first(&info.bounded(config, wish.0), wish.0, &info));
            Ok((info.scaling, first))
        };
        self.spawn(|error| Input::Started(Err(error)), async move {
            Input::Started(start.await.map_err(|error: Error| error.with_operation("start")))
        });
    }

    fn answered(&mut self, done: std::result::Result<(Id, Input), JoinError>) -> Vec<Input> {
        let (id, input) = match done {
            Ok((id, input)) => (id, Ok(input)),
            Err(error) => (error.id(), Err(error)),
        };
        let fallback = self.fallbacks.remove(&id);
        if self.listing == Some(id) {
            self.listing = None;
        }
        let input = match (input, fallback) {
            (Ok(input), _) => input,
            (Err(error), Some(fallback)) => fallback(Error::from_join("the cluster manager", error)),
            (Err(_), None) => Input::Tick,
        };
        if let Ok(Opened { engine, changes, endpoint, dashboard }) = self.opened.try_recv() {
            let info = self.made.manager().map(|manager| manager.info());
            let cx = self.made.context();
            let name = cx.as_ref().map(|cx| cx.name().into()).unwrap_or_default();
            (self.engine, self.changes) = (Some(engine.clone()), Some(changes));
            let adapt = self.wish.1.take().map(|config| self.adapt(config));
            if let (Some(scaler), true, Input::Started(Ok((_, first)))) = (&mut self.scaler, adapt.is_some(), &input) {
                scaler.begin_with(*first);
            }
            let (wanted, workers) = (self.fleet.desired(), self.fleet.snapshot());
            let adapting = self.scaler.as_ref().map(|scaler| adapt_status(scaler, wanted, &workers));
            // At once: who has the engine knows whether its workers adapt.
            self.status.send_modify(|status| {
                (status.engine, status.info, status.name) = (Some(engine), info, name);
                (status.endpoint, status.dashboard, status.adapt) = (Some(endpoint), dashboard, adapting);
                status.ledger = cx.map(|cx| cx.ledger().clone());
            });
            // In this order: a platform that scales by itself is told no number.
            return adapt.into_iter().chain([input]).collect();
        }
        vec![input]
    }
}

/// A time of the fleet's as an instant; one that is beyond them is as good as never.
fn moment(begin: Instant, at: Option<Duration>) -> Instant {
    at.and_then(|at| begin.checked_add(at)).unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30))
}

fn late(operation: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")).with_operation(operation)
}

fn changed(change: WorkerChange) -> Input {
    match change {
        WorkerChange::Joined { name, host, slots } => Input::Joined { name, host, slots },
        WorkerChange::Left { name, reason, busy } => Input::Left { name, reason, busy },
        WorkerChange::Note(text) => Input::Note(text),
        WorkerChange::SchedulerLost(error) => Input::SchedulerLost(error),
    }
}

async fn next(changes: &mut Option<WorkerChanges>) -> Option<WorkerChange> {
    match changes {
        Some(changes) => changes.recv().await,
        None => None,
    }
}
