//! A small simulated cluster: steps of a tenth of a second, one decision per second, does what it is told.

use std::{collections::VecDeque, time::Duration};

use remuda_core::adaptive::{
    AdaptConfig, Adaptive, Backend, Begin, Decided, Decision, Entry, Fleet, Group, Load, Phase, Prefix, State, Usage, Worker,
};

use crate::input::secs;

const STEP: Duration = Duration::from_millis(100);
const STEPS: u32 = 10;

struct Graph {
    at: Duration,
    each: Duration,
    left: u64,
    group: Group,
}

struct Beast {
    worker: Worker,
    ready_at: Option<Duration>,
    ends_at: Option<Duration>,
    /// (graph, began) of each running task.
    tasks: Vec<(usize, Duration)>,
}

/// The cluster.
pub(crate) struct Herd {
    adaptive: Adaptive,
    begin: (AdaptConfig, Backend),
    state: Option<State>,
    /// The simulation's time, and what the policy's clock shows beyond it, in seconds.
    now: Duration,
    shift: i64,
    startup: Duration,
    slots: u32,
    lost: f64,
    random: u64,
    /// In order of arrival; so many of them have.
    graphs: Vec<Graph>,
    arrived: usize,
    queue: VecDeque<usize>,
    beasts: Vec<Beast>,
    prefix: Prefix,
    next: u64,
    killed: u32,
}

/// What a run looked like.
pub(crate) struct Plot {
    pub(crate) desired: Vec<u32>,
    pub(crate) killed: u32,
}

impl Herd {
    pub(crate) fn new(config: AdaptConfig, backend: Backend, slots: u32, seed: u64, lost: f64) -> Self {
        Self {
            startup: backend.startup,
            adaptive: Adaptive::new(config.clone(), backend.clone()),
            begin: (config, backend),
            state: Some(State::default()),
            now: secs(0),
            shift: 10_000,
            slots,
            lost,
            random: seed | 1,
            graphs: vec![],
            arrived: 0,
            queue: VecDeque::new(),
            beasts: vec![],
            prefix: Prefix::default(),
            next: 0,
            killed: 0,
        }
    }

    pub(crate) fn submit(&mut self, at: Duration, tasks: u64, each: Duration) {
        let group = Group { id: self.graphs.len() as u64, ..Group::default() };
        let place = self.graphs.partition_point(|graph| graph.at <= at);
        self.graphs.insert(place, Graph { at, each, left: tasks, group });
    }

    pub(crate) fn starts_in(&mut self, startup: Duration) {
        self.startup = startup;
    }

    pub(crate) fn startup(&self) -> f64 {
        self.startup.as_secs_f64()
    }

    pub(crate) fn learned(&self) -> Option<(Duration, Duration)> {
        self.state.as_ref().and_then(State::startup)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.state.as_ref().map(State::usage).unwrap_or_default()
    }

    pub(crate) fn jump(&mut self, forth: bool) {
        self.shift += if forth { 3600 } else { -3600 };
    }

    pub(crate) fn done(&self) -> bool {
        self.graphs.iter().all(|graph| graph.left == 0 && graph.group.unfinished() == 0)
    }

    pub(crate) fn plot(&mut self, ticks: usize) -> Plot {
        let desired = (0..ticks).map(|_| self.tick().1.desired).collect();
        Plot { desired, killed: self.killed }
    }

    /// So many decisions, as the lines of a log that begins now.
    pub(crate) fn log(&mut self, ticks: usize) -> Vec<String> {
        let (config, backend) = self.begin.clone();
        let begin = Begin::new(config, backend, self.state.clone().unwrap_or_default());
        let mut log = vec![Entry::Begin(Box::new(begin))];
        log.extend((0..ticks).map(|_| Entry::Decided(self.decide())));
        log.iter().map(|entry| entry.to_line().expect("an entry that is no JSON")).collect()
    }

    /// A second, then a decision, carried out: what was asked and answered.
    pub(crate) fn tick(&mut self) -> (Fleet, Decision) {
        let Decided { fleet, decision, .. } = self.decide();
        (fleet, decision)
    }

