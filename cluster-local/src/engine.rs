//! The running engine: the scheduler under its lock, and the threads that carry out what it says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use remuda_core::{
    engine::WorkerChange,
    error::{Error, ErrorKind, Result},
    manager::WorkerId,
    task::{TaskError, Work},
};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    converter::Converter,
    mailbox::Mailbox,
    monitor::Monitor,
    outbox::Outbox,
    runner::{self, Message, Runner},
    scheduler::{After, Ended, Limits, Place, RunId, Scheduler, Start},
    session::LocalSession,
    timer::Timer,
    workers::{Current, Handle, Pool, State},
};

/// What the workers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) n_workers: u32,
    /// Per worker.
    pub(crate) slots: u32,
    pub(crate) processes: bool,
    pub(crate) resources: BTreeMap<String, f64>,
    /// Bytes per worker.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) python: Option<String>,
    /// How long a body in a process may go on after it was cancelled.
    pub(crate) grace: Duration,
}

impl Options {
    /// What each worker offers.
    fn place(&self) -> Place {
        Place { host: HOST.to_owned(), slots: self.slots, resources: self.resources.clone() }
    }
}

pub(crate) type RunnerId = u64;

/// What sessions, the manager and the runners share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) converter: Converter,
    state: Mutex<State>,
    /// Something ended: for those who wait until nothing is left.
    pub(crate) changed: Notify,
    /// Counts what was submitted, for adaptive scaling.
    pub(crate) arrivals: watch::Sender<u64>,
    timer: Timer,
    monitor: Monitor,
    outbox: Outbox,
}

