//! An engine in memory. Simple where the real one is fast: every change looks at every task again.

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
    engine::{Engine, Observation, Session, TaskEvents, WorkerChange, WorkerChanges, WorkerLoad},
    error::{Error, ErrorKind, Result},
    task::{Annotations, Crash, Job, Key, Outcome, TaskError, TaskEvent, TaskScope, TaskSpec, TaskState, Work},
    value::Value,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bodies::Exit;

/// How often a task may lose its worker when it does not say.
const ALLOWED_FAILURES: u32 = 3;

type Id = (u64, Key);

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

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<String, Worker>,
    tasks: BTreeMap<Id, Task>,
    sessions: HashMap<u64, Option<mpsc::UnboundedSender<TaskEvent>>>,
    listeners: Vec<mpsc::UnboundedSender<WorkerChange>>,
    opened: u64,
    submitted: u64,
    /// Results stay here until they are gathered.
    keeps: bool,
    /// How many keys each gather asked for.
    gathers: Vec<usize>,
    defects: BTreeSet<Defect>,
}

#[derive(Debug)]
struct Worker {
    host: String,
    slots: u32,
    resources: BTreeMap<String, f64>,
    draining: bool,
}

#[derive(Debug)]
struct Task {
    spec: TaskSpec,
    order: u64,
    held: bool,
    failures: u32,
    lost: u32,
    attempt: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Waiting { reason: Option<Arc<str>> },
    On { worker: Arc<str>, cancel: CancellationToken },
    End(Outcome),
}

/// How an attempt ended.
enum End {
    Outcome(Outcome),
    WorkerDied(String),
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

impl Task {
    fn is_on(&self, name: &str) -> bool {
        matches!(&self.place, Place::On { worker, .. } if **worker == *name)
    }

    fn is_final(&self) -> bool {
        matches!(self.place, Place::End(_))
    }

    fn needs(&self) -> impl Iterator<Item = &remuda_core::task::Input> {
        self.spec.inputs.iter().chain(&self.spec.after)
    }
}

impl State {
    fn has(&self, defect: Defect) -> bool {
        self.defects.contains(&defect)
    }

    fn tell(&mut self, change: WorkerChange) {
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }

    fn event(&self, id: Id, state: TaskState) {
        if let (Some(Some(listener)), Some(task)) = (self.sessions.get(&id.0), self.tasks.get(&id)) {
            let _ = listener.send(TaskEvent { key: id.1, name: task.spec.name.clone(), state });
        }
    }

    fn put(&mut self, id: Id, place: Place) {
        let state = match &place {
            Place::Waiting { reason } => TaskState::Pending { reason: reason.clone() },
            Place::On { worker, .. } => TaskState::Running { worker: worker.clone(), attempt: self.tasks[&id].attempt },
            Place::End(Ok(_)) if self.keeps => TaskState::Done(Value::There),
            Place::End(Ok(value)) => TaskState::Done(value.clone()),
            Place::End(Err(error)) => TaskState::Ended(error.clone()),
        };
        if self.has(Defect::TellsTwice) && state.is_final() {
            self.event(id, state.clone());
        }
        self.event(id, state);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.place = place;
        }
    }

    /// An input that ended badly ends its task; true if there was one.
    fn fail_dependents(&mut self) -> bool {
        if self.has(Defect::NoUpstream) {
            return false;
        }
        let doomed = self.tasks.iter().filter(|(_, task)| matches!(task.place, Place::Waiting { .. })).find_map(|(id, task)| {
            task.needs().filter(|input| !input.allow_failure).find_map(|input| match self.tasks.get(&(id.0, input.key)) {
                Some(Task { place: Place::End(Err(cause)), spec, .. }) => {
                    let error = match cause {
                        TaskError::UpstreamFailed { .. } => cause.clone(),
                        _ => TaskError::UpstreamFailed { key: input.key, name: spec.name.clone(), cause: Box::new(cause.clone()) },
                    };
                    Some((*id, error))
                }
                _ => None,
            })
        });
        doomed.map(|(id, error)| self.put(id, Place::End(Err(error)))).is_some()
    }

    /// The next task that can begin, and where. Those that fit nowhere are told why, once.
    fn next(&mut self) -> Option<(Id, String)> {
        let (no_order, no_priorities) = (self.has(Defect::NoOrder), self.has(Defect::NoPriorities));
        let is_ready = |id: &Id, task: &Task| {
            matches!(task.place, Place::Waiting { .. })
                && task
                    .needs()
                    .take(if no_order { task.spec.inputs.len() } else { usize::MAX })
                    .all(|input| self.tasks.get(&(id.0, input.key)).is_some_and(Task::is_final))
        };
        let mut ready: Vec<(Id, i64, u64)> = self
            .tasks
            .iter()
            .filter(|(id, task)| is_ready(id, task))
            .map(|(id, task)| (*id, if no_priorities { 0 } else { -task.spec.annotations.priority }, task.order))
            .collect();
        ready.sort_by_key(|(_, priority, order)| (*priority, *order));
        for (id, ..) in ready {
            let wants = self.tasks[&id].spec.annotations.clone();
            match self.workers.iter().find(|(name, worker)| self.fits_now(name, worker, &wants)) {
                Some((name, _)) => return Some((id, name.clone())),
                None => self.explain(id, &wants),
            }
        }
        None
    }

