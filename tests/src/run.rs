//! One run's side of a session, with its events kept, so that a test can ask what happened and in which order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remuda_core::{
    cluster::Cluster,
    engine::{Engine, Session, TaskEvents, WorkerChange, WorkerChanges},
    error::Result,
    task::{Annotations, Input, Key, Outcome, TaskError, TaskSpec, TaskState},
    value::{Value, decode},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{bodies::Prepared, gate::patience};

/// A session and everything it has told.
#[derive(Debug)]
pub struct Run {
    session: Arc<dyn Session>,
    events: TaskEvents,
    history: Vec<(Key, TaskState)>,
    finals: BTreeMap<Key, Outcome>,
    next: u64,
}

impl Run {
    /// A session on the engine of `cluster`.
    ///
    /// # Errors
    /// When the cluster is closed or the engine refuses.
    pub async fn open(cluster: &Cluster) -> Result<Self> {
        Self::on(&*cluster.engine()?).await
    }

    /// A session on `engine`.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn on(engine: &dyn Engine) -> Result<Self> {
        let session = engine.open().await?;
        let events = session.events();
        Ok(Self { session, events, history: Vec::new(), finals: BTreeMap::new(), next: 0 })
    }

    /// The session itself.
    #[must_use]
    pub fn session(&self) -> &Arc<dyn Session> {
        &self.session
    }

    /// Submits one task as it is.
    pub fn submit(&mut self, what: Prepared) -> Key {
        self.submit_with(what, |_| {})
    }

    /// Submits one task, annotated.
    pub fn submit_with(&mut self, what: Prepared, annotate: impl FnOnce(&mut Annotations)) -> Key {
        let spec = self.spec(what, annotate);
        let key = spec.key;
        self.session.submit(vec![spec]);
        key
    }

    /// Submits one task that others must precede.
    pub fn submit_after(&mut self, what: Prepared, after: &[Key]) -> Key {
        let mut spec = self.spec(what, |_| {});
        spec.after = after.iter().map(|key| Input::from(*key)).collect();
        let key = spec.key;
        self.session.submit(vec![spec]);
        key
    }

    /// A task with a key of its own, for a message of several.
    pub fn spec(&mut self, what: Prepared, annotate: impl FnOnce(&mut Annotations)) -> TaskSpec {
        self.next += 1;
        let mut annotations = Annotations::default();
        annotate(&mut annotations);
        TaskSpec {
            key: Key(self.next),
            name: format!("task-{}", self.next).into(),
            inputs: what.inputs,
            after: Vec::new(),
            work: what.work,
            annotations: Arc::new(annotations),
        }
    }

    /// Waits until a task is in a state that `reached` accepts; states it was in before count.
    ///
    /// # Panics
    /// When nothing of the kind happens for [`PATIENCE`](crate::gate::PATIENCE).
    pub async fn until(&mut self, key: Key, reached: impl Fn(&TaskState) -> bool) -> TaskState {
        if let Some((_, state)) = self.history.iter().find(|(k, state)| *k == key && reached(state)) {
            return state.clone();
        }
        let end = Instant::now() + patience();
        loop {
            let (told, state) = self.event(end).await;
            if told == key && reached(&state) {
                return state;
            }
        }
    }

    /// Waits for a task's end. A result may still be in the cluster: [`Run::value`] brings it.
    ///
    /// # Panics
    /// As [`Run::until`].
    pub async fn outcome(&mut self, key: Key) -> Outcome {
        let end = Instant::now() + patience();
        while !self.finals.contains_key(&key) {
            self.event(end).await;
        }
        self.finals[&key].clone()
    }

    /// Waits for a task's result, as a plain value.
    ///
    /// # Panics
    /// When there is none, or when it is of another type.
    pub async fn value<T: DeserializeOwned>(&mut self, key: Key) -> T {
        let gathered = match self.outcome(key).await {
            Ok(Value::There) => self.gather(key).await,
            outcome => outcome,
        };
        match gathered {
            Ok(value) => read(&value),
            Err(error) => panic!("{key} has no result: {error}"),
        }
    }

    async fn gather(&self, key: Key) -> Outcome {
        let gathered = timeout(patience(), self.session.gather(&[key])).await;
        let mut values = gathered.unwrap_or_else(|_| panic!("{key} is done, and its result does not come"))?;
        Ok(values.pop().unwrap_or_else(|| panic!("{key} was gathered, and nothing came")))
    }

    /// Waits for a task's error.
    ///
    /// # Panics
    /// When it has a result.
    pub async fn error(&mut self, key: Key) -> TaskError {
        match self.outcome(key).await {
            Ok(value) => panic!("{key} should have failed and returned {value:?}"),
            Err(error) => error,
        }
    }

    /// Waits until a task runs; returns its worker and which attempt it is.
    ///
    /// # Panics
    /// As [`Run::until`].
    pub async fn running(&mut self, key: Key) -> (Arc<str>, u32) {
        match self.until(key, |state| matches!(state, TaskState::Running { .. })).await {
            TaskState::Running { worker, attempt } => (worker, attempt),
            _ => unreachable!("asked for a running one"),
        }
    }

    /// Everything told so far, in order.
    pub fn history(&mut self) -> &[(Key, TaskState)] {
        while let Ok(event) = self.events.try_recv() {
            self.keep(event.key, event.state);
        }
        &self.history
    }

    /// Where in the history a task first ran and where it became final.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn span(&self, key: Key) -> (usize, usize) {
        let at = |wanted: fn(&TaskState) -> bool| self.history.iter().position(|(k, state)| *k == key && wanted(state));
        let begun = at(|state| matches!(state, TaskState::Running { .. })).unwrap_or_else(|| panic!("{key} never ran"));
        (begun, at(TaskState::is_final).unwrap_or_else(|| panic!("{key} is not final")))
    }

    /// Whether a task was ever begun, as far as it was told until now.
    pub fn ran(&mut self, key: Key) -> bool {
        self.history().iter().any(|(k, state)| *k == key && matches!(state, TaskState::Running { .. }))
    }

    /// Lets go of what was told about a task, results above all.
    pub fn forget(&mut self, key: Key) {
        self.history.retain(|(k, _)| *k != key);
        self.finals.insert(key, Err(TaskError::Cancelled)); // keeps the place: it was final
    }

    /// Nobody wants the result any more, wherever it is.
    pub fn release(&mut self, key: Key) {
        self.session.release(&[key]);
        self.forget(key);
    }

    /// Ends the session and waits for its last events.
    ///
    /// # Errors
    /// The session's own.
    ///
    /// # Panics
    /// When a task of the session is not final afterwards, or when the session does not close within [`PATIENCE`](crate::gate::PATIENCE).
    pub async fn close(&mut self) -> Result<()> {
        timeout(patience(), self.session.close()).await.unwrap_or_else(|_| panic!("the session does not close"))?;
        // Final already; the news of it may still be on its way.
        for key in (1..=self.next).map(Key) {
            let _ = self.outcome(key).await;
        }
        Ok(())
    }

    async fn event(&mut self, end: Instant) -> (Key, TaskState) {
        let event = timeout_at(end, self.events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("what is awaited does not happen; so far: {}", self.tail()));
        let event = event.unwrap_or_else(|| panic!("the session went silent; so far: {}", self.tail()));
        self.keep(event.key, event.state.clone());
        (event.key, event.state)
    }

    /// The last of what was told, for messages.
    fn tail(&self) -> String {
        let first = self.history.len().saturating_sub(20);
        let lines = self.history[first..].iter().map(|(key, state)| format!("\n  {key} {state:?}"));
        format!("{} events, the last:{}", self.history.len(), lines.collect::<String>())
    }

    fn keep(&mut self, key: Key, state: TaskState) {
        let outcome = match &state {
            TaskState::Done(value) => Some(Ok(value.clone())),
            TaskState::Ended(error) => Some(Err(error.clone())),
            _ => None,
        };
        assert!(!self.finals.contains_key(&key), "{key} was final and then {}", state.name());
        if let Some(outcome) = outcome {
            self.finals.insert(key, outcome);
        }
        self.history.push((key, state));
    }
}

