//! The fleet and the load, counted for one decision.

use super::{
    Adaptive, State,
    durations::Estimate,
    fleet::{Fleet, Phase, Worker},
    load::Load,
    project::{Arrival, Plan, Slots, Stage, project},
};

/// Everything one decision looks at.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) adaptive: &'a Adaptive,
    pub(super) load: &'a Load,
    pub(super) fleet: &'a Fleet,
    pub(super) durations: Vec<Estimate>,
    pub(super) stages: Vec<Stage>,
    /// Seconds since the first decision.
    pub(super) now: f64,
    /// Start-up time and its billed part.
    pub(super) startup: f64,
    pub(super) billed: f64,
    /// Slots of a worker to come.
    pub(super) slots: f64,
    pub(super) live: u32,
    pub(super) live_slots: f64,
    /// Requests under way, youngest first.
    pub(super) starting: Vec<Request>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) ready: u64,
    /// Not those that end with a worker on its way out, ...
    pub(super) processing: u64,
    /// ... of which there are so many of each kind.
    pub(super) leaving: Vec<u64>,
    /// Bytes stored, on draining workers too.
    pub(super) stored: f64,
    /// Seconds of work that arrive per second; 0: no stream.
    pub(super) rate: f64,
    /// Workers that keep up with the stream; 0: no stream.
    pub(super) streaming: u32,
    /// The same for what may become one: for it they stay, if they are there.
    pub(super) likely: (f64, u32),
    /// How long a worker may idle: as learned, and at least `wait_count` decisions.
    pub(super) timer: f64,
    pub(super) keep: f64,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) age: f64,
    pub(super) billed: bool,
    slots: f64,
}

impl<'a> View<'a> {
    pub(super) fn new(adaptive: &'a Adaptive, state: &State, load: &'a Load, fleet: &'a Fleet, durations: Vec<Estimate>) -> Self {
        let (startup, billed) = state.starts.learned.unwrap_or(adaptive.prior());
        let now = state.clock.now;
        let live = || fleet.workers.iter().filter(|worker| matches!(worker.phase, Phase::Live(_)));
        let leaving = super::stages::leaving(load, fleet);
        let processing = load.processing().saturating_sub(leaving.iter().sum());
        let mut view = View {
            adaptive,
            load,
            fleet,
            stages: super::stages::stages(load, &durations, &leaving),
            durations,
            now,
            startup,
            billed,
            slots: f64::from(fleet.slots.max(1)),
            live: live().count() as u32,
            live_slots: live().map(slots_of).sum(),
            starting: requests(state, fleet, now),
            arrivals: vec![],
            ready: load.ready(),
            processing,
            leaving,
            stored: fleet.workers.iter().map(|worker| worker.bytes as f64).sum(),
            rate: 0.0,
            streaming: 0,
            likely: (0.0, 0),
            timer: 0.0,
            keep: 0.0,
        };
        // What is left of a start-up: the mean less the age, and at least a tenth.
        let left = |request: &Request| Arrival { after: (startup - request.age).max(0.1 * startup), slots: request.slots };
        view.arrivals = view.starting.iter().map(left).collect();
        view.arrivals.sort_by(|a, b| a.after.total_cmp(&b.after));
        view
    }

    /// Workers that are there or on their way.
    pub(super) fn current(&self) -> u32 {
        self.live.saturating_add(self.starting.len() as u32)
    }

    /// Tasks that run or could.
    pub(super) fn tasks(&self) -> u64 {
        self.ready.saturating_add(self.processing)
    }

    /// All that is not over.
    pub(super) fn unfinished(&self) -> u64 {
        self.load.groups.iter().fold(0, |sum, group| sum.saturating_add(group.unfinished()))
    }

    /// Workers for so many tasks side by side.
    pub(super) fn workers_for(&self, tasks: f64) -> u32 {
        (tasks / self.slots).ceil() as u32
    }

    /// A stream without a backlog: what runs now is its flow, which never ends and calls for nobody.
    pub(super) fn keeps_up(&self) -> bool {
        let slots = f64::from(self.current()) * self.slots;
        self.rate > 0.0 && self.current() >= self.streaming && (self.ready as f64) < 0.1 * slots
    }

    pub(super) fn project(&self, arrivals: &[Arrival], inflow: f64) -> Plan {
        project(Slots { live: self.live_slots, arrivals, hold: self.keep }, &self.stages, inflow)
    }
}

fn slots_of(worker: &Worker) -> f64 {
    f64::from(worker.slots.max(1))
}

fn requests(state: &State, fleet: &Fleet, now: f64) -> Vec<Request> {
    let starting = fleet.workers.iter().filter(|worker| worker.phase == Phase::Starting);
    let known = starting.filter_map(|worker| Some((worker, state.starts.workers.get(&worker.id)?)));
    let mut requests: Vec<Request> = known
        .filter(|(_, start)| !start.lost)
        .map(|(worker, start)| Request {
            id: worker.id,
            age: (now - start.launched).max(0.0),
            billed: start.billed.is_some(),
            slots: slots_of(worker),
        })
        .collect();
    requests.sort_by(|a, b| a.age.total_cmp(&b.age).then(b.id.cmp(&a.id)));
    requests
}
