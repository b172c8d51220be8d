//! A cluster simulated event by event: one central queue, first in first out, onto a random free slot.

mod bounds;
mod run;
mod tasks;
mod workers;

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

pub(crate) use self::bounds::{Bounds, bounds};
use crate::{
    platform::Platform,
    random::Random,
    work::{self, Workload},
};

/// Seconds the scheduler takes per task.
const OVERHEAD: f64 = 0.0005;

/// A policy under test.
pub(crate) trait Policy {
    /// Seconds between two decisions.
    fn interval(&self) -> f64 {
        1.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions;

    /// Workers to launch before anything else.
    fn head_start(&self) -> u32 {
        0
    }
}

/// What a policy wants done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Actions {
    pub(crate) launch: u32,
    pub(crate) retire: Vec<u32>,
    pub(crate) cancel: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Live,
    Draining,
    Gone,
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) phase: Phase,
    pub(crate) launched: f64,
    pub(crate) billed: f64,
    pub(crate) ready: f64,
    pub(crate) ended: f64,
    pub(crate) idle_since: f64,
    /// (task, since when).
    pub(crate) running: Vec<(u32, f64)>,
    pub(crate) bytes: f64,
    by_group: Vec<(u32, f64)>,
    tasks_run: u32,
    heartbeat: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) waiting: u32,
    pub(crate) ready: u32,
    pub(crate) running: u32,
    pub(crate) done: u32,
    barriers: u32,
    blocks: Vec<u32>,
    consumers: u32,
}

/// What a scheduler knows of a kind of task.
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    /// distributed's `TaskPrefix.duration_average`; `None`: unknown.
    pub(crate) average: Option<f64>,
    /// distributed's `max_exec_time`.
    longest_alive: f64,
    pub(crate) completions: u64,
    pub(crate) total: f64,
    pub(crate) longest: f64,
    pub(crate) arrived: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JobState {
    pub(crate) arrived: Option<f64>,
    pub(crate) done: Option<f64>,
    left: u32,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Whether all jobs were finished.
    pub(crate) finished: bool,
    /// Mean seconds from the arrival of a job to its end.
    pub(crate) latency: f64,
    pub(crate) makespan: f64,
    /// Worker-seconds billed if all stops with the last job; and if the session is left open.
    pub(crate) cost: f64,
    pub(crate) cost_open: f64,
    /// Launches that were not taken back for nothing.
    pub(crate) launches: u32,
    /// Workers that lived less than a minute.
    pub(crate) churn: u32,
    /// Workers paid for that never ran a task.
    pub(crate) useless: u32,
    pub(crate) peak: u32,
    /// Tasks interrupted, retirements refused, decisions beyond the bounds.
    pub(crate) killed: u32,
    pub(crate) refused: u32,
    pub(crate) violations: u32,
    /// (time, live, pending, tasks) at each decision.
    pub(crate) trace: Vec<(f64, u32, u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Arrive(u32),
    Finish { task: u32, worker: u32, run: u32 },
    Ready(u32),
    Drained(u32),
    Decide,
}

#[derive(Debug)]
struct Timed {
    at: f64,
    number: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Waiting,
    Ready,
    Running,
    Done,
}

/// Bounds and size of the simulated cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) threads: u32,
    pub(crate) minimum: u32,
    pub(crate) maximum: u32,
}

pub(crate) const USUAL: Setup = Setup { threads: 1, minimum: 0, maximum: 100 };

#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) now: f64,
    pub(crate) platform: Platform,
    pub(crate) setup: Setup,
    pub(crate) memory_limit: f64,
    pub(crate) work: Workload,
    pub(crate) groups: Vec<Group>,
    pub(crate) prefixes: Vec<Prefix>,
    pub(crate) jobs: Vec<JobState>,
    pub(crate) active: Vec<u32>,
    /// Jobs in the order of their arrival.
    pub(crate) arrived: Vec<u32>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) live: Vec<u32>,
    pub(crate) pending: Vec<u32>,
    pub(crate) draining: Vec<u32>,
    pub(crate) ready_tasks: u32,
    pub(crate) running_tasks: u32,
    jobs_left: u32,
    /// The platform's launch limit.
    tokens: f64,
    tokens_at: f64,
    launch_free: f64,
    needs: Vec<u32>,
    runs: Vec<u32>,
    states: Vec<TaskState>,
    queue: VecDeque<u32>,
    free: Vec<u32>,
    scheduler_free: f64,
    events: BinaryHeap<Reverse<Timed>>,
    number: u64,
    random: Random,
    seed: u64,
    outcome: Outcome,
    tracing: bool,
}

