//! Tasks and what they need of each other: submission, ends and their consequences, reference counts.

use std::{cmp::Reverse, collections::VecDeque, sync::Arc, time::Instant};

use remuda_core::{
    error::{Error, ErrorKind},
    task::{Crash, Failure, Key, Outcome, TaskError, TaskEvent, TaskSpec, TaskState},
};
use tokio::sync::oneshot;

use super::{
    Ended, RunId, Scheduler, SessionId, TaskId, Todo,
    load::{Share, Stage},
    shape::{GroupId, Rank},
};

#[derive(Debug)]
pub(super) struct Task {
    pub(super) session: SessionId,
    pub(super) key: Key,
    pub(super) name: Arc<str>,
    /// Gone when the task is final: it holds the arguments.
    pub(super) spec: Option<Arc<TaskSpec>>,
    /// Inputs first, then what it only comes after.
    pub(super) edges: Vec<TaskId>,
    group: GroupId,
    /// Of how many tasks it is the task of a task: deeper ones go first, so that few of those above wait at once.
    pub(super) depth: u32,
    pub(super) phase: Phase,
    /// Edges that are not final.
    missing: usize,
    /// Who waits for this one, and whether its failure is as good as a result.
    dependents: Vec<(TaskId, bool)>,
    /// Somebody may ask for the result.
    held: bool,
    /// Edges of tasks that are not final.
    users: usize,
    failures: u32,
    losses: u32,
    pub(super) attempt: u32,
    waiters: Vec<oneshot::Sender<Outcome>>,
    pub(super) share: Share,
}

#[derive(Debug)]
pub(super) enum Phase {
    Waiting,
    Ready,
    Running(RunId),
    Final(Outcome),
}

/// A consequence that is still to be drawn.
#[derive(Debug)]
pub(super) enum Step {
    End(TaskId, Outcome),
    /// Forget it, or do not run it, if nobody needs it.
    Collect(TaskId),
}

pub(super) fn unknown(key: Key) -> Error {
    Error::new(ErrorKind::Unexpected, format!("task {key} is not known: it was never submitted, or its result was released"))
}

impl Task {
    fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Final(_))
    }

    /// Answers now or when the task is final. Gives back an outcome nobody listens for.
    pub(super) fn await_outcome(&mut self, tell: oneshot::Sender<Outcome>) -> Option<Outcome> {
        match &self.phase {
            Phase::Final(outcome) => tell.send(outcome.clone()).err(),
            _ => {
                self.waiters.push(tell);
                None
            }
        }
    }
}

fn upstream(key: Key, name: &Arc<str>, error: &TaskError) -> TaskError {
    match error {
        TaskError::UpstreamFailed { .. } => error.clone(),
        cause => TaskError::UpstreamFailed { key, name: name.clone(), cause: Box::new(cause.clone()) },
    }
}

impl Scheduler {
    pub(crate) fn submit(&mut self, session: SessionId, specs: Vec<TaskSpec>, now: Instant) {
        for spec in specs {
            self.add(session, spec, now);
        }
        self.dispatch(now);
    }

