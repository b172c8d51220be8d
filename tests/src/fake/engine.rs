//! An engine in memory. Simple where the real one is fast: every change looks at every task again.

mod state;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    adaptive::{Group, Load, Prefix},
    engine::{Drain, Drains, Engine, Observation, Session, TaskEvents, WorkerChange, WorkerChanges, WorkerLoad},
    error::{Error, ErrorKind, Result},
    task::{Annotations, Crash, Job, Key, Outcome, TaskError, TaskEvent, TaskScope, TaskSpec, TaskState, Work},
    value::Value,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::state::{End, Id, Place, State, Task, Worker};
use crate::bodies::Exit;

/// What an engine can get wrong. For the test of the suite: each of these must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// The oldest first, whatever its priority.
    NoPriorities,
    /// Resources are not counted.
    NoResources,
    /// One slot too many.
    NoSlots,
    /// `workers` is not looked at.
    NoPlaces,
    /// A failure is final.
    NoRetries,
    /// A lost worker's tasks are tried again without end.
    EndlessRetries,
    /// A task is begun although its input failed.
    NoUpstream,
    /// `after` is not looked at.
    NoOrder,
    /// Every end is told twice.
    TellsTwice,
    /// What was released is run and kept.
    KeepsAll,
    /// A closed session's tasks go on.
    NoClose,
    /// A cancelled task's body goes on.
    NoInterrupt,
    /// A worker is drained before its tasks are done.
    NoDrain,
    /// One dead worker takes the others with it.
    AllDie,
    /// A task's time has no limit that anybody would see.
    WrongLimit,
}

