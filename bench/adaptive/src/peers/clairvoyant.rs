//! The reference: knows durations and arrivals, has at most n workers.

use crate::{
    sim::{Actions, Policy, Sim},
    work::Arrival,
};

/// Launches ahead of arrivals and stages, keeps an idle worker only where that is cheaper than another. Achievable, no bound.
#[derive(Debug)]
pub(crate) struct Clairvoyant(pub(crate) u32);

/// When the next job comes, as far as it is decided.
fn next_arrival(sim: &Sim) -> Option<f64> {
    let job = sim.jobs.iter().position(|job| job.arrived.is_none())?;
    let next = (job..sim.jobs.len()).filter(|&job| sim.jobs[job].arrived.is_none());
    next.map(|job| arrival(sim, job)).find(Option::is_some).flatten()
}

fn arrival(sim: &Sim, job: usize) -> Option<f64> {
    match sim.work.jobs[job].arrival {
        Arrival::At(at) => Some(at),
        Arrival::After(pause) => {
            let before = job.checked_sub(1)?;
            let state = sim.jobs[before];
            state.done.or_else(|| state.arrived.map(|_| sim.now + left(sim, before))).map(|done| done + pause)
        }
    }
}

/// How long a job that runs still takes.
fn left(sim: &Sim, job: usize) -> f64 {
    let groups = sim.work.jobs[job].groups.iter();
    let work: f64 = groups
        .map(|&id| {
            let def = sim.group_def(id);
            f64::from(def.count - sim.groups[id as usize].done) * sim.work.tasks[def.first as usize].seconds
        })
        .sum();
    work / (sim.live.len().max(1) as f64 * f64::from(sim.setup.threads))
}

impl Clairvoyant {
    /// Workers that can be used: later stages count when they are about to begin.
    fn wanted(&self, sim: &Sim) -> u32 {
        let (mut work, mut longest, mut later) = (0.0, 0.0f64, 0);
        for (id, group) in sim.active_groups() {
            later = later.max(group.waiting);
            work += f64::from(group.ready) * sim.work.tasks[sim.group_def(id).first as usize].seconds;
        }
        for &(task, since) in sim.live.iter().flat_map(|id| &sim.worker(*id).running) {
            let left = since + sim.work.tasks[task as usize].seconds - sim.now;
            work += left;
            longest = longest.max(left);
        }
        let mut width = sim.tasks();
        let opens = (work / (sim.live.len().max(1) as f64 * f64::from(sim.setup.threads))).max(longest);
        if !sim.live.is_empty() && opens <= sim.platform.longest_startup().max(sim.platform.mean_billed_startup()) + 0.5 {
            width = width.max(later);
        }
        width.div_ceil(sim.setup.threads).min(self.0).min(sim.setup.maximum)
    }
}

impl Policy for Clairvoyant {
    fn interval(&self) -> f64 {
        0.5
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let fleet = sim.fleet() as u32;
        let soon = next_arrival(sim).map_or(f64::INFINITY, |at| at - sim.now);
        let want = if soon <= sim.platform.longest_startup() + 0.5 { self.0.min(sim.setup.maximum) } else { self.wanted(sim) };
        let mut actions = Actions { launch: want.saturating_sub(fleet), ..Actions::default() };
        if want < fleet && soon > sim.platform.mean_billed_startup() {
            let mut idle: Vec<u32> = sim.live.iter().copied().filter(|&id| sim.worker(id).running.is_empty()).collect();
            idle.sort_by(|&a, &b| sim.worker(a).bytes.total_cmp(&sim.worker(b).bytes));
            let paid = |id: &u32| sim.now - sim.worker(*id).billed >= sim.platform.minimum_charge - 1.0;
            actions.retire = idle.into_iter().filter(paid).take((fleet - want) as usize).collect();
        }
        actions
    }
}
