//! From a configuration to a run: a cluster, a session, the body, and the end of all three.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use remuda_core::{
    class::{ClassRef, Recipe},
    cluster::{Cluster, ClusterOptions},
    engine::Session,
    error::{Error, Result},
    kwargs::Kwargs,
    security::Security,
    task::TaskError,
};
use remuda_registry::Registry;
use tokio::sync::Mutex;

use crate::{
    config::Address,
    existing::ExistingCluster,
    flow::Flow,
    future::{TaskFailed, remedy},
    report::{Counts, RunReport},
    run::{EndOnDrop, Run, lock},
};

/// Runs flows, each on a cluster that it makes and ends.
///
/// ```
/// use remuda::{TaskRunner, local::LocalConfig};
///
/// #[remuda::task]
/// fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # fn main() -> anyhow::Result<()> {
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let runner = TaskRunner::builder()
///     .cluster(LocalConfig { n_workers: Some(2), processes: false, ..Default::default() })
///     .build()?;
/// let total = runner
///     .run(|flow| async move {
///         let three = flow.submit(add(1, 2));
///         Ok(flow.submit(add(three, 4)).await?)
///     })
///     .await?;
/// assert_eq!(total, 7);
/// # anyhow::Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct TaskRunner(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) mode: Mode,
    pub(crate) registry: Registry,
    pub(crate) options: ClusterOptions,
    pub(crate) scope: Scope,
    pub(crate) shared: Mutex<Option<Cluster>>,
}

#[derive(Debug)]
pub(crate) enum Mode {
    Temporary { class: ClassRef, kwargs: Kwargs },
    Existing { address: Address, security: Option<Arc<Security>> },
}

/// How long a cluster lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// As long as one run. Every run has its own.
    #[default]
    Run,
    /// From the first run of this runner until [`TaskRunner::close`], or until the runner is dropped. Runs share it, at the same time or
    /// one after the other; each releases its own tasks when it ends.
    Runner,
}

impl fmt::Debug for TaskRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode: &dyn fmt::Debug = match &self.0.mode {
            Mode::Temporary { class, .. } => class,
            Mode::Existing { address, .. } => address,
        };
        f.debug_struct("TaskRunner").field("cluster", mode).field("scope", &self.0.scope).finish_non_exhaustive()
    }
}

