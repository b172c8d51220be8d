//! The processes of a `local::DaskCluster`, and what is known of them.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    host,
    ledger::Entry,
    manager::{ClusterEvent, Context, WorkerId},
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
    process::Process,
    starts::{LastWords, Starts},
};

/// What every process of the cluster runs first.
const GUARD: &str = include_str!("guard.py");

/// For a scheduler that listens to let somebody in.
const KNOCK: Duration = Duration::from_secs(1);

/// What the class and those who watch its processes share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) closed: bool,
    /// How the scheduler ended has been said, or is no news.
    pub(super) told: bool,
    pub(super) directory: Option<(Entry, PathBuf)>,
    pub(super) scheduler: Option<Arc<Kept>>,
    pub(super) workers: BTreeMap<WorkerId, Arc<Kept>>,
    pub(super) ready: Option<Ready>,
    pub(super) starts: Starts,
}

/// A process, and its line in the ledger.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) process: Arc<Process>,
    pub(super) entry: Entry,
}

/// What workers have to know.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) installation: Installation,
    pub(super) directory: String,
    pub(super) address: String,
    pub(super) material: Option<Arc<Material>>,
}

impl Inner {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self { plan, state: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers that have not ended.
    pub(super) fn running(&self) -> Vec<Arc<Process>> {
        let state = self.state();
        state.workers.values().map(|worker| worker.process.clone()).filter(|process| process.end().is_none()).collect()
    }

    /// Whether the scheduler has been there and nothing listens at its address any more.
    pub(super) async fn is_lost(&self) -> bool {
        let address = self.state().ready.as_ref().and_then(|ready| Some(ready.address.split_once("://")?.1.to_owned()));
        match address {
            Some(address) => !matches!(timeout(KNOCK, TcpStream::connect(address)).await, Ok(Ok(_)) | Err(_)),
            None => false,
        }
    }

    pub(super) fn ready(&self, operation: &'static str) -> Result<Ready> {
        let state = self.state();
        let ready = state.ready.clone().filter(|_| !state.closed);
        ready.ok_or_else(|| Error::new(ErrorKind::Closed, "the cluster is not open").with_operation(operation))
    }

    /// Which of these have ended before anybody asked them to, and what they said of it.
    pub(super) async fn note_ends(&self, workers: &[WorkerId]) {
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
    pub(super) fn env(&self, material: Option<&Material>, role: Role) -> BTreeMap<String, String> {
        let mut env = self.plan.config.env.clone();
        env.extend(material.map(|material| material.environment(role)).unwrap_or_default());
        if let Some(level) = self.plan.config.silence_logs.name() {
            env.entry("DASK_LOGGING__DISTRIBUTED".to_owned()).or_insert(level);
        }
        env
    }

    pub(super) async fn directory(&self, cx: &Context) -> Result<String> {
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
    pub(super) fn spawn_workers(&self, cx: &Context, ready: &Ready, workers: Vec<(WorkerId, Entry)>) -> Result<Vec<Arc<Kept>>> {
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

pub(super) fn log_file(directory: &str, name: &str) -> PathBuf {
    Path::new(directory).join(format!("{name}.log"))
}

/// Notes in the ledger which process it has become. Its marker finds it, too, so a failure is no reason to end it.
pub(super) async fn note(cx: &Context, kept: &Kept) {
    if let Err(error) = cx.ledger().is_process(&kept.entry, kept.process.pid()).await {
        tracing::warn!(%error, process = kept.process.name(), "the ledger does not know the process's id");
    }
}

/// Says why the scheduler is lost, once: its engine sees no more than the end of a connection.
pub(super) async fn tell_end(cx: Context, inner: Weak<Inner>, scheduler: Arc<Process>) {
    let end = scheduler.ended().await;
    let complaint = spawn_blocking(move || scheduler.complaints().pop()).await.ok().flatten();
    let complaint = complaint.map(|line| format!(": {line}")).unwrap_or_default();
    if inner.upgrade().is_none_or(|inner| std::mem::replace(&mut inner.state().told, true)) {
        return;
    }
    tracing::error!(cluster = cx.name(), end = &*end, "Dask's scheduler ended{complaint}");
    cx.report(ClusterEvent::Degraded(format!("Dask's scheduler ended: {end}{complaint}")));
}

pub(super) async fn all_ended(processes: &[Arc<Kept>], deadline: Duration) -> bool {
    let all = async {
        for kept in processes {
            kept.process.ended().await;
        }
    };
    timeout(deadline, all).await.is_ok()
}
