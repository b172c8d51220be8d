//! What the shim tells, taken into the books.

use std::sync::Arc;

use remuda_core::{
    error::{Error, ErrorKind},
    task::{Crash, Failure, Key, TaskError, TaskState},
};

use super::{Batch, Book, Phase, Place, Step, Task};
use crate::session::wire::{Def, Event, Trouble, What};

impl Book {
    /// Events in one message, `seq` its number. What was heard before is not heard again.
    pub(crate) fn hear(&mut self, seq: u64, received: u64, events: Vec<Event>) {
        self.acknowledge(received);
        if seq <= self.seen {
            return;
        }
        self.seen = seq;
        for event in events {
            if self.batches.contains_key(&event.unit) {
                self.batch_event(event.unit, event.what);
            } else if let Some(key) = self.alone(event.unit) {
                self.event(key, event.what);
            }
        }
        self.pump();
    }

    /// The task that is this unit. `None` where it was let go.
    fn alone(&self, unit: u64) -> Option<Key> {
        let task = self.tasks.get(&Key(unit))?;
        (task.unit == Some((unit, -1))).then_some(Key(unit))
    }

    fn event(&mut self, key: Key, what: What) {
        let Some(task) = self.tasks.get(&key) else { return };
        let lane = task.lane;
        if let Phase::Done(_) = task.phase {
            return self.after_the_end(key, what);
        }
        match what {
            What::Started { worker, attempt } => self.tell_running(key, &worker, attempt),
            What::Again { worker, attempt, failure, cause } => {
                let end = AttemptEnd { failure: failure.as_ref(), host: cause.as_deref() };
                self.again(key, &worker, attempt, end);
            }
            What::Pending { reason } => self.tell(key, TaskState::Pending { reason }),
            What::Done { worker, address, attempt, seconds, size, .. } => {
                if let Some(lane) = lane {
                    self.lanes.learn(lane, seconds, 1);
                }
                self.tell_running(key, &worker, attempt);
                self.conclude(Step::End(key, Ok(Place::At { address, size, copy: None })));
            }
            What::Failed { worker, attempt, failure } => {
                self.tell_running(key, &worker, attempt);
                self.conclude(Step::End(key, Err(TaskError::Failed(Arc::new(failure)))));
            }
            What::Refused(error) => {
                self.conclude(Step::End(key, Err(TaskError::Refused(error.clone()))));
                self.refuse_alike(lane, &error);
            }
            What::Crashed { worker, attempts, cause, attempt } => {
                let before = task.losses;
                self.tell_running(key, &worker, attempt);
                self.conclude(Step::End(key, Err(crashed(&worker, before.saturating_add(attempts), cause))));
            }
            What::Gone => self.conclude(Step::End(key, Err(TaskError::Cancelled))),
            What::Lost => {}
        }
    }

    /// Done is final; only where the result is may change.
    fn after_the_end(&mut self, key: Key, what: What) {
        let place = match what {
            What::Done { address, size, .. } => Place::At { address, size, copy: None },
            What::Lost => Place::Nowhere,
            What::Failed { failure, .. } => Place::Gone(TaskError::Failed(Arc::new(failure))),
            What::Refused(error) => Place::Gone(TaskError::Refused(error)),
            What::Crashed { worker, attempts, cause, .. } => Place::Gone(crashed(&worker, attempts, cause)),
            What::Gone => Place::Gone(TaskError::Refused(gone())),
            What::Pending { reason: Some(reason) } => return self.waits_again(key, reason),
            What::Started { .. } | What::Again { .. } | What::Pending { .. } => {
                self.noted = None;
                return;
            }
        };
        let is_settled = !matches!(place, Place::Nowhere);
        let why = if let Place::Gone(error) = &place { Some(error.clone()) } else { None };
        if let Some(task) = self.tasks.get_mut(&key) {
            task.phase = Phase::Done(place);
        }
        if is_settled {
            self.settle(key);
        }
        if let Some(error) = why {
            self.cascade(key, &error);
        }
    }

    /// Its task is done and stays so: nobody would be told why the result does not come. Told once for all that wait for the same.
    fn waits_again(&mut self, key: Key, reason: Arc<str>) {
        let Some(task) = self.tasks.get(&key).filter(|task| matches!(task.phase, Phase::Done(Place::Nowhere))) else { return };
        if self.noted.as_ref() != Some(&reason) {
            let text = format!("the result of `{}` was lost with its worker, and is not computed again yet: {reason}", task.name);
            self.out.notes.push(text);
            self.noted = Some(reason);
        }
    }

