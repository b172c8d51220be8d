//! `local::DaskCluster` as the keeper sees it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use remuda_core::{
    adaptive::Backend,
    class::ClusterClass,
    error::{Error, ErrorKind, Result},
    ledger::Item,
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, Scaling, WorkerId, WorkerInfo, WorkerState},
};
use remuda_dask::security::{Material, Role};
use tokio::task::spawn_blocking;

use super::{
    DaskConfig,
    inner::{Inner, Kept, Ready, State, all_ended, log_file, note, tell_end},
    installation::Installation,
    memory,
    process::Process,
    scheduler,
    starts::{Starts, follow},
};
use crate::machine::enough;

/// For a worker that was asked to end: what it still holds is moved meanwhile.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// For the whole cluster to end by itself at its close. Nobody needs what it holds.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How long a cluster's certificates are valid: a local cluster does not outlive its driver.
const DAYS: u32 = 365;

/// For the system to end what was killed.
const DEATH: Duration = Duration::from_secs(20);

/// Dask's own scheduler and workers, as processes of this machine.
///
/// Nothing exists before `start`. Dropped without `close`, it kills its processes without waiting for them.
#[derive(Debug)]
pub struct DaskCluster(Arc<Inner>);

impl ClusterClass for DaskCluster {
    const PATH: &'static str = "local::DaskCluster";
    type Config = DaskConfig;

    fn from_config(config: DaskConfig) -> Result<Self> {
        Ok(Self(Inner::new(config.resolve()?)))
    }
}

