//! What no policy can beat. Time and cost cannot both be reached.

use super::{Setup, Sim};
use crate::{
    platform::Platform,
    work::{Arrival, Workload},
};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) latency: f64,
    pub(crate) cost: f64,
}

/// Time: per job, the larger of the critical path and what `maximum` workers could do, all asked for at the beginning and ready at
/// their sampled times. Cost: the work on fully used threads, and one start.
pub(crate) fn bounds(work: &Workload, platform: &Platform, setup: Setup, seed: u64) -> Bounds {
    let mut sim = Sim::new(work.clone(), platform.clone(), setup, seed);
    (0..setup.maximum).for_each(|_| sim.launch());
    let mut ready: Vec<f64> = sim.workers.iter().map(|worker| worker.ready).collect();
    ready.sort_by(f64::total_cmp);
    let threads = f64::from(setup.threads);
    let (mut latency, mut before) = (0.0, 0.0f64);
    for (at, job) in work.jobs.iter().enumerate() {
        let arrives = match job.arrival {
            Arrival::At(at) => at,
            Arrival::After(pause) => before + pause,
        };
        let (seconds, path) = work.path(at);
        // The earliest end at which the workers could have done that much.
        let (mut low, mut high) = (arrives, arrives + platform.longest_startup() + 100.0 + seconds);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let done = ready.iter().map(|from| (middle - from.max(arrives)).max(0.0)).sum::<f64>() * threads;
            if done >= seconds { high = middle } else { low = middle }
        }
        before = high.max(ready[0].max(arrives) + path);
        latency += before - arrives;
    }
    let cost = (work.work() / threads + platform.mean_billed_startup()).max(platform.minimum_charge);
    Bounds { latency: latency / work.jobs.len() as f64, cost }
}
