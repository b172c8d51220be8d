//! What the policy remembers between two decisions.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    fleet::{Backend, Fleet, Phase, Worker},
    recurrence::Recurrence,
    regret::Regret,
    stream::Stream,
};

/// Everything the policy has learned. Begin with the default, or with [`State::with_startup`]; give back what
/// [`Adaptive::decide`](super::Adaptive::decide) returned. It can be stored, and so a decision replayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(super) clock: Clock,
    pub(super) starts: Starts,
    pub(super) usage: Usage,
    pub(super) stream: Stream,
    pub(super) recurrence: Recurrence,
    pub(super) needs: Needs,
    #[serde(default)]
    pub(super) regret: Regret,
    /// Requests that were not needed, at each of the last decisions.
    pub(super) useless: VecDeque<u32>,
    /// Decisions in a row at which the scheduler could not keep the workers busy.
    pub(super) scheduler_bound: u32,
    /// Launches that the platform takes at once now. `None`: not used yet, so all of them.
    pub(super) tokens: Option<f64>,
    /// Workers that were to be there after the last decision: kept while the work is unknown.
    #[serde(default)]
    pub(super) wanted: u32,
    /// Workers asked for at the last decision.
    #[serde(default)]
    asked: u32,
}

impl State {
    /// Starts with what was learned before: how long a worker takes from the request until it is ready, and the billed part.
    #[must_use]
    pub fn with_startup(startup: Duration, billed: Duration) -> Self {
        let known = (startup.as_secs_f64(), billed.min(startup).as_secs_f64());
        Self { starts: Starts { learned: Some(known), ..Starts::default() }, ..Self::default() }
    }

    /// The start-up time and the billed part of it, as learned; `None` before the first start.
    #[must_use]
    pub fn startup(&self) -> Option<(Duration, Duration)> {
        self.starts.learned.map(|(all, billed)| (from_secs(all), from_secs(billed)))
    }

    /// Workers are asked for without a decision: those to begin with. They count like others.
    pub fn begin_with(&mut self, workers: u32, backend: &Backend) {
        self.wanted = self.wanted.max(workers);
        self.launched(workers, backend);
    }

    pub(super) fn launched(&mut self, workers: u32, backend: &Backend) {
        self.asked = workers;
        self.usage.launched += u64::from(workers);
        self.tokens = backend.launch_limit().map(|(burst, _)| (self.tokens.unwrap_or(burst) - f64::from(workers)).max(0.0));
    }

    /// In place of some that were asked for, requests may have been taken back in that had been cancelled: they were counted before.
    pub(super) fn taken_back(&mut self, fleet: &Fleet) {
        let again = self.starts.again(fleet).min(u64::from(std::mem::take(&mut self.asked)));
        self.usage.launched = self.usage.launched.saturating_sub(again);
        self.tokens = self.tokens.map(|tokens| tokens + again as f64);
    }

    /// The end, at `now`: what was used since the last decision. Workers that came after it count from their `billed` on.
    pub(crate) fn settle(&mut self, now: Duration, fleet: &Fleet, interval: Duration) {
        self.taken_back(fleet);
        let decided = self.clock.last.is_some();
        let passed = self.clock.advance(now, interval.as_secs_f64());
        for worker in &fleet.workers {
            let Some(billed) = worker.billed.map(|at| now.saturating_sub(at).as_secs_f64()) else { continue };
            self.usage.bill(worker, if decided { billed.min(passed) } else { billed }, true);
        }
    }

    /// What the cluster has used, as far as decisions were made, or until the end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// What a cluster has used. Minimum charges and the rounding of bills are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds of billed workers.
    pub worker_seconds: f64,
    /// Those of them in which a worker had nothing assigned: starting, idle or draining.
    pub idle_worker_seconds: f64,
    /// Workers asked for.
    pub launched: u64,
}

