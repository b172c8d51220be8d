//! `local::LocalCluster` as the keeper sees it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    adaptive::Backend,
    class::ClusterClass,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, Scaling, WorkerId, WorkerInfo, WorkerState},
};

use crate::{
    config::LocalConfig,
    engine::{HOST, Options, Shared},
    face::LocalEngine,
    machine::enough,
};

/// Threads of a stopped worker whose body cannot be interrupted are waited for this long, no longer.
const THREADS_END: Duration = Duration::from_secs(2);

/// Workers on this machine: threads of this process, or processes that are this program started again.
///
/// Nothing exists before `start`. Dropped without `close`, it ends its workers without waiting for them.
#[derive(Debug)]
pub struct LocalCluster {
    options: Options,
    /// `n_workers`, where it stands in the kwargs.
    asked: Option<u32>,
    name: Option<String>,
    shared: OnceLock<Arc<Shared>>,
    starting: Mutex<()>,
}

impl LocalCluster {
    fn shared(&self, operation: &'static str) -> Result<&Arc<Shared>> {
        self.shared.get().ok_or_else(|| Error::new(ErrorKind::Closed, "the cluster was not started").with_operation(operation))
    }
}

impl ClusterClass for LocalCluster {
    const PATH: &'static str = "local::LocalCluster";
    type Config = LocalConfig;

    fn from_config(config: LocalConfig) -> Result<Self> {
        let (name, asked) = (config.name.clone(), config.n_workers);
        Ok(Self { options: config.resolve()?, asked, name, shared: OnceLock::new(), starting: Mutex::new(()) })
    }
}

#[async_trait]
impl ClusterManager for LocalCluster {
    fn info(&self) -> ClusterInfo {
        // A thread is there at once; a process loads this program again.
        let startup = Duration::from_millis(if self.options.processes { 300 } else { 10 });
        ClusterInfo {
            scaling: Scaling::Workers,
            workers: self.options.n_workers,
            workers_given: self.asked.is_some(),
            maximum: Some(enough(self.options.slots, self.asked)),
            slots: self.options.slots,
            backend: Backend::new(startup),
            name: self.name.clone(),
            ..ClusterInfo::new(Self::PATH)
        }
    }

    async fn start(&self, _cx: &Context) -> Result<Endpoint> {
        if self.options.processes {
            remuda_core::host::args().map_err(|e| e.with_context("class", Self::PATH))?;
        }
        let _once = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match self.shared.get() {
            Some(shared) => shared,
            None => {
                let shared = Shared::new(self.options.clone())?;
                self.shared.get_or_init(|| shared)
            }
        };
        Ok(Endpoint::Embedded(Arc::new(LocalEngine(shared.clone())) as Arc<dyn Engine>))
    }

    async fn launch(&self, _cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let shared = self.shared("launch")?;
        let launched: Vec<_> = workers.iter().filter_map(|id| shared.launch(*id)).collect();
        let mut result = Ok(());
        for worker in launched {
            let answer = worker.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the cluster was closed")));
            result = result.and(answer);
        }
        result
    }

    async fn stop(&self, _cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let shared = self.shared("stop")?;
        workers.iter().for_each(|id| shared.stop(*id));
        // Processes are gone when their threads are. A thread that runs a body of the user's is waited for only so long: the
        // worker's place is free in any case.
        shared.wait_until(THREADS_END, |state| state.runners.values().all(|runner| !workers.contains(&runner.worker))).await;
        Ok(())
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        let Some(shared) = self.shared.get() else { return Ok(Vec::new()) };
        let state = shared.state();
        let workers = state.pools.iter().map(|(id, pool)| {
            let standing = match &pool.gone {
                Some(reason) => WorkerState::Gone { reason: reason.clone() },
                None if pool.is_joined() => WorkerState::Running,
                None => WorkerState::Pending,
            };
            WorkerInfo { id: Some(*id), platform_id: pool.name.to_string(), host: Some(HOST.to_owned()), state: standing }
        });
        Ok(workers.collect())
    }

    async fn close(&self, _cx: &Context) -> Result<CloseReport> {
        let Some(shared) = self.shared.get() else { return Ok(CloseReport::default()) };
        shared.shut_down();
        shared.wait_until(THREADS_END, |state| state.runners.is_empty()).await;
        if let Some(thread) = shared.converter.thread() {
            let _ = tokio::time::timeout(THREADS_END, tokio::task::spawn_blocking(move || thread.join())).await;
        }
        let remaining = shared.threads_of(None);
        if !remaining.is_empty() {
            tracing::warn!(
                cluster = self.name.as_deref(),
                threads = remaining.len(),
                "threads outlive the cluster: their task bodies cannot be interrupted"
            );
        }
        Ok(CloseReport { remaining })
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.get() {
            shared.shut_down();
        }
    }
}
