//! Workloads with a name: each has an idea.

use super::{Arrival, MB, Workload, about};
use crate::random::Random;

pub(crate) const NAMES: [&str; 17] = [
    "wide1k",
    "tiny10k",
    "bursty30",
    "bursty90",
    "bursty300",
    "longtail",
    "mapreduce",
    "trickle",
    "unknown30",
    "tree",
    "steady",
    "straggler",
    "pipeline",
    "fewlong",
    "big25k",
    "ramp",
    "serialmap",
];

/// The workload of that name; the seed varies durations and think times.
pub(crate) fn named(name: &str, seed: u64) -> Option<Workload> {
    let random = &mut Random::new(seed.wrapping_mul(7919) ^ 0xAB_CDEF);
    let mut work = Workload::default();
    match name {
        "wide1k" => map(&mut work, Some(1.0), about(random, 1000, 1.0, 0.1), MB),
        "tiny10k" => map(&mut work, None, about(random, 10_000, 0.1, 0.2), 0.1 * MB),
        "unknown30" => map(&mut work, None, about(random, 200, 30.0, 0.2), MB),
        "fewlong" => map(&mut work, None, about(random, 3, 300.0, 0.1), MB),
        "big25k" => map(&mut work, None, about(random, 5000, 5.0, 0.3), MB),
        "longtail" => map(&mut work, None, (0..500).map(|_| random.log_normal(1.0, 1.5).min(120.0)).collect(), MB),
        "bursty30" => bursts(&mut work, random, 30.0),
        "bursty90" => bursts(&mut work, random, 90.0),
        "bursty300" => bursts(&mut work, random, 300.0),
        "mapreduce" => map_reduce(&mut work, random),
        "serialmap" => serial_map(&mut work, random),
        "tree" => tree(&mut work, random),
        "straggler" => straggler(&mut work, random),
        "pipeline" => pipeline(&mut work, random),
        "trickle" => trickle(&mut work, random),
        "steady" => steady(&mut work, random),
        "ramp" => ramp(&mut work, random),
        "persist" => persist(&mut work, random),
        "const" => constant(&mut work),
        _ => return None,
    }
    Some(work)
}

/// One wide map.
fn map(work: &mut Workload, known: Option<f64>, seconds: Vec<f64>, bytes: f64) {
    let prefix = work.prefix(known);
    let job = work.job(Arrival::At(0.0));
    work.group(job, prefix, &seconds, &[], bytes);
}

/// Fifteen times 150 tasks of a second, with a pause between.
fn bursts(work: &mut Workload, random: &mut Random, pause: f64) {
    let prefix = work.prefix(Some(1.0));
    for burst in 0..15 {
        let arrival = if burst == 0 { Arrival::At(0.0) } else { Arrival::After(pause * random.range((0.7, 1.3))) };
        let job = work.job(arrival);
        work.group(job, prefix, &about(random, 150, 1.0, 0.2), &[], MB);
    }
}

fn map_reduce(work: &mut Workload, random: &mut Random) {
    let (map, reduce) = (work.prefix(None), work.prefix(None));
    let job = work.job(Arrival::At(0.0));
    let mut before = vec![];
    for (prefix, count, seconds, bytes) in [(map, 400, 2.0, 20.0), (reduce, 20, 4.0, 20.0), (map, 400, 2.0, 20.0), (reduce, 1, 10.0, 1.0)] {
        before = vec![work.group(job, prefix, &about(random, count, seconds, 0.3), &before, bytes * MB)];
    }
}

/// A long serial step, a wide map, a serial merge, a wide map; durations known from an earlier run.
fn serial_map(work: &mut Workload, random: &mut Random) {
    let (serial, map) = (work.prefix(Some(90.0)), work.prefix(Some(2.0)));
    let job = work.job(Arrival::At(0.0));
    let mut before = vec![];
    for _ in 0..2 {
        before = vec![work.group(job, serial, &about(random, 1, 90.0, 0.1), &before, 20.0 * MB)];
        before = vec![work.group(job, map, &about(random, 400, 2.0, 0.3), &before, 5.0 * MB)];
    }
}

