//! What there is to do, as a scheduler can tell it: counts, sums and elapsed times, never the durations of unfinished tasks.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

/// The work a scheduler holds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Statistics per kind of task. A prefix keeps its place in this list for the life of a [`State`](super::State); new ones are
    /// appended.
    pub prefixes: Vec<Prefix>,
    /// The groups with unfinished tasks, those they depend on as far as they are known, and those that came since the last
    /// decision, even if they are done.
    pub groups: Vec<Group>,
}

/// What is known of one kind of task (Dask: `TaskPrefix`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Tasks that have finished, earlier runs included where they were remembered.
    pub completions: u64,
    /// Their time together.
    pub total: Duration,
    /// The longest of them.
    pub longest: Duration,
    /// How long each task that runs now has run. Tasks that are processing but not listed here count as not yet begun.
    pub running: Vec<Duration>,
    /// Tasks that ever came, finished ones too. Never falls.
    pub arrived: u64,
}

/// Tasks of one kind that were submitted together (Dask: `TaskGroup`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Unique in the life of a [`State`](super::State).
    pub id: u64,
    /// Its kind: an index of [`Load::prefixes`].
    pub prefix: usize,
    /// Tasks whose dependencies are not done.
    pub waiting: u64,
    /// Tasks that could run and have no worker (Dask: queued and no-worker).
    pub ready: u64,
    /// Tasks assigned to a worker.
    pub processing: u64,
    /// Tasks that are over, however they ended.
    pub done: u64,
    /// The groups it needs. One that is not in the load counts as done.
    pub dependencies: Vec<u64>,
}

impl Group {
    /// Tasks that are not over.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.waiting.saturating_add(self.ready).saturating_add(self.processing)
    }

    /// All its tasks.
    pub(super) fn size(&self) -> u64 {
        self.unfinished().saturating_add(self.done)
    }
}

impl Load {
    /// Tasks ready to run.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.ready))
    }

    /// Tasks assigned to workers.
    #[must_use]
    pub fn processing(&self) -> u64 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.processing))
    }

    /// Where each group stands in its graph.
    pub(super) fn places(&self) -> Vec<Place> {
        let index: HashMap<u64, usize> = self.groups.iter().enumerate().map(|(at, group)| (group.id, at)).collect();
        let needs: Vec<Vec<usize>> =
            (self.groups.iter()).map(|group| group.dependencies.iter().filter_map(|id| index.get(id).copied()).collect()).collect();
        let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
        let mut feeds = vec![vec![]; needs.len()];
        for (at, needed) in needs.iter().enumerate() {
            needed.iter().for_each(|&other| feeds[other].push(at));
        }
        let mut places = vec![Place::default(); needs.len()];
        // Topological order. Groups in a circle, which only a defect could report, never come up and stay at 0.
        let mut next: Vec<usize> = (0..needs.len()).filter(|&at| missing[at] == 0).collect();
        while let Some(at) = next.pop() {
            let Place { depth, level } = places[at];
            let behind = if self.groups[at].unfinished() == 0 { 0 } else { level + 1 };
            for &after in &feeds[at] {
                places[after].depth = places[after].depth.max(depth + 1);
                places[after].level = places[after].level.max(behind);
                missing[after] -= 1;
                if missing[after] == 0 {
                    next.push(after);
                }
            }
        }
        places
    }
}

/// Where a group stands in its graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Groups before it, on the longest way.
    pub(super) depth: usize,
    /// Unfinished groups before it, on the longest way.
    pub(super) level: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_diamonds_unknown_groups_and_circles() {
        let group =
            |id, done, dependencies: &[u64]| Group { id, waiting: 1 - done, done, dependencies: dependencies.into(), ..Group::default() };
        let groups =
            vec![group(4, 0, &[2, 3]), group(2, 0, &[1]), group(3, 1, &[1]), group(1, 1, &[99]), group(7, 0, &[8]), group(8, 0, &[7])];
        let places = Load { groups, ..Load::default() }.places();
        let pairs: Vec<_> = places.iter().map(|place| (place.depth, place.level)).collect();
        assert_eq!(pairs, [(2, 1), (1, 0), (1, 0), (0, 0), (0, 0), (0, 0)]);
    }
}
