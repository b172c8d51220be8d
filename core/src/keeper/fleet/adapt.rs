//! Adaptive scaling: the fleet in the policy's terms, and what it decided, carried out.
//!
//! The policy has the say about every place: one whose worker is gone is not filled again by itself, and what went wrong delays all
//! launches alike.

use std::time::Duration;

use super::{
    Cause, Fleet, Phase, Seen, Slot, Time,
    message::Action,
    slots::{Fate, Place},
};
use crate::{
    adaptive::{self, Decision, Reason},
    manager::{ClusterEvent, Scaling, Target, WorkerId},
};

/// A worker whose results have no other place is not asked to go again for so long.
const KEPT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Adapting {
    /// The platform scales by itself within these bounds.
    native: Option<(u32, Option<u32>)>,
    /// To be launched now.
    launch: u32,
    /// How many workers there would be if they could be had.
    pub(super) wanted: u32,
    /// Nothing is launched before.
    pub(super) hold: Time,
}

/// One worker in the policy's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// [`WorkerId`] as a number, where the class launches by id.
    pub id: u64,
    /// Its name at the scheduler, once it joined.
    pub name: Option<String>,
    /// How far it is.
    pub phase: adaptive::Phase,
    /// When it was asked for.
    pub launched: Option<Time>,
    /// How many tasks it runs at once; 0 until it joined.
    pub slots: u32,
    /// It was asked to go and could not: its results have no other place.
    pub kept: bool,
}

/// How it goes with launches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Launches {
    /// Nothing can be launched now.
    pub blocked: bool,
    /// How often in a row that has failed.
    pub failed: u32,
}

impl Fleet {
    /// How it goes with launches.
    #[must_use]
    pub fn launches(&self, now: Time) -> Launches {
        Launches { blocked: self.is_blocked(now), failed: self.failures.in_a_row().max(self.told.tries) }
    }

    /// Every worker that was asked for and has not ended.
    pub fn members(&mut self, now: Time) -> Vec<Member> {
        match (&mut self.adapting, self.scaling) {
            (Some(_), Scaling::Count) => self.crowd.members(&self.strangers, self.desired.unwrap_or(0), now),
            (_, Scaling::Workers) => self.places.iter().filter_map(|place| member(place, now)).collect(),
            _ => vec![],
        }
    }

    /// Whether nothing can be launched now.
    #[must_use]
    pub fn is_blocked(&self, now: Time) -> bool {
        let held = self.adapting.as_ref().is_some_and(|adapting| now < adapting.hold);
        held || self.failures.broken().is_some() || self.told.retry.is_some() || self.failure.is_some()
    }

    /// When something can be launched again, if it is only a matter of time.
    #[must_use]
    pub fn blocked_until(&self, now: Time) -> Option<Time> {
        self.adapting
            .as_ref()
            .filter(|_| self.failures.broken().is_none())
            .map(|adapting| adapting.hold)
            .max(self.told.retry)
            .filter(|at| *at > now)
    }

    pub(super) fn bounds(&self) -> Option<(u32, Option<u32>)> {
        self.adapting.as_ref().and_then(|adapting| adapting.native)
    }

    /// What a platform that counts is to be told.
    pub(super) fn target(&self) -> Option<Target> {
        match self.bounds() {
            Some((minimum, maximum)) => Some(Target::Between { minimum, maximum }),
            None => self.desired.map(Target::Exactly),
        }
    }