impl TaskRunner {
    /// Runs `body` on a cluster, and ends what it left running. In every case the run's tasks are final and released when this returns,
    /// and a cluster of its own is closed.
    ///
    /// The body's error is returned as it was. What goes wrong while the run is torn down is logged, and never replaces the result;
    /// [`run_until`](Self::run_until) returns it beside the result. Dropping the future ends the run, too: the cluster is closed, for which
    /// the drop waits a bounded time.
    ///
    /// # Errors
    /// [`RunError::Infra`] when there is no cluster to run on; else what `body` returns.
    pub async fn run<T, F, Fut>(&self, body: F) -> Result<T, RunError>
    where
        F: FnOnce(Flow) -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let finished = self.run_until(pending(), body).await;
        for problem in finished.report.problems() {
            tracing::error!(problem, "teardown");
        }
        finished.result
    }

    /// The same, given up when `stop` returns: the body is dropped, tasks are cancelled, the cluster is closed. With a report.
    pub async fn run_until<T, F, Fut>(&self, stop: impl Future<Output = ()>, body: F) -> Finished<T>
    where
        F: FnOnce(Flow) -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        self.run_on_cluster(stop, |flow, _| body(flow)).await
    }

    /// The same with the cluster at hand, e.g. to show its workers.
    pub async fn run_on_cluster<T, F, Fut>(&self, stop: impl Future<Output = ()>, body: F) -> Finished<T>
    where
        F: FnOnce(Flow, Cluster) -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let begin = Instant::now();
        let mut stop = pin!(stop);
        let mut report = RunReport { tasks: Counts::default(), elapsed: begin.elapsed(), session: Ok(()), close: None };
        let cluster = tokio::select! {
            biased;
            () = &mut stop => Err(RunError::Interrupted),
            cluster = self.cluster() => cluster.map_err(RunError::Infra),
        };
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(error) => return Finished { result: Err(error), report },
        };
        let result = match open(&cluster).await {
            Ok(session) => {
                let run = Run::new(session.clone());
                let flow = Flow::of(run.clone());
                let ended = EndOnDrop(run.clone());
                let result = tokio::select! {
                    biased;
                    () = &mut stop => Err(RunError::Interrupted),
                    result = flow.drive(beside(body(flow.clone(), cluster.clone()), cluster.failed(), |error| run.fail(error))) => {
                        result.map_err(RunError::Flow)
                    }
                };
                report.session = flow.drive(session.close()).await;
                run.catch_up();
                drop(ended);
                report.tasks = *lock(&run.counts);
                result
            }
            Err(error) => Err(RunError::Infra(error)),
        };
        if self.0.scope == Scope::Run {
            report.close = Some(cluster.close().await);
        }
        report.elapsed = begin.elapsed();
        Finished { result, report }
    }

    /// Closes the cluster that runs of this runner share. Nothing to do with [`Scope::Run`].
    ///
    /// # Errors
    /// What could not be closed.
    pub async fn close(&self) -> Result<()> {
        let shared = self.0.shared.lock().await.take();
        match shared {
            Some(cluster) => cluster.close().await.map(drop),
            None => Ok(()),
        }
    }

    /// A cluster as configured, without a flow: to be held, and used by others at its [endpoint](Cluster::endpoint). Returns when its
    /// scheduler accepts connections; dropping the last handle closes it.
    ///
    /// # Errors
    /// Whatever the class says; the cluster was closed by then.
    pub async fn start_cluster(&self) -> Result<Cluster> {
        Cluster::start(self.recipe()?, self.0.options.clone()).await
    }

    async fn cluster(&self) -> Result<Cluster> {
        match self.0.scope {
            Scope::Run => self.start_cluster().await,
            Scope::Runner => {
                let mut shared = self.0.shared.lock().await;
                if let Some(cluster) = &*shared
                    && cluster.engine().is_ok()
                {
                    return Ok(cluster.clone());
                }
                let cluster = self.start_cluster().await?;
                *shared = Some(cluster.clone());
                Ok(cluster)
            }
        }
    }

    pub(crate) fn recipe(&self) -> Result<Recipe> {
        match &self.0.mode {
            Mode::Temporary { class, kwargs } => self.0.registry.prepare(class, kwargs.clone()),
            Mode::Existing { address, security } => Ok(ExistingCluster::new(address.clone(), security.clone()).into()),
        }
    }
}

/// The body; and when the cluster fails beside it, `tell`, whereupon the body goes on: its tasks have failed, and it decides what that means.
async fn beside<R>(body: impl Future<Output = R>, failed: impl Future<Output = Error>, tell: impl FnOnce(Error)) -> R {
    let mut body = pin!(body);
    tokio::select! {
        biased;
        result = &mut body => return result,
        error = failed => tell(error),
    }
    body.await
}

async fn open(cluster: &Cluster) -> Result<Arc<dyn Session>> {
    cluster.engine()?.open().await
}

/// A run's result and, beside it, how its end went.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct Finished<T> {
    /// What the body returned, or why it did not.
    pub result: Result<T, RunError>,
    /// Tasks, time, teardown.
    pub report: RunReport,
}

/// Why a run has no result. Its text has the causes and the remedy in it, since it may be all that is shown.
#[derive(Debug)]
pub enum RunError {
    /// The body's own error, as it was.
    Flow(anyhow::Error),
    /// There was no cluster to run on.
    Infra(Error),
    /// It was told to stop.
    Interrupted,
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Infra(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(error) => write!(f, "{error:#}"),
            Self::Infra(error) => {
                write!(f, "{error}")?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                remedy(f, error)
            }
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl StdError for RunError {}

impl RunError {
    /// The exit code that stands for it: 1 a task or the flow failed, 2 the configuration is wrong, 3 infrastructure (also where the body
    /// only passed that on with `?`), 130 interrupted.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Infra(error) => code(error),
            Self::Flow(error) => {
                if let Some(failed) = error.downcast_ref::<TaskFailed>() {
                    return task_code(&failed.error);
                }
                match (error.downcast_ref::<TaskError>(), error.downcast_ref::<Error>()) {
                    (Some(task), _) => task_code(task),
                    (None, Some(error)) => code(error),
                    (None, None) => 1,
                }
            }
        }
    }
}

fn code(error: &Error) -> u8 {
    if error.is_user_error() { 2 } else { 3 }
}

fn task_code(error: &TaskError) -> u8 {
    match error.root() {
        TaskError::Refused(error) if !error.is_user_error() => 3,
        _ => 1,
    }
}
