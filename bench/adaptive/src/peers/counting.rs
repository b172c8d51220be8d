//! Tools that count tasks and know neither durations nor start-up times.

use std::collections::VecDeque;

use super::{idle_for, newest_pending};
use crate::{
    random::Random,
    sim::{Actions, Policy, Sim},
};

/// Spark's `ExecutorAllocationManager`: rounds that double while there is a backlog.
#[derive(Debug)]
pub(super) struct Spark {
    idle: f64,
    round_at: Option<f64>,
    round: u32,
    target: u32,
}

impl Spark {
    pub(super) fn new(idle: f64) -> Self {
        Self { idle, round_at: None, round: 1, target: 0 }
    }

    fn add(&mut self, sim: &Sim, needed: u32) -> u32 {
        let before = self.target;
        let raised = (self.target.max(sim.live.len() as u32) + self.round).min(needed).min(sim.setup.maximum).max(sim.setup.minimum);
        let added = raised.saturating_sub(before);
        self.round = if added == self.round { 2 * self.round } else { 1 };
        self.target = raised;
        self.round_at = Some(sim.now + 1.0);
        raised.saturating_sub(sim.fleet() as u32)
    }
}

impl Policy for Spark {
    fn interval(&self) -> f64 {
        0.1
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let mut actions = Actions::default();
        if sim.ready_tasks > 0 {
            self.round_at.get_or_insert(sim.now + 1.0);
        } else {
            self.round_at = None;
            self.round = 1;
        }
        let needed = sim.tasks().div_ceil(sim.setup.threads);
        if needed < self.target {
            self.target = needed.max(sim.setup.minimum);
            self.round = 1;
            let excess = sim.fleet().saturating_sub((self.target as usize).max(sim.live.len()));
            actions.cancel = newest_pending(sim).into_iter().take(excess).collect();
        } else if self.round_at.is_some_and(|at| sim.now >= at) {
            actions.launch = self.add(sim, needed);
        }
        // SPARK-21656: executors that the target still needs are not timed out.
        actions.retire = idle_for(sim, self.idle, self.target.max(sim.setup.minimum) as usize);
        actions
    }
}

/// Ray's autoscaler: packs queued demand; at most max(5, speed * running) requests under way.
#[derive(Debug)]
pub(super) struct Ray {
    pub(super) idle: f64,
    pub(super) speed: f64,
}

impl Policy for Ray {
    fn interval(&self) -> f64 {
        5.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let mut actions = Actions::default();
        let threads = sim.setup.threads as usize;
        let free: usize = sim.live.iter().map(|&id| threads - sim.worker(id).running.len()).sum();
        let unmet = (sim.ready_tasks as usize).saturating_sub(free + sim.pending.len() * threads);
        let under_way = ((self.speed * sim.live.len().max(1) as f64) as usize).max(5).saturating_sub(sim.pending.len());
        let room = (sim.setup.maximum as usize).saturating_sub(sim.fleet());
        actions.launch = unmet.div_ceil(threads).min(under_way).min(room) as u32;
        // A node that holds objects is not idle.
        let empty = |id: &u32| {
            let worker = sim.worker(*id);
            worker.running.is_empty() && worker.bytes <= 0.0 && sim.now - worker.idle_since >= self.idle
        };
        let most = sim.live.len().saturating_sub(sim.setup.minimum as usize);
        actions.retire = sim.live.iter().copied().filter(empty).take(most).collect();
        actions
    }
}

/// KEDA on the length of a queue, through a horizontal pod autoscaler.
#[derive(Debug)]
pub(super) struct Keda {
    per_pod: f64,
    wanted: VecDeque<(f64, usize)>,
    active_at: f64,
    random: Random,
}

impl Keda {
    /// Downscale stabilisation, and cool-down to zero.
    const WINDOW: f64 = 300.0;

    pub(super) fn new(per_pod: f64) -> Self {
        Self { per_pod, wanted: VecDeque::new(), active_at: f64::NEG_INFINITY, random: Random::new(99) }
    }

    /// A replica set deletes pods that are not ready first, then any.
    fn delete(&mut self, sim: &Sim, count: usize) -> Actions {
        let cancel: Vec<u32> = newest_pending(sim).into_iter().take(count).collect();
        let mut live = sim.live.clone();
        let mut retire = vec![];
        while retire.len() + cancel.len() < count && !live.is_empty() {
            retire.push(live.swap_remove(self.random.below(live.len())));
        }
        Actions { launch: 0, retire, cancel }
    }
}

impl Policy for Keda {
    fn interval(&self) -> f64 {
        15.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let (tasks, fleet) = (f64::from(sim.tasks()), sim.fleet());
        if tasks > 0.0 {
            self.active_at = sim.now;
        }
        let mut want = (tasks / (self.per_pod * f64::from(sim.setup.threads))).ceil() as usize;
        want = want.clamp(sim.setup.minimum as usize, sim.setup.maximum as usize);
        if fleet > 0 && want > 0 && (want as f64 / fleet as f64 - 1.0).abs() <= 0.1 {
            want = fleet;
        }
        self.wanted.push_back((sim.now, want));
        while self.wanted.pop_front_if(|first| sim.now - first.0 > Self::WINDOW).is_some() {}
        if want > fleet {
            // At most four pods or as many again.
            return Actions { launch: (want.min((fleet + 4).max(2 * fleet)) - fleet) as u32, ..Actions::default() };
        }
        let highest = self.wanted.iter().map(|wanted| wanted.1).max().unwrap_or(want).min(fleet);
        let cooling = highest == 0 && sim.now - self.active_at < Self::WINDOW;
        let keep = if cooling { 1 } else { highest };
        if want < fleet && keep < fleet { self.delete(sim, fleet - keep) } else { Actions::default() }
    }
}