impl Usage {
    /// `seen`: it is known who has work.
    pub(super) fn add(&mut self, fleet: &Fleet, seconds: f64, seen: bool) {
        for worker in fleet.workers.iter().filter(|worker| worker.billed.is_some()) {
            self.bill(worker, seconds, seen);
        }
    }

    fn bill(&mut self, worker: &Worker, seconds: f64, seen: bool) {
        self.worker_seconds += seconds;
        if worker.processing == 0 && (seen || !matches!(worker.phase, Phase::Live(_))) {
            self.idle_worker_seconds += seconds;
        }
    }
}

/// The policy's own time: it passes as the caller's does, but does not jump.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clock {
    last: Option<Duration>,
    /// Seconds since the first decision.
    pub(super) now: f64,
    /// The decision before.
    before: f64,
    jumped: bool,
}

impl Clock {
    /// A step back, or one of more than this many intervals (and a minute), is a jump: it counts as one interval.
    const INTERVALS: f64 = 30.0;

    /// Seconds since the last decision.
    pub(super) fn advance(&mut self, now: Duration, interval: f64) -> f64 {
        let step = self.last.map_or(0.0, |last| now.as_secs_f64() - last.as_secs_f64());
        self.jumped = step < 0.0 || step > (Self::INTERVALS * interval).max(60.0);
        let step = if self.jumped { interval } else { step };
        self.before = self.now;
        self.now += step;
        self.last = Some(now);
        step
    }

    /// A time of the caller's clock that was first heard of at this decision.
    fn heard(&self, at: Duration) -> f64 {
        let ago = self.last.map_or(0.0, |last| last.saturating_sub(at).as_secs_f64());
        let at = self.now - ago;
        if self.jumped { at.max(self.before) } else { at }
    }
}

/// What is known of the starts of workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Starts {
    /// Seconds from the request to a live worker, and those billed: averages with weight 0.1 on the newest.
    pub(super) learned: Option<(f64, f64)>,
    /// The workers of the last fleet.
    pub(super) workers: BTreeMap<u64, Start>,
    /// How often in a row requests were written off while none arrived: each doubles the patience with the next.
    disappointed: u32,
}

/// One worker, in the policy's time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) launched: f64,
    pub(super) billed: Option<f64>,
    seen_live: bool,
    pub(super) lost: bool,
    #[serde(default)]
    draining: bool,
    /// When it was taken in again, after it was to be taken back.
    #[serde(default)]
    again: Option<f64>,
}

impl Starts {
    /// Weight of the newest start.
    const WEIGHT: f64 = 0.1;
    /// A request is written off after so many start-up times, the doublings for disappointment apart, ...
    const LOST_AFTER: f64 = 3.0;
    /// ... and not before so many seconds.
    const LEAST: f64 = 30.0;
    /// The share of the prior that the learned start-up time counts at least for writing off.
    const PRIOR: f64 = 0.7;

    /// Takes in the fleet: what is new, what became live. Returns how long a request is waited for.
    pub(super) fn learn(&mut self, clock: &Clock, fleet: &Fleet, prior: (f64, f64)) -> f64 {
        let mut before = std::mem::take(&mut self.workers);
        for worker in &fleet.workers {
            let start = before.remove(&worker.id);
            let start = self.heard_of(worker, start, clock, prior);
            self.workers.insert(worker.id, start);
        }
        let startup = self.learned.unwrap_or(prior).0;
        let after = Self::LOST_AFTER * startup.max(Self::PRIOR * prior.0) * f64::from(1u32 << self.disappointed.min(4));
        let after = after.max(Self::LEAST);
        let mut lost = false;
        for worker in fleet.workers.iter().filter(|worker| worker.phase == Phase::Starting) {
            if let Some(start) = self.workers.get_mut(&worker.id)
                && !start.lost
                && clock.now - start.again.unwrap_or(start.launched) > after
            {
                start.lost = true;
                lost = true;
            }
        }
        self.disappointed = self.disappointed.saturating_add(u32::from(lost));
        after
    }

