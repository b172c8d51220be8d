//! Our policy: the one in `remuda-core`, told of the simulated cluster what a scheduler and a platform could tell.

use std::time::Duration;

use remuda_core::adaptive::{AdaptConfig, Adaptive, Fleet, Group, Load, Phase as Live, Prefix, State, Worker};

use crate::{
    platform::Platform,
    sim::{Actions, Phase, Policy, Setup, Sim},
};

#[derive(Debug)]
pub(crate) struct Ours {
    adaptive: Adaptive,
    interval: f64,
    state: Option<State>,
    /// Jobs that were told already.
    told: usize,
}

impl Ours {
    pub(crate) fn new(config: AdaptConfig, platform: &Platform, setup: Setup) -> Self {
        let config = AdaptConfig { minimum: Some(setup.minimum), maximum: Some(setup.maximum), ..config };
        let interval = config.interval.0.as_secs_f64();
        Self { adaptive: Adaptive::new(config, platform.hints()), interval, state: Some(State::default()), told: 0 }
    }
}

impl Policy for Ours {
    fn interval(&self) -> f64 {
        self.interval
    }

    fn decide(&mut self, sim: &Sim) -> Actions {
        let (load, fleet) = (load(sim, self.told), fleet(sim));
        self.told = sim.arrived.len();
        let state = self.state.take().unwrap_or_default();
        let (state, decision) = self.adaptive.decide(state, secs(sim.now), &load, &fleet);
        self.state = Some(state);
        let ids = |ids: Vec<u64>| ids.into_iter().map(|id| id as u32).collect();
        Actions { launch: decision.launch, retire: ids(decision.victims), cancel: ids(decision.cancelled) }
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The groups of unfinished jobs, and of those that came (and may have gone) since the last decision.
fn load(sim: &Sim, told: usize) -> Load {
    let prefix = |prefix: &crate::sim::Prefix| Prefix {
        completions: prefix.completions,
        total: secs(prefix.total),
        longest: secs(prefix.longest),
        running: vec![],
        arrived: prefix.arrived,
    };
    let mut prefixes: Vec<Prefix> = sim.prefixes.iter().map(prefix).collect();
    for (task, since) in sim.live.iter().flat_map(|id| &sim.worker(*id).running) {
        prefixes[sim.prefix_of(*task)].running.push(secs((sim.now - since).max(0.0)));
    }
    let gone = sim.arrived[told..].iter().filter(|job| sim.jobs[**job as usize].done.is_some());
    let jobs = gone.chain(&sim.active);
    let groups = jobs.flat_map(|job| &sim.work.jobs[*job as usize].groups).map(|&id| {
        let (def, group) = (sim.group_def(id), &sim.groups[id as usize]);
        Group {
            id: u64::from(id),
            prefix: def.prefix as usize,
            waiting: u64::from(group.waiting),
            ready: u64::from(group.ready),
            processing: u64::from(group.running),
            done: u64::from(group.done),
            dependencies: def.dependencies.iter().map(|id| u64::from(*id)).collect(),
        }
    });
    Load { groups: groups.collect(), prefixes }
}

fn fleet(sim: &Sim) -> Fleet {
    let worker = |&id: &u32| {
        let worker = sim.worker(id);
        Worker {
            id: u64::from(id),
            phase: match worker.phase {
                Phase::Live => Live::Live(secs(worker.ready)),
                Phase::Pending => Live::Starting,
                Phase::Draining | Phase::Gone => Live::Draining,
            },
            launched: Some(secs(worker.launched)),
            billed: (worker.billed <= sim.now).then(|| secs(worker.billed)),
            slots: sim.setup.threads,
            processing: worker.running.len() as u32,
            bytes: worker.bytes as u64,
            memory_limit: sim.memory_limit as u64,
            pinned: false,
        }
    };
    let workers = sim.live.iter().chain(&sim.pending).chain(&sim.draining).map(worker).collect();
    Fleet { workers, slots: sim.setup.threads, memory_limit: sim.memory_limit as u64, ..Fleet::default() }
}