pub(crate) const HOST: &str = "127.0.0.1";

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Arc<Self>> {
        let state = State {
            scheduler: Scheduler::new(options.limits, options.n_workers).with_kind(options.place()),
            pools: BTreeMap::new(),
            runners: HashMap::new(),
            owners: HashMap::new(),
            watchers: Vec::new(),
            next: 0,
            closed: false,
        };
        let converter = Converter::new(&options);
        let shared = Arc::new(Self {
            options,
            converter,
            state: Mutex::new(state),
            changed: Notify::new(),
            arrivals: watch::Sender::new(0),
            timer: Timer::default(),
            monitor: Monitor::default(),
            outbox: Outbox::default(),
        });
        let weak = Arc::downgrade(&shared);
        shared.timer.start(move || {
            weak.upgrade().and_then(|shared| {
                shared.update(|state, now| state.scheduler.tick(now));
                shared.state().scheduler.wake()
            })
        })?;
        if let (true, Some(limit)) = (shared.options.processes, shared.options.memory_limit) {
            shared.monitor.start(Arc::downgrade(&shared), limit)?;
        }
        Ok(shared)
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change and everything that follows from it. What may run the user's code does so after the lock is gone.
    pub(crate) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut after = After::default();
        let mut state = self.state();
        let result = change(&mut state, Instant::now());
        self.settle(&mut state, &mut after);
        let wake = state.scheduler.wake();
        drop(state);
        if let Some(wake) = wake {
            self.timer.no_later_than(wake);
        }
        self.outbox.deliver();
        after.run();
        self.changed.notify_waiters();
        result
    }

    pub(crate) fn open_session(self: &Arc<Self>, under: Option<RunId>) -> Result<LocalSession> {
        let (id, events) = self
            .update(|state, _| (!state.closed).then(|| state.scheduler.open(under)))
            .ok_or_else(|| Error::new(ErrorKind::Closed, "the cluster is closed").with_operation("open session"))?;
        Ok(LocalSession::new(self.clone(), id, events))
    }

    /// Work has come.
    pub(crate) fn note_arrival(&self) {
        if self.arrivals.receiver_count() > 0 {
            self.arrivals.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Returns when every event so far has reached its listener.
    pub(crate) fn flush(&self) {
        self.outbox.flush();
    }

    fn settle(self: &Arc<Self>, state: &mut State, after: &mut After) {
        loop {
            let mut effects = state.scheduler.take_effects();
            self.outbox.push(&mut effects.events);
            after.merge(effects.after);
            if effects.interrupts.is_empty() && effects.starts.is_empty() {
                return;
            }
            for start in effects.starts {
                self.assign(state, start);
            }
            for run in effects.interrupts {
                let Some(handle) = state.owners.get(&run).and_then(|runner| state.runners.get(runner)) else { continue };
                match handle.current.as_ref().is_some_and(|current| current.here) {
                    // The thread ends with the body; its slot is free for another thread at once.
                    true => state.scheduler.give_up(run, Instant::now()),
                    false => handle.mailbox.send(Message::Interrupt(run)),
                }
                state.scheduler.dispatch(Instant::now());
            }
        }
    }

    fn assign(self: &Arc<Self>, state: &mut State, start: Start) {
        let idle = state.pools.get_mut(&start.worker).and_then(|pool| pool.idle.pop());
        let runner = match idle.map_or_else(|| self.add_runner(state, start.worker, false), Ok) {
            Ok(runner) => runner,
            Err(error) => {
                let now = Instant::now();
                state.scheduler.finish(start.run, Ended::Outcome(Err(TaskError::Refused(error))), now);
                return;
            }
        };
        state.owners.insert(start.run, runner);
        if let Some(handle) = state.runners.get_mut(&runner) {
            let here = !self.options.processes && matches!(start.spec.work, Work::Rust(_));
            handle.current = Some(Current { task: start.spec.name.clone(), here });
            handle.mailbox.send(Message::Run(Box::new(start)));
            self.monitor.wake();
        }
    }

    /// Starts a thread. A `founding` one belongs to a worker that is being launched.
    fn add_runner(self: &Arc<Self>, state: &mut State, worker: WorkerId, founding: bool) -> Result<RunnerId> {
        state.next += 1;
        let id = state.next;
        let mailbox = Arc::new(Mailbox::default());
        let handle = Handle { mailbox: mailbox.clone(), worker, current: None, children: Vec::new() };
        let name = state.pools.get(&worker).map_or_else(|| worker.to_string().into(), |pool| pool.name.clone());
        let runner = Runner { shared: self.clone(), id, worker, worker_name: name, mailbox, founding };
        let thread = std::thread::Builder::new().name(format!("remuda {worker}"));
        thread.spawn(move || runner::run(runner)).map_err(|e| {
            Error::new(ErrorKind::Unavailable, "a thread for a worker could not be started").with_context("worker", worker).with_source(e)
        })?;
        state.runners.insert(id, handle);
        Ok(id)
    }

    /// Begins a worker. The receiver hears when it has joined, or why not.
    pub(crate) fn launch(self: &Arc<Self>, id: WorkerId) -> Option<oneshot::Receiver<Result<()>>> {
        let (tell, launched) = oneshot::channel();
        let options = &self.options;
        let place = options.place();
        self.update(|state, now| {
            if state.closed || state.pools.contains_key(&id) {
                return None;
            }
            let pool = Pool {
                name: id.to_string().into(),
                idle: Vec::new(),
                starting: options.slots,
                launched: Some(tell),
                joined: false,
                hosts: 0,
                deaths: Vec::new(),
                gone: None,
            };
            state.pools.insert(id, pool);
            state.scheduler.expect_worker(id, place, now);
            for _ in 0..options.slots {
                if let Err(error) = self.add_runner(state, id, true) {
                    state.launch_failed(id, error, now);
                    break;
                }
            }
            Some(launched)
        })
    }

    /// A founding runner can work.
    pub(crate) fn runner_ready(self: &Arc<Self>, runner: RunnerId, result: Result<()>) -> bool {
        let processes = self.options.processes;
        self.update(|state, now| {
            let Some(worker) = state.runners.get(&runner).map(|handle| handle.worker) else { return false };
            let pool = state.pools.get_mut(&worker).filter(|pool| pool.gone.is_none());
            let (Some(pool), Ok(())) = (pool, &result) else {
                if let Err(error) = result {
                    state.launch_failed(worker, error, now);
                }
                return false;
            };
            pool.starting -= 1;
            pool.hosts += u32::from(processes);
            pool.idle.push(runner);
            if pool.starting == 0 {
                state.joined(worker, now);
            }
            true
        })
    }

    /// An attempt ended; whether the runner is to wait for another.
    pub(crate) fn finished(self: &Arc<Self>, runner: RunnerId, run: RunId, ended: Ended) -> bool {
        self.update(|state, now| {
            state.owners.remove(&run);
            state.scheduler.finish(run, ended, now);
            let Some(handle) = state.runners.get_mut(&runner) else { return false };
            handle.current = None;
            let worker = handle.worker;
            let pool = state.pools.get_mut(&worker).filter(|pool| pool.gone.is_none() && pool.idle.len() < self.options.slots as usize);
            let stays = pool.is_some();
            if let Some(pool) = pool {
                pool.idle.push(runner);
            }
            state.scheduler.dispatch(now);
            stays
        })
    }

    /// A runner's children changed.
    pub(crate) fn note_children(&self, runner: RunnerId, children: Vec<u32>) {
        if let Some(handle) = self.state().runners.get_mut(&runner) {
            handle.children = children;
        }
    }

    /// The last word of a runner's thread: it has no children any more.
    pub(crate) fn runner_ended(self: &Arc<Self>, runner: RunnerId) {
        self.update(|state, _| state.runners.remove(&runner));
    }

    /// A slot's task host died. Whether the slot is to start another one.
    pub(crate) fn host_died(self: &Arc<Self>, worker: WorkerId, cause: &str) -> bool {
        const QUICK: Duration = Duration::from_secs(10);
        const DEATHS: usize = 5;
        self.update(|state, now| {
            let Some(pool) = state.pools.get_mut(&worker).filter(|pool| pool.gone.is_none()) else { return false };
            pool.hosts = pool.hosts.saturating_sub(1);
            pool.deaths.retain(|at| now.duration_since(*at) < QUICK);
            pool.deaths.push(now);
            let again = pool.hosts > 0 && pool.deaths.len() < DEATHS;
            if again {
                pool.hosts += 1;
            } else {
                state.lost(worker, cause, now);
            }
            again
        })
    }

    /// Ends a worker, drained or not. Returns the number of threads that were told.
    pub(crate) fn stop(self: &Arc<Self>, id: WorkerId) {
        self.update(|state, now| {
            state.scheduler.worker_gone(id, None, now);
            let was_here = state.pools.get(&id).filter(|pool| pool.joined && pool.gone.is_none()).map(|pool| pool.name.to_string());
            state.dismiss(id, "stopped");
            state.pools.remove(&id);
            if let Some(name) = was_here {
                state.tell(&WorkerChange::Left { name, reason: "stopped".to_owned(), busy: false });
            }
        });
    }

    /// Threads of a worker that have not ended.
    pub(crate) fn threads_of(&self, worker: Option<WorkerId>) -> Vec<String> {
        let state = self.state();
        let left = state.runners.values().filter(|handle| worker.is_none_or(|id| id == handle.worker));
        left.map(|handle| match &handle.current {
            Some(current) => format!("the thread of worker {} that still runs task `{}`", handle.worker, current.task),
            None => format!("an idle thread of worker {}", handle.worker),
        })
        .collect()
    }

    /// Ends everything; waits for nothing.
    pub(crate) fn shut_down(self: &Arc<Self>) {
        self.update(|state, now| {
            state.closed = true;
            let ids: Vec<WorkerId> = state.pools.keys().copied().collect();
            state.scheduler.close_all(now);
            for id in ids {
                state.scheduler.worker_gone(id, None, now);
                state.dismiss(id, "the cluster was closed");
                state.pools.remove(&id);
            }
            state.watchers.clear();
        });
        self.timer.stop();
        self.monitor.stop();
        self.converter.stop();
    }

    /// Waits until `done` says so, at most for `limit`. Whether it did.
    pub(crate) async fn wait_until(&self, limit: Duration, done: impl Fn(&State) -> bool + Send) -> bool {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.state()) {
                return true;
            }
            if tokio::time::timeout_at(end, changed).await.is_err() {
                return done(&self.state());
            }
        }
    }
}
