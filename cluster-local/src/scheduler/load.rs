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
    needs: BTreeSet<BatchId>,
}

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
        let levels = needs.iter().filter_map(|share| self.batches.get(&share.batch)).map(|batch| batch.key.1 + 1);
        let key = (prefix, levels.max().unwrap_or(0).min(LEVELS), shape);
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
        });
        let weight = slots.clamp(1, WIDEST);
        batch.waiting += u64::from(weight);
        batch.needs.extend(needs.iter().map(|share| share.batch).filter(|need| *need != id));
        self.kinds[prefix].arrived += u64::from(weight);
        Share { batch: id, weight }
    }

    /// Whether somebody adapts the workers to what is told.
    pub(super) fn is_watched(&self) -> bool {
        self.watched
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

    /// `running`: each task that runs and has not paused, and for how long it has run; `hopeless`: shapes that no worker can run.
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
        // Without a worker nothing is hopeless: the first one will show.
        let hopeless: HashSet<GroupId> = match self.workers.is_empty() {
            true => HashSet::new(),
            false => self.groups.ids().into_iter().filter(|id| self.groups.group(*id).is_some_and(|group| group.hopeless)).collect(),
        };
        let (tasks, runs) = (&self.tasks, &self.runs);
        let running = runs.iter().filter(|(_, run)| !run.paused).filter_map(|(id, run)| {
            let task = tasks.get(&run.task)?;
            let current = matches!(task.phase, Phase::Running(current) if current == *id);
            current.then(|| (task.share, now.saturating_duration_since(run.since)))
        });
        let load = self.tally.look(running, &hopeless);
        let there = self.workers.values().filter(|worker| worker.standing != Standing::Starting);
        let workers = there.map(|worker| WorkerLoad {
            name: worker.name.to_string(),
            slots: worker.slots,
            processing: u32::try_from(worker.runs.len()).unwrap_or(u32::MAX),
            ..WorkerLoad::default() // results live in the driver
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
mod tests {
    use remuda_core::task::{Annotations, TaskError, TaskSpec};

    use super::{
        super::{
            Ended,
            tests::{Bench, one, spec},
        },
        *,
    };

    fn named(name: &Arc<str>, keys: std::ops::Range<u64>, inputs: impl Fn(u64) -> Vec<u64>, slots: u32) -> Vec<TaskSpec> {
        let annotations = Arc::new(Annotations { slots, ..Annotations::default() });
        keys.map(|key| TaskSpec { name: name.clone(), ..spec(key, &inputs(key), &annotations) }).collect()
    }

    /// Waiting, ready, processing, done, and the groups before it.
    type Shown = (u64, u64, u64, u64, Vec<u64>);

    fn shown(load: &Load) -> Vec<Shown> {
        load.groups.iter().map(|g| (g.waiting, g.ready, g.processing, g.done, g.dependencies.clone())).collect()
    }

    #[test]
    fn a_map_is_one_group_and_so_is_a_loop_until_somebody_looks() {
        let mut bench = Bench::with_workers(&[2]);
        let (load, sum): (Arc<str>, Arc<str>) = ("load".into(), "sum".into());
        bench.submit(named(&load, 0..10, |_| vec![], 1));
        for key in 10..20 {
            bench.submit(named(&"sum".into(), key..key + 1, |key| vec![key - 10], 1));
        }
        let seen = bench.scheduler.look(bench.now);
        assert_eq!(shown(&seen.load), [(0, 8, 2, 0, vec![]), (10, 0, 0, 0, vec![1])]);
        assert_eq!(seen.load.prefixes.iter().map(|prefix| prefix.arrived).collect::<Vec<_>>(), [10, 10]);
        assert_eq!((seen.workers.len(), seen.workers[0].processing, seen.workers[0].slots), (1, 2, 2));
        bench.now += Duration::from_secs(3);
        (0..10).for_each(|key| bench.done(key));
        // What comes after a look is another group, of the same kind.
        bench.submit(named(&sum, 30..31, |_| vec![], 1));
        let seen = bench.scheduler.look(bench.now);
        assert_eq!(shown(&seen.load), [(0, 0, 0, 10, vec![]), (0, 8, 2, 0, vec![1]), (0, 1, 0, 0, vec![])]);
        let kind = &seen.load.prefixes[0];
        assert_eq!((kind.completions, kind.total, kind.longest), (10, Duration::from_secs(6), Duration::from_secs(3)));
        assert_eq!((seen.load.prefixes.len(), seen.load.prefixes[1].arrived), (2, 11));
        // What was over at a look is gone at the next.
        assert_eq!(bench.scheduler.look(bench.now).load.groups.len(), 2);
    }

    #[test]
    fn levels_of_one_name_are_told_apart_and_the_deepest_are_no_wide_stage() {
        let mut bench = Bench::with_workers(&[1]);
        let name: Arc<str> = "add".into();
        bench.submit(named(&name, 0..4, |_| vec![], 1));
        bench.submit(named(&name, 4..6, |key| vec![2 * (key - 4), 2 * (key - 4) + 1], 1));
        bench.submit(named(&name, 6..7, |_| vec![4, 5], 1));
        let load = bench.scheduler.look(bench.now).load;
        assert_eq!(shown(&load), [(0, 3, 1, 0, vec![]), (2, 0, 0, 0, vec![1]), (1, 0, 0, 0, vec![2])]);
        let mut chain = Bench::with_workers(&[1]);
        chain.submit(named(&name, 0..1000, |key| key.checked_sub(1).into_iter().collect(), 1));
        let load = chain.scheduler.look(chain.now).load;
        assert_eq!(load.groups.len(), LEVELS as usize + 1);
        assert!(load.groups.iter().all(|group| group.unfinished() == 1), "however long the chain, one at a time");
    }

    #[test]
    fn running_times_leave_out_pauses_and_what_ends_while_nobody_looks_leaves_nothing() {
        let mut bench = Bench::with_workers(&[1]);
        bench.submit(named(&"before".into(), 0..5, |_| vec![], 1));
        (0..5).for_each(|key| bench.done(key));
        assert!(bench.scheduler.tally.batches.is_empty() && bench.scheduler.tally.open.is_empty());
        bench.submit(named(&"parent".into(), 5..6, |_| vec![], 1));
        let run = bench.running[0].run;
        bench.pass(Duration::from_secs(2));
        bench.scheduler.pause(run, bench.now);
        let seen = bench.scheduler.look(bench.now);
        assert_eq!(shown(&seen.load), [(0, 0, 0, 0, vec![])]);
        assert_eq!(seen.workers[0].processing, 1, "it must not go");
        bench.pass(Duration::from_secs(50));
        bench.scheduler.resume(run, bench.now);
        bench.pass(Duration::from_secs(1));
        let seen = bench.scheduler.look(bench.now);
        assert_eq!(seen.load.prefixes[1].running, [Duration::from_secs(3)]);
        bench.end(5, Ended::Outcome(Err(TaskError::failed("x"))));
        let kind = bench.scheduler.look(bench.now).load.prefixes[1].clone();
        assert_eq!((kind.completions, kind.total), (1, Duration::from_secs(3)), "a failure takes its time, too");
    }

    #[test]
    fn what_no_worker_can_run_is_no_work_and_slots_count() {
        let mut bench = Bench::new();
        bench.submit(named(&"wide".into(), 0..3, |_| vec![], 4));
        assert_eq!(shown(&bench.scheduler.look(bench.now).load), [(0, 12, 0, 0, vec![])], "nobody there: one will show");
        bench.worker(0, 2, &[]);
        assert_eq!(shown(&bench.scheduler.look(bench.now).load), [(0, 0, 0, 0, vec![])]);
        bench.worker(1, 4, &[]);
        let load = bench.scheduler.look(bench.now).load;
        assert_eq!((shown(&load), load.prefixes[0].running.len()), (vec![(0, 8, 4, 0, vec![])], 4));
        bench.end(0, Ended::Outcome(one()));
    }

    #[test]
    fn names_beyond_number_share_their_statistics() {
        let mut bench = Bench::new();
        for key in 0..2000 {
            bench.submit(named(&format!("t{key}").into(), key..key + 1, |_| vec![], 1));
        }
        let load = bench.scheduler.look(bench.now).load;
        assert_eq!((load.prefixes.len(), load.prefixes[NAMES].arrived, load.ready()), (NAMES + 1, 1000, 2000));
    }
}
