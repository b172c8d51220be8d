//! What adaptive scaling is told of the work: counted along, so that a look costs what there are groups, not what there are tasks.
//!
//! A group here is what came between two looks with one name and one level of the graph: a map is one, and so is a loop that
//! submits task by task. A task that takes several slots counts as so many.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use remuda_core::{
    adaptive::{Group, Load, Prefix},
    engine::{Observation, WorkerLoad},
};

use super::{RunId, Scheduler, TaskId, graph::Phase, shape::GroupId, workers::Standing};

/// Names that have statistics of their own; all further ones share theirs.
const NAMES: usize = 1000;

/// Levels of a graph that are told apart; what lies deeper is one group.
const LEVELS: u32 = 128;

/// A task of more slots counts as that many.
const WIDEST: u32 = 64;

pub(super) type BatchId = u64;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Ready,
    Running,
    /// It waits for tasks of its own, and its slot is free meanwhile.
    Paused,
    Over,
}

/// A task's part in the counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    batch: BatchId,
    level: u32,
    weight: u32,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    names: HashMap<Arc<str>, usize>,
    /// A map's tasks share their name.
    last: Option<(Arc<str>, usize)>,
    kinds: Vec<Prefix>,
    batches: BTreeMap<BatchId, Batch>,
    /// Those that came since the last look, and may grow.
    open: HashMap<Key, BatchId>,
    next: BatchId,
    /// Somebody looks.
    watched: bool,
}

/// Prefix, level, shape.
type Key = (usize, u32, GroupId);

#[derive(Debug)]
struct Batch {
    key: Key,
    waiting: u64,
    ready: u64,
    running: u64,
    paused: u64,
    over: u64,
    /// Of lower levels all of them, so that no two need each other.
    needs: BTreeSet<BatchId>,
    /// At so many needs those that are gone are looked for: twice what were left the last time, so that each costs a few steps.
    full: usize,
}

/// Needs that are not worth a look.
const FEW: usize = 4;

impl Batch {
    fn count(&mut self, stage: Stage) -> &mut u64 {
        match stage {
            Stage::Waiting => &mut self.waiting,
            Stage::Ready => &mut self.ready,
            Stage::Running => &mut self.running,
            Stage::Paused => &mut self.paused,
            Stage::Over => &mut self.over,
        }
    }

    fn is_over(&self) -> bool {
        self.waiting + self.ready + self.running + self.paused == 0
    }

    fn group(&self, id: BatchId, is_hopeless: bool) -> Group {
        let (prefix, level, _) = self.key;
        let active = self.ready + self.running;
        // The deepest level holds tasks that wait for each other: what comes next is as wide as what is there now.
        let waiting = if level < LEVELS { self.waiting } else { self.waiting.min(active.max(1)) };
        let (waiting, ready) = if is_hopeless { (0, 0) } else { (waiting, self.ready) };
        Group { id, prefix, waiting, ready, processing: self.running, done: self.over, dependencies: self.needs.iter().copied().collect() }
    }
}

impl Tally {
    /// A new task, waiting. `needs`: the shares of the tasks that it waits for.
    pub(super) fn join(&mut self, name: &Arc<str>, shape: GroupId, slots: u32, needs: &[Share]) -> Share {
        let prefix = self.prefix(name);
        let level = needs.iter().map(|share| share.level + 1).max().unwrap_or(0).min(LEVELS);
        let key = (prefix, level, shape);
        let id = *self.open.entry(key).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let batch = self.batches.entry(id).or_insert_with(|| Batch {
            key,
            waiting: 0,
            ready: 0,
            running: 0,
            paused: 0,
            over: 0,
            needs: BTreeSet::new(),
            full: FEW,
        });
        let weight = slots.clamp(1, WIDEST);
        batch.waiting += u64::from(weight);
        batch.needs.extend(needs.iter().filter(|share| share.level < level).map(|share| share.batch));
        if batch.needs.len() >= batch.full {
            self.forget_needs(id);
        }
        self.kinds[prefix].arrived += u64::from(weight);
        Share { batch: id, level, weight }
    }

    /// Batches that are gone are nobody's need any more.
    fn forget_needs(&mut self, of: BatchId) {
        let Some(mut needs) = self.batches.get_mut(&of).map(|batch| std::mem::take(&mut batch.needs)) else { return };
        needs.retain(|need| self.batches.contains_key(need));
        let full = (2 * needs.len()).max(FEW);
        self.batches.entry(of).and_modify(|batch| (batch.needs, batch.full) = (needs, full));
    }

    /// Nobody adapts the workers to what is told any more.
    pub(super) fn unwatch(&mut self) {
        if std::mem::take(&mut self.watched) {
            self.batches.retain(|_, batch| !batch.is_over());
            self.open.retain(|_, id| self.batches.contains_key(id));
        }
    }

    fn prefix(&mut self, name: &Arc<str>) -> usize {
        if let Some((last, prefix)) = &self.last
            && Arc::ptr_eq(last, name)
        {
            return *prefix;
        }
        let prefix = match self.names.get(name) {
            Some(prefix) => *prefix,
            None if self.kinds.len() <= NAMES => {
                self.kinds.push(Prefix::default());
                // The one beyond is for all that come after.
                if self.kinds.len() <= NAMES {
                    self.names.insert(name.clone(), self.kinds.len() - 1);
                }
                self.kinds.len() - 1
            }
            None => NAMES,
        };
        self.last = Some((name.clone(), prefix));
        prefix
    }