/// A scheduler whose workers are entries of a table and whose slots are tokio tasks. Clones are the same scheduler.
#[derive(Debug, Clone, Default)]
pub struct FakeEngine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told after every change, for those who wait for something to become true.
    changed: watch::Sender<()>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl FakeEngine {
    /// Makes it wrong.
    pub fn break_by(&self, defect: Defect) {
        self.state().defects.insert(defect);
    }

    /// Keeps results, as Dask does: the driver hears that there is one, and gathers it.
    pub fn keep_results(&self) {
        self.state().keeps = true;
    }

    /// How many keys each gather so far asked for.
    #[must_use]
    pub fn gathers(&self) -> Vec<usize> {
        self.state().gathers.clone()
    }

    /// A worker joins.
    pub fn add(&self, name: &str, host: &str, slots: u32, resources: BTreeMap<String, f64>) {
        let mut state = self.state();
        state.workers.insert(name.to_owned(), Worker { host: host.to_owned(), slots, resources, draining: false });
        state.tell(WorkerChange::Joined { name: name.to_owned(), host: host.to_owned(), slots });
        self.settle(state);
    }

    /// A worker is gone, with what it ran.
    pub fn remove(&self, name: &str, reason: &str) {
        let mut state = self.state();
        if state.workers.remove(name).is_none() {
            return;
        }
        let busy = state.tasks.values().any(|task| task.is_on(name));
        state.tell(WorkerChange::Left { name: name.to_owned(), reason: reason.to_owned(), busy });
        let all = state.has(Defect::AllDie);
        let ran: Vec<Id> = state
            .tasks
            .iter()
            .filter(|(_, task)| task.is_on(name) || all && matches!(task.place, Place::On { .. }))
            .map(|(id, _)| *id)
            .collect();
        ran.into_iter().for_each(|id| state.lose(id, name, reason));
        self.settle(state);
    }

    /// The scheduler itself is gone.
    pub fn lose_scheduler(&self, error: &Error) {
        self.state().tell(WorkerChange::SchedulerLost(error.clone()));
    }

    /// Results that are kept for somebody.
    #[must_use]
    pub fn results(&self) -> usize {
        self.state().tasks.values().filter(|task| matches!(task.place, Place::End(Ok(_)))).count()
    }

    /// Waits until no worker runs anything.
    pub async fn idle(&self) {
        self.when(|state| !state.tasks.values().any(|task| matches!(task.place, Place::On { .. }))).await;
    }

    async fn when(&self, reached: impl Fn(&State) -> bool) {
        let mut changed = self.0.changed.subscribe();
        while !reached(&self.state()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does whatever can be done now, then tells those who wait.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        while state.fail_dependents() {}
        while let Some((id, worker)) = state.next() {
            let (spec, scope, inputs) = state.begin(id, &worker);
            let (engine, attempt, wrong) = (self.clone(), scope.attempt, state.has(Defect::WrongLimit));
            tokio::spawn(async move {
                let end = execute(spec, scope, inputs, wrong).await;
                engine.finished(id, attempt, end);
            });
        }
        state.sweep();
        drop(state);
        self.0.changed.send_replace(());
    }

    fn finished(&self, id: Id, attempt: u32, end: End) {
        let mut state = self.state();
        let worker = match state.tasks.get(&id) {
            Some(Task { place: Place::On { worker, .. }, attempt: now, .. }) if *now == attempt => worker.clone(),
            _ => return, // cancelled, or its worker is gone
        };
        match end {
            End::Outcome(outcome) => state.ended(id, outcome),
            End::WorkerDied(reason) => {
                drop(state);
                return self.remove(&worker, &reason);
            }
        }
        self.settle(state);
    }
}

async fn execute(spec: TaskSpec, scope: TaskScope, inputs: Vec<Outcome>, wrong_limit: bool) -> End {
    let Work::Rust(work) = &spec.work else {
        return End::Outcome(Err(Error::new(ErrorKind::Unsupported, "the fake engine runs Rust functions only").into()));
    };
    let Some(here) = work.here.clone() else {
        return End::Outcome(Err(Error::new(ErrorKind::Unsupported, "the task has no form for this process").into()));
    };
    let (cancel, limit) = (scope.cancel.clone(), spec.annotations.timeout.map(|limit| if wrong_limit { limit * 2 } else { limit }));
    let attempt = async {
        // Bodies may block; a body that cannot be interrupted runs on by itself.
        let called = tokio::task::spawn_blocking(move || catch_unwind(AssertUnwindSafe(|| here(scope, inputs)))).await;
        match called.unwrap_or_else(|error| Err(Box::new(error))) {
            Ok(Job::Ready(outcome)) => End::Outcome(outcome),
            Ok(Job::Future(future)) => End::Outcome(future.await),
            Err(panic) => panicked(&*panic),
        }
    };
    let limited = async {
        match limit {
            None => attempt.await,
            Some(limit) => tokio::time::timeout(limit, attempt)
                .await
                .unwrap_or_else(|_| End::Outcome(Err(TaskError::failed(format!("it took longer than its timeout of {limit:?}"))))),
        }
    };
    cancel.run_until_cancelled(limited).await.unwrap_or(End::Outcome(Err(TaskError::Cancelled)))
}

fn panicked(panic: &(dyn Any + Send)) -> End {
    if let Some(Exit(code)) = panic.downcast_ref() {
        return End::WorkerDied(format!("exit code {code}"));
    }
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    End::Outcome(Err(TaskError::failed(format!("panicked: {}", text.unwrap_or("no message")))))
}

#[async_trait]
impl Engine for FakeEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        let mut state = self.state();
        state.opened += 1;
        let id = state.opened;
        state.sessions.insert(id, None);
        Ok(Arc::new(FakeSession { id, engine: self.clone() }))
    }

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains> {
        for (name, worker) in &mut self.state().workers {
            worker.draining |= workers.contains(name);
        }
        let idle = |state: &State, name: &str| !state.tasks.values().any(|task| task.is_on(name));
        if self.state().has(Defect::NoDrain) {
            return Ok(workers.iter().map(|name| (name.clone(), Drain::Done)).collect());
        }
        let all = self.when(|state| workers.iter().all(|name| idle(state, name)));
        let _ = tokio::time::timeout(deadline, all).await;
        let state = self.state();
        Ok(workers.iter().map(|name| (name.clone(), if idle(&state, name) { Drain::Done } else { Drain::Busy })).collect())
    }

    async fn load(&self) -> Result<Observation> {
        let state = self.state();
        let mut load = Load::default();
        for ((session, _), task) in state.tasks.iter().filter(|(_, task)| !task.is_final()) {
            let runs = matches!(task.place, Place::On { .. });
            let ready = !runs && task.spec.inputs.iter().all(|input| state.tasks.get(&(*session, input.key)).is_none_or(Task::is_final));
            let waits = !runs && !ready;
            let [waiting, ready, processing] = [waits, ready, runs].map(u64::from);
            load.groups.push(Group { id: task.order, waiting, ready, processing, ..Group::default() });
        }
        // All are of one kind, which never ends: the policy is cautious with what it does not know.
        load.prefixes.push(Prefix { arrived: state.submitted, ..Prefix::default() });
        let on = |name: &str| state.tasks.values().filter(|task| task.is_on(name)).count() as u32;
        let workers = state.workers.iter().map(|(name, worker)| WorkerLoad {
            name: name.clone(),
            slots: worker.slots,
            processing: on(name),
            ..WorkerLoad::default()
        });
        Ok(Observation { load, workers: workers.collect() })
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, listen) = mpsc::unbounded_channel();
        let mut state = self.state();
        for (name, worker) in &state.workers {
            let _ = tell.send(WorkerChange::Joined { name: name.clone(), host: worker.host.clone(), slots: worker.slots });
        }
        state.listeners.push(tell);
        listen
    }
}