/// A binary reduction of 1024 leaves.
fn tree(work: &mut Workload, random: &mut Random) {
    let (leaf, inner) = (work.prefix(None), work.prefix(None));
    let job = work.job(Arrival::At(0.0));
    let mut before = work.group(job, leaf, &about(random, 1024, 1.0, 0.2), &[], 5.0 * MB);
    let mut count = 512u32;
    while count >= 1 {
        let group = work.group(job, inner, &about(random, count as usize, 0.3, 0.2), &[], 5.0 * MB);
        work.groups[group as usize].dependencies = vec![before];
        let (below, here) = (work.groups[before as usize].first, work.groups[group as usize].first);
        for task in 0..count {
            for child in [below + 2 * task, below + 2 * task + 1] {
                work.tasks[child as usize].feeds.push(here + task);
            }
            work.tasks[(here + task) as usize].needs = 2;
        }
        before = group;
        count /= 2;
    }
}

/// Many short tasks and one of three minutes.
fn straggler(work: &mut Workload, random: &mut Random) {
    let (short, long) = (work.prefix(Some(1.0)), work.prefix(None));
    let job = work.job(Arrival::At(0.0));
    work.group(job, short, &about(random, 300, 1.0, 0.2), &[], 20.0 * MB);
    work.group(job, long, &[180.0], &[], MB);
}

/// Somebody tries small graphs, then runs a big one, five times.
fn pipeline(work: &mut Workload, random: &mut Random) {
    let (small, big) = (work.prefix(Some(0.3)), work.prefix(None));
    for cycle in 0..5 {
        for step in 0..8 {
            let arrival = match (cycle, step) {
                (0, 0) => Arrival::At(0.0),
                (_, 0) => Arrival::After(20.0 * random.range((0.7, 1.3))),
                _ => Arrival::After(1.5 * random.range((0.5, 1.5))),
            };
            let job = work.job(arrival);
            work.group(job, small, &about(random, 5, 0.3, 0.3), &[], MB);
        }
        let job = work.job(Arrival::After(2.0));
        work.group(job, big, &about(random, 200, 3.0, 0.3), &[], MB);
    }
}

/// A task of two seconds every five.
fn trickle(work: &mut Workload, random: &mut Random) {
    let prefix = work.prefix(Some(2.0));
    let mut at = 0.0;
    for _ in 0..120 {
        let job = work.job(Arrival::At(at));
        work.group(job, prefix, &[2.0 * random.range((0.8, 1.2))], &[], MB);
        at += random.exponential(5.0);
    }
}

/// Tasks come at random, ten workers' worth, for ten minutes.
fn steady(work: &mut Workload, random: &mut Random) {
    let prefix = work.prefix(Some(2.0));
    let mut at = 0.0;
    while at < 600.0 {
        let job = work.job(Arrival::At(at));
        work.group(job, prefix, &[random.log_normal(1.765, 0.5).min(20.0)], &[], 0.1 * MB);
        at += random.exponential(0.2);
    }
}

/// The same, but their rate rises from nothing to twenty workers' worth and falls again.
fn ramp(work: &mut Workload, random: &mut Random) {
    let prefix = work.prefix(Some(2.0));
    let mut at: f64 = 0.0;
    while at < 900.0 {
        let height = (1.0 - ((at - 450.0) / 450.0).abs()).max(0.02);
        at += random.exponential(1.0 / (10.0 * height));
        let job = work.job(Arrival::At(at));
        work.group(job, prefix, &[random.log_normal(1.765, 0.5).min(20.0)], &[], 0.1 * MB);
    }
}

/// 80 GB kept in memory, then used again after a pause.
fn persist(work: &mut Workload, random: &mut Random) {
    let (make, read) = (work.prefix(None), work.prefix(None));
    let job = work.job(Arrival::At(0.0));
    let group = work.group(job, make, &about(random, 200, 2.0, 0.2), &[], 400.0 * MB);
    work.groups[group as usize].persist = true;
    let job = work.job(Arrival::After(60.0));
    work.group(job, read, &about(random, 200, 2.0, 0.2), &[], MB);
}

/// One task of two seconds every fifth of a second, for an hour.
fn constant(work: &mut Workload) {
    let prefix = work.prefix(Some(2.0));
    for at in 0..18_000 {
        let job = work.job(Arrival::At(f64::from(at) * 0.2));
        work.group(job, prefix, &[2.0], &[], 0.1 * MB);
    }
}
