//! Runs workloads under policies, and gathers what came out.

use anyhow::{Context, Result, bail};

use crate::{
    peers::{self, Clairvoyant},
    platform::Platform,
    sim::{Bounds, Outcome, Sim, USUAL, bounds},
    work::{self, Workload},
};

/// A session is left open for so long after its last job.
const OPEN: f64 = 600.0;
/// Sizes of the clairvoyant reference fleet.
const REFERENCE: [u32; 18] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100];
const REFERENCE_SEEDS: u64 = 3;

/// What a policy did in a session, or on average in several of one workload.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) session: String,
    pub(crate) platform: &'static str,
    pub(crate) latency: f64,
    pub(crate) cost: f64,
    pub(crate) cost_open: f64,
    pub(crate) launches: f64,
    pub(crate) churn: f64,
    pub(crate) useless: f64,
    pub(crate) peak: f64,
    pub(crate) bound: Bounds,
    /// Promises that were broken: tasks killed, retirements refused, bounds exceeded, sessions that hang.
    pub(crate) broken: u32,
}

impl Cell {
    pub(crate) fn cost_times_time(&self) -> f64 {
        self.cost * self.latency
    }
}

/// The best clairvoyant fleet for a workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    pub(crate) workers: u32,
    pub(crate) cost_times_time: f64,
}

/// The named workload, or `rand`.
pub(crate) fn workload(name: &str, seed: u64) -> Result<Workload> {
    match name {
        "rand" => Ok(work::random(seed)),
        _ => work::named(name, seed).with_context(|| format!("no workload `{name}`")),
    }
}

pub(crate) fn platform(name: &str) -> Result<Platform> {
    Platform::by_name(name).with_context(|| format!("no platform `{name}`: one of {:?}", crate::platform::NAMES))
}

/// One session.
pub(crate) fn run(name: &str, platform: &Platform, policy: &str, seed: u64, traced: bool) -> Result<(Outcome, Bounds)> {
    let work = workload(name, seed)?;
    let bound = bounds(&work, platform, USUAL, seed);
    let Some(mut tested) = peers::policy(policy, platform, USUAL) else { bail!("no policy `{policy}`: one of {:?}", peers::NAMES) };
    let sim = Sim::new(work, platform.clone(), USUAL, seed);
    let sim = if traced { sim.traced() } else { sim };
    Ok((sim.run(&mut *tested, OPEN), bound))
}

/// The mean over sessions of one workload.
pub(crate) fn cell(name: &str, platform: &Platform, policy: &str, seeds: std::ops::Range<u64>) -> Result<Cell> {
    let count = (seeds.end - seeds.start) as f64;
    let mut cell = Cell {
        session: if name == "rand" { seeds.start.to_string() } else { name.to_owned() },
        platform: platform.name,
        latency: 0.0,
        cost: 0.0,
        cost_open: 0.0,
        launches: 0.0,
        churn: 0.0,
        useless: 0.0,
        peak: 0.0,
        bound: Bounds { latency: 0.0, cost: 0.0 },
        broken: 0,
    };
    for seed in seeds {
        let (outcome, bound) = run(name, platform, policy, seed, false)?;
        cell.latency += outcome.latency / count;
        cell.cost += outcome.cost / count;
        cell.cost_open += outcome.cost_open / count;
        cell.launches += f64::from(outcome.launches) / count;
        cell.churn += f64::from(outcome.churn) / count;
        cell.useless += f64::from(outcome.useless) / count;
        cell.peak += f64::from(outcome.peak) / count;
        cell.bound.latency += bound.latency / count;
        cell.bound.cost += bound.cost / count;
        cell.broken += outcome.killed + outcome.refused + outcome.violations + u32::from(!outcome.finished);
    }
    Ok(cell)
}

/// The clairvoyant fleet that is best for cost times time.
pub(crate) fn reference(name: &str, platform: &Platform) -> Result<Reference> {
    let mut best = Reference { workers: 0, cost_times_time: f64::INFINITY };
    for workers in REFERENCE {
        let (mut latency, mut cost) = (0.0, 0.0);
        for seed in 1..=REFERENCE_SEEDS {
            let outcome = Sim::new(workload(name, seed)?, platform.clone(), USUAL, seed).run(&mut Clairvoyant(workers), 0.0);
            latency += outcome.latency / REFERENCE_SEEDS as f64;
            cost += outcome.cost / REFERENCE_SEEDS as f64;
        }
        if latency * cost < best.cost_times_time {
            best = Reference { workers, cost_times_time: latency * cost };
        }
    }
    Ok(best)
}

/// The geometric mean.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value.ln(), count + 1.0));
    (sum / count).exp()
}
