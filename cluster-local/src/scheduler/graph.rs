//! Tasks and what they need of each other: submission, ends and their consequences, reference counts.

mod ends;

use std::{cmp::Reverse, sync::Arc, time::Instant};

use remuda_core::{
    error::{Error, ErrorKind},
    task::{Key, Outcome, TaskError, TaskEvent, TaskSpec, TaskState},
};
use tokio::sync::oneshot;

use super::{
    RunId, Scheduler, SessionId, TaskId,
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
}
