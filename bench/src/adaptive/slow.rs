//! A class whose workers take long to come, and that counts what each costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use remuda_core::{
    adaptive::Backend,
    error::Result,
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, WorkerId, WorkerInfo},
};

/// From the request to the end of each worker.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<WorkerId, (Instant, Option<Instant>)>>);

impl Tally {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<WorkerId, (Instant, Option<Instant>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, ids: &[WorkerId]) {
        let now = Instant::now();
        let mut workers = self.workers();
        for id in ids {
            if let Some((_, end)) = workers.get_mut(id) {
                end.get_or_insert(now);
            }
        }
    }

    /// Worker-seconds until now, and how many were asked for.
    pub(super) fn cost(&self) -> (f64, usize) {
        let (now, workers) = (Instant::now(), self.workers());
        let seconds = workers.values().map(|(begin, end)| end.unwrap_or(now).duration_since(*begin).as_secs_f64()).sum();
        (seconds, workers.len())
    }

    /// The first request after a moment.
    pub(super) fn requested_after(&self, moment: Instant) -> Option<Instant> {
        self.workers().values().map(|(begin, _)| *begin).filter(|begin| *begin >= moment).min()
    }

    /// Workers that are there or on their way.
    pub(super) fn present(&self) -> usize {
        self.workers().values().filter(|(_, end)| end.is_none()).count()
    }
}

/// Another class, whose workers are launched only after a while; it answers at once.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) name: String,
    pub(super) inner: Box<dyn ClusterManager>,
    pub(super) delay: Duration,
    /// What it says that a start takes.
    pub(super) startup: Duration,
    pub(super) tally: Arc<Tally>,
    pub(super) pending: Arc<Mutex<BTreeSet<WorkerId>>>,
}

impl Slow {
    fn pending(&self) -> MutexGuard<'_, BTreeSet<WorkerId>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `launch` needs it for longer than a call.
#[derive(Debug)]
pub(super) struct Shared(pub(super) Arc<Slow>);

#[async_trait]
impl ClusterManager for Shared {
    fn info(&self) -> ClusterInfo {
        ClusterInfo { class: self.0.name.clone(), backend: Backend::new(self.0.startup), ..self.0.inner.info() }
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        self.0.inner.start(cx).await
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let now = Instant::now();
        self.0.tally.workers().extend(workers.iter().map(|id| (*id, (now, None))));
        if self.0.delay.is_zero() {
            return self.0.inner.launch(cx, workers).await;
        }
        self.0.pending().extend(workers);
        let (slow, later, ids) = (self.0.clone(), cx.clone(), workers.to_vec());
        cx.spawn(async move {
            tokio::time::sleep(slow.delay).await;
            let due: Vec<WorkerId> = ids.into_iter().filter(|id| slow.pending().remove(id)).collect();
            if let Err(error) = slow.inner.launch(&later, &due).await {
                eprintln!("a worker was not launched: {error}");
            }
        });
        Ok(())
    }

    async fn stop(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let begun: Vec<WorkerId> = workers.iter().copied().filter(|id| !self.0.pending().remove(id)).collect();
        self.0.inner.stop(cx, &begun).await?;
        self.0.tally.ended(workers);
        Ok(())
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WorkerInfo>> {
        self.0.inner.list(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        self.0.pending().clear();
        self.0.inner.close(cx).await
    }
}
