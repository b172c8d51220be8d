//! The keeper's side of a Dask scheduler.

mod drain;
mod fetch;
mod load;
mod outlook;
mod redial;
mod versions;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Connect, Drains, Engine, Observation, Outlook, Session, WorkerChange, WorkerChanges},
    error::{Error, Result},
    host,
    manager::Endpoint,
    security::Security,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch as latest},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::{
    fetch::{Fetcher, Reply, Want},
    redial::Redial,
};
use crate::{
    Address, ConnectOptions, Rpc,
    session::{DaskSession, wire::Program},
    shim::{self, Hello},
};

/// How a driver talks to Dask schedulers.
#[derive(Debug, Clone)]
pub struct DaskOptions {
    /// How the scheduler's log calls our sessions. Default: `remuda`.
    pub name: String,
    /// For a connection until it can be used. Default: 10 s.
    pub timeout: Duration,
    /// How long the scheduler keeps our tasks and results when it hears nothing of us: a cut connection that is shorter loses nothing.
    /// Default: 30 s.
    pub lease: Duration,
    /// How long nothing may listen at the scheduler's address before it is given up. Default: 600 ms. Longer where a proxy or a port
    /// forward that is started again stands between.
    pub refused: Duration,
    /// How many small calls one task of Dask's may carry. 1: each is a task of its own. Default: `None`, as measured.
    pub batch: Option<u32>,
    /// Between two signs of life of a session. Default: a quarter of `lease`; never more than half of it.
    pub heartbeat: Option<Duration>,
    /// Whether results come from the workers themselves, and through the scheduler only from those that cannot be reached. Default: yes.
    pub direct: bool,
    /// Used where the endpoint has none.
    pub security: Option<Arc<Security>>,
    /// Whether the cluster is ours: one with a lease of its own stays as long as we are connected, and what its keeper says of workers to come
    /// holds for tasks that have none. Default: yes.
    pub owner: bool,
    /// How long a task waits while there is no worker and its keeper says that none is to come; then it is refused. Default: 60 s.
    pub no_workers_timeout: Duration,
    /// The program that runs Rust tasks, and its arguments: a path on the workers, or a name on their PATH. It goes before what a worker's own
    /// environment names. Default: that, or this program where the worker is on the same machine.
    pub task_host: Option<(String, Vec<String>)>,
}

impl Default for DaskOptions {
    fn default() -> Self {
        Self {
            name: "remuda".to_owned(),
            timeout: Duration::from_secs(10),
            lease: Duration::from_secs(30),
            refused: Duration::from_millis(600),
            batch: None,
            heartbeat: None,
            direct: true,
            security: None,
            owner: true,
            no_workers_timeout: Duration::from_secs(60),
            task_host: None,
        }
    }
}

/// Makes an engine of a scheduler's address.
///
/// ```no_run
/// use remuda_core::{engine::Connect, manager::Endpoint};
/// use remuda_dask::{DaskConnect, DaskOptions};
///
/// # async fn connect() -> Result<(), remuda_core::error::Error> {
/// let endpoint = Endpoint::Dask { address: "tcp://10.0.0.7:8786".into(), security: None, dashboard: None };
/// let engine = DaskConnect::new(DaskOptions::default()).connect(&endpoint).await?;
/// let session = engine.open().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct DaskConnect {
    options: DaskOptions,
}

impl DaskConnect {
    /// With these options for every scheduler.
    #[must_use]
    pub fn new(options: DaskOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Connect for DaskConnect {
    /// Installs the shim where it is not there. What is read and written afterwards runs on the runtime on which this was called.
    ///
    /// # Errors
    /// As [`Comm::connect`](crate::Comm::connect) and [`shim::install`]; [`ErrorKind::Unsupported`](remuda_core::error::ErrorKind::Unsupported) for versions that are too old.
    async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<dyn Engine>> {
        let (address, security) = match endpoint {
            Endpoint::Embedded(engine) => return Ok(engine.clone()),
            Endpoint::Dask { address, security, .. } => (address.parse::<Address>()?, security.clone()),
        };
        Ok(Arc::new(DaskEngine::connect(address, security, self.options.clone()).await?))
    }
}

/// A scheduler, seen from the keeper.
#[derive(Debug)]
pub(crate) struct DaskEngine {
    inner: Arc<Inner>,
    hold: Arc<DropGuard>,
}

/// What the engine, its sessions and their background tasks share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) address: Address,
    pub(crate) connect: ConnectOptions,
    pub(crate) options: DaskOptions,
    pub(crate) hello: Hello,
    /// What the user wants Rust tasks to be run with.
    pub(crate) named_host: Option<Arc<Program>>,
    /// Outlives the user's runtime.
    pub(crate) runtime: Handle,
    workers: Mutex<Workers>,
    /// Slots of all workers.
    pub(crate) slots: latest::Sender<u32>,
    /// Set once.
    pub(crate) lost: latest::Sender<Option<Error>>,
    pub(crate) fetcher: Fetcher,
    asking: tokio::sync::Mutex<load::Asking>,
    still: drain::Still,
    /// How often work has come, since somebody asks for the load.
    arrivals: latest::Sender<u64>,
    /// What the keeper has said of workers to come.
    outlook: latest::Sender<Option<Outlook>>,
}

#[derive(Debug, Default)]
struct Workers {
    /// By address.
    known: BTreeMap<String, Known>,
    listeners: Vec<mpsc::UnboundedSender<WorkerChange>>,
    lost: Option<Error>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    host: String,
    slots: u32,
}

impl Inner {
    /// A connection for questions to the scheduler.
    pub(crate) async fn rpc(&self) -> Result<Rpc> {
        Rpc::connect(&self.address, &self.connect).await
    }

