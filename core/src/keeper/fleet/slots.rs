//! The places of the desired set, and who fills them.

use std::collections::BTreeMap;

use super::Time;
use crate::{
    keeper::status::{WorkerSnapshot, WorkerStage},
    manager::WorkerId,
};

/// One place of the desired set, held by the incarnation that fills it, filled it last, or is on its way out.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    /// When its launch was asked for.
    pub(super) launched: Time,
    /// What the scheduler told.
    pub(super) seen: Option<Seen>,
    /// Its results have no other place: until then it is not asked to go.
    pub(super) kept: Time,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) slots: u32,
    pub(super) since: Time,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Slot {
    /// Its last incarnation is gone for certain; the next is launched then.
    Waiting { until: Time },
    /// The launch call is under way: nothing else is asked about this worker until it is answered.
    Launching {
        fate: Fate,
        /// It joined and left meanwhile: why, and whether it was busy.
        gone: Option<(String, bool)>,
    },
    /// Launched, not at the scheduler yet.
    Starting { since: Time },
    /// At the scheduler. `settles`: when it has lived long enough to be called well.
    Live { settles: Option<Time> },
    /// Finishes what it runs, until then at most. `None`: however long that takes.
    Draining { until: Option<Time> },
    /// Being stopped. `replace`: when the place may be filled again; `None`: the place goes, too.
    Stopping { replace: Option<Time>, stop: Stop },
}

/// What becomes of a worker whose launch call is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Wanted,
    /// Stopped as soon as the call is answered, unless somebody is wanted again before.
    Unneeded,
    /// Stopped as soon as the call is answered: another was asked for in its place.
    WrittenOff,
}

impl Fate {
    pub(super) fn is_doomed(self) -> bool {
        self != Self::Wanted
    }
}

/// A stop is asked for until it is granted. `retry`: when to ask again; `None`: a call is under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stop {
    pub(super) tries: u32,
    pub(super) retry: Option<Time>,
}

impl Place {
    /// Whether the place counts towards the desired number.
    pub(super) fn is_wanted(&self) -> bool {
        match self.slot {
            Slot::Launching { fate, .. } => !fate.is_doomed(),
            Slot::Draining { .. } | Slot::Stopping { replace: None, .. } => false,
            _ => true,
        }
    }

    /// Whether somebody is there or on the way.
    pub(super) fn is_manned(&self) -> bool {
        matches!(self.slot, Slot::Launching { .. } | Slot::Starting { .. } | Slot::Live { .. })
    }

    pub(super) fn snapshot(&self) -> WorkerSnapshot {
        let stage = match self.slot {
            Slot::Waiting { .. } => WorkerStage::Waiting,
            Slot::Launching { .. } | Slot::Starting { .. } => WorkerStage::Starting,
            Slot::Live { .. } => WorkerStage::Running,
            Slot::Draining { .. } => WorkerStage::Draining,
            Slot::Stopping { .. } => WorkerStage::Stopping,
        };
        WorkerSnapshot {
            id: Some(self.id),
            name: self.seen.as_ref().map(|seen| seen.name.clone()),
            stage,
            slots: self.seen.as_ref().map_or(0, |seen| seen.slots),
        }
    }
}

/// Places by index, and the incarnations given out so far.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<u32, Place>,
    incarnations: BTreeMap<u32, u32>,
    /// Workers that were stopped, and yet are there: a launch took effect after its stop. Stopped again; their index stays free.
    pub(super) ghosts: BTreeMap<WorkerId, Stop>,
}

impl Places {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.places.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.places.values_mut()
    }

    /// The place, if that very incarnation holds it.
    pub(super) fn of(&self, id: WorkerId) -> Option<&Place> {
        self.places.get(&id.index).filter(|place| place.id == id)
    }

    pub(super) fn of_mut(&mut self, id: WorkerId) -> Option<&mut Place> {
        self.places.get_mut(&id.index).filter(|place| place.id == id)
    }

    pub(super) fn set(&mut self, id: WorkerId, slot: Slot) {
        if let Some(place) = self.of_mut(id) {
            place.slot = slot;
        }
    }

    pub(super) fn remove(&mut self, id: WorkerId) {
        if self.of(id).is_some() {
            self.places.remove(&id.index);
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<WorkerId> {
        self.iter().find(|place| place.seen.as_ref().is_some_and(|seen| seen.name == name)).map(|place| place.id)
    }

    pub(super) fn wanted(&self) -> usize {
        self.iter().filter(|place| place.is_wanted()).count()
    }

    /// Whether we ever gave that id to the platform.
    pub(super) fn issued(&self, id: WorkerId) -> bool {
        self.incarnations.get(&id.index).is_some_and(|next| id.incarnation < *next)
    }

    /// Whether a worker of that index may still be there although its place says otherwise.
    pub(super) fn haunted(&self, index: u32) -> bool {
        self.ghosts.keys().any(|ghost| ghost.index == index)
    }

    /// The lowest indices without a place.
    pub(super) fn free(&self, count: usize) -> Vec<u32> {
        (0..).filter(|index| !self.places.contains_key(index) && !self.haunted(*index)).take(count).collect()
    }

    /// Takes up to `count` of those that are no longer needed back in, whose launch cannot be undone before it is answered: others beside them
    /// would be more than there may be. Those that have joined first, then the oldest. How many it took.
    pub(super) fn revive(&mut self, count: usize) -> usize {
        let unneeded = |place: &&mut Place| matches!(place.slot, Slot::Launching { fate: Fate::Unneeded, gone: None });
        let mut unneeded: Vec<&mut Place> = self.places.values_mut().filter(unneeded).collect();
        unneeded.sort_by_key(|place| (place.seen.is_none(), place.launched, place.id));
        unneeded.truncate(count);
        for place in &mut unneeded {
            place.slot = Slot::Launching { fate: Fate::Wanted, gone: None };
        }
        unneeded.len()
    }

    /// The next incarnation for a free or waiting index; its launch is asked for now.
    pub(super) fn fill(&mut self, index: u32, now: Time) -> WorkerId {
        let next = self.incarnations.entry(index).or_default();
        let id = WorkerId { index, incarnation: *next };
        *next += 1;
        let slot = Slot::Launching { fate: Fate::Wanted, gone: None };
        self.places.insert(index, Place { id, slot, launched: now, seen: None, kept: Time::ZERO });
        id
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.ghosts.clear();
    }
}