    fn shift(&mut self, share: Share, from: Stage, to: Stage) {
        let Some(batch) = self.batches.get_mut(&share.batch) else { return };
        *batch.count(from) -= u64::from(share.weight);
        *batch.count(to) += u64::from(share.weight);
        if !self.watched && batch.is_over() {
            self.open.remove(&batch.key);
            self.batches.remove(&share.batch);
        }
    }

    fn completed(&mut self, share: Share, took: Duration) {
        let Some(kind) = self.batches.get(&share.batch).and_then(|batch| self.kinds.get_mut(batch.key.0)) else { return };
        kind.completions += 1;
        kind.total += took;
        kind.longest = kind.longest.max(took);
    }

    /// `running`: each task that runs and has not paused, and for how long it has run; `hopeless`: shapes that no worker would do for.
    fn look(&mut self, running: impl Iterator<Item = (Share, Duration)>, hopeless: &HashSet<GroupId>) -> Load {
        let mut prefixes = self.kinds.clone();
        for (share, elapsed) in running {
            let prefix = self.batches.get(&share.batch).and_then(|batch| prefixes.get_mut(batch.key.0));
            prefix.into_iter().for_each(|prefix| prefix.running.extend(std::iter::repeat_n(elapsed, share.weight as usize)));
        }
        if !self.watched {
            self.watched = true;
            self.batches.values_mut().for_each(|batch| batch.over = 0); // an old story
        }
        let groups = self.batches.iter().map(|(id, batch)| batch.group(*id, hopeless.contains(&batch.key.2))).collect();
        self.batches.retain(|_, batch| !batch.is_over());
        let ids: Vec<BatchId> = self.batches.keys().copied().collect();
        ids.into_iter().for_each(|id| self.forget_needs(id));
        self.open.clear();
        Load { prefixes, groups }
    }
}

impl Scheduler {
    /// Counts a task along, before its phase changes.
    pub(super) fn enters(&mut self, id: TaskId, to: Stage) {
        let Some(task) = self.tasks.get(&id) else { return };
        let from = match task.phase {
            Phase::Waiting => Stage::Waiting,
            Phase::Ready => Stage::Ready,
            Phase::Running(run) if self.runs.get(&run).is_some_and(|run| run.paused) => Stage::Paused,
            Phase::Running(_) => Stage::Running,
            Phase::Final(_) => Stage::Over,
        };
        self.tally.shift(task.share, from, to);
    }

    /// An attempt begins to wait, or goes on; before that is written down.
    pub(super) fn pauses(&mut self, id: RunId, paused: bool) {
        let Some(task) = self.runs.get(&id).map(|run| run.task) else { return };
        let current = self.tasks.get(&task).is_some_and(|task| matches!(task.phase, Phase::Running(run) if run == id));
        if current {
            self.enters(task, if paused { Stage::Paused } else { Stage::Running });
        }
    }

    /// An attempt is over, which may have paused.
    pub(super) fn pauses_no_more(&mut self, id: RunId) {
        if self.runs.get(&id).is_some_and(|run| run.paused) {
            self.pauses(id, false);
        }
    }

    pub(super) fn completed(&mut self, task: TaskId, took: Duration) {
        if let Some(task) = self.tasks.get(&task) {
            self.tally.completed(task.share, took);
        }
    }

    /// For adaptive scaling.
    pub(crate) fn look(&mut self, now: Instant) -> Observation {
        let unfit = |id: &GroupId| self.groups.group(*id).is_some_and(|group| self.wants_nobody(group));
        let hopeless: HashSet<GroupId> = self.groups.ids().into_iter().filter(unfit).collect();
        let (tasks, runs) = (&self.tasks, &self.runs);
        let counted = |id: &RunId| {
            let run = runs.get(id).filter(|run| !run.paused)?;
            let task = tasks.get(&run.task)?;
            let current = matches!(task.phase, Phase::Running(current) if current == *id);
            current.then(|| (task.share, now.saturating_duration_since(run.since)))
        };
        let running = runs.keys().filter_map(counted);
        let load = self.tally.look(running, &hopeless);
        let there = self.workers.values().filter(|worker| worker.standing != Standing::Starting);
        let workers = there.map(|worker| {
            let shares: Vec<Share> = worker.runs.iter().filter_map(counted).map(|(share, _)| share).collect();
            WorkerLoad {
                name: worker.name.to_string(),
                slots: worker.slots,
                processing: shares.iter().map(|share| share.weight).sum(),
                // What has paused, and what nobody waits for any more and yet runs, is no load, and keeps it.
                pinned: shares.len() < worker.runs.len(),
                ..WorkerLoad::default() // results live in the driver
            }
        });
        Observation { load, workers: workers.collect() }
    }

    #[cfg(test)]
    pub(super) fn check_tally(&self) {
        let mut counts: BTreeMap<BatchId, [u64; 4]> = BTreeMap::new();
        for task in self.tasks.values() {
            let at = match task.phase {
                Phase::Waiting => 0,
                Phase::Ready => 1,
                Phase::Running(run) => 2 + usize::from(self.runs[&run].paused),
                Phase::Final(_) => continue,
            };
            counts.entry(task.share.batch).or_default()[at] += u64::from(task.share.weight);
        }
        let unfinished = self.tally.batches.iter().filter(|(_, batch)| !batch.is_over());
        let told: BTreeMap<_, _> = unfinished.map(|(id, b)| (*id, [b.waiting, b.ready, b.running, b.paused])).collect();
        assert_eq!(told, counts);
    }
}

#[cfg(test)]
mod tests;