    fn add(&mut self, session: SessionId, spec: TaskSpec, now: Instant) {
        let id = self.fresh();
        let Some(listener) = self.sessions.get_mut(&session) else {
            self.effects.after.specs.push(Arc::new(spec));
            return;
        };
        if listener.keys.contains_key(&spec.key) {
            tracing::error!(key = %spec.key, name = %spec.name, "a task key was used twice; the second task is ignored");
            self.effects.after.specs.push(Arc::new(spec));
            return;
        }
        let mut doom = None;
        let mut edges = Vec::with_capacity(spec.inputs.len() + spec.after.len());
        let mut missing = 0;
        let mut waits_for = Vec::new();
        for input in spec.inputs.iter().chain(&spec.after) {
            let Some(&edge) = listener.keys.get(&input.key) else {
                doom = doom.or_else(|| Some(TaskError::Refused(unknown(input.key))));
                continue;
            };
            let Some(task) = self.tasks.get_mut(&edge) else { continue };
            task.users += 1;
            edges.push(edge);
            match &task.phase {
                Phase::Final(Err(error)) if !input.allow_failure => doom = doom.or_else(|| Some(upstream(task.key, &task.name, error))),
                Phase::Final(_) => {}
                _ => {
                    task.dependents.push((id, input.allow_failure));
                    missing += 1;
                    waits_for.push(task.share);
                }
            }
        }
        let depth = listener.depth;
        listener.keys.insert(spec.key, id);
        let group = match self.groups.join(&spec.annotations) {
            Ok((group, new)) => {
                if new {
                    self.review_group(group, now);
                }
                doom = doom.or_else(|| self.in_vain(group));
                group
            }
            Err(error) => {
                doom = Some(TaskError::Refused(error));
                GroupId::MAX
            }
        };
        let slots = self.groups.group(group).map_or(1, |group| group.shape.slots);
        let share = self.tally.join(&spec.name, group, slots, &waits_for);
        let task = Task {
            share,
            session,
            key: spec.key,
            name: spec.name.clone(),
            spec: Some(Arc::new(spec)),
            edges,
            group,
            depth,
            phase: Phase::Waiting,
            missing,
            dependents: Vec::new(),
            held: true,
            users: 0,
            failures: 0,
            losses: 0,
            attempt: 0,
            waiters: Vec::new(),
        };
        self.tasks.insert(id, task);
        match doom {
            Some(error) => self.conclude(Step::End(id, Err(error)), now),
            None if missing == 0 => self.make_ready(id, None, now),
            None => {}
        }
    }

    pub(crate) fn cancel(&mut self, session: SessionId, keys: &[Key], now: Instant) {
        for id in self.ids(session, keys) {
            let Some(task) = self.tasks.get(&id) else { continue };
            if let Phase::Running(run) = task.phase {
                self.interrupt(run);
            }
            self.conclude(Step::End(id, Err(TaskError::Cancelled)), now);
        }
        self.dispatch(now);
    }

    pub(crate) fn release(&mut self, session: SessionId, keys: &[Key], now: Instant) {
        for id in self.ids(session, keys) {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.held = false;
            }
            self.conclude(Step::Collect(id), now);
        }
        self.dispatch(now);
    }

    fn ids(&self, session: SessionId, keys: &[Key]) -> Vec<TaskId> {
        let Some(listener) = self.sessions.get(&session) else { return Vec::new() };
        keys.iter().filter_map(|key| listener.keys.get(key).copied()).collect()
    }

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
    fn interrupt(&mut self, id: RunId) {
        if let Some(run) = self.runs.get(&id) {
            self.effects.after.cancel.push(run.cancel.clone());
            self.effects.interrupts.push(id);
        }
    }

    pub(super) fn time_out(&mut self, id: RunId, now: Instant) {
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

    pub(super) fn rank(&self, id: TaskId) -> Rank {
        let task = self.tasks.get(&id);
        let spec = task.and_then(|task| task.spec.as_ref());
        (Reverse(spec.map_or(0, |spec| spec.annotations.priority)), Reverse(task.map_or(0, |task| task.depth)), id)
    }

    /// Into the queue. `why` it is there again; otherwise only what hinders it is told.
    fn make_ready(&mut self, id: TaskId, why: Option<String>, now: Instant) {
        let rank = self.rank(id);
        self.enters(id, Stage::Ready);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.phase = Phase::Ready;
        // Nobody waits for a result that was let go while the task ran: not tried again.
        if !task.held && task.users == 0 {
            return self.conclude(Step::Collect(id), now);
        }
        let group = task.group;
        self.groups.push(group, rank, now);
        let hindrance = self.groups.group(group).and_then(|group| group.reason.clone());
        for reason in why.map(Arc::from).into_iter().chain(hindrance) {
            self.tell(id, TaskState::Pending { reason: Some(reason) });
        }
    }

    pub(super) fn tell(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.tasks.get(&id) else { return };
        let event = TaskEvent { key: task.key, name: task.name.clone(), state };
        // Without a session nothing can be submitted, and its end ends all its tasks before.
        if let Some(listener) = self.sessions.get(&task.session) {
            self.effects.events.push((listener.events.clone(), event));
        }
    }

    /// Carries out a step and everything that follows from it.
    pub(super) fn conclude(&mut self, first: Step, now: Instant) {
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