#[derive(Debug)]
struct FakeSession {
    id: u64,
    engine: FakeEngine,
}

#[async_trait]
impl Session for FakeSession {
    fn shares_memory(&self) -> bool {
        true
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        let mut state = self.engine.state();
        for spec in tasks {
            state.submitted += 1;
            let (id, order) = ((self.id, spec.key), state.submitted);
            assert!(!state.tasks.contains_key(&id), "key {} is used twice", spec.key);
            let place = Place::Waiting { reason: None };
            let stranger =
                spec.inputs.iter().chain(&spec.after).map(|input| input.key).find(|key| !state.tasks.contains_key(&(self.id, *key)));
            state.tasks.insert(id, Task { spec, order, held: true, failures: 0, lost: 0, attempt: 0, place });
            if let Some(key) = stranger {
                let error = Error::new(ErrorKind::Unexpected, format!("it needs {key}, which is not known here"));
                state.put(id, Place::End(Err(error.into())));
            } else if !state.sessions.contains_key(&self.id) {
                state.put(id, Place::End(Err(TaskError::Cancelled)));
            }
        }
        self.engine.settle(state);
    }

    fn cancel(&self, keys: &[Key]) {
        let mut state = self.engine.state();
        keys.iter().for_each(|key| state.cancel((self.id, *key)));
        self.engine.settle(state);
    }

    fn release(&self, keys: &[Key]) {
        let mut state = self.engine.state();
        for key in keys {
            if let Some(task) = state.tasks.get_mut(&(self.id, *key)) {
                task.held = false;
            }
        }
        self.engine.settle(state);
    }

    fn events(&self) -> TaskEvents {
        let (tell, listen) = mpsc::unbounded_channel();
        if let Some(listener) = self.engine.state().sessions.get_mut(&self.id) {
            *listener = Some(tell);
        }
        listen
    }

    async fn gather(&self, keys: &[Key]) -> std::result::Result<Vec<Value>, TaskError> {
        let ids: Vec<Id> = keys.iter().map(|key| (self.id, *key)).collect();
        self.engine.state().gathers.push(ids.len());
        self.engine.when(|state| ids.iter().all(|id| state.tasks.get(id).is_none_or(Task::is_final))).await;
        let state = self.engine.state();
        ids.iter()
            .map(|id| match state.tasks.get(id).map(|task| &task.place) {
                Some(Place::End(Ok(value))) => Ok(Value::Plain(value.to_plain()?)),
                Some(Place::End(Err(error))) => Err(error.clone()),
                _ => Err(Error::new(ErrorKind::Closed, format!("{} is not known here", id.1)).into()),
            })
            .collect()
    }

    async fn close(&self) -> Result<()> {
        let mut state = self.engine.state();
        if state.has(Defect::NoClose) {
            return Ok(());
        }
        let mine: Vec<Id> = state.tasks.keys().filter(|id| id.0 == self.id).copied().collect();
        mine.iter().for_each(|id| state.cancel(*id));
        state.tasks.retain(|id, _| id.0 != self.id);
        state.sessions.remove(&self.id);
        self.engine.settle(state);
        Ok(())
    }
}
