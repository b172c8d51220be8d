//! The scaler: what the keeper's loop needs around the pure policy of [`crate::adaptive`]. When to look, who is there, what to tell.

mod log;
mod sight;
#[cfg(all(test, debug_assertions))]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

pub(super) use self::log::Log;
use super::fleet::{Launches, Member};
use crate::{
    adaptive::{AdaptConfig, Adaptive, Backend, Begin, Decided, Decision, Entry, Fleet, Held, Phase, Reason, State},
    engine::{Observation, Outlook},
    error::{Error, ErrorKind},
    manager::{ClusterEvent, ClusterInfo, Scaling},
};

/// For one look at the load.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Work that arrives comes in pieces: so long is waited for more of it.
const SETTLE: Duration = Duration::from_millis(20);

/// Looks in an interval, at most, while work that ended a rest comes in.
const EAGER: u32 = 5;

/// However long the interval: what ends a rest, and the loss of a worker, waits no longer.
const SOON: Duration = Duration::from_secs(1);

/// Workers to begin with have at least so long to come.
const FIRST: Duration = Duration::from_secs(30);

/// Of so many failed looks in a row each is told, then ever fewer.
const TOLD: u32 = 2;

/// The start-up times learned in this process, by class: the next cluster begins with them.
static LEARNED: Mutex<BTreeMap<String, (Duration, Duration)>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
pub(super) struct Scaler {
    config: AdaptConfig,
    class: String,
    backend: Backend,
    /// The platform's own bounds: it decides, not we.
    native: Option<(u32, Option<u32>)>,
    adaptive: Adaptive,
    /// What `adaptive` was made with, and whether the log says so already.
    effective: AdaptConfig,
    changed: bool,
    /// The number to begin with, above the minimum, until it was there once or should have been.
    first: Option<(u32, Instant)>,
    state: State,
    /// What a worker to come is like, as far as it is known.
    slots: u32,
    memory_limit: u64,
    next: Instant,
    looked: Instant,
    arrivals: Option<watch::Receiver<u64>>,
    /// There was nothing to do when it last looked.
    resting: bool,
    /// A rest has ended: until then arrivals are looked at soon.
    eager: Instant,
    decision: Option<Decision>,
    trouble: Option<String>,
    /// Failed looks in a row.
    failed: u32,
    /// Who had how many tasks at the last look.
    busy: HashMap<u64, u32>,
}

impl Scaler {
    /// `before`: the scaler that this one replaces.
    pub(super) fn new(config: AdaptConfig, info: &ClusterInfo, arrivals: Option<watch::Receiver<u64>>, before: Option<Self>) -> Self {
        let native = (info.scaling == Scaling::Count && info.native_adaptive).then(|| (config.minimum.unwrap_or(0), config.maximum));
        let now = Instant::now();
        // What the user says of this cluster goes before what another one of its class was like.
        let known = if config.startup.is_none() { learned(&info.class) } else { None };
        let fresh = || known.map_or_else(State::default, |(startup, billed)| State::with_startup(startup, billed));
        Self {
            class: info.class.clone(),
            backend: info.backend.clone(),
            native,
            adaptive: Adaptive::new(config.clone(), info.backend.clone()),
            effective: config.clone(),
            changed: true,
            first: None,
            slots: before.as_ref().map_or(info.slots, |before| before.slots),
            memory_limit: before.as_ref().map_or(0, |before| before.memory_limit),
            state: before.map_or_else(fresh, |before| before.state),
            next: now,
            looked: now,
            arrivals,
            resting: true,
            eager: now,
            decision: None,
            trouble: None,
            failed: 0,
            busy: HashMap::new(),
            config,
        }
    }

    /// So many workers are on their way because the user said so: they are not taken back before they came, for a while.
    pub(super) fn begin_with(&mut self, first: u32) {
        self.state.begin_with(first, &self.backend);
        if first > self.config.minimum.unwrap_or(0) {
            let startup = self.config.startup.map_or(self.backend.startup, |startup| startup.0);
            let now = Instant::now();
            self.first = Some((first, now.checked_add(startup.saturating_mul(3).max(FIRST)).unwrap_or(now + FIRST)));
            let config = AdaptConfig { minimum: Some(first), ..self.config.clone() };
            self.use_bounds(config);
        }
    }

    fn use_bounds(&mut self, config: AdaptConfig) {
        self.adaptive = Adaptive::new(config.clone(), self.backend.clone());
        self.effective = config;
        self.changed = true;
    }

    /// For one who comes late: where to begin. `None`: the log says so before the next decision.
    pub(super) fn beginning(&self) -> Option<Entry> {
        (!self.changed).then(|| self.begin())
    }

