//! `local::DaskCluster` as the keeper sees it.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    adaptive::Backend,
    class::ClusterClass,
    error::{Error, ErrorKind, Result},
    host,
    ledger::{Entry, Item},
    manager::{CloseReport, ClusterEvent, ClusterInfo, ClusterManager, Context, Endpoint, Scaling, WorkerId, WorkerInfo, WorkerState},
};
use remuda_dask::{
    launch::{DaskCommand, WORKER_ENV, WorkerLaunch},
    security::{Material, Role},
    shim::{self, Preload},
};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use super::{
    DaskConfig,
    config::{GUARD_FILE, Plan, SHIM_FILE},
    installation::{Installation, not_unicode},
    memory,
    process::Process,
    scheduler,
    starts::{LastWords, Starts},
};

/// What every process of the cluster runs first.
const GUARD: &str = include_str!("guard.py");

/// For a worker that was asked to end: what it still holds is moved meanwhile.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// For the whole cluster to end by itself at its close. Nobody needs what it holds.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How long a cluster's certificates are valid: a local cluster does not outlive its driver.
const DAYS: u32 = 365;

/// For a scheduler that listens to let somebody in.
const KNOCK: Duration = Duration::from_secs(1);

/// For the system to end what was killed.
const DEATH: Duration = Duration::from_secs(20);

/// Dask's own scheduler and workers, as processes of this machine.
///
/// Nothing exists before `start`. Dropped without `close`, it kills its processes without waiting for them.
#[derive(Debug)]
pub struct DaskCluster(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// How the scheduler ended has been said, or is no news.
    told: bool,
    directory: Option<(Entry, PathBuf)>,
    scheduler: Option<Arc<Kept>>,
    workers: BTreeMap<WorkerId, Arc<Kept>>,
    ready: Option<Ready>,
    starts: Starts,
}

/// A process, and its line in the ledger.
#[derive(Debug)]
struct Kept {
    process: Arc<Process>,
    entry: Entry,
}

/// What workers have to know.
#[derive(Debug, Clone)]
struct Ready {
    installation: Installation,
    directory: String,
    address: String,
    material: Option<Arc<Material>>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers that have not ended.
    pub(super) fn running(&self) -> Vec<Arc<Process>> {
        let state = self.state();
        state.workers.values().map(|worker| worker.process.clone()).filter(|process| process.end().is_none()).collect()
    }

    /// Whether the scheduler has been there and nothing listens at its address any more.
    async fn is_lost(&self) -> bool {
        let address = self.state().ready.as_ref().and_then(|ready| Some(ready.address.split_once("://")?.1.to_owned()));
        match address {
            Some(address) => !matches!(timeout(KNOCK, TcpStream::connect(address)).await, Ok(Ok(_)) | Err(_)),
            None => false,
        }
    }

    fn ready(&self, operation: &'static str) -> Result<Ready> {
        let state = self.state();
        let ready = state.ready.clone().filter(|_| !state.closed);
        ready.ok_or_else(|| Error::new(ErrorKind::Closed, "the cluster is not open").with_operation(operation))
    }

    /// Which of these have ended before anybody asked them to, and what they said of it.
    async fn note_ends(&self, workers: &[WorkerId]) {
        let ended: Vec<_> = {
            let state = self.state();
            let of = |id: &WorkerId| Some((*id, state.workers.get(id).filter(|kept| kept.process.end().is_some())?.process.clone()));
            workers.iter().filter_map(of).collect()
        };
        if ended.is_empty() {
            return;
        }
        let read = spawn_blocking(move || ended.into_iter().map(|(id, process)| (id, LastWords::of(&process))).collect::<Vec<_>>());
        let read = read.await.unwrap_or_default();
        let mut state = self.state();
        read.into_iter().for_each(|(id, words)| state.starts.ended(id, words));
    }

    /// Environment of every process.
    fn env(&self, material: Option<&Material>, role: Role) -> BTreeMap<String, String> {
        let mut env = self.plan.config.env.clone();
        env.extend(material.map(|material| material.environment(role)).unwrap_or_default());
        if let Some(level) = self.plan.config.silence_logs.name() {
            env.entry("DASK_LOGGING__DISTRIBUTED".to_owned()).or_insert(level);
        }
        env
    }

    async fn directory(&self, cx: &Context) -> Result<String> {
        let (entry, path) = cx.ledger().create_directory(env::temp_dir()).await?;
        let text = path.to_str().map(str::to_owned);
        // Noted first: a close removes it, whatever comes next.
        self.state().directory = Some((entry, path.clone()));
        let shim = shim::preload_text(Preload::Plain);
        for (file, text) in [(GUARD_FILE, GUARD), (SHIM_FILE, &shim)] {
            std::fs::write(path.join(file), text).map_err(|e| {
                let error = Error::new(ErrorKind::Unavailable, format!("the temporary directory cannot be written: {e}"));
                error.with_context("path", path.display())
            })?;
        }
        text.ok_or_else(|| not_unicode(&path.to_string_lossy()))
    }

