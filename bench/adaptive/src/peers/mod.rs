//! The policies of other tools, written from reading their sources. Only Dask's was validated against the real thing.

mod clairvoyant;
mod counting;
mod dask;
mod queues;

use remuda_core::{adaptive::AdaptConfig, duration::Seconds};

use crate::{
    ours::Ours,
    platform::Platform,
    sim::{Actions, Policy, Setup, Sim},
};

pub(crate) use self::clairvoyant::Clairvoyant;

/// The peers, Dask's own defaults first. `ours` is ours.
pub(crate) const NAMES: [&str; 11] = ["dask", "dask-op", "dask2018", "hq", "hq-tuned", "spark", "ray", "keda", "parsl", "fixed100", "ours"];

/// The policy of that name: one of [`NAMES`], `dask-td<seconds>`, `fixed<workers>`, `ours-w<weight>` or
/// `ours-w<weight>-td<seconds>`.
pub(crate) fn policy(name: &str, platform: &Platform, setup: Setup) -> Option<Box<dyn Policy>> {
    if let Some(config) = name.strip_prefix("ours").and_then(config) {
        return Some(Box::new(Ours::new(config, platform, setup)));
    }
    if let Some(target) = name.strip_prefix("dask-td") {
        return Some(Box::new(dask::Dask::new(target.parse().ok()?, platform.dask_blocks)));
    }
    if let Some(workers) = name.strip_prefix("fixed") {
        return Some(Box::new(Fixed(workers.parse().ok()?)));
    }
    Some(match name {
        "dask" => Box::new(dask::Dask::new(5.0, platform.dask_blocks)),
        "dask-op" => Box::new(dask::Operator::default()),
        "dask2018" => Box::new(dask::Legacy::default()),
        "hq" => Box::new(queues::HyperQueue::new(1, 300.0)),
        "hq-tuned" => Box::new(queues::HyperQueue::new(setup.maximum, 300.0)),
        "parsl" => Box::new(queues::Parsl::new(120.0)),
        "spark" => Box::new(counting::Spark::new(60.0)),
        "ray" => Box::new(counting::Ray { idle: 300.0, speed: 1.0 }),
        "keda" => Box::new(counting::Keda::new(5.0)),
        _ => return None,
    })
}

/// `-w<weight>` and `-td<seconds>`.
fn config(options: &str) -> Option<AdaptConfig> {
    let mut config = AdaptConfig::default();
    for option in options.split('-').skip(1) {
        if let Some(target) = option.strip_prefix("td") {
            config.target_duration = Seconds::parse(target).ok()?;
        } else {
            config.time_weight = option.strip_prefix('w')?.parse().ok()?;
        }
    }
    Some(config)
}

/// Workers launched at the beginning and kept.
#[derive(Debug)]
struct Fixed(u32);

impl Policy for Fixed {
    fn head_start(&self) -> u32 {
        self.0
    }

    fn decide(&mut self, _: &Sim) -> Actions {
        Actions::default()
    }
}

/// Workers that have idled for so long; at least `keep` stay.
fn idle_for(sim: &Sim, seconds: f64, keep: usize) -> Vec<u32> {
    let idle = |id: &u32| {
        let worker = sim.worker(*id);
        worker.running.is_empty() && sim.now - worker.idle_since >= seconds
    };
    sim.live.iter().copied().filter(idle).take(sim.live.len().saturating_sub(keep)).collect()
}

/// Requests, the newest first.
fn newest_pending(sim: &Sim) -> Vec<u32> {
    let mut pending = sim.pending.clone();
    pending.sort_by(|a, b| b.cmp(a));
    pending
}