    /// Where those who replay the log begin: as it is now.
    fn begin(&self) -> Entry {
        Entry::Begin(Box::new(Begin::new(self.effective.clone(), self.backend.clone(), self.state.clone())))
    }

    fn came(&mut self, members: &[Member]) {
        let there = members.iter().filter(|member| matches!(member.phase, Phase::Live(_))).count();
        if self.first.is_some_and(|(first, until)| there >= first as usize || Instant::now() >= until) {
            self.first = None;
            self.use_bounds(self.config.clone());
        }
    }

    pub(super) fn native(&self) -> Option<(u32, Option<u32>)> {
        self.native
    }

    /// How many workers there are to be at first.
    pub(super) fn first(config: &AdaptConfig, asked: Option<u32>, info: &ClusterInfo) -> u32 {
        let asked = asked.or(info.workers_given.then_some(info.workers));
        asked.unwrap_or(0).max(config.minimum.unwrap_or(0)).min(config.maximum.unwrap_or(u32::MAX))
    }

    /// Returns when it is time to look. Dropped and called again at will.
    pub(super) async fn due(&mut self) {
        if self.native.is_some() {
            return std::future::pending().await;
        }
        let listens = self.resting || Instant::now() < self.eager;
        let (Some(arrivals), true) = (&mut self.arrivals, listens) else { return sleep_until(self.next).await };
        tokio::select! {
            () = sleep_until(self.next) => {}
            arrived = arrivals.changed() => {
                let now = Instant::now();
                if arrived.is_err() {
                    self.arrivals = None; // the engine ended: its loss is told elsewhere
                } else if self.resting {
                    (self.resting, self.eager) = (false, now + self.config.interval.0);
                }
                self.no_later_than(self.soon());
                sleep_until(self.next).await;
            }
        }
    }

    /// Something happened that may not wait for the next turn.
    pub(super) fn hurry(&mut self) {
        self.no_later_than(self.soon());
    }

    fn soon(&self) -> Instant {
        Instant::now().max(self.looked + (self.config.interval.0 / EAGER).min(SOON)) + SETTLE
    }

    /// Looks then, at the latest.
    pub(super) fn no_later_than(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }

