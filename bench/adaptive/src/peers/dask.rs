//! Dask: `distributed.deploy.Adaptive` of 2024 to 2026, its forms on Kubernetes, and before August 2019.

use std::collections::{HashMap, HashSet};

use crate::sim::{Actions, Phase, Policy, Sim};

/// `Scheduler.workers_to_close`. `Some(n)` may reach busy workers; `None` is the form with `memory_ratio=2`: idle ones only.
fn workers_to_close(sim: &Sim, n: Option<usize>) -> Vec<u32> {
    let busy = |id: u32| !sim.worker(id).running.is_empty() || sim.ready_tasks > 0;
    if n.unwrap_or(0) == 0 && sim.live.iter().all(|&id| busy(id)) {
        return vec![];
    }
    // Idle first, fewest bytes first.
    let mut order = sim.live.clone();
    order.sort_by(|&a, &b| busy(b).cmp(&busy(a)).then(sim.worker(b).bytes.total_cmp(&sim.worker(a).bytes)));
    let stored: f64 = sim.live.iter().map(|&id| sim.worker(id).bytes).sum();
    let mut limit = sim.memory_limit * sim.live.len() as f64;
    let mut close = vec![];
    while let Some(id) = order.pop() {
        limit -= sim.memory_limit;
        let goes = match n {
            Some(n) => close.len() < n.min(sim.live.len()),
            None => !busy(id) && limit >= 2.0 * stored,
        };
        if !goes {
            break;
        }
        close.push(id);
    }
    close
}

/// Seconds of work that distributed sees: tasks that run or could.
fn occupancy(sim: &Sim) -> f64 {
    let groups = sim.active_groups().filter(|(_, group)| group.ready + group.running > 0);
    groups.map(|(id, group)| f64::from(group.ready + group.running) * sim.dask_estimate(sim.group_def(id).prefix as usize)).sum()
}

/// `Scheduler.adaptive_target`
fn adaptive_target(sim: &Sim, target_duration: f64) -> usize {
    let live = sim.live.len();
    let mut cpu = ((occupancy(sim) / target_duration).ceil() as usize).min(sim.tasks() as usize);
    if live > 0 {
        // Only with a worker there are threads turned into workers.
        cpu = (cpu as f64 / (live * sim.setup.threads as usize) as f64 * live as f64).ceil() as usize;
    } else if sim.ready_tasks > 0 {
        cpu = cpu.max(1);
    }
    let limit = live as f64 * sim.memory_limit;
    let stored: f64 = sim.live.iter().map(|&id| sim.worker(id).bytes).sum();
    let memory = if limit > 0.0 && stored > 0.6 * limit { 2 * live } else { 0 };
    let target = memory.max(cpu);
    if target >= live { target } else { live - workers_to_close(sim, None).len() }
}

fn clamped(sim: &Sim, target: usize) -> usize {
    target.clamp(sim.setup.minimum as usize, sim.setup.maximum as usize)
}

/// `Adaptive` on a `SpecCluster`.
#[derive(Debug)]
pub(super) struct Dask {
    target_duration: f64,
    /// The loop awaits the starts under way before it recommends, with the target computed before.
    blocks: bool,
    stale: Option<usize>,
    mentions: HashMap<u32, u32>,
}

impl Dask {
    const WAIT_COUNT: u32 = 3;

    pub(super) fn new(target_duration: f64, blocks: bool) -> Self {
        Self { target_duration, blocks, stale: None, mentions: HashMap::new() }
    }