    fn batch_event(&mut self, unit: u64, what: What) {
        let Some(batch) = self.batches.get(&unit) else { return };
        let members: Vec<Key> = batch.members.iter().copied().filter(|key| self.is_in(*key, unit)).collect();
        let (lane, calls) = (batch.lane, batch.members.len());
        match what {
            What::Started { worker, attempt } => {
                self.unfinished(&members).for_each(|key| self.tell_running(key, &worker, attempt));
            }
            What::Again { worker, attempt, failure, cause } => {
                let end = AttemptEnd { failure: failure.as_ref(), host: cause.as_deref() };
                self.unfinished(&members).for_each(|key| self.again(key, &worker, attempt, end));
            }
            What::Pending { reason } => {
                self.unfinished(&members).for_each(|key| self.tell(key, TaskState::Pending { reason: reason.clone() }));
                let lost = members.iter().find(|key| self.tasks.get(key).is_some_and(Task::is_final)).copied();
                lost.into_iter().for_each(|key| self.after_the_end(key, What::Pending { reason: reason.clone() }));
            }
            What::Done { worker, address, attempt, seconds, size, failed } => {
                self.lanes.learn(lane, seconds, calls);
                self.batch_landed(unit);
                self.batch_done(unit, &worker, &address, attempt, size / calls.max(1) as u64, failed);
            }
            What::Gone => self.each(members, |_| What::Gone),
            What::Lost => self.each(members, |_| What::Lost),
            // Which call it was is found out by letting each go alone.
            What::Failed { worker, attempt, failure } => self.split(unit, members, &worker, attempt, &failure.to_string()),
            What::Refused(error) if error.kind() == ErrorKind::Unschedulable => {
                self.batch_landed(unit);
                self.each(members, |_| What::Refused(error.clone()));
                self.refuse_alike(Some(lane), &error);
            }
            What::Refused(error) => self.split(unit, members, &Arc::default(), 0, &error.to_string()),
            What::Crashed { worker, cause, attempt, .. } => {
                for key in self.unfinished(&members) {
                    self.count_loss(key);
                }
                self.split(unit, members, &worker, attempt, &cause);
            }
        }
    }

    /// What no worker can run for one call of a lane, none can for the others.
    fn refuse_alike(&mut self, lane: Option<u32>, error: &Error) {
        let Some(lane) = lane.filter(|_| error.kind() == ErrorKind::Unschedulable) else { return };
        for key in self.lanes.queued(lane) {
            self.conclude(Step::End(key, Err(TaskError::Refused(error.clone()))));
        }
    }

    fn is_in(&self, key: Key, unit: u64) -> bool {
        self.tasks.get(&key).is_some_and(|task| task.unit.is_some_and(|(at, _)| at == unit))
    }

    fn unfinished(&self, members: &[Key]) -> std::vec::IntoIter<Key> {
        let open = members.iter().copied().filter(|key| self.tasks.get(key).is_some_and(|task| !task.is_final()));
        open.collect::<Vec<_>>().into_iter()
    }

    fn each(&mut self, members: Vec<Key>, what: impl Fn(Key) -> What) {
        for key in members {
            self.event(key, what(key));
        }
    }

    fn batch_landed(&mut self, unit: u64) {
        if let Some(Batch { lane, in_flight, .. }) = self.batches.get_mut(&unit)
            && std::mem::take(in_flight)
        {
            self.lanes.land(*lane);
        }
    }

    fn batch_done(&mut self, unit: u64, worker: &Arc<str>, address: &Arc<str>, attempt: u32, size: u64, failed: Vec<(u32, Trouble)>) {
        let Some(batch) = self.batches.get(&unit) else { return };
        let members = batch.members.clone();
        let mut failed = failed.into_iter().collect::<std::collections::HashMap<_, _>>();
        for (element, key) in members.into_iter().enumerate() {
            if !self.is_in(key, unit) {
                continue;
            }
            let failure = u32::try_from(element).ok().and_then(|element| failed.remove(&element));
            let is_done = self.tasks.get(&key).is_some_and(|task| task.is_final());
            match failure {
                Some(Trouble::Refused(error)) => {
                    self.tell_running(key, worker, attempt);
                    self.event(key, What::Refused(error));
                }
                Some(Trouble::Failed(failure)) if is_done => {
                    self.after_the_end(key, What::Failed { worker: worker.clone(), attempt, failure });
                }
                Some(Trouble::Failed(failure)) => self.element_failed(key, failure, worker, attempt),
                Some(Trouble::Crashed(cause)) if is_done => {
                    let what = What::Crashed { worker: worker.clone(), attempts: 1, cause: cause.to_string(), attempt };
                    self.after_the_end(key, what);
                }
                Some(Trouble::Crashed(cause)) => self.element_crashed(key, &cause, worker, attempt),
                None if is_done => {
                    let (worker, address, failed) = (worker.clone(), address.clone(), Vec::new());
                    let what = What::Done { worker, address, attempt, seconds: 0.0, size, failed };
                    self.after_the_end(key, what);
                }
                None => {
                    self.tell_running(key, worker, attempt);
                    self.conclude(Step::End(key, Ok(Place::At { address: address.clone(), size, copy: None })));
                }
            }
        }
    }