    pub(crate) fn redial(&self) -> Redial {
        Redial::new(std::time::Instant::now(), self.options.lease, self.options.refused)
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that whoever waits should know.
    pub(crate) fn note(&self, text: &str) {
        tracing::info!(address = %self.address, text, "told");
        self.workers().listeners.retain(|listener| listener.send(WorkerChange::Note(text.to_owned())).is_ok());
    }

    /// The scheduler is gone, for good.
    pub(crate) fn lose(&self, error: &Error) {
        let mut workers = self.workers();
        if workers.lost.is_some() {
            return;
        }
        tracing::warn!(address = %self.address, %error, "the scheduler is lost");
        workers.lost = Some(error.clone());
        // Who hears of it below finds no session to be had any more.
        self.lost.send_replace(Some(error.clone()));
        for listener in std::mem::take(&mut workers.listeners) {
            let _ = listener.send(WorkerChange::SchedulerLost(error.clone()));
        }
    }
}

impl DaskEngine {
    pub(crate) async fn connect(address: Address, security: Option<Arc<Security>>, options: DaskOptions) -> Result<Self> {
        let connect = ConnectOptions {
            timeout: options.timeout,
            dead_after: (options.lease / 2).clamp(Duration::from_secs(1), Duration::from_secs(30)),
            security: security.or_else(|| options.security.clone()),
            ..ConnectOptions::default()
        };
        let mut rpc = Rpc::connect(&address, &connect).await?;
        let versions = rpc.versions().await?;
        versions::check_scheduler(&versions.distributed, &versions.python).map_err(|error| error.with_context("address", &address))?;
        let hello = shim::install(&mut rpc).await?;
        versions::check_workers(&hello).map_err(|error| error.with_context("address", &address))?;
        let inner = Arc::new(Inner {
            fetcher: Fetcher::new(address.clone(), connect.clone(), options.direct, Handle::current()),
            named_host: named_host(&options),
            address,
            connect,
            options,
            hello,
            runtime: Handle::current(),
            workers: Mutex::default(),
            slots: latest::Sender::new(0),
            lost: latest::Sender::new(None),
            asking: tokio::sync::Mutex::default(),
            still: drain::Still::default(),
            arrivals: latest::Sender::new(0),
            outlook: latest::Sender::new(None),
        });
        let stop = CancellationToken::new();
        let first = watch::attach(&inner).await?;
        inner.runtime.spawn(watch::run(inner.clone(), first, stop.clone()));
        Ok(Self { inner, hold: Arc::new(stop.drop_guard()) })
    }
}

#[async_trait]
impl Engine for DaskEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        let lost = self.inner.lost.borrow().clone();
        match lost {
            Some(error) => Err(error),
            None => Ok(Arc::new(DaskSession::open(self.inner.clone(), self.hold.clone()).await?)),
        }
    }

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains> {
        drain::drain(&self.inner, workers, deadline).await
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, changes) = mpsc::unbounded_channel();
        let mut workers = self.inner.workers();
        for Known { name, host, slots } in workers.known.values().cloned() {
            let _ = tell.send(WorkerChange::Joined { name, host, slots });
        }
        match &workers.lost {
            Some(error) => _ = tell.send(WorkerChange::SchedulerLost(error.clone())),
            None => workers.listeners.push(tell),
        }
        changes
    }

    /// Counts of all tasks of the scheduler, whosever they are. Where the shim cannot count, a guess from `adaptive_target`.
    async fn load(&self) -> Result<Observation> {
        load::load(&self.inner).await
    }

    fn arrivals(&self) -> Option<latest::Receiver<u64>> {
        Some(self.inner.arrivals.subscribe())
    }

    /// Told to the scheduler: it knows which tasks have no worker, and for how long. On a cluster that is not ours others may bring some.
    fn expect(&self, outlook: Outlook) {
        if self.inner.options.owner {
            self.inner.outlook.send_replace(Some(outlook));
        }
    }

    fn dashboard(&self) -> Option<String> {
        self.inner.hello.dashboard.clone()
    }
}

/// In a task host whose program was named by its driver, its tasks' tasks run in the same.
const NAMED: &str = "REMUDA_TASK_HOST_NAMED";

fn named_host(options: &DaskOptions) -> Option<Arc<Program>> {
    let inherited = || -> Option<(String, Vec<String>)> {
        let named = std::env::var(NAMED).ok().filter(|_| host::is_host())?;
        let mut words = serde_json::from_str::<Vec<String>>(&named).ok()?.into_iter();
        Some((words.next()?, words.collect()))
    };
    let (exe, args) = options.task_host.clone().or_else(inherited)?;
    Some(Arc::new(Program { exe, args, boot_id: None, named: true }))
}