    fn recommend(&mut self, sim: &Sim, target: usize) -> Actions {
        let plan = sim.fleet();
        if target >= plan {
            self.mentions.clear();
            return Actions { launch: (target - plan) as u32, ..Actions::default() };
        }
        // Not yet arrived ones first, and of them the oldest: a set of small integers iterates in order.
        let mut pending = sim.pending.clone();
        pending.sort_unstable();
        let mut close: Vec<u32> = pending.into_iter().take(plan - target).collect();
        if target < plan - close.len() {
            close.extend(workers_to_close(sim, Some(sim.live.len().saturating_sub(target))));
        }
        let mut firm = vec![];
        for &id in &close {
            let mentions = self.mentions.entry(id).or_insert(0);
            *mentions += 1;
            if *mentions >= Self::WAIT_COUNT {
                firm.push(id);
            }
        }
        let close: HashSet<u32> = close.into_iter().collect();
        self.mentions.retain(|id, _| close.contains(id) && !firm.contains(id));
        let (cancel, retire) = firm.into_iter().partition(|&id| sim.worker(id).phase == Phase::Pending);
        Actions { launch: 0, retire, cancel }
    }
}

impl Policy for Dask {
    fn decide(&mut self, sim: &Sim) -> Actions {
        // Retirement is awaited in the loop.
        if !sim.draining.is_empty() {
            return Actions::default();
        }
        if let Some(target) = self.stale {
            if !sim.pending.is_empty() {
                return Actions::default();
            }
            self.stale = None;
            return self.recommend(sim, target);
        }
        let target = clamped(sim, adaptive_target(sim, self.target_duration));
        if self.blocks && !sim.pending.is_empty() {
            self.stale = Some(target);
            return Actions::default();
        }
        self.recommend(sim, target)
    }
}

/// The operator of dask-kubernetes: 15 s of rest after a change, at most a quarter down at once.
#[derive(Debug, Default)]
pub(super) struct Operator {
    rest_until: f64,
}

impl Policy for Operator {
    fn interval(&self) -> f64 {
        5.0
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        if sim.now < self.rest_until {
            return Actions::default();
        }
        let fleet = sim.fleet();
        let mut want = clamped(sim, adaptive_target(sim, 5.0));
        if fleet > 0 {
            want = want.max(fleet - ((fleet as f64 * 0.25) as usize).max(1));
        }
        let mut actions = Actions { launch: want.saturating_sub(fleet) as u32, ..Actions::default() };
        if want < fleet {
            // Only connected workers are looked at (dask-kubernetes#659).
            actions.retire = workers_to_close(sim, Some(fleet - want));
        }
        if want != fleet {
            self.rest_until = sim.now + 15.0;
        }
        actions
    }
}

/// Before dask/distributed#2904, with `startup_cost` 1 s and `scale_factor` 2.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    mentions: HashMap<u32, u32>,
}

impl Policy for Legacy {
    fn decide(&mut self, sim: &Sim) -> Actions {
        let (live, minimum, maximum) = (sim.live.len(), sim.setup.minimum as usize, sim.setup.maximum as usize);
        let cores = live as f64 * f64::from(sim.setup.threads);
        // Tasks without a worker are not in `total_occupancy`.
        let occupancy = if live == 0 { 0.0 } else { occupancy(sim) };
        let busy = occupancy / (cores + 1e-9) > 2.0 && f64::from(sim.tasks()) > cores;
        let up = live < minimum || live < maximum && (busy || sim.ready_tasks > 0 && live == 0);
        let mut close = workers_to_close(sim, None);
        close.truncate(live.saturating_sub(minimum));
        if up {
            self.mentions.clear();
            let wanted = (2 * live).max((occupancy / 5.0).ceil() as usize).max(minimum).max(1).min(maximum);
            let launch = if close.is_empty() { wanted.saturating_sub(sim.fleet()) as u32 } else { 0 };
            return Actions { launch, ..Actions::default() };
        }
        let mut mentions = HashMap::new();
        let mut retire = vec![];
        for id in close {
            match self.mentions.get(&id).copied().unwrap_or(0) {
                3.. => retire.push(id),
                before => drop(mentions.insert(id, before + 1)),
            }
        }
        self.mentions = mentions;
        Actions { retire, ..Actions::default() }
    }
}
