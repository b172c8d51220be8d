//! Workloads: graphs of task groups that arrive over time.

mod named;
mod random;

use std::collections::HashMap;

pub(crate) use self::{
    named::{NAMES, named},
    random::random,
};
use crate::random::Random;

/// Bytes.
pub(crate) const MB: f64 = 1e6;

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) seconds: f64,
    pub(crate) group: u32,
    /// Tasks that must be over before, besides the group's barrier.
    pub(crate) needs: u32,
    pub(crate) feeds: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) job: u32,
    pub(crate) prefix: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Groups that must be complete before any task here may start.
    pub(crate) barrier: Vec<u32>,
    /// Groups that this one depends on, as a scheduler would tell.
    pub(crate) dependencies: Vec<u32>,
    /// Bytes that each task leaves behind.
    pub(crate) bytes: f64,
    /// Whether they stay after the last consumer.
    pub(crate) persist: bool,
}

impl Group {
    pub(crate) fn tasks(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Arrival {
    /// At this time.
    At(f64),
    /// So long after the job before was finished: somebody thinks.
    After(f64),
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) arrival: Arrival,
    pub(crate) groups: Vec<u32>,
    pub(crate) tasks: u32,
}

/// What is to be simulated.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    pub(crate) tasks: Vec<Task>,
    pub(crate) groups: Vec<Group>,
    pub(crate) jobs: Vec<Job>,
    /// Mean durations per prefix, where known from before.
    pub(crate) prefixes: Vec<Option<f64>>,
}

impl Workload {
    fn prefix(&mut self, known: Option<f64>) -> u32 {
        self.prefixes.push(known);
        self.prefixes.len() as u32 - 1
    }

    fn job(&mut self, arrival: Arrival) -> u32 {
        self.jobs.push(Job { arrival, groups: vec![], tasks: 0 });
        self.jobs.len() as u32 - 1
    }

    /// A group of tasks of these durations behind `barrier`.
    fn group(&mut self, job: u32, prefix: u32, seconds: &[f64], barrier: &[u32], bytes: f64) -> u32 {
        let group = self.groups.len() as u32;
        let (first, count) = (self.tasks.len() as u32, seconds.len() as u32);
        self.tasks.extend(seconds.iter().map(|&seconds| Task { seconds, group, needs: 0, feeds: vec![] }));
        let (barrier, dependencies) = (barrier.to_vec(), barrier.to_vec());
        self.groups.push(Group { job, prefix, first, count, barrier, dependencies, bytes, persist: false });
        let job = &mut self.jobs[job as usize];
        job.groups.push(group);
        job.tasks += count;
        group
    }

    /// Seconds of work in all.
    pub(crate) fn work(&self) -> f64 {
        self.tasks.iter().map(|task| task.seconds).sum()
    }

    /// Seconds of work of a job, and of its critical path.
    pub(crate) fn path(&self, job: usize) -> (f64, f64) {
        let (mut work, mut longest) = (0.0, 0.0f64);
        let mut group_ends: HashMap<u32, f64> = HashMap::new();
        let mut begins: HashMap<u32, f64> = HashMap::new();
        for &at in &self.jobs[job].groups {
            let group = &self.groups[at as usize];
            let open = group.barrier.iter().map(|before| group_ends[before]).fold(0.0, f64::max);
            let mut last = 0.0f64;
            for task in group.tasks() {
                let Task { seconds, feeds, .. } = &self.tasks[task as usize];
                work += seconds;
                let end = begins.get(&task).copied().unwrap_or(0.0).max(open) + seconds;
                for &after in feeds {
                    let begin = begins.entry(after).or_insert(0.0);
                    *begin = begin.max(end);
                }
                last = last.max(end);
            }
            group_ends.insert(at, last);
            longest = longest.max(last);
        }
        (work, longest)
    }
}

/// `count` durations within a share of `around`.
fn about(random: &mut Random, count: usize, around: f64, share: f64) -> Vec<f64> {
    (0..count).map(|_| around * random.range((1.0 - share, 1.0 + share))).collect()
}