    /// A look begins.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        (self.looked, self.next) = (now, now + self.config.interval.0);
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.mark_unchanged();
        }
    }

    /// Decides.
    pub(super) fn decide(&mut self, now: Duration, members: Vec<Member>, launches: Launches, seen: Observation, log: &mut Log) -> Decision {
        self.came(&members);
        self.resting = !seen.load.groups.iter().any(|group| group.unfinished() > 0);
        let fleet = self.fleet(members, launches, seen.workers);
        if std::mem::take(&mut self.changed) {
            log.write(|| self.begin());
        }
        self.busy = fleet.workers.iter().map(|worker| (worker.id, worker.processing)).collect();
        let Some(decision) = self.guarded(|adaptive, state| adaptive.decide(state, now, &seen.load, &fleet)) else {
            return stay(&fleet);
        };
        log.write(|| Entry::Decided(Decided { number: 0, now, load: seen.load, fleet, decision: decision.clone() }));
        decision
    }

    /// Decides without having seen the work.
    pub(super) fn hold(&mut self, now: Duration, members: Vec<Member>, launches: Launches, log: &mut Log) -> Decision {
        self.came(&members);
        let fleet = self.fleet(members, launches, vec![]);
        if std::mem::take(&mut self.changed) {
            log.write(|| self.begin());
        }
        let Some(decision) = self.guarded(|adaptive, state| adaptive.hold(state, now, &fleet)) else { return stay(&fleet) };
        log.write(|| Entry::Held(Held { number: 0, now, fleet, decision: decision.clone() }));
        decision
    }

    /// A defect in the policy must not end the keeper, which others are billed for: it begins anew. `None`: there is no decision.
    fn guarded(&mut self, judge: impl FnOnce(&Adaptive, State) -> (State, Decision)) -> Option<Decision> {
        let state = std::mem::take(&mut self.state);
        let learned_before = state.startup();
        let Ok((state, decision)) = catch_unwind(AssertUnwindSafe(|| judge(&self.adaptive, state))) else {
            tracing::error!(target: "remuda::adaptive", "the policy of adaptive scaling panicked; it begins anew");
            self.state = learned_before.map_or_else(State::default, |(startup, billed)| State::with_startup(startup, billed));
            return None;
        };
        self.state = state;
        if self.state.startup() != learned_before {
            learn(&self.class, self.state.startup());
        }
        Some(decision)
    }

    /// It ends, so the bill is made up to now. Who was not seen yet has work, unless there was none at all.
    pub(super) fn settle(&mut self, now: Duration, members: Vec<Member>) {
        if self.native.is_some() {
            return;
        }
        let mut fleet = self.fleet(members, Launches::default(), vec![]);
        for worker in &mut fleet.workers {
            let unseen = u32::from(!self.resting && matches!(worker.phase, Phase::Live(_)));
            worker.processing = self.busy.get(&worker.id).copied().unwrap_or(unseen);
        }
        self.state.settle(now, &fleet, self.config.interval.0);
    }

    /// A number held until now: that time is not in the bill.
    pub(super) fn skip(&mut self, now: Duration) {
        self.state.settle(now, &Fleet::default(), self.config.interval.0);
    }

    /// Which workers are to come.
    pub(super) fn outlook(&self) -> Outlook {
        let nobody = |reason: String, hint: &str| Outlook::Nobody { reason, hint: hint.to_owned() };
        if self.native.is_none() && self.adaptive.is_spent(&self.state) {
            let budget = self.config.budget.unwrap_or_default().0.as_secs_f64();
            let reason = format!("the budget of adaptive scaling, {budget:.0} worker-seconds, is spent, so nobody is started any more");
            return nobody(reason, "raise `adapt_kwargs.budget`, or leave it out");
        }
        if self.config.maximum == Some(0) {
            return nobody("adaptive scaling may have no worker (`maximum` is 0)".to_owned(), "raise `adapt_kwargs.maximum`");
        }
        let held = match self.decision.as_ref().map(|decision| &decision.reason) {
            Some(Reason::Blocked { .. } | Reason::Failing { .. }) => Some("starting them fails, and is tried again".to_owned()),
            _ => self.trouble.as_ref().map(|trouble| format!("it cannot see the work: {trouble}")),
        };
        Outlook::Adaptive { held }
    }

    /// What is new of a decision.
    pub(super) fn news(&mut self, at: Duration, decision: &Decision) -> Option<ClusterEvent> {
        (self.failed, self.trouble) = (0, None);
        let changes = decision.launch > 0 || !decision.victims.is_empty() || !decision.cancelled.is_empty();
        let why = |decision: &Decision| std::mem::discriminant(&decision.reason);
        let new = changes || self.decision.as_ref().map(why) != Some(why(decision));
        if changes {
            let Decision { desired, launch, victims, cancelled, reason, .. } = decision;
            let (drain, cancel) = (victims.len(), cancelled.len());
            tracing::info!(target: "remuda::adaptive", desired, launch, drain, cancel, %reason, "scaled");
        }
        self.decision = Some(decision.clone());
        new.then(|| ClusterEvent::Scaled { at, decision: decision.clone() })
    }

    /// A look failed: the number stays.
    pub(super) fn failed(&mut self, at: Duration, error: &Error, decision: &Decision) -> Vec<ClusterEvent> {
        let wanted = decision.desired;
        self.decision = Some(decision.clone());
        self.failed = self.failed.saturating_add(1);
        self.trouble = Some(error.to_string());
        // Work that goes unseen may come at any time.
        self.resting = false;
        if error.kind() == ErrorKind::Unsupported {
            self.next += self.config.interval.0.saturating_mul(9); // it will hardly learn it
        }
        let told = self.failed <= TOLD || self.failed.is_power_of_two();
        if told {
            tracing::warn!(target: "remuda::adaptive", %error, workers = wanted, tries = self.failed, "the load is unknown; the workers stay");
        }
        let text = format!("adaptive scaling cannot see the work, so the number of workers stays at {wanted}: {error}");
        let replaced = (decision.launch > 0).then(|| ClusterEvent::Scaled { at, decision: decision.clone() });
        told.then_some(ClusterEvent::Degraded(text)).into_iter().chain(replaced).collect()
    }

    pub(super) fn config(&self) -> &AdaptConfig {
        &self.config
    }

    pub(super) fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// What a decision would be that changes nothing.
fn stay(fleet: &Fleet) -> Decision {
    let there = fleet.workers.iter().filter(|worker| worker.phase != Phase::Draining).count() as u32;
    let reason = Reason::Enough { tasks: 0, finish: None };
    Decision { desired: there, launch: 0, victims: vec![], cancelled: vec![], lost: 0, reason }
}

fn learned(class: &str) -> Option<(Duration, Duration)> {
    LEARNED.lock().unwrap_or_else(PoisonError::into_inner).get(class).copied()
}

fn learn(class: &str, startup: Option<(Duration, Duration)>) {
    if let Some(startup) = startup {
        LEARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(class.to_owned(), startup);
    }
}