    /// One call of a batch failed: tried again alone, if it may be.
    fn element_failed(&mut self, key: Key, failure: Failure, worker: &Arc<str>, attempt: u32) {
        self.tell_running(key, worker, attempt);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.failures += 1;
        let retries = self.defs.get(task.def).map_or(0, |def| def.retries);
        if task.failures > retries {
            return self.conclude(Step::End(key, Err(TaskError::Failed(Arc::new(failure)))));
        }
        let reason = AttemptEnd { failure: Some(&failure), host: None }.told(worker, task.base.saturating_add(attempt));
        self.go_alone(key, attempt, reason);
    }

    /// The task host of one call of a batch died: tried again alone, if it may be, so that it harms none of the others.
    fn element_crashed(&mut self, key: Key, cause: &str, worker: &Arc<str>, attempt: u32) {
        self.tell_running(key, worker, attempt);
        let losses = self.count_loss(key);
        let Some(task) = self.tasks.get(&key) else { return };
        if losses > self.defs.get(task.def).map_or(0, |def| def.allowed()) {
            return self.conclude(Step::End(key, Err(crashed(worker, losses, cause.to_owned()))));
        }
        let reason = AttemptEnd { failure: None, host: Some(cause) }.told(worker, task.base.saturating_add(attempt));
        self.go_alone(key, attempt, reason);
    }

    fn count_loss(&mut self, key: Key) -> u32 {
        self.tasks.get_mut(&key).map_or(0, |task| {
            task.losses = task.losses.saturating_add(1);
            task.losses
        })
    }

    fn again(&mut self, key: Key, worker: &Arc<str>, attempt: u32, end: AttemptEnd<'_>) {
        self.tell_running(key, worker, attempt);
        let base = self.tasks.get(&key).map_or(0, |task| task.base);
        self.tell(key, TaskState::Pending { reason: Some(end.told(worker, base.saturating_add(attempt))) });
    }

    /// A batch is of no use: those of its calls that still want to run go alone.
    fn split(&mut self, unit: u64, members: Vec<Key>, worker: &Arc<str>, attempt: u32, cause: &str) {
        self.batch_landed(unit);
        for key in self.unfinished(&members) {
            self.tell_running(key, worker, attempt);
            self.go_alone(key, attempt, format!("it is tried again alone: {cause}").into());
        }
        // What was done before and is to be computed again.
        let error =
            Error::new(ErrorKind::Unexpected, format!("the result was lost with its worker, and computing it again failed: {cause}"));
        let members = members.into_iter().filter(|key| self.is_in(*key, unit)).collect();
        self.each(members, |_| What::Refused(error.clone()));
    }

    fn go_alone(&mut self, key: Key, attempt: u32, reason: Arc<str>) {
        self.let_go(key);
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.base = task.base.saturating_add(attempt).saturating_add(1);
        // Dask counts from now on; what has been used up is taken off.
        let (failures, losses) = (std::mem::take(&mut task.failures), task.losses);
        task.lane = None;
        let def = task.def;
        if failures + losses > 0
            && let Some(same) = self.defs.get(def)
        {
            let allowed = if losses > 0 { Some(same.allowed().saturating_sub(losses)) } else { same.allowed };
            let rest = Def { retries: same.retries.saturating_sub(failures), allowed, ..Def::clone(same) };
            let other = self.defs.enter(Arc::new(rest));
            self.defs.leave(def);
            if let Some(task) = self.tasks.get_mut(&key) {
                task.def = other;
            }
        }
        self.tell(key, TaskState::Pending { reason: Some(reason) });
        self.place_alone(key);
    }
}

fn crashed(worker: &Arc<str>, attempts: u32, cause: String) -> TaskError {
    TaskError::Crashed(Arc::new(Crash { cause, worker: worker.to_string(), attempts }))
}

/// Why an attempt ended that is not the last one. Neither: its worker was lost.
#[derive(Debug, Clone, Copy)]
struct AttemptEnd<'a> {
    failure: Option<&'a Failure>,
    /// Its task host died of it.
    host: Option<&'a str>,
}

impl AttemptEnd<'_> {
    fn told(self, worker: &str, attempt: u32) -> Arc<str> {
        let attempt = attempt.saturating_add(1);
        match (self.failure, self.host) {
            (Some(failure), _) => format!("attempt {attempt} failed: {failure}").into(),
            (None, Some(cause)) => format!("attempt {attempt} lost its task host on worker {worker}: {cause}").into(),
            (None, None) => format!("attempt {attempt} lost worker {worker}").into(),
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unexpected, "the result was removed from the scheduler by somebody else")
        .with_hint("another client of this scheduler cancelled the task or restarted the cluster: run it again")
}