    pub(super) fn adapt(&mut self, native: Option<(u32, Option<u32>)>) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Done) || self.scaling == Scaling::None {
            return;
        }
        self.try_again();
        if self.adapting.is_none() {
            self.crowd.begin_anew();
        }
        self.adapting = Some(Adapting { native, wanted: self.desired.unwrap_or(0), ..Adapting::default() });
        // Places that wait to be filled again: whether they are is the policy's to say.
        let vacant: Vec<WorkerId> =
            self.places.iter().filter(|place| matches!(place.slot, Slot::Waiting { .. })).map(|place| place.id).collect();
        vacant.into_iter().for_each(|id| self.places.remove(id));
        for place in self.places.iter_mut() {
            if let Slot::Stopping { replace, .. } = &mut place.slot {
                *replace = None;
            }
        }
    }

    pub(super) fn decided(&mut self, now: Time, decision: &Decision) {
        let Some(adapting) = self.adapting.as_mut().filter(|adapting| adapting.native.is_none()) else { return };
        if self.phase != Phase::Open {
            return;
        }
        adapting.wanted = match decision.reason {
            Reason::Blocked { wanted } => decision.desired.saturating_add(wanted),
            _ => decision.desired,
        };
        if self.scaling == Scaling::Count {
            self.crowd.forget(&decision.cancelled);
            self.crowd.ask(decision.launch, now);
            self.desired = Some(decision.desired);
            return;
        }
        let (lost, unneeded) = decision.cancelled.split_at(decision.cancelled.len().min(decision.lost as usize));
        for id in lost.iter().map(|id| WorkerId::from(*id)) {
            self.never_came(now, id);
        }
        let mut stop = Vec::new();
        for id in unneeded.iter().map(|id| WorkerId::from(*id)) {
            match self.places.of_mut(id).map(|place| &mut place.slot) {
                Some(Slot::Launching { fate, .. }) if !fate.is_doomed() => *fate = Fate::Unneeded,
                Some(Slot::Starting { .. }) => stop.push(id),
                _ => {}
            }
        }
        self.stop(&stop, None);
        let is_live = |id: &WorkerId| self.places.of(*id).is_some_and(|place| matches!(place.slot, Slot::Live { .. }));
        let victims: Vec<WorkerId> = decision.victims.iter().map(|id| WorkerId::from(*id)).filter(is_live).collect();
        self.let_go(now, &victims);
        self.begin_with(decision.launch);
    }

    pub(super) fn begin_with(&mut self, launch: u32) {
        if let Some(adapting) = &mut self.adapting {
            adapting.launch = launch;
        }
    }

    /// How many places are to be added.
    pub(super) fn missing(&mut self) -> usize {
        match &mut self.adapting {
            Some(adapting) => std::mem::take(&mut adapting.launch) as usize,
            None => (self.desired() as usize).saturating_sub(self.places.wanted()),
        }
    }

    /// A request that is written off.
    fn never_came(&mut self, now: Time, id: WorkerId) {
        let Some(place) = self.places.of_mut(id) else { return };
        let waited = now.saturating_sub(place.launched);
        let reason = format!("it did not join the scheduler within {:.0} s", waited.as_secs_f64());
        match &mut place.slot {
            Slot::Starting { .. } => self.lost(now, id, &reason, Some(Cause::NeverJoined)),
            // Its launch call is not answered: it is stopped after that.
            Slot::Launching { fate, .. } if !fate.is_doomed() => {
                *fate = Fate::WrittenOff;
                self.trouble = Some(format!("worker {id}: {reason}"));
                self.out.push(Action::Report(ClusterEvent::Lost { id, reason }));
            }
            _ => {}
        }
    }

    /// Workers that may have work have to go. Those the policy chose had none when it looked: what has come since is finished,
    /// however long it takes.
    pub(super) fn let_go(&mut self, now: Time, ids: &[WorkerId]) {
        if self.adapting.is_none() {
            return self.drain(now, ids);
        }
        for id in ids {
            self.places.set(*id, Slot::Draining { until: None });
        }
        self.retire(ids);
    }

    fn retire(&mut self, ids: &[WorkerId]) {
        let named = |id: &WorkerId| self.places.of(*id).and_then(|place| Some((*id, place.seen.as_ref()?.name.clone())));
        let workers: Vec<(WorkerId, String)> = ids.iter().filter_map(named).collect();
        if !workers.is_empty() && self.phase == Phase::Open {
            self.call(Action::Retire(workers));
        }
    }

    /// `busy` ones run something, `refused` ones cannot be drained.
    pub(super) fn retired(&mut self, now: Time, drained: &[WorkerId], busy: &[WorkerId], refused: &[WorkerId]) {
        self.answered();
        let draining = |ids: &[WorkerId]| -> Vec<WorkerId> {
            let is_draining = |id: &WorkerId| self.places.of(*id).is_some_and(|place| matches!(place.slot, Slot::Draining { .. }));
            ids.iter().copied().filter(is_draining).collect()
        };
        let (drained, busy, refused) = (draining(drained), draining(busy), draining(refused));
        self.stop(&drained, None);
        self.retire(&busy);
        if self.adapting.is_none() {
            return self.drain(now, &refused); // somebody said a number meanwhile: its rules
        }
        for id in refused {
            if let Some(place) = self.places.of_mut(id) {
                (place.slot, place.kept) = (Slot::Live { settles: None }, now.saturating_add(KEPT));
            }
        }
    }

    /// What is there is what is wanted, until the policy says otherwise.
    pub(super) fn follow(&mut self) {
        if self.adapting.is_some() {
            self.desired = u32::try_from(self.places.wanted()).ok();
        }
    }
}

fn member(place: &Place, now: Time) -> Option<Member> {
    let phase = match place.slot {
        Slot::Waiting { .. } => return None,
        Slot::Launching { fate: Fate::Wanted, .. } | Slot::Starting { .. } => adaptive::Phase::Starting,
        Slot::Live { .. } => adaptive::Phase::Live(place.seen.as_ref().map_or(now, |seen: &Seen| seen.since)),
        Slot::Launching { .. } | Slot::Draining { .. } | Slot::Stopping { .. } => adaptive::Phase::Draining,
    };
    let seen = place.seen.as_ref();
    Some(Member {
        id: place.id.into(),
        name: seen.map(|seen| seen.name.clone()),
        phase,
        launched: Some(place.launched),
        slots: seen.map_or(0, |seen| seen.slots),
        kept: now < place.kept,
    })
}