    fn named(&self, name: &str, worker: &Worker, wants: &Annotations) -> bool {
        self.has(Defect::NoPlaces)
            || wants.workers.is_empty()
            || wants.allow_other_workers
            || wants.workers.iter().any(|w| w == name || *w == worker.host)
    }

    fn fits_now(&self, name: &str, worker: &Worker, wants: &Annotations) -> bool {
        let running = || self.tasks.values().filter(|task| task.is_on(name)).map(|task| &task.spec.annotations);
        let slots: u32 = running().map(|a| a.slots).sum();
        let taken = |what: &str| running().filter_map(|a| a.resources.get(what)).sum::<f64>();
        !worker.draining
            && self.named(name, worker, wants)
            && slots + wants.slots <= worker.slots + u32::from(self.has(Defect::NoSlots))
            && wants.resources.iter().all(|(what, n)| {
                self.has(Defect::NoResources) || taken(what) + n <= worker.resources.get(what).copied().unwrap_or_default()
            })
    }

    fn explain(&mut self, id: Id, wants: &Annotations) {
        let offers = |worker: &Worker, what: &str, n: f64| worker.resources.get(what).is_some_and(|has| *has >= n);
        let reason = if self.workers.is_empty() {
            Some("there is no worker".to_owned())
        } else if !self.workers.iter().any(|(name, worker)| self.named(name, worker, wants)) {
            Some(format!("no worker is called {}", wants.workers.join(" or ")))
        } else {
            let lacking = wants.resources.iter().find(|(what, n)| !self.workers.values().any(|worker| offers(worker, what, **n)));
            lacking.map(|(what, n)| format!("no worker offers {what}={n}"))
        };
        let reason = reason.map(Arc::from);
        if !matches!(&self.tasks[&id].place, Place::Waiting { reason: told } if *told == reason) {
            self.put(id, Place::Waiting { reason });
        }
    }

    fn begin(&mut self, id: Id, worker: &str) -> (TaskSpec, TaskScope, Vec<Outcome>) {
        let (spec, attempt) = (self.tasks[&id].spec.clone(), self.tasks[&id].attempt);
        let outcome = |key: Key| match &self.tasks[&(id.0, key)].place {
            Place::End(outcome) => outcome.clone(),
            _ => unreachable!("only ready tasks are begun"),
        };
        let inputs = spec.inputs.iter().map(|input| outcome(input.key)).collect();
        let (worker, cancel): (Arc<str>, _) = (worker.into(), CancellationToken::new());
        self.put(id, Place::On { worker: worker.clone(), cancel: cancel.clone() });
        (spec, TaskScope { key: id.1, attempt, worker, cancel, slot: None, session: None }, inputs)
    }

    fn ended(&mut self, id: Id, outcome: Outcome) {
        let no_retries = self.has(Defect::NoRetries);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let again = !no_retries && matches!(outcome, Err(TaskError::Failed(_))) && task.failures < task.spec.annotations.retries;
        if again {
            task.failures += 1;
            task.attempt += 1;
        }
        self.put(id, if again { Place::Waiting { reason: None } } else { Place::End(outcome) });
    }

    fn lose(&mut self, id: Id, worker: &str, reason: &str) {
        let endless = self.has(Defect::EndlessRetries);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if let Place::On { cancel, .. } = &task.place {
            cancel.cancel();
        }
        task.lost += 1;
        task.attempt += 1;
        let crash = Crash { cause: reason.to_owned(), worker: worker.to_owned(), attempts: task.lost };
        let spent = !endless && task.lost > task.spec.annotations.allowed_failures.unwrap_or(ALLOWED_FAILURES);
        self.put(id, if spent { Place::End(Err(TaskError::Crashed(Arc::new(crash)))) } else { Place::Waiting { reason: None } });
    }

    fn cancel(&mut self, id: Id) {
        let Some(task) = self.tasks.get(&id).filter(|task| !task.is_final()) else { return };
        if let (Place::On { cancel, .. }, false) = (&task.place, self.has(Defect::NoInterrupt)) {
            cancel.cancel();
        }
        self.put(id, Place::End(Err(TaskError::Cancelled)));
    }

    fn is_needed(&self, id: Id) -> bool {
        self.tasks.iter().any(|(other, task)| other.0 == id.0 && !task.is_final() && task.needs().any(|input| input.key == id.1))
    }

    /// What nobody holds and nobody needs is not begun, and not kept.
    fn sweep(&mut self) {
        if self.has(Defect::KeepsAll) {
            return;
        }
        loop {
            let idle = |task: &Task| !task.held && !matches!(task.place, Place::On { .. });
            let Some(id) = self.tasks.iter().find(|(id, task)| idle(task) && !self.is_needed(**id)).map(|(id, _)| *id) else { return };
            self.cancel(id);
            self.tasks.remove(&id);
        }
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

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Vec<String>> {
        for (name, worker) in &mut self.state().workers {
            worker.draining |= workers.contains(name);
        }
        let idle = |state: &State, name: &str| !state.tasks.values().any(|task| task.is_on(name));
        if self.state().has(Defect::NoDrain) {
            return Ok(workers.to_vec());
        }
        let all = self.when(|state| workers.iter().all(|name| idle(state, name)));
        let _ = tokio::time::timeout(deadline, all).await;
        let state = self.state();
        Ok(workers.iter().filter(|name| idle(&state, name)).cloned().collect())
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