    fn worker_command(&self, ready: &Ready, id: WorkerId) -> DaskCommand {
        let config = &self.plan.config;
        let mut env = self.env(ready.material.as_deref(), Role::Worker);
        // What the user's environment says holds, as it does under Dask's nanny.
        let own = WORKER_ENV.iter().filter_map(|(name, _)| Some(((*name).to_owned(), env::var(name).ok()?)));
        for (name, value) in own {
            env.entry(name).or_insert(value);
        }
        let worker = WorkerLaunch {
            name: id.to_string(),
            nthreads: self.plan.nthreads,
            memory_limit: self.plan.memory_limit,
            resources: config.resources.clone(),
            host: self.plan.host.clone(),
            interface: config.interface.clone(),
            protocol: Some(self.plan.protocol().to_owned()),
            dashboard_address: config.worker_dashboard_address.as_deref().map(|address| self.plan.here(address)),
            local_directory: Some(config.local_directory.clone().unwrap_or_else(|| ready.directory.clone())),
            death_timeout: Some(config.death_timeout),
            worker_class: self.plan.worker_class(),
            preload: self.plan.preload(&ready.directory).into_iter().chain(config.preload.iter().cloned()).collect(),
            task_host: task_host(config),
            env,
            ..WorkerLaunch::new(&ready.address)
        };
        worker.command(&ready.installation.program)
    }

    /// Starts what is not there yet.
    fn spawn_workers(&self, cx: &Context, ready: &Ready, workers: Vec<(WorkerId, Entry)>) -> Result<Vec<Arc<Kept>>> {
        let mut state = self.state();
        let mut spawned = Vec::new();
        for (id, entry) in workers {
            if state.closed {
                return Err(Error::new(ErrorKind::Closed, "the cluster is closed"));
            }
            let command = self.worker_command(ready, id);
            let mark = cx.ledger().marker(&entry);
            let log = log_file(&ready.directory, &id.to_string());
            let process = Arc::new(Process::spawn(&command, &id.to_string(), &mark, log)?);
            let kept = Arc::new(Kept { process, entry });
            state.workers.insert(id, kept.clone());
            spawned.push(kept);
        }
        Ok(spawned)
    }
}

/// The program that runs Rust tasks: the one that was named, here or in the environment, else this one, if it is prepared for that.
fn task_host(config: &DaskConfig) -> Option<(String, Vec<String>)> {
    const NAMED: &str = "REMUDA_TASK_HOST_BINARY";
    if let Some(path) = &config.task_host {
        return Some((path.clone(), Vec::new()));
    }
    if env::var_os(NAMED).is_some() || config.env.contains_key(NAMED) {
        return None;
    }
    // This very program, whatever has become of its file.
    Some((format!("/proc/{}/exe", std::process::id()), host::args().ok()?.to_vec()))
}

fn log_file(directory: &str, name: &str) -> PathBuf {
    Path::new(directory).join(format!("{name}.log"))
}

/// Notes in the ledger which process it has become. Its marker finds it, too, so a failure is no reason to end it.
async fn note(cx: &Context, kept: &Kept) {
    if let Err(error) = cx.ledger().is_process(&kept.entry, kept.process.pid()).await {
        tracing::warn!(%error, process = kept.process.name(), "the ledger does not know the process's id");
    }
}

/// Says why the scheduler is lost, once: its engine sees no more than the end of a connection.
async fn tell_end(cx: Context, inner: Weak<Inner>, scheduler: Arc<Process>) {
    let end = scheduler.ended().await;
    let complaint = spawn_blocking(move || scheduler.complaints().pop()).await.ok().flatten();
    let complaint = complaint.map(|line| format!(": {line}")).unwrap_or_default();
    if inner.upgrade().is_none_or(|inner| std::mem::replace(&mut inner.state().told, true)) {
        return;
    }
    tracing::error!(cluster = cx.name(), end = &*end, "Dask's scheduler ended{complaint}");
    cx.report(ClusterEvent::Degraded(format!("Dask's scheduler ended: {end}{complaint}")));
}

async fn all_ended(processes: &[Arc<Kept>], deadline: Duration) -> bool {
    let all = async {
        for kept in processes {
            kept.process.ended().await;
        }
    };
    timeout(deadline, all).await.is_ok()
}

impl ClusterClass for DaskCluster {
    const PATH: &'static str = "local::DaskCluster";
    type Config = DaskConfig;

    fn from_config(config: DaskConfig) -> Result<Self> {
        Ok(Self(Arc::new(Inner { plan: config.resolve()?, state: Mutex::default() })))
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
        let (directory, scheduler, all) = {
            let mut state = self.0.state();
            state.closed = true;
            state.told |= !lost;
            let all: Vec<_> = state.workers.values().chain(&state.scheduler).cloned().collect();
            (state.directory.clone(), state.scheduler.clone(), all)
        };
        // It tells its workers to end.
        if let Some(scheduler) = &scheduler {
            scheduler.process.terminate();
        }
        if !all_ended(&all, CLOSE_GRACE).await {
            all.iter().for_each(|kept| kept.process.kill(None));
            all_ended(&all, DEATH).await;
        }
        if let Some(scheduler) = scheduler.filter(|scheduler| scheduler.process.end().is_some()) {
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
