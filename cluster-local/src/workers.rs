//! The workers of the engine: their runners, and how they come and go. All of it stands under the engine's lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use remuda_core::{
    engine::WorkerChange,
    error::{Error, ErrorKind, Result},
    manager::WorkerId,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{HOST, RunnerId},
    mailbox::Mailbox,
    runner::Message,
    scheduler::{RunId, Scheduler},
};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) scheduler: Scheduler,
    pub(crate) pools: BTreeMap<WorkerId, Pool>,
    pub(crate) runners: HashMap<RunnerId, Handle>,
    pub(crate) owners: HashMap<RunId, RunnerId>,
    pub(crate) watchers: Vec<mpsc::UnboundedSender<WorkerChange>>,
    pub(crate) next: RunnerId,
    pub(crate) closed: bool,
}

/// The runners of one worker that wait for work.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: Arc<str>,
    pub(crate) idle: Vec<RunnerId>,
    pub(crate) starting: u32,
    pub(crate) launched: Option<oneshot::Sender<Result<()>>>,
    pub(crate) joined: bool,
    /// Slots whose task host lives.
    pub(crate) hosts: u32,
    /// When hosts died, the latest last.
    pub(crate) deaths: Vec<Instant>,
    pub(crate) gone: Option<String>,
}

/// A runner as the others see it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) mailbox: Arc<Mailbox<Message>>,
    pub(crate) worker: WorkerId,
    pub(crate) current: Option<Current>,
    /// Process ids of its children.
    pub(crate) children: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) task: Arc<str>,
    /// The body runs in the runner's own thread, which nobody can stop.
    pub(crate) here: bool,
}

impl Pool {
    pub(crate) fn is_joined(&self) -> bool {
        self.joined
    }
}

impl State {
    pub(crate) fn tell(&mut self, change: &WorkerChange) {
        self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok());
    }

    pub(crate) fn joined(&mut self, id: WorkerId, now: Instant) {
        let Some(pool) = self.pools.get_mut(&id) else { return };
        pool.joined = true;
        if let Some(tell) = pool.launched.take() {
            let _ = tell.send(Ok(()));
        }
        let (name, slots) = (pool.name.to_string(), u32::try_from(pool.idle.len()).unwrap_or(u32::MAX));
        self.scheduler.worker_joined(id, now);
        self.tell(&WorkerChange::Joined { name, host: HOST.to_owned(), slots });
    }

    pub(crate) fn launch_failed(&mut self, id: WorkerId, error: Error, now: Instant) {
        self.scheduler.worker_gone(id, None, now);
        // First the cause: to dismiss it would say only that it was stopped.
        if let Some(tell) = self.pools.get_mut(&id).and_then(|pool| pool.launched.take()) {
            let _ = tell.send(Err(error));
        }
        self.dismiss(id, "it could not be started");
        self.pools.remove(&id);
    }

    /// By accident: the keeper is told, and stops and replaces it.
    pub(crate) fn lost(&mut self, id: WorkerId, cause: &str, now: Instant) {
        let Some(pool) = self.pools.get_mut(&id).filter(|pool| pool.gone.is_none()) else { return };
        pool.gone = Some(cause.to_owned());
        let (name, joined) = (pool.name.to_string(), pool.joined);
        if let Some(tell) = pool.launched.take() {
            let _ = tell.send(Err(Error::new(ErrorKind::Unavailable, format!("worker {name} ended at once: {cause}"))));
        }
        let busy = !self.scheduler.is_empty(id);
        self.scheduler.worker_gone(id, Some(cause), now);
        self.dismiss(id, cause);
        if joined {
            self.tell(&WorkerChange::Left { name, reason: cause.to_owned(), busy });
        }
    }

    /// Tells a worker's threads to end.
    pub(crate) fn dismiss(&mut self, id: WorkerId, reason: &str) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.idle.clear();
            pool.gone.get_or_insert_with(|| reason.to_owned());
            if let Some(tell) = pool.launched.take() {
                let _ = tell.send(Err(Error::new(ErrorKind::Cancelled, format!("worker {id} was stopped before it joined"))));
            }
        }
        for handle in self.runners.values().filter(|handle| handle.worker == id) {
            handle.mailbox.send(Message::Stop);
        }
    }
}