    /// How many were on their way out before they came, and are not any more.
    fn again(&self, fleet: &Fleet) -> u64 {
        let is_again = |worker: &&Worker| {
            let before = self.workers.get(&worker.id);
            worker.phase != Phase::Draining && before.is_some_and(|start| start.draining && !start.seen_live)
        };
        fleet.workers.iter().filter(is_again).count() as u64
    }

    fn heard_of(&mut self, worker: &Worker, known: Option<Start>, clock: &Clock, prior: (f64, f64)) -> Start {
        let mut start =
            known.unwrap_or_else(|| Start { launched: worker.launched.map_or(clock.now, |at| clock.heard(at)), ..Start::default() });
        if start.draining && worker.phase == Phase::Starting {
            // Nobody waited for it meanwhile. How long a start takes is learned from the whole of it all the same.
            (start.again, start.lost) = (Some(clock.now), false);
        }
        start.draining = worker.phase == Phase::Draining;
        if start.billed.is_none() {
            start.billed = worker.billed.map(|at| clock.heard(at).max(start.launched));
        }
        if let (Phase::Live(since), false) = (worker.phase, start.seen_live) {
            start.seen_live = true;
            if worker.launched.is_some() {
                let ready = clock.heard(since);
                let all = (ready - start.launched).max(0.0);
                let billed = start.billed.map_or(0.0, |at| (ready - at).clamp(0.0, all));
                let (mean, mean_billed) = self.learned.unwrap_or(prior);
                self.learned = Some((mean + Self::WEIGHT * (all - mean), mean_billed + Self::WEIGHT * (billed - mean_billed)));
                self.disappointed = 0;
            }
        }
        start
    }
}

/// The largest need in a window that ends now: only those values are kept that no later one exceeds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Needs(VecDeque<(f64, u32)>);

impl Needs {
    /// Adds the need of now; forgets what is older than `window`.
    pub(super) fn push(&mut self, now: f64, need: u32, window: f64) {
        while self.0.pop_back_if(|last| last.1 <= need).is_some() {}
        self.0.push_back((now, need));
        while self.0.pop_front_if(|first| now - first.0 > window).is_some() {}
    }

    /// The largest in the last `window` seconds.
    pub(super) fn largest(&self, now: f64, window: f64) -> u32 {
        self.0.iter().find(|need| now - need.0 <= window).map_or(0, |need| need.1)
    }
}

