//! Tools that came from batch systems.

use super::idle_for;
use crate::sim::{Actions, Policy, Sim};

/// HyperQueue's autoalloc: at most `backlog` queued allocations, workers stop after idling.
#[derive(Debug)]
pub(super) struct HyperQueue {
    backlog: u32,
    idle: f64,
    last: f64,
    seen: (usize, usize),
}

impl HyperQueue {
    pub(super) fn new(backlog: u32, idle: f64) -> Self {
        Self { backlog, idle, last: f64::NEG_INFINITY, seen: (0, 0) }
    }
}

impl Policy for HyperQueue {
    fn interval(&self) -> f64 {
        5.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let mut actions = Actions { retire: idle_for(sim, self.idle, sim.setup.minimum as usize), ..Actions::default() };
        // When a job arrived or a worker came or went, else every 30 s.
        let seen = (sim.live.len(), sim.active.len());
        let changed = std::mem::replace(&mut self.seen, seen) != seen;
        if !changed && sim.now - self.last < 30.0 && sim.ready_tasks == 0 {
            return actions;
        }
        self.last = sim.now;
        let loaded = sim.ready_tasks.div_ceil(sim.setup.threads);
        let (queued, fleet) = (sim.pending.len() as u32, sim.fleet() as u32);
        actions.launch = loaded.min(self.backlog).saturating_sub(queued).min(sim.setup.maximum.saturating_sub(fleet));
        actions
    }
}

/// Parsl's `htex_auto_scale` with parallelism 1.
#[derive(Debug)]
pub(super) struct Parsl {
    idle: f64,
    idle_since: Option<f64>,
}

impl Parsl {
    pub(super) fn new(idle: f64) -> Self {
        Self { idle, idle_since: None }
    }
}

impl Policy for Parsl {
    fn interval(&self) -> f64 {
        5.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let mut actions = Actions::default();
        let (tasks, blocks, minimum) = (sim.tasks() as usize, sim.fleet(), sim.setup.minimum as usize);
        let threads = sim.setup.threads as usize;
        let slots = blocks * threads;
        if tasks > 0 {
            self.idle_since = None;
        }
        if tasks == 0 && blocks > minimum {
            let since = *self.idle_since.get_or_insert(sim.now);
            if sim.now - since > self.idle {
                actions.retire = sim.live.iter().copied().take(sim.live.len().saturating_sub(minimum)).collect();
                actions.cancel = sim.pending.clone();
            }
        } else if slots < tasks {
            let missing = (tasks - slots).div_ceil(threads);
            actions.launch = missing.min((sim.setup.maximum as usize).saturating_sub(blocks)) as u32;
        } else if tasks > 0 && slots > tasks {
            let excess = ((slots - tasks) / threads).min(blocks.saturating_sub(minimum));
            actions.retire = idle_for(sim, self.idle, minimum);
            actions.retire.truncate(excess);
        }
        actions
    }
}
