//! The keeper's mind: a pure state machine over the desired set of workers. No clock, no I/O, no tokio.
//!
//! Rule that carries the rest: an index is filled again only after its last incarnation's stop was answered with Ok, and a stop is
//! asked for until it is; so an answer lost on the way ("launch failed", yet the worker lives) can neither double nor leak a worker.

mod adapt;
mod answers;
mod crowd;
mod failures;
mod message;
mod slots;

use std::{collections::BTreeMap, time::Duration};

use self::{
    adapt::Adapting,
    crowd::Crowd,
    failures::{Cause, Failures},
    slots::{Places, Seen, Slot, Stop},
};
pub use self::{
    adapt::{Launches, Member},
    message::{Action, Input},
};
use super::{
    limits::{Limits, backoff},
    status::{WorkerSnapshot, WorkerStage},
};
use crate::{
    error::{Error, ErrorKind},
    manager::{ClusterEvent, Scaling, Target, WorkerId},
};

/// Time since the keeper began.
pub type Time = Duration;

/// Of so many refusals in a row each is told: the third, then ever fewer.
const TOLD: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    New,
    Starting { since: Time },
    Open,
    Closing { since: Time, asked: bool },
    Done,
}

/// A platform that counts: what it was told, and what it is being told.
#[derive(Debug, Default)]
struct Told {
    last: Option<Target>,
    asked: Option<Target>,
    tries: u32,
    retry: Option<Time>,
}

/// What is wanted, what is there, and what to do about the difference.
#[derive(Debug)]
pub struct Fleet {
    limits: Limits,
    phase: Phase,
    scaling: Scaling,
    desired: Option<u32>,
    adapting: Option<Adapting>,
    /// Its numbers are never given again, also when adaptive scaling begins anew: the policy remembers them.
    crowd: Crowd,
    places: Places,
    told: Told,
    /// Platform's word: which worker has which address.
    hosts: BTreeMap<String, WorkerId>,
    /// Scheduler's word: workers by a name that is not ours, with host and slots.
    strangers: BTreeMap<String, (String, u32)>,
    failures: Failures,
    failure: Option<Error>,
    trouble: Option<String>,
    calls: u32,
    out: Vec<Action>,
}

impl Fleet {
    /// Nothing yet. `desired`: how many workers; `None`: as many as the class's kwargs ask for.
    #[must_use]
    pub fn new(limits: Limits, desired: Option<u32>) -> Self {
        Self {
            limits,
            desired,
            adapting: None,
            crowd: Crowd::default(),
            phase: Phase::New,
            scaling: Scaling::Workers,
            places: Places::default(),
            told: Told::default(),
            hosts: BTreeMap::new(),
            strangers: BTreeMap::new(),
            failures: Failures::default(),
            failure: None,
            trouble: None,
            calls: 0,
            out: Vec::new(),
        }
    }

    /// When `step(_, Tick)` has something to do, if nothing else happens before. Never in the past: that would spin.
    #[must_use]
    pub fn wake(&self) -> Option<Time> {
        match &self.phase {
            Phase::Starting { since } => Some(since.saturating_add(self.limits.start)),
            Phase::Closing { since, asked: false } => Some(since.saturating_add(self.limits.grace)),
            Phase::Open if self.scaling == Scaling::Count => self.told.retry,
            Phase::Open if self.scaling == Scaling::None => None,
            Phase::Open => {
                let places = self.places.iter().filter_map(|place| match &place.slot {
                    Slot::Waiting { until } if self.failures.broken().is_none() && !self.places.haunted(place.id.index) => Some(*until),
                    Slot::Starting { since } => Some(since.saturating_add(self.limits.join)),
                    Slot::Live { settles } => *settles,
                    Slot::Draining { until } => *until,
                    Slot::Stopping { stop, .. } => stop.retry,
                    Slot::Waiting { .. } | Slot::Launching { .. } => None,
                });
                places.chain(self.places.ghosts.values().filter_map(|stop| stop.retry)).min()
            }
            _ => None,
        }
    }

    /// Workers that take tasks, with their scheduler names.
    pub fn live(&self) -> impl Iterator<Item = (WorkerId, &str)> {
        let live = self.places.iter().filter(|place| matches!(place.slot, Slot::Live { .. }));
        live.filter_map(|place| place.seen.as_ref().map(|seen| (place.id, seen.name.as_str())))
    }

