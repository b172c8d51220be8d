//! Adaptive scaling: how many workers a cluster should have, decided from what a scheduler can tell.
//!
//! The policy is called *Horizon*. It makes `cost * time^time_weight` small over a short projection of the graphs that the
//! scheduler holds, knows how long a worker takes to start and which are on their way, looks ahead to the next stages of a graph,
//! learns from graphs and streams that recur, and lets idle workers go after a time in proportion to what another would cost.
//! `bench/adaptive` measures it against the policies of Dask, Spark, Ray and others.
//!
//! It is a pure function: [`Adaptive::decide`] takes the [`State`] it returned before, the time, the [`Load`] and the [`Fleet`],
//! and returns the next state and a [`Decision`] with its reason. No clock, no I/O, no chance: the same input gives the same
//! decision, so that a log ([`Entry`]) can be replayed ([`Replay`]).
//!
//! In figures, of which the constants of the modules are the law:
//! - one stage of work W gets about `W / sqrt(s L)` workers: L is the start-up time, s what a start costs, its billed part and half of
//!   the idle time before a worker goes. Of n tasks of unknown duration `sqrt(n)` are planned for, three at least;
//! - a worker idles from 0.15 break-evens, which what came lately may make up to `idle_max`; never less than `wait_count` decisions.
//!   One that was let go and missed within 10 s, twice in a minute, is kept longer, 15 s at most;
//! - tasks at even times (six, no gap half as long again as the others, for ten seconds at least) are a load, and the workers it needs
//!   stay until the next is late; the only worker if it waits for at most 15 s at a time. From the second on nobody goes that it
//!   would need if it went on so;
//! - a request is written off after three start-ups, 30 s at least; each that is written off in a row doubles that, up to 16 times;
//! - stored results fill at most 60 % of the memory of those that stay.
//!
//! Promises, held by `core/tests/adaptive`:
//! - a busy worker is never a victim, unless there are more than `maximum` (it finishes what it runs); nor ever one whose results
//!   the others could not hold;
//! - the workers that are there or on their way stay between `minimum` and `maximum`, the budget permitting;
//! - any work and nobody there: somebody is asked for, unless that is [blocked](Fleet::blocked) or the budget is spent;
//! - under constant load the number settles: it does not go up and down, except between one and none where each task leaves the only
//!   worker without work for a quarter of a minute and more.

mod config;
mod decision;
mod durations;
mod explain;
mod fleet;
mod floor;
mod load;
mod log;
mod need;
mod project;
mod recurrence;
mod regret;
mod retire;
mod stages;
mod state;
mod steady;
mod stream;
mod target;
mod view;

use std::time::Duration;

pub use self::{
    config::AdaptConfig,
    decision::{Decision, Hold, Reason},
    fleet::{Backend, Fleet, Phase, Worker},
    load::{Group, Load, Prefix},
    log::{Begin, Decided, Entry, Held, Replay},
    state::{State, Usage},
};
use self::{explain::Kept, project::Plan, view::View};

/// The policy, for one configuration on one platform.
#[derive(Debug, Clone)]
pub struct Adaptive {
    config: AdaptConfig,
    backend: Backend,
}

impl Adaptive {
    /// Decisions in a row at which the scheduler must be the limit, to be believed.
    const SCHEDULER_BOUND: u32 = 3;

    /// `config` is taken as checked: see [`AdaptConfig::check`].
    #[must_use]
    pub fn new(config: AdaptConfig, backend: Backend) -> Self {
        Self { config, backend }
    }

    /// Decides. `now` is on any clock that the times in `fleet` are on too; a jump of it changes nothing.
    ///
    /// Call it every `interval`, and when a graph arrives. It takes well below a millisecond; how many tasks there are does not
    /// matter, how many groups and workers does.
    #[must_use]
    pub fn decide(&self, mut state: State, now: Duration, load: &Load, fleet: &Fleet) -> (State, Decision) {
        let waited = self.pass(&mut state, now, fleet, true);
        let view = self.look(&mut state, load, fleet);
        let decision = self.judge(&mut state, &view, waited);
        state.wanted = match decision.reason {
            Reason::Blocked { wanted } => state.wanted.min(decision.desired.saturating_add(wanted)).max(decision.desired),
            _ => decision.desired,
        };
        state.launched(decision.launch, &self.backend);
        (state, decision)
    }

