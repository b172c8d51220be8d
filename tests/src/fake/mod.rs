//! A platform in memory: what it was told, what exists, and how it misbehaves.
//!
//! Its workers are entries of a table, its engine runs closures on the caller's tokio runtime. It passes the behaviour suite, so that a
//! test that breaks it knows what it broke.

mod engine;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    error::{Error, ErrorKind, Result},
    manager::{
        CloseReport, ClusterEvent, ClusterInfo, ClusterManager, Context, Endpoint, Scaling, Target, WorkerId, WorkerInfo, WorkerState,
    },
};

pub use self::engine::{Defect, FakeEngine};

/// The calls that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`ClusterManager::start`]
    Start,
    /// [`ClusterManager::launch`]
    Launch,
    /// [`ClusterManager::stop`]
    Stop,
    /// [`ClusterManager::scale`]
    Scale,
    /// [`ClusterManager::list`]
    List,
    /// [`ClusterManager::close`]
    Close,
}

/// How one call goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Refused, nothing done.
    Refuse(ErrorKind),
    /// Done, but the answer says that it failed.
    LoseAnswer(ErrorKind),
    /// Half of it is done (every other worker), then it fails.
    Half(ErrorKind),
    /// Answers late.
    Delay(Duration),
    /// Waits until it is cancelled, then says so.
    HangUntilCancelled,
    /// Never answers, and does not listen to its cancellation.
    Deaf,
    /// Panics before doing anything.
    Panic,
    /// Answers well and does nothing.
    Lie,
}

/// What each worker of a platform offers, and how long it lasts.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Tasks at once.
    pub slots: u32,
    /// Abstract resources.
    pub resources: BTreeMap<String, f64>,
    /// Dies by itself after this long.
    pub lifetime: Option<Duration>,
    /// Joins the scheduler under a name of the platform's own choice; only its address tells who it is.
    pub anonymous: bool,
    /// From asked for to joined. `None`: at once; with `Some` the launch returns first.
    pub boot: Option<Duration>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { slots: 1, resources: BTreeMap::new(), lifetime: None, anonymous: false, boot: None }
    }
}

#[derive(Debug, Default)]
struct Platform {
    said: Vec<String>,
    alive: BTreeSet<WorkerId>,
    launched: BTreeSet<WorkerId>,
    faults: BTreeMap<Call, VecDeque<Option<Fault>>>,
    always: BTreeMap<Call, Fault>,
    closed: bool,
    remaining: Vec<String>,
}

/// A cluster class in memory. Clones are the same cluster.
#[derive(Debug, Clone)]
pub struct FakeCluster {
    /// How it scales.
    scaling: Scaling,
    shape: Shape,
    engine: FakeEngine,
    platform: Arc<Mutex<Platform>>,
}

impl Default for FakeCluster {
    fn default() -> Self {
        Self::new(Shape::default())
    }
}