    /// Workers on their way out: they may still exist, and their indices are not filled.
    #[must_use]
    pub fn leaving(&self) -> usize {
        self.places.iter().count() - self.places.wanted() + self.places.ghosts.len()
    }

    /// How many workers there should be. Of somebody else's cluster, or where the platform decides by itself: those that are there.
    #[must_use]
    pub fn desired(&self) -> u32 {
        let there = || u32::try_from(self.strangers.len()).unwrap_or(u32::MAX);
        match (self.scaling, self.bounds()) {
            (Scaling::None, _) => there(),
            (Scaling::Count, Some((minimum, maximum))) => there().min(maximum.unwrap_or(u32::MAX)).max(minimum),
            _ => self.desired.unwrap_or(0),
        }
    }

    /// Why the cluster is of no use any more; scaling may mend it, as long as it is open.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// The last trouble with a worker.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Every worker, by index.
    #[must_use]
    pub fn snapshot(&self) -> Vec<WorkerSnapshot> {
        if self.scaling == Scaling::Workers {
            return self.places.iter().map(slots::Place::snapshot).collect();
        }
        let theirs = |(name, (_, slots)): (&String, &(String, u32))| WorkerSnapshot {
            id: None,
            name: Some(name.clone()),
            stage: WorkerStage::Running,
            slots: *slots,
        };
        self.strangers.iter().map(theirs).collect()
    }

