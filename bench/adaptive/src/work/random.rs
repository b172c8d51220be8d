//! Sessions nobody designed the policy for.

use super::{Arrival, MB, Workload};
use crate::random::Random;

/// A random session: one to twelve jobs of one to four stages, 1 to 1500 tasks wide, of 0.05 to 60 s, half of the kinds known, think
/// times of 2 to 600 s; three in ten do not wait for the job before.
pub(crate) fn random(seed: u64) -> Workload {
    let random = &mut Random::new(seed.wrapping_mul(7919) ^ 0xAB_CDEF);
    let mut work = Workload::default();
    let kinds: Vec<(f64, f64, u32)> = (0..1 + random.below(4))
        .map(|_| {
            let seconds = random.log_uniform(0.05, 60.0);
            let known = random.unit() < 0.5;
            let sigma = if random.unit() < 0.3 { 1.2 } else { 0.2 };
            (seconds, sigma, work.prefix(known.then_some(seconds)))
        })
        .collect();
    let jobs = 1 + random.below(12);
    let open = random.unit() < 0.3;
    let think = random.log_uniform(2.0, 600.0);
    let (mut at, mut budget) = (0.0, 40_000.0f64);
    for job in 0..jobs {
        let arrival = match (job, open) {
            (0, _) => Arrival::At(0.0),
            (_, true) => {
                at += random.exponential(think);
                Arrival::At(at)
            }
            (_, false) => Arrival::After(think * random.range((0.5, 1.5))),
        };
        let job = work.job(arrival);
        let mut before: Option<u32> = None;
        for _ in 0..1 + random.below(4) {
            let (seconds, sigma, prefix) = kinds[random.below(kinds.len())];
            let most = (budget / seconds / 2.0).max(1.0) as usize;
            let count = (random.log_uniform(1.0, 1500.0) as usize).max(1).min(most);
            budget = (budget - count as f64 * seconds).max(100.0);
            let median = seconds * (-sigma * sigma / 2.0).exp();
            let durations: Vec<f64> = (0..count).map(|_| random.log_normal(median, sigma).clamp(0.01, 600.0)).collect();
            let bytes = random.log_uniform(0.01, 30.0) * MB;
            before = Some(work.group(job, prefix, &durations, before.as_slice(), bytes));
        }
    }
    work
}