    /// Decides without knowing the work, in place of [`decide`](Self::decide): there stay as many workers as there were to be, so who
    /// is lost is replaced, and requests that do not arrive are written off.
    #[must_use]
    pub fn hold(&self, mut state: State, now: Duration, fleet: &Fleet) -> (State, Decision) {
        self.pass(&mut state, now, fleet, false);
        let lost = lost(&state, fleet);
        let starting = fleet.workers.iter().filter(|worker| worker.phase == Phase::Starting && !lost.contains(&worker.id)).count();
        let live = fleet.workers.iter().filter(|worker| matches!(worker.phase, Phase::Live(_))).count();
        let current = u32::try_from(live + starting).unwrap_or(u32::MAX);
        let keep = state.wanted.max(self.minimum()).min(self.maximum());
        let decision = match keep > current {
            true => self.grow(&mut state, (current, fleet.blocked), keep, lost, Some(Reason::Unseen { workers: keep })),
            false => Decision {
                desired: current,
                launch: 0,
                victims: vec![],
                lost: lost.len() as u32,
                cancelled: lost,
                reason: Reason::Unseen { workers: current },
            },
        };
        state.launched(decision.launch, &self.backend);
        (state, decision)
    }

    /// Time has passed: what it cost, who came, what the platform takes again. Returns how long a request is waited for.
    fn pass(&self, state: &mut State, now: Duration, fleet: &Fleet, seen: bool) -> f64 {
        let passed = state.clock.advance(now, self.interval());
        state.usage.add(fleet, passed, seen);
        state.taken_back(fleet);
        let waited = state.starts.learn(&state.clock, fleet, self.prior());
        self.refill(state, passed);
        waited
    }