impl Sim {
    pub(crate) fn new(work: Workload, platform: Platform, setup: Setup, seed: u64) -> Self {
        let tokens = platform.burst;
        Self {
            now: 0.0,
            platform,
            setup,
            memory_limit: 4e9,
            groups: groups(&work),
            prefixes: work.prefixes.iter().map(|known| prefix(*known)).collect(),
            jobs: work.jobs.iter().map(|job| JobState { left: job.tasks, ..JobState::default() }).collect(),
            active: vec![],
            arrived: vec![],
            workers: vec![],
            live: vec![],
            pending: vec![],
            draining: vec![],
            ready_tasks: 0,
            running_tasks: 0,
            jobs_left: work.jobs.len() as u32,
            tokens,
            tokens_at: 0.0,
            launch_free: 0.0,
            needs: work.tasks.iter().map(|task| task.needs).collect(),
            runs: vec![0; work.tasks.len()],
            states: vec![TaskState::Waiting; work.tasks.len()],
            queue: VecDeque::new(),
            free: vec![],
            scheduler_free: 0.0,
            events: BinaryHeap::new(),
            number: 0,
            random: Random::new(seed ^ 0x5EED),
            seed,
            outcome: Outcome::default(),
            tracing: false,
            work,
        }
    }

    pub(crate) fn traced(mut self) -> Self {
        self.tracing = true;
        self
    }

    /// Workers that are there or on their way.
    pub(crate) fn fleet(&self) -> usize {
        self.live.len() + self.pending.len()
    }

    /// Tasks that run or could.
    pub(crate) fn tasks(&self) -> u32 {
        self.ready_tasks + self.running_tasks
    }

    pub(crate) fn worker(&self, id: u32) -> &Worker {
        &self.workers[id as usize]
    }

    pub(crate) fn group_def(&self, group: u32) -> &work::Group {
        &self.work.groups[group as usize]
    }

    /// The groups of the jobs that are not done.
    pub(crate) fn active_groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        let ids = self.active.iter().flat_map(|job| &self.work.jobs[*job as usize].groups);
        ids.map(|&id| (id, &self.groups[id as usize]))
    }

    /// The prefix of a task.
    pub(crate) fn prefix_of(&self, task: u32) -> usize {
        self.group_def(self.work.tasks[task as usize].group).prefix as usize
    }

    fn push(&mut self, at: f64, event: Event) {
        self.number += 1;
        self.events.push(Reverse(Timed { at, number: self.number, event }));
    }
}

fn groups(work: &Workload) -> Vec<Group> {
    let blank = |def: &work::Group| Group {
        waiting: def.count,
        ready: 0,
        running: 0,
        done: 0,
        barriers: def.barrier.len() as u32,
        blocks: vec![],
        consumers: 0,
    };
    let mut groups: Vec<Group> = work.groups.iter().map(blank).collect();
    for (at, def) in (0..).zip(&work.groups) {
        def.barrier.iter().for_each(|&before| groups[before as usize].blocks.push(at));
        def.dependencies.iter().for_each(|&before| groups[before as usize].consumers += 1);
    }
    groups
}

/// A known prefix: as if twenty tasks had run.
fn prefix(known: Option<f64>) -> Prefix {
    let blank = Prefix { average: None, longest_alive: 0.0, completions: 0, total: 0.0, longest: 0.0, arrived: 0 };
    match known {
        Some(mean) => {
            Prefix { average: Some(mean), longest_alive: mean, completions: 20, total: 20.0 * mean, longest: 1.2 * mean, ..blank }
        }
        None => blank,
    }
}