impl FakeCluster {
    /// A platform whose workers are like this.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { scaling: Scaling::Workers, shape, engine: FakeEngine::default(), platform: Arc::default() }
    }

    /// A platform that knows a number only and names workers itself.
    #[must_use]
    pub fn count_only(shape: Shape) -> Self {
        Self { scaling: Scaling::Count, ..Self::new(shape) }
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> &FakeEngine {
        &self.engine
    }

    /// The next calls of this kind go wrong in this order, `None` for a good one; those after them go well again.
    #[must_use]
    pub fn with_faults(self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) -> Self {
        self.platform().faults.entry(call).or_default().extend(faults);
        self
    }

    /// Every call of this kind goes wrong.
    #[must_use]
    pub fn with_fault(self, call: Call, fault: Fault) -> Self {
        self.platform().always.insert(call, fault);
        self
    }

    /// What `close` will say that it could not remove.
    #[must_use]
    pub fn with_remaining(self, names: &[&str]) -> Self {
        self.platform().remaining = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Every call with its subject, in order: `start`, `launch 0-0`, `stop 0-0`, `scale 3`, `close`.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.platform().said.clone()
    }

    /// What exists now.
    #[must_use]
    pub fn alive(&self) -> Vec<WorkerId> {
        self.platform().alive.iter().copied().collect()
    }

    /// Whether `close` went through.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.platform().closed
    }

    /// The platform loses a worker without telling anybody: neither the engine nor the manager reports it, only `list`.
    pub fn lose_in_silence(&self, id: WorkerId) {
        self.platform().alive.remove(&id);
    }

    /// A worker dies; the engine notices.
    pub fn kill(&self, id: WorkerId, reason: &str) {
        self.platform().alive.remove(&id);
        self.engine.remove(&self.name(id), reason);
    }

    /// A worker's name at the scheduler.
    fn name(&self, id: WorkerId) -> String {
        if self.shape.anonymous { format!("tcp://{}:1", Self::host(id)) } else { id.to_string() }
    }

    fn host(id: WorkerId) -> String {
        format!("10.{}.{}.{}", id.incarnation, id.index / 256, id.index % 256)
    }

    fn platform(&self) -> MutexGuard<'_, Platform> {
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, call: Call) -> Option<Fault> {
        let mut platform = self.platform();
        match platform.faults.get_mut(&call).and_then(VecDeque::pop_front) {
            Some(next) => next,
            None => platform.always.get(&call).cloned(),
        }
    }

    /// Lets `call` go wrong in its way around `work`, which is told how many of the workers to serve.
    async fn around<T>(&self, call: Call, cx: &Context, lie: T, work: impl FnOnce(Portion) -> T) -> Result<T> {
        let refused = |kind| Err(Error::new(kind, format!("the platform refused {call:?}")));
        match self.fault(call) {
            None => Ok(work(Portion::All)),
            Some(Fault::Refuse(kind)) => refused(kind),
            Some(Fault::LoseAnswer(kind)) => {
                work(Portion::All);
                refused(kind)
            }
            Some(Fault::Half(kind)) => {
                work(Portion::Half);
                refused(kind)
            }
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(work(Portion::All))
            }
            Some(Fault::HangUntilCancelled) => {
                cx.cancelled().await;
                Err(Error::new(ErrorKind::Cancelled, "given up"))
            }
            Some(Fault::Deaf) => std::future::pending().await,
            Some(Fault::Panic) => panic!("the platform's client panicked in {call:?}"),
            Some(Fault::Lie) => Ok(lie),
        }
    }

    fn boot(&self, cx: &Context, id: WorkerId) {
        self.platform().alive.insert(id);
        let (me, watch, shape) = (self.clone(), cx.clone(), self.shape.clone());
        let join = move || {
            if me.platform().alive.contains(&id) {
                me.engine.add(&me.name(id), &Self::host(id), me.shape.slots, me.shape.resources.clone());
            }
            me
        };
        if shape.boot.is_none() && shape.lifetime.is_none() {
            join();
            return;
        }
        cx.spawn(async move {
            tokio::time::sleep(shape.boot.unwrap_or_default()).await;
            let me = join();
            if let Some(lifetime) = shape.lifetime {
                tokio::time::sleep(lifetime).await;
                watch.report(ClusterEvent::Progress(format!("{id} exited")));
                me.kill(id, "exit code 1");
            }
        });
    }

    fn end(&self, id: WorkerId) {
        self.platform().alive.remove(&id);
        self.engine.remove(&self.name(id), "stopped");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Portion {
    All,
    Half,
}

impl Portion {
    fn of(self, workers: &[WorkerId]) -> impl Iterator<Item = WorkerId> {
        workers.iter().copied().step_by(if self == Self::All { 1 } else { 2 })
    }
}

#[async_trait]
impl ClusterManager for FakeCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { scaling: self.scaling, ..ClusterInfo::new("fake::FakeCluster") }
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        self.platform().said.push("start".into());
        let endpoint = Endpoint::Embedded(Arc::new(self.engine.clone()));
        self.around(Call::Start, cx, endpoint.clone(), |_| endpoint).await
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        {
            let mut platform = self.platform();
            for id in workers {
                assert!(!platform.closed, "launch {id} after close");
                let twin = platform.alive.iter().find(|other| other.index == id.index && *other != id).copied();
                assert!(twin.is_none(), "launch {id} while {twin:?} of the same place lives");
                platform.said.push(format!("launch {id}"));
            }
        }
        self.around(Call::Launch, cx, (), |portion| {
            for id in portion.of(workers) {
                // Idempotent per id: asked twice is there once.
                if self.platform().launched.insert(id) {
                    self.boot(cx, id);
                }
            }
        })
        .await
    }

    async fn stop(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        self.platform().said.extend(workers.iter().map(|id| format!("stop {id}")));
        self.around(Call::Stop, cx, (), |portion| portion.of(workers).for_each(|id| self.end(id))).await
    }

    async fn scale(&self, cx: &Context, target: Target) -> Result<()> {
        let count = match target {
            Target::Exactly(count) => count,
            Target::Between { minimum, .. } => minimum,
        };
        self.platform().said.push(format!("scale {count}"));
        self.around(Call::Scale, cx, (), |_| {
            let have: Vec<_> = self.alive();
            have.iter().skip(count as usize).for_each(|id| self.end(*id));
            let next = self.platform().launched.len() as u32;
            (0..count.saturating_sub(have.len() as u32)).for_each(|n| {
                let id = WorkerId { index: next + n, incarnation: 0 };
                self.platform().launched.insert(id);
                self.boot(cx, id);
            });
        })
        .await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WorkerInfo>> {
        self.around(Call::List, cx, Vec::new(), |_| {
            let platform = self.platform();
            let info = |id: &WorkerId| WorkerInfo {
                id: (self.scaling == Scaling::Workers).then_some(*id),
                platform_id: format!("fake-{id}"),
                host: Some(Self::host(*id)),
                state: if platform.alive.contains(id) {
                    WorkerState::Running
                } else {
                    WorkerState::Gone { reason: "the platform says it is gone".into() }
                },
            };
            platform.launched.iter().map(info).collect()
        })
        .await
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        self.platform().said.push("close".into());
        let remaining = self.platform().remaining.clone();
        let report = CloseReport { remaining };
        self.around(Call::Close, cx, report.clone(), |_| {
            self.alive().into_iter().for_each(|id| self.end(id));
            self.platform().closed = true;
            report
        })
        .await
    }
}
