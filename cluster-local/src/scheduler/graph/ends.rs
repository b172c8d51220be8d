//! How attempts and tasks end, and what follows from it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use remuda_core::task::{Crash, Failure, Outcome, TaskError, TaskState};

use super::{
    super::{Ended, RunId, Scheduler, TaskId, Todo, load::Stage},
    Phase, Step, upstream,
};

impl Scheduler {
    /// An attempt ended. Ignored for attempts that were given up before.
    pub(crate) fn finish(&mut self, id: RunId, ended: Ended, now: Instant) {
        self.pauses_no_more(id);
        let Some(run) = self.runs.remove(&id) else {
            self.effects.after.discard(ended);
            return;
        };
        self.vacate(id, &run);
        let current = self.tasks.get(&run.task).is_some_and(|task| matches!(task.phase, Phase::Running(now) if now == id));
        if current && matches!(ended, Ended::Outcome(_)) {
            self.completed(run.task, now.saturating_duration_since(run.since));
        }
        match ended {
            ended if !current => self.effects.after.discard(ended),
            Ended::Outcome(Err(TaskError::Failed(failure))) => self.failed(run.task, failure, now),
            Ended::Outcome(outcome) => self.conclude(Step::End(run.task, outcome), now),
            Ended::Lost(cause) => {
                self.effects.after.cancel.push(run.cancel.clone());
                self.lost(run.task, run.worker.to_string(), cause, now);
            }
        }
    }

    /// The slot is taken from an attempt without its task's fault: if the task still wants to run, it does so elsewhere.
    pub(crate) fn give_up(&mut self, id: RunId, now: Instant) {
        self.pauses_no_more(id);
        let Some(run) = self.runs.remove(&id) else { return };
        self.vacate(id, &run);
        self.effects.after.cancel.push(run.cancel.clone());
        if let Some(task) = self.tasks.get_mut(&run.task)
            && matches!(task.phase, Phase::Running(current) if current == id)
        {
            task.attempt += 1;
            self.make_ready(run.task, Some("its worker was stopped".into()), now);
        }
    }

    /// Nobody waits for this attempt any more.
    pub(super) fn interrupt(&mut self, id: RunId) {
        if let Some(run) = self.runs.get(&id) {
            self.effects.after.cancel.push(run.cancel.clone());
            self.effects.interrupts.push(id);
        }
    }

    pub(in super::super) fn time_out(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.deadline = None;
        let task = run.task;
        self.interrupt(id);
        let Some(spec) = self.tasks.get(&task).and_then(|task| task.spec.as_ref()) else { return };
        let limit = spec.annotations.timeout.unwrap_or_default();
        let message = format!("it did not end within its timeout of {limit:?}");
        self.failed(task, Arc::new(Failure { kind: Some("TimeoutError".into()), message, ..Failure::default() }), now);
    }

    fn failed(&mut self, id: TaskId, failure: Arc<Failure>, now: Instant) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.failures += 1;
        let again = task.spec.as_ref().is_some_and(|spec| task.failures <= spec.annotations.retries);
        if again {
            task.attempt += 1;
            let reason = format!("attempt {} failed: {failure}", task.attempt);
            self.effects.after.outcomes.push(Err(TaskError::Failed(failure)));
            self.make_ready(id, Some(reason), now);
        } else {
            self.conclude(Step::End(id, Err(TaskError::Failed(failure))), now);
        }
    }

    fn lost(&mut self, id: TaskId, worker: String, cause: String, now: Instant) {
        let allowed = self.limits.allowed_failures;
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.losses += 1;
        let allowed = task.spec.as_ref().and_then(|spec| spec.annotations.allowed_failures).unwrap_or(allowed);
        if task.losses <= allowed {
            task.attempt += 1;
            let reason = format!("attempt {} lost worker {worker} ({} of {allowed} allowed): {cause}", task.attempt, task.losses);
            self.make_ready(id, Some(reason), now);
        } else {
            let crash = Crash { cause, worker, attempts: task.losses };
            self.conclude(Step::End(id, Err(TaskError::Crashed(Arc::new(crash)))), now);
        }
    }

    /// Carries out a step and everything that follows from it.
    pub(in super::super) fn conclude(&mut self, first: Step, now: Instant) {
        let mut todo = VecDeque::from([first]);
        while let Some(step) = todo.pop_front() {
            match step {
                Step::End(id, outcome) => self.end(id, outcome, &mut todo, now),
                Step::Collect(id) => self.collect(id, &mut todo),
            }
        }
    }

    fn end(&mut self, id: TaskId, outcome: Outcome, todo: &mut Todo, now: Instant) {
        let rank = self.rank(id);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.is_final() {
            self.effects.after.outcomes.push(outcome);
            return;
        }
        if matches!(task.phase, Phase::Ready) {
            self.groups.remove(task.group, rank);
        }
        self.groups.leave(task.group);
        self.enters(id, Stage::Over);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.phase = Phase::Final(outcome.clone());
        self.effects.after.specs.extend(task.spec.take());
        let (key, name) = (task.key, task.name.clone());
        let (edges, dependents) = (std::mem::take(&mut task.edges), std::mem::take(&mut task.dependents));
        for waiter in std::mem::take(&mut task.waiters) {
            self.effects.after.outcomes.extend(waiter.send(outcome.clone()).err());
        }
        let failure = outcome.as_ref().err().map(|error| upstream(key, &name, error));
        self.tell(
            id,
            match outcome {
                Ok(value) => TaskState::Done(value),
                Err(error) => TaskState::Ended(error),
            },
        );
        for (dependent, allowed) in dependents {
            match &failure {
                Some(error) if !allowed => todo.push_back(Step::End(dependent, Err(error.clone()))),
                _ => self.one_less(dependent, now),
            }
        }
        for edge in edges {
            if let Some(input) = self.tasks.get_mut(&edge) {
                input.users -= 1;
                todo.push_back(Step::Collect(edge));
            }
        }
        todo.push_back(Step::Collect(id));
    }

    fn one_less(&mut self, id: TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.is_final() {
            return;
        }
        task.missing -= 1;
        if task.missing == 0 {
            self.make_ready(id, None, now);
        }
    }

    fn collect(&mut self, id: TaskId, todo: &mut Todo) {
        let Some(task) = self.tasks.get(&id) else { return };
        if task.held || task.users > 0 {
            return;
        }
        match task.phase {
            Phase::Waiting | Phase::Ready => todo.push_back(Step::End(id, Err(TaskError::Cancelled))),
            Phase::Running(run) => self.effects.after.cancel.extend(self.runs.get(&run).map(|run| run.cancel.clone())),
            Phase::Final(_) => {
                let Some(task) = self.tasks.remove(&id) else { return };
                if let Some(listener) = self.sessions.get_mut(&task.session) {
                    listener.keys.remove(&task.key);
                }
                if let Phase::Final(outcome) = task.phase {
                    self.effects.after.outcomes.push(outcome);
                }
            }
        }
    }
}