    /// Estimates, and what they say about the future.
    fn look<'a>(&'a self, state: &mut State, load: &'a Load, fleet: &'a Fleet) -> View<'a> {
        let durations = durations::durations(load);
        let mut view = View::new(self, state, load, fleet, durations);
        state.stream.note(load, &view.durations, view.now, (view.startup, self.interval()));
        view.rate = state.stream.rate(view.startup, self.calm());
        view.streaming = state.stream.workers(view.rate, view.slots);
        view.likely = state.stream.likely((view.startup, self.interval()), view.slots, self.calm());
        let replay = recurrence::Replay {
            now: view.now,
            startup: view.startup,
            billed: view.billed,
            time_weight: self.config.time_weight,
            target: self.config.target_duration.0.as_secs_f64(),
            idle_max: self.config.idle_max,
            slots: view.slots,
            maximum: self.maximum(),
            streaming: view.streaming,
            durations: &view.durations,
        };
        state.recurrence.note(load, replay);
        view.timer = state.recurrence.timer();
        view.keep = view.timer.max(self.short_wait());
        view
    }

    fn judge(&self, state: &mut State, view: &View<'_>, waited: f64) -> Decision {
        let lost = lost(state, view.fleet);
        let base = view.project(&view.arrivals, view.rate);
        let (mut want, mut reason) = self.want(state, view, &base);
        let (floor, why) = floor::floor(view, state.recurrence.base);
        if floor > want {
            (want, reason) = (floor, Some(why.clone()));
        }
        if want > self.maximum() && want > view.current() {
            (want, reason) = (self.maximum().max(view.current()), Some(self.bounded(view, &base)));
        }
        let want = want.min(self.maximum());
        let likely = view.likely.1.min(view.current());
        let (floor, why) = if likely > floor { (likely, Reason::Stream { rate: view.likely.0 }) } else { (floor, why) };
        let quiet = if view.rate > 0.0 { view.project(&view.arrivals, 0.0) } else { base.clone() };
        let alone = if view.starting.is_empty() { base.finish() } else { view.project(&[], view.rate).finish() };
        let bare = need::need(view, &quiet, alone).min(view.current().max(want));
        let need = bare.max(floor).min(view.current().max(want));
        let raised = if want > view.current() { want } else { 0 };
        state.regret.note(view.now, need.max(raised), view.current());
        let kept = view.keep.max(state.regret.hold(view.now));
        state.needs.push(view.now, need.max(raised), kept + 0.5 * self.interval());
        if want > view.current() {
            let decision = self.grow(state, (view.current(), view.fleet.blocked), want, lost, reason);
            if decision.launch > 0 {
                let asked = (decision.desired, decision.launch);
                state.regret.launches(view.now, asked, kept + self.interval(), self.calm());
            }
            return decision;
        }
        let (decision, kept) = self.shrink(state, view, Pressure { need, floor, alone }, lost);
        let reason = match reason {
            Some(reason) if decision.desired == view.current() && decision.desired <= self.maximum() => reason,
            _ => explain::explain(view, &decision, &base, Kept { bare, why: Some(why), waited, ..kept }),
        };
        Decision { reason, ..decision }
    }

    /// How many workers the work makes worth having.
    fn want(&self, state: &mut State, view: &View<'_>, base: &Plan) -> (u32, Option<Reason>) {
        let current = view.current();
        let idle = view.live > 4 && view.ready as f64 > 2.0 * view.live_slots && (view.processing as f64) < 0.6 * view.live_slots;
        state.scheduler_bound = if idle { state.scheduler_bound.saturating_add(1) } else { 0 };
        if view.stages.iter().map(|stage| stage.work).sum::<f64>() <= 0.0 {
            return (current, None);
        }
        if state.scheduler_bound >= Self::SCHEDULER_BOUND {
            return (current, Some(Reason::SchedulerBound { ready: view.ready }));
        }
        if view.keeps_up() {
            return (current, None);
        }
        let tokens = self.backend.launch_limit().map(|(burst, rate)| (state.tokens.unwrap_or(burst), rate));
        let room = self.maximum().saturating_sub(current);
        let mut best = match target::growth(view, base, room, tokens) {
            Some((want, reason)) => (want, Some(reason)),
            None if room == 0 && target::pays_beyond(view, base, tokens) => (current, Some(self.bounded(view, base))),
            None => (current, None),
        };
        if best.0 == 0 {
            best = (1, Some(Reason::First { tasks: view.unfinished() }));
        }
        let (cautious, tasks) = target::unknown(view);
        if cautious > best.0 {
            best = (cautious, Some(Reason::Unknown { tasks }));
        }
        best
    }

    fn bounded(&self, view: &View<'_>, base: &Plan) -> Reason {
        Reason::Maximum { workers: self.maximum(), tasks: view.unfinished(), finish: base.finite() }
    }

    /// `current`: workers that are there or on their way, and whether none can be asked for now.
    fn grow(&self, state: &mut State, (current, blocked): (u32, bool), want: u32, lost: Vec<u64>, reason: Option<Reason>) -> Decision {
        let launch = want - current;
        state.useless.clear();
        let spent = state.usage.worker_seconds;
        let broke = self.is_spent(state);
        let (launch, reason) = match reason {
            _ if broke => (0, Reason::Budget { spent, budget: self.budget().unwrap_or_default(), wanted: launch }),
            _ if blocked => (0, Reason::Blocked { wanted: launch }),
            reason => (launch, reason.unwrap_or(Reason::Minimum { workers: want })),
        };
        Decision { desired: current + launch, launch, victims: vec![], lost: lost.len() as u32, cancelled: lost, reason }
    }

    fn shrink(&self, state: &mut State, view: &View<'_>, pressure: Pressure, lost: Vec<u64>) -> (Decision, Kept) {
        let Pressure { need, floor, alone } = pressure;
        let current = view.current();
        let memory = floor::memory(view).min(current);
        let window = need::window(view, alone, state.recurrence.overlapping()).max(state.regret.hold(view.now));
        let lately = state.needs.largest(view.now, window + 0.5 * self.interval());
        let needed = lately.max(floor).max(memory);
        state.useless.push_back(current.saturating_sub(need.max(memory)).min(view.starting.len() as u32));
        while state.useless.len() > self.config.wait_count as usize {
            state.useless.pop_front();
        }
        let long_enough = state.useless.len() == self.config.wait_count as usize;
        let useless = if long_enough { state.useless.iter().copied().min().unwrap_or(0) } else { 0 };
        let mut taken = retire::unbilled(view, useless);
        let left = current - taken.len() as u32;
        let over = left.saturating_sub(self.maximum());
        let surplus = left.saturating_sub(needed).max(over);
        let (unneeded, spare) = (taken.len() as u32, surplus);
        let more = retire::requests(view, &taken, surplus, over);
        let (surplus, more_taken) = (surplus - more.len() as u32, more.len());
        taken.extend(more);
        let since_billed = |id| state.starts.workers.get(&id).and_then(|start| start.billed).map(|at| view.now - at);
        let (mut victims, hold) = retire::idle(view, surplus, since_billed);
        if !victims.is_empty() {
            state.regret.lets_go(view.now, current);
        }
        let above = over.saturating_sub((more_taken + victims.len()) as u32);
        let (beyond, busy) = retire::beyond(view, &victims, above);
        victims.extend(beyond);
        let desired = current - taken.len() as u32 - victims.len() as u32;
        let reason = match (victims.is_empty() && taken.is_empty(), current > self.maximum()) {
            (_, true) => Reason::Above { maximum: self.maximum(), busy, kept: desired.saturating_sub(self.maximum()) },
            (true, _) => Reason::Asleep,
            (false, false) if spare == 0 => Reason::Unneeded { requests: unneeded, decisions: self.config.wait_count },
            (false, false) => Reason::Surplus { needed, window },
        };
        let count = lost.len() as u32;
        let kept = Kept { lately, memory, floor, spare, hold, patience: self.patience(window), ..Kept::default() };
        (Decision { desired, launch: 0, victims, lost: count, cancelled: lost.into_iter().chain(taken).collect(), reason }, kept)
    }

    /// How long a worker stays that is not needed any more, if the need is to be looked back at for so long.
    fn patience(&self, window: f64) -> f64 {
        let decisions = (window / self.interval() + 0.5).floor() + 1.0;
        decisions * self.interval()
    }

    /// Whether the budget is spent.
    #[must_use]
    pub fn is_spent(&self, state: &State) -> bool {
        self.budget().is_some_and(|budget| state.usage.worker_seconds >= budget)
    }

    /// In worker-seconds.
    fn budget(&self) -> Option<f64> {
        self.config.budget.map(|budget| budget.0.as_secs_f64())
    }

    /// Launch tokens that came back since the last decision.
    fn refill(&self, state: &mut State, passed: f64) {
        state.tokens = self.backend.launch_limit().map(|(burst, rate)| (state.tokens.unwrap_or(burst) + rate * passed).min(burst));
    }

    /// What is believed of the start-up before any was seen: (all of it, the billed part), in seconds.
    fn prior(&self) -> (f64, f64) {
        let all = self.backend.startup.as_secs_f64();
        let billed = self.backend.billed_startup.as_secs_f64().min(all);
        match self.config.startup {
            None => (all, billed),
            Some(hint) if all > 0.0 => (hint.0.as_secs_f64(), hint.0.as_secs_f64() * billed / all),
            Some(hint) => (hint.0.as_secs_f64(), hint.0.as_secs_f64()),
        }
    }

    fn interval(&self) -> f64 {
        self.config.interval.0.as_secs_f64()
    }

    /// The time in which `wait_count` decisions are made.
    fn short_wait(&self) -> f64 {
        self.interval() * (f64::from(self.config.wait_count) - 1.0).max(0.0)
    }

    /// How long workers are kept at most for the sake of a number that does not go up and down: as long as they may idle (`idle_max`)
    /// if to replace one cost 7.5 s at least. It does not where starts are fast: a worker that starts in a second is worth keeping over a
    /// pause of some 5 s by `cost * time`. Over longer ones it is scaled to nothing and back: 7 s of work every 23 s cost 12 worker-seconds
    /// and 8 to 9 s each time with starts, 23 worker-seconds and 7 s with a worker that stays.
    fn calm(&self) -> f64 {
        7.5 * self.config.idle_max
    }

    fn minimum(&self) -> u32 {
        self.config.minimum.unwrap_or(0)
    }

    fn maximum(&self) -> u32 {
        self.config.maximum.unwrap_or(u32::MAX)
    }
}

/// What speaks against letting workers go.
#[derive(Debug, Clone, Copy)]
struct Pressure {
    need: u32,
    floor: u32,
    alone: f64,
}

/// Requests that are written off.
fn lost(state: &State, fleet: &Fleet) -> Vec<u64> {
    let lost = |worker: &&Worker| state.starts.workers.get(&worker.id).is_some_and(|start| start.lost);
    fleet.workers.iter().filter(|worker| worker.phase == Phase::Starting).filter(lost).map(|worker| worker.id).collect()
}
