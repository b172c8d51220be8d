//! Which ready task goes where.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use remuda_core::{
    manager::WorkerId,
    task::{TaskError, TaskState},
};
use tokio_util::sync::CancellationToken;

use super::{
    Run, Scheduler, Start, TaskId,
    graph::Phase,
    load::Stage,
    shape::{GroupId, Shape},
    workers::Standing,
};

impl Scheduler {
    /// Gives every worker with room the best task it can take, across all workers. A task that finds no place keeps what it waits
    /// for (resources, and slots where it needs several) from those behind it; everything else may go ahead.
    pub(crate) fn dispatch(&mut self, now: Instant) {
        let groups = &self.groups;
        if groups.waiting.is_empty() {
            return;
        }
        let free_slot = self.workers.values().any(super::Worker::has_free_slot);
        let mut heads: BinaryHeap<Reverse<_>> = (groups.waiting.iter())
            .filter_map(|id| groups.group(*id).map(|group| (*id, group)))
            .filter(|(_, group)| group.reason.is_none() && (free_slot || group.shape.slots == 0 || !group.shape.is_plain()))
            .filter_map(|(id, group)| group.ready.first().map(|rank| Reverse((*rank, id))))
            .collect();
        if !free_slot && heads.iter().all(|Reverse((_, id))| groups.group(*id).is_none_or(|group| group.shape.slots > 0)) {
            return;
        }
        while let Some(Reverse((rank, group))) = heads.pop() {
            let Some(shape) = self.groups.group(group).map(|group| group.shape.clone()) else { continue };
            if shape.slots > 0 && !self.workers.values().any(super::Worker::has_free_slot) {
                continue; // nothing can be taken away from it
            }
            match self.place(&shape) {
                Some(worker) => {
                    self.start(rank.2, group, worker, now);
                    if let Some(rank) = self.groups.group(group).and_then(|group| group.ready.first()) {
                        heads.push(Reverse((*rank, group)));
                    }
                }
                // Those behind it in its group ask for the same.
                None if shape.is_plain() => {}
                None => {
                    let could = self.workers.values_mut().filter(|w| w.standing == Standing::Live && w.could_run(&shape));
                    could.for_each(|worker| worker.keep(&shape));
                }
            }
        }
        self.workers.values_mut().for_each(super::Worker::forget_kept);
    }

    /// The least loaded worker with room; one of the preferred where there are such.
    fn place(&self, shape: &Shape) -> Option<WorkerId> {
        let least = |named: bool| {
            let fits = self.workers.iter().filter(|(_, worker)| {
                worker.standing == Standing::Live && (!named || worker.is_named(&shape.workers)) && worker.has_room(shape)
            });
            fits.min_by_key(|(id, worker)| (worker.load(), **id)).map(|(id, _)| *id)
        };
        match shape.workers.is_empty() {
            true => least(false),
            false => least(true).or_else(|| shape.other_workers.then(|| least(false)).flatten()),
        }
    }

    fn start(&mut self, id: TaskId, group: GroupId, at: WorkerId, now: Instant) {
        let run = self.fresh();
        let rank = self.rank(id);
        self.groups.remove(group, rank);
        let (Some(shape), Some(worker)) = (self.groups.group(group).map(|group| group.shape.clone()), self.workers.get_mut(&at)) else {
            return;
        };
        let Some(spec) = self.tasks.get(&id).and_then(|task| task.spec.clone()) else { return };
        worker.take(run, &shape);
        let name = worker.name.clone();
        let inputs = self.inputs(id, spec.inputs.len());
        let cancel = CancellationToken::new();
        let deadline = spec.annotations.timeout.and_then(|timeout| now.checked_add(timeout));
        self.timeouts.extend(deadline.map(|at| (at, run)));
        self.enters(id, Stage::Running);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.phase = Phase::Running(run);
        let (session, attempt) = (task.session, task.attempt);
        let attempt_of =
            Run { task: id, session, worker: at, shape, cancel: cancel.clone(), paused: false, since: now, paused_at: now, deadline };
        self.runs.insert(run, attempt_of);
        self.tell(id, TaskState::Running { worker: name.clone(), attempt });
        self.effects.starts.push(Start { run, worker: at, worker_name: name, spec, inputs, attempt, cancel });
    }

    /// The values of a task's inputs, at its start: all of them are final.
    fn inputs(&self, id: TaskId, count: usize) -> Vec<remuda_core::task::Outcome> {
        let Some(task) = self.tasks.get(&id) else { return Vec::new() };
        let outcome = |input: &TaskId| match self.tasks.get(input).map(|task| &task.phase) {
            Some(Phase::Final(outcome)) => outcome.clone(),
            _ => Err(TaskError::failed("an input is not there")),
        };
        task.edges[..count].iter().map(outcome).collect()
    }
}