    /// What happened, and what to do about it. Never fails, never waits.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Action> {
        self.take_in(now, input);
        self.advance(now);
        std::mem::take(&mut self.out)
    }

    fn advance(&mut self, now: Time) {
        match self.phase {
            Phase::New => {
                self.phase = Phase::Starting { since: now };
                self.call(Action::Start);
            }
            Phase::Starting { since } if now >= since.saturating_add(self.limits.start) => {
                let text = format!("the cluster did not start within {:?}", self.limits.start);
                self.fail(now, Error::new(ErrorKind::Timeout, text));
                self.advance(now);
            }
            Phase::Open if self.scaling == Scaling::Count => self.tell(now),
            Phase::Open if self.scaling == Scaling::None => {}
            Phase::Open => {
                self.reconcile(now);
                self.follow();
            }
            Phase::Closing { since, asked: false } if self.calls == 0 || now >= since.saturating_add(self.limits.grace) => {
                self.phase = Phase::Closing { since, asked: true };
                self.out.push(Action::Close);
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, now: Time) {
        self.overdue(now);
        self.stop_again(now);
        if self.failures.broken().is_some() {
            return self.give_up();
        }
        let due = |place: &&slots::Place| matches!(place.slot, Slot::Waiting { until } if now >= until);
        let mut fill: Vec<u32> = self.places.iter().filter(due).map(|place| place.id.index).collect();
        fill.retain(|index| !self.places.haunted(*index));
        let missing = self.missing();
        let revived = self.places.revive(missing);
        fill.extend(self.places.free(missing - revived));
        let launch: Vec<WorkerId> = fill.into_iter().map(|index| self.places.fill(index, now)).collect();
        if !launch.is_empty() {
            self.call(Action::Launch(launch));
        }
    }

    /// Deadlines and terms that have passed.
    fn overdue(&mut self, now: Time) {
        let (mut late, mut undrained, mut settled) = (Vec::new(), Vec::new(), false);
        for place in self.places.iter_mut() {
            match &mut place.slot {
                Slot::Starting { since } if now >= since.saturating_add(self.limits.join) => late.push(place.id),
                Slot::Draining { until } if until.is_some_and(|at| now >= at) => undrained.push(place.id),
                Slot::Live { settles } if settles.is_some_and(|at| now >= at) => (*settles, settled) = (None, true),
                _ => {}
            }
        }
        if settled {
            self.failures.well(&[Cause::Died, Cause::NeverJoined]);
        }
        for id in late {
            let reason = format!("it did not join the scheduler within {:?}", self.limits.join);
            self.lost(now, id, &reason, Some(Cause::NeverJoined));
        }
        self.stop(&undrained, None);
    }

    fn stop_again(&mut self, now: Time) {
        let due = |stop: &mut Stop| stop.retry.is_some_and(|at| now >= at) && stop.retry.take().is_some();
        let mut again = Vec::new();
        for place in self.places.iter_mut() {
            if let Slot::Stopping { stop, .. } = &mut place.slot
                && due(stop)
            {
                again.push(place.id);
            }
        }
        again.extend(self.places.ghosts.iter_mut().filter_map(|(id, stop)| due(stop).then_some(*id)));
        if !again.is_empty() {
            self.call(Action::Stop(again));
        }
    }

    /// Nothing is launched any more; when nobody is left either, the cluster is of no use.
    fn give_up(&mut self) {
        let wanted = self.adapting.as_ref().map_or(self.desired(), |adapting| adapting.wanted);
        if self.failure.is_none() && wanted > 0 && !self.places.iter().any(slots::Place::is_manned) {
            self.failure = self.failures.broken().cloned();
            self.out.extend(self.failure.clone().map(Action::Failed));
        }
    }

    /// A worker is gone, or never came: stop what may be left of it, then fill its place again. `cause`: `None` where its end says
    /// nothing about the next one, which then comes at once.
    fn lost(&mut self, now: Time, id: WorkerId, reason: &str, cause: Option<Cause>) {
        let launched = self.places.of(id).map_or(now, |place| place.launched);
        let was_broken = self.failures.broken().is_some();
        let delay = cause.map_or(Duration::ZERO, |cause| self.failures.note(&self.limits, now, cause, launched, reason));
        self.trouble = Some(format!("worker {id}: {reason}"));
        self.out.push(Action::Report(ClusterEvent::Lost { id, reason: reason.to_owned() }));
        let again = now.saturating_add(delay);
        let replace = match &mut self.adapting {
            None => Some(again),
            Some(adapting) => {
                adapting.hold = adapting.hold.max(again);
                None
            }
        };
        self.stop(&[id], replace);
        if let (false, Some(error)) = (was_broken, self.failures.broken()) {
            self.out.push(Action::Report(ClusterEvent::Degraded(error.to_string())));
        }
    }

    fn fail(&mut self, now: Time, error: Error) {
        let open = !matches!(self.phase, Phase::Closing { .. } | Phase::Done);
        if open && self.failure.is_none() {
            self.failure = Some(error.clone());
            self.out.push(Action::Failed(error));
        }
        self.begin_close(now);
    }

    fn begin_close(&mut self, now: Time) {
        if !matches!(self.phase, Phase::Closing { .. } | Phase::Done) {
            self.phase = Phase::Closing { since: now, asked: false };
            self.out.push(Action::Cancel);
        }
    }

    /// One call at a time, so that the last number told is the last one wanted.
    fn tell(&mut self, now: Time) {
        let target = self.target();
        let told = &mut self.told;
        let due = told.retry.is_none_or(|at| now >= at);
        if let Some(wanted) = target
            && told.asked.is_none()
            && due
            && told.last != target
        {
            (told.asked, told.retry) = (target, None);
            self.call(Action::SetTarget(wanted));
        }
    }

    fn stop(&mut self, ids: &[WorkerId], replace: Option<Time>) {
        for id in ids {
            self.hosts.retain(|_, owner| owner != id);
            self.places.set(*id, Slot::Stopping { replace, stop: Stop::default() });
        }
        if !ids.is_empty() && self.phase == Phase::Open {
            self.call(Action::Stop(ids.to_vec()));
        }
    }

    /// A worker that was stopped is there: a launch took effect late.
    fn haunt(&mut self, id: WorkerId) {
        if self.phase == Phase::Open && !self.places.ghosts.contains_key(&id) {
            self.places.ghosts.insert(id, Stop::default());
            self.call(Action::Stop(vec![id]));
        }
    }

    fn drain(&mut self, now: Time, ids: &[WorkerId]) {
        let mut workers = Vec::new();
        for id in ids {
            let Some(Seen { name, .. }) = self.places.of(*id).and_then(|place| place.seen.clone()) else { continue };
            self.places.set(*id, Slot::Draining { until: Some(now.saturating_add(self.limits.drain)) });
            workers.push((*id, name));
        }
        if !workers.is_empty() {
            self.call(Action::Drain(workers));
        }
    }

    fn call(&mut self, action: Action) {
        self.calls += 1;
        self.out.push(action);
    }
}