fn from_secs(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AdaptConfig, Adaptive},
        *,
    };

    /// Asked for at the beginning, of one slot, without work.
    fn worker(id: u64, phase: Phase, billed: Option<Duration>) -> Worker {
        let launched = Some(Duration::ZERO);
        Worker { id, phase, launched, billed, slots: 1, processing: 0, bytes: 0, memory_limit: 0, pinned: false }
    }

    #[test]
    fn the_clock_does_not_jump() {
        let mut clock = Clock::default();
        let hour = Duration::from_secs(3600);
        for (now, step) in [(hour, 0.0), (hour * 2, 1.0), (hour, 1.0), (hour + Duration::from_secs(7), 7.0)] {
            assert_eq!(clock.advance(now, 1.0), step);
        }
        assert_eq!(clock.now, 9.0);
    }

    #[test]
    fn workers_to_begin_with_are_counted_and_take_their_tokens() {
        let backend = Backend { launch_burst: 10, launch_rate: 1.0, ..Backend::new(Duration::from_secs(1)) };
        let mut state = State::default();
        state.begin_with(8, &backend);
        assert_eq!((state.usage.launched, state.tokens, state.wanted), (8, Some(2.0), 8));
        state.launched(8, &Backend::new(Duration::ZERO));
        assert_eq!((state.usage.launched, state.tokens), (16, None));
    }

    #[test]
    fn requests_that_are_taken_back_in_count_once() {
        let backend = Backend { launch_burst: 10, launch_rate: 1e-9, ..Backend::new(Duration::from_secs(60)) };
        let adaptive = Adaptive::new(AdaptConfig { minimum: Some(4), ..AdaptConfig::default() }, backend.clone());
        let secs = Duration::from_secs;
        let mut state = State::default();
        state.begin_with(3, &backend);
        let mut at = |now, phases: [Phase; 3]| {
            let workers = (0..).zip(phases).map(|(id, phase)| worker(id, phase, None)).collect();
            let fleet = Fleet { workers, ..Fleet::default() };
            let (next, decision) = adaptive.hold(std::mem::take(&mut state), secs(now), &fleet);
            state = next;
            assert_eq!(state.tokens.map(|tokens| 10 - tokens.round() as u64), Some(state.usage.launched), "a token for each");
            (decision.launch, state.usage.launched)
        };
        use Phase::{Draining, Live, Starting};
        assert_eq!(at(1, [Starting; 3]), (1, 4), "another");
        assert_eq!(at(2, [Starting, Draining, Draining]), (3, 7));
        assert_eq!(at(3, [Starting, Starting, Live(secs(3))]), (1, 6), "two of three were taken back in, another is asked for");
        // Who was asked to go and stays was not asked for again.
        assert_eq!(at(4, [Starting, Starting, Draining]), (2, 8));
        assert_eq!(at(5, [Starting, Starting, Live(secs(3))]), (1, 9));
    }

    #[test]
    fn the_largest_need_of_any_window() {
        let mut needs = Needs::default();
        for (now, need) in [(0.0, 9), (1.0, 3), (2.0, 5), (3.0, 1), (4.0, 2)] {
            needs.push(now, need, 10.0);
        }
        let largest: Vec<_> = [0.0, 1.0, 2.0, 3.0, 4.0].map(|window| needs.largest(4.0, window)).into();
        assert_eq!(largest, [2, 2, 5, 5, 9]);
        needs.push(20.0, 0, 10.0);
        assert_eq!((needs.largest(20.0, 10.0), needs.0.len()), (0, 1));
    }

    #[test]
    fn starts_are_learned_once_and_lost_ones_stay_lost() {
        let secs = Duration::from_secs;
        let (mut clock, mut starts) = (Clock::default(), Starts::default());
        for now in [0, 15, 30, 40, 50] {
            clock.advance(secs(now), 1.0);
            let billed = (now >= 15).then_some(secs(4));
            let phase = if now < 15 { Phase::Starting } else { Phase::Live(secs(14)) };
            let fleet = Fleet { workers: vec![worker(1, phase, billed), worker(2, Phase::Starting, None)], ..Fleet::default() };
            starts.learn(&clock, &fleet, (10.0, 10.0));
            let (all, billed) = starts.learned.unwrap_or((10.0, 10.0));
            assert!((all - if now < 15 { 10.0 } else { 10.4 }).abs() < 1e-9 && (now < 15 || (billed - 10.0).abs() < 1e-9));
            assert_eq!(starts.workers[&2].lost, now > 30, "at {now}");
        }
    }

    #[test]
    fn a_request_that_is_taken_in_again_is_waited_for_anew() {
        let secs = Duration::from_secs;
        let (mut clock, mut starts) = (Clock::default(), Starts::default());
        let mut at = |now, phase| {
            clock.advance(secs(now), 1.0);
            starts.learn(&clock, &Fleet { workers: vec![worker(1, phase, None)], ..Fleet::default() }, (10.0, 10.0));
            (starts.workers[&1].lost, starts.learned)
        };
        // Three start-ups are waited for.
        let lost = [(0, Phase::Starting), (20, Phase::Draining), (35, Phase::Starting), (60, Phase::Starting), (66, Phase::Starting)]
            .map(|(now, phase)| at(now, phase).0);
        assert_eq!(lost, [false, false, false, false, true]);
        assert_eq!([at(67, Phase::Draining).0, at(68, Phase::Starting).0], [true, false], "so is one that was written off");
        assert_eq!(at(70, Phase::Live(secs(70))), (false, Some((16.0, 9.0))), "it took 70 s to start");
    }
}