#[async_trait]
impl ClusterManager for DaskCluster {
    fn info(&self) -> ClusterInfo {
        let plan = &self.0.plan;
        ClusterInfo {
            scaling: Scaling::Workers,
            workers: plan.n_workers,
            workers_given: plan.config.n_workers.is_some(),
            maximum: Some(enough(plan.nthreads, plan.config.n_workers)),
            slots: plan.nthreads,
            // A Python process that imports Dask.
            backend: Backend::new(Duration::from_secs(1)),
            name: plan.config.name.clone(),
            ..ClusterInfo::new(Self::PATH)
        }
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        let inner = &self.0;
        let installation = Installation::find(inner.plan.config.python.as_deref()).await?;
        tracing::debug!(distributed = installation.distributed, program = ?installation.program, "found Dask");
        let material = match &inner.plan.material {
            Some(given) => Some(given.clone()),
            None => inner.plan.tls.then(|| Material::temporary(DAYS)).transpose()?,
        };
        let material = material.map(Arc::new);
        let directory = inner.directory(cx).await?;
        let entry = cx.ledger().will_create(Item::process("dask scheduler")).await?;
        let mark = cx.ledger().marker(&entry);
        let kept = {
            let mut state = inner.state();
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, "the cluster is closed").with_operation("start"));
            }
            let env = inner.env(material.as_deref(), Role::Scheduler);
            let command = scheduler::command(&inner.plan, &installation, &directory, env);
            let process = Process::spawn(&command, "scheduler", &mark, log_file(&directory, "scheduler"))?;
            state.scheduler.insert(Arc::new(Kept { process: Arc::new(process), entry })).clone()
        };
        note(cx, &kept).await;
        let listening = scheduler::listening(&kept.process, &directory).await?;
        let dashboard = listening.dashboard(&inner.plan, &installation);
        let address = listening.address;
        cx.spawn(tell_end(cx.clone(), Arc::downgrade(inner), kept.process.clone()));
        let security = material.as_ref().map(|material| Arc::new(material.client.clone()));
        inner.state().starts = Starts::new(cx.events());
        let listens = Arc::downgrade(inner);
        cx.spawn(follow(cx.events(), move || listens.upgrade().inspect(|inner| inner.state().starts.listen()).is_some()));
        inner.state().ready = Some(Ready { installation, directory, address: address.clone(), material });
        if let Some(limit) = inner.plan.memory_limit {
            cx.spawn(memory::watch(Arc::downgrade(inner), limit));
        }
        Ok(Endpoint::Dask { address, security, dashboard })
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let ready = self.0.ready("launch")?;
        let known = |id: &WorkerId| self.0.state().workers.contains_key(id);
        let new: Vec<_> = workers.iter().copied().filter(|id| !known(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.0.state().starts.begin(&new)?;
        let items = new.iter().map(|id| Item::process(format!("dask worker {id}"))).collect::<Vec<_>>();
        let entries = cx.ledger().will_create_all(items).await?;
        let spawned = self.0.spawn_workers(cx, &ready, new.into_iter().zip(entries).collect());
        for kept in spawned? {
            note(cx, &kept).await;
        }
        Ok(())
    }

    async fn stop(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let find = |state: &State| workers.iter().filter_map(|id| state.workers.get(id).cloned()).collect::<Vec<_>>();
        let stopped = find(&self.0.state());
        self.0.note_ends(workers).await;
        stopped.iter().for_each(|kept| kept.process.terminate());
        if !all_ended(&stopped, STOP_GRACE).await {
            stopped.iter().for_each(|kept| kept.process.kill(None));
            if !all_ended(&stopped, DEATH).await {
                let left: Vec<_> = stopped.iter().filter(|kept| kept.process.end().is_none()).map(|kept| kept.process.pid()).collect();
                let error = Error::new(ErrorKind::Timeout, format!("killed workers did not end within {DEATH:?}"));
                return Err(error.with_context("pids", format_args!("{left:?}")));
            }
        }
        for kept in &stopped {
            cx.ledger().gone(&kept.entry).await;
        }
        let mut state = self.0.state();
        for id in workers {
            state.workers.remove(id);
            state.starts.forget(*id);
        }
        Ok(())
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        let workers: Vec<_> = self.0.state().workers.iter().map(|(id, kept)| (*id, kept.process.clone())).collect();
        let list = move || {
            workers.into_iter().map(|(id, process)| WorkerInfo {
                id: Some(id),
                platform_id: process.pid().to_string(),
                host: None, // the same of all
                state: standing(&process),
            })
        };
        spawn_blocking(move || list().collect()).await.map_err(|error| Error::from_join("listing the workers", error))
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        // The end of a scheduler that has stopped to listen by itself is news, also when it comes after the engine's word has closed the
        // cluster. An end that this close asks for is none.
        let lost = self.0.is_lost().await;
        let (directory, scheduler, all, was_told) = {
            let mut state = self.0.state();
            state.closed = true;
            let was_told = state.told;
            state.told |= !lost;
            let all: Vec<_> = state.workers.values().chain(&state.scheduler).cloned().collect();
            (state.directory.clone(), state.scheduler.clone(), all, was_told)
        };
        // It tells its workers to end.
        if let Some(scheduler) = &scheduler {
            scheduler.process.terminate();
        }
        if !all_ended(&all, CLOSE_GRACE).await {
            // The cause is told where a scheduler's end is news: the signal is ours, and not how it came to its end.
            all.iter().for_each(|kept| kept.process.kill(Some(format!("it was still closing after {CLOSE_GRACE:?}"))));
            all_ended(&all, DEATH).await;
        }
        if let Some(scheduler) = scheduler.filter(|scheduler| scheduler.process.end().is_some()) {
            // One that dies may be connected to until all of it is gone.
            if !was_told && scheduler.process.end().is_some_and(|end| is_by_others(&end)) {
                self.0.state().told = false;
            }
            tell_end(cx.clone(), Arc::downgrade(&self.0), scheduler.process.clone()).await;
        }
        let mut remaining = Vec::new();
        for kept in &all {
            match kept.process.end() {
                Some(_) => cx.ledger().gone(&kept.entry).await,
                None => remaining.push(format!("process {} ({})", kept.process.pid(), kept.process.name())),
            }
        }
        if remaining.is_empty()
            && let Some((entry, path)) = directory
        {
            match remove(path.clone()).await {
                Ok(()) => cx.ledger().gone(&entry).await,
                Err(error) => remaining.push(format!("directory {}: {error}", path.display())),
            }
        }
        if remaining.is_empty() {
            let mut state = self.0.state();
            (state.directory, state.scheduler, state.ready) = (None, None, None);
            state.workers.clear();
        }
        Ok(CloseReport { remaining })
    }
}

/// Whether it ended by a signal that no close sends; where a close kills, its end has another text.
fn is_by_others(end: &str) -> bool {
    end.starts_with("signal ") && !end.contains("SIGTERM")
}

fn standing(process: &Process) -> WorkerState {
    match process.end() {
        None => WorkerState::Running,
        Some(end) => {
            let complaint = process.complaints().pop().map(|line| format!(": {line}")).unwrap_or_default();
            WorkerState::Gone { reason: format!("its process ended: {end}{complaint}") }
        }
    }
}

/// Removes a directory in which nobody works any more.
async fn remove(path: PathBuf) -> std::io::Result<()> {
    let removed = spawn_blocking(move || match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    });
    removed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Not closed: the processes are killed as their handles go, and what was noted in the ledger is found by `remuda gc`.
impl Drop for DaskCluster {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.workers.values().chain(&state.scheduler).for_each(|kept| kept.process.kill(None));
        if let Some((_, path)) = state.directory.take() {
            // With it the guard and the logs go; the scheduler's guard would do it as well, were it not killed here.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}