    fn decide(&mut self) -> Decided {
        (0..STEPS).for_each(|_| self.step());
        let (now, load, fleet) = (self.shown(self.now), self.load(), self.fleet());
        let state = self.state.take().unwrap_or_default();
        let (state, decision) = self.adaptive.decide(state, now, &load, &fleet);
        self.state = Some(state);
        self.obey(&decision);
        Decided { number: 0, now, load, fleet, decision }
    }

    /// A moment as the policy's clock shows it.
    fn shown(&self, at: Duration) -> Duration {
        secs(at.as_secs().saturating_add_signed(self.shift)) + Duration::from_nanos(u64::from(at.subsec_nanos()))
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        while let Some(graph) = self.graphs.get_mut(self.arrived).filter(|graph| graph.at <= now) {
            self.queue.extend(std::iter::repeat_n(self.arrived, graph.left as usize));
            graph.group.ready = std::mem::take(&mut graph.left);
            self.prefix.arrived += graph.group.ready;
            self.arrived += 1;
        }
        for beast in &mut self.beasts {
            if beast.ready_at.is_some_and(|at| at <= now) && beast.worker.phase == Phase::Starting {
                beast.worker.phase = Phase::Live(now);
            }
            beast.tasks.retain(|&(at, began)| {
                let graph = &mut self.graphs[at];
                let over = now >= began + graph.each;
                if over {
                    graph.group.processing -= 1;
                    graph.group.done += 1;
                    self.prefix.completions += 1;
                    self.prefix.total += graph.each;
                    self.prefix.longest = self.prefix.longest.max(graph.each);
                }
                !over
            });
        }
        self.beasts.retain(|beast| beast.ends_at.is_none_or(|at| at > now));
        for beast in self.beasts.iter_mut().filter(|beast| matches!(beast.worker.phase, Phase::Live(_))) {
            while beast.tasks.len() < self.slots as usize
                && let Some(at) = self.queue.pop_front()
            {
                self.graphs[at].group.ready -= 1;
                self.graphs[at].group.processing += 1;
                beast.tasks.push((at, now));
            }
            beast.worker.processing = beast.tasks.len() as u32;
        }
    }

    fn load(&self) -> Load {
        let running = self.beasts.iter().flat_map(|beast| &beast.tasks).map(|(_, began)| self.now - *began).collect();
        let recent = |graph: &&Graph| graph.group.unfinished() > 0 || graph.at + secs(30) > self.now;
        let groups = self.graphs[..self.arrived].iter().filter(recent).map(|graph| graph.group.clone()).collect();
        Load { prefixes: vec![Prefix { running, ..self.prefix.clone() }], groups }
    }

    fn fleet(&self) -> Fleet {
        let shown = |worker: &Worker| Worker {
            launched: worker.launched.map(|at| self.shown(at)),
            billed: worker.billed.map(|at| self.shown(at)),
            phase: if let Phase::Live(since) = worker.phase { Phase::Live(self.shown(since)) } else { worker.phase },
            ..worker.clone()
        };
        Fleet { workers: self.beasts.iter().map(|beast| shown(&beast.worker)).collect(), slots: self.slots, ..Fleet::default() }
    }

    fn obey(&mut self, decision: &Decision) {
        self.beasts.retain(|beast| !decision.cancelled.contains(&beast.worker.id));
        for beast in self.beasts.iter_mut().filter(|beast| decision.victims.contains(&beast.worker.id)) {
            self.killed += beast.tasks.len() as u32;
            beast.worker.phase = Phase::Draining;
            beast.ends_at = Some(self.now + 3 * STEP);
        }
        for _ in 0..decision.launch {
            let arrives = self.chance() >= self.lost;
            let worker = Worker {
                id: self.next,
                phase: Phase::Starting,
                launched: Some(self.now),
                billed: Some(self.now),
                slots: self.slots,
                processing: 0,
                bytes: 0,
                memory_limit: 0,
                pinned: false,
            };
            self.next += 1;
            self.beasts.push(Beast { worker, ready_at: arrives.then_some(self.now + self.startup), ends_at: None, tasks: vec![] });
        }
    }

    /// Xorshift: a number in 0..1.
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}