/// Annotates a task with a resource that it holds while it runs.
pub fn holding(what: &str, count: f64) -> impl Fn(&mut Annotations) + use<'_> {
    move |annotations| {
        annotations.resources.insert(what.to_owned(), count);
    }
}

/// A value as a plain type.
///
/// # Panics
/// When it is something else.
pub fn read<T: DeserializeOwned>(value: &Value) -> T {
    let plain = value.to_plain().unwrap_or_else(|error| panic!("{value:?}: {error}"));
    decode(&plain).unwrap_or_else(|error| panic!("{value:?}: {error:?}"))
}

/// Who works at a scheduler, as it tells.
#[derive(Debug)]
pub struct Roll {
    changes: WorkerChanges,
    /// Scheduler names of those who are here, with their slots.
    pub here: BTreeMap<String, u32>,
}

impl Roll {
    /// Listens to the engine of `cluster`.
    ///
    /// # Errors
    /// When the cluster is closed.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self { changes: cluster.engine()?.changes(), here: BTreeMap::new() })
    }

    /// Waits until exactly `count` workers are here.
    ///
    /// # Panics
    /// When that does not come for [`PATIENCE`](crate::gate::PATIENCE).
    pub async fn count(&mut self, count: usize) {
        while self.here.len() != count {
            self.change().await;
        }
    }

    /// Waits until `name` has left.
    ///
    /// # Panics
    /// When it stays for [`PATIENCE`](crate::gate::PATIENCE).
    pub async fn left(&mut self, name: &str) {
        while !matches!(self.change().await, WorkerChange::Left { name: left, .. } if left == name) {}
    }

    /// Watches for a moment that nobody leaves. A moment proves nothing, so this can only find a fault, not exclude it.
    ///
    /// # Panics
    /// When somebody leaves.
    pub async fn nobody_leaves(&mut self) {
        let moment = Duration::from_millis(200);
        while let Ok(change) = timeout(moment, self.change()).await {
            assert!(!matches!(change, WorkerChange::Left { .. }), "{change:?}");
        }
    }

    async fn change(&mut self) -> WorkerChange {
        let change = timeout(patience(), self.changes.recv()).await;
        let change = change.unwrap_or_else(|_| panic!("no worker comes or goes; here: {:?}", self.here));
        let change = change.unwrap_or_else(|| panic!("the engine went silent; here: {:?}", self.here));
        match &change {
            WorkerChange::Joined { name, slots, .. } => drop(self.here.insert(name.clone(), *slots)),
            WorkerChange::Left { name, .. } => drop(self.here.remove(name)),
            WorkerChange::SchedulerLost(_) => self.here.clear(),
            WorkerChange::Note(_) => {}
        }
        change
    }
}
