//! Workers as the scheduler sees them: what they offer, what is taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use remuda_core::manager::WorkerId;

use super::{
    Ended, RunId, Scheduler,
    shape::{Amount, Shape, amount},
};

/// Tasks without a slot that one worker runs at once, at most: each needs a thread.
pub(crate) const WITHOUT_SLOT: u32 = 128;

/// What a worker offers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) slots: u32,
    pub(crate) resources: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Starting,
    Live,
    Draining,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    index: String,
    host: String,
    pub(crate) standing: Standing,
    pub(crate) slots: u32,
    /// Below zero while a task that waited goes on beside the one that took its place.
    free_slots: i64,
    without_slot: u32,
    pub(crate) total: BTreeMap<String, Amount>,
    free: BTreeMap<String, Amount>,
    /// Kept for better tasks, during one dispatch.
    kept_slots: i64,
    kept: BTreeMap<String, Amount>,
    pub(crate) runs: BTreeSet<RunId>,
}

impl Worker {
    fn new(id: WorkerId, place: Place) -> Self {
        let total: BTreeMap<_, _> = place.resources.iter().map(|(name, value)| (name.clone(), amount(*value))).collect();
        Self {
            name: id.to_string().into(),
            index: id.index.to_string(),
            host: place.host,
            standing: Standing::Starting,
            slots: place.slots,
            free_slots: place.slots.into(),
            without_slot: 0,
            free: total.clone(),
            total,
            kept_slots: 0,
            kept: BTreeMap::new(),
            runs: BTreeSet::new(),
        }
    }

    /// Not one that is there, but what those to come are like.
    pub(super) fn of_kind(place: Place) -> Self {
        Self::new(WorkerId { index: 0, incarnation: 0 }, place)
    }

    pub(crate) fn is_named(&self, names: &[String]) -> bool {
        names.iter().any(|name| **name == *self.name || *name == self.index || *name == self.host)
    }

    pub(crate) fn offers(&self, shape: &Shape) -> bool {
        shape.slots <= self.slots && shape.resources.iter().all(|(name, need)| self.total.get(name).is_some_and(|have| have >= need))
    }

    /// Whether it could run such a task when nothing else runs.
    pub(crate) fn could_run(&self, shape: &Shape) -> bool {
        self.offers(shape) && (shape.other_workers || self.is_named(&shape.workers))
    }

    pub(crate) fn has_room(&self, shape: &Shape) -> bool {
        let slots = match shape.slots {
            0 => self.without_slot < WITHOUT_SLOT,
            slots => self.free_slots - self.kept_slots >= slots.into(),
        };
        slots
            && shape.resources.iter().all(|(name, need)| {
                let kept = self.kept.get(name).copied().unwrap_or_default();
                self.free.get(name).is_some_and(|free| *free >= need + kept)
            })
    }

    pub(crate) fn has_free_slot(&self) -> bool {
        self.standing == Standing::Live && self.free_slots > 0
    }

    /// A task that is better than those that follow waits for a place here.
    pub(crate) fn keep(&mut self, shape: &Shape) {
        if shape.slots > 1 {
            self.kept_slots += i64::from(shape.slots);
        }
        for (name, need) in &shape.resources {
            *self.kept.entry(name.clone()).or_default() += need;
        }
    }

    pub(crate) fn forget_kept(&mut self) {
        self.kept_slots = 0;
        self.kept.clear();
    }

    pub(crate) fn take(&mut self, run: RunId, shape: &Shape) {
        self.runs.insert(run);
        self.free_slots -= i64::from(shape.slots);
        self.without_slot += u32::from(shape.slots == 0);
        for (name, need) in &shape.resources {
            if let Some(free) = self.free.get_mut(name) {
                *free -= need;
            }
        }
    }

    fn give_back(&mut self, run: RunId, shape: &Shape, paused: bool) {
        if !self.runs.remove(&run) {
            return;
        }
        self.free_slots += if paused { 0 } else { i64::from(shape.slots) };
        self.without_slot -= u32::from(shape.slots == 0);
        for (name, need) in &shape.resources {
            if let Some(free) = self.free.get_mut(name) {
                *free += need;
            }
        }
    }

    /// Used slots per slot, in a form that compares without division.
    pub(crate) fn load(&self) -> i64 {
        let used = i64::from(self.slots) - self.free_slots;
        used * 1_000_000 / i64::from(self.slots.max(1)) + i64::from(self.without_slot)
    }

    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.free_slots <= i64::from(self.slots));
        for (name, free) in &self.free {
            assert!(*free <= self.total[name], "{name}");
        }
        if self.runs.is_empty() {
            assert_eq!(self.free_slots, i64::from(self.slots));
            assert_eq!(self.free, self.total);
            assert_eq!(self.without_slot, 0);
        }
    }
}

impl Scheduler {
    /// A worker was asked for.
    pub(crate) fn expect_worker(&mut self, id: WorkerId, place: Place, now: Instant) {
        self.workers.insert(id, Worker::new(id, place));
        let next = self.incarnations.entry(id.index).or_default();
        *next = id.incarnation.saturating_add(1).max(*next);
        self.review(now);
    }

    /// It takes tasks.
    pub(crate) fn worker_joined(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.standing == Standing::Starting
        {
            worker.standing = Standing::Live;
            self.review(now);
            self.dispatch(now);
        }
    }

    /// It is given nothing more.
    pub(crate) fn drain_worker(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.standing = Standing::Draining;
            self.review(now);
        }
    }

    /// It is gone. `cause`: by accident, and what it ran has lost a worker; `None`: on purpose, which is not its tasks' fault.
    pub(crate) fn worker_gone(&mut self, id: WorkerId, cause: Option<&str>, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.standing = Standing::Draining;
        for run in worker.runs.clone() {
            self.effects.interrupts.push(run);
            match cause {
                Some(cause) => self.finish(run, Ended::Lost(cause.to_owned()), now),
                None => self.give_up(run, now),
            }
        }
        self.workers.remove(&id);
        self.review(now);
        self.dispatch(now);
    }

    /// Whether the worker that is started next, at the lowest index that nobody has, would have a name that is asked for.
    pub(super) fn could_be_next(&self, shape: &Shape) -> bool {
        let index = self.workers.keys().fold(0, |free, id| if id.index == free { free + 1 } else { free });
        let id = WorkerId { index, incarnation: self.incarnations.get(&index).copied().unwrap_or_default() };
        let called = |name: &String| *name == index.to_string() || *name == id.to_string() || self.is_host(name);
        !shape.other_workers && shape.workers.iter().any(called)
    }

    /// Whether a worker to come may have a name that is asked for: an index, however many there have been, or one that nobody has had yet.
    pub(super) fn may_come(&self, shape: &Shape) -> bool {
        let may = |name: &String| {
            let is_index = name.parse::<u32>().is_ok_and(|index| index.to_string() == *name);
            let is_new = |id: WorkerId| self.incarnations.get(&id.index).is_none_or(|next| id.incarnation >= *next);
            is_index || WorkerId::from_name(name).is_some_and(is_new) || self.is_host(name)
        };
        // Of no kind nothing is known.
        self.kind.is_none() || shape.other_workers || shape.workers.iter().any(may)
    }

    fn is_host(&self, name: &str) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.host == name)
    }

    /// Whether it runs nothing.
    pub(crate) fn is_empty(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_none_or(|worker| worker.runs.is_empty())
    }

    /// Scheduler names of the workers that take tasks.
    pub(crate) fn live_workers(&self) -> impl Iterator<Item = (&Arc<str>, &str, u32)> {
        let live = self.workers.values().filter(|worker| worker.standing == Standing::Live);
        live.map(|worker| (&worker.name, worker.host.as_str(), worker.slots))
    }

    /// The task waits for others: its slot, not its resources, is free meanwhile.
    pub(crate) fn pause(&mut self, run: RunId, now: Instant) {
        self.set_paused(run, true, now);
        self.dispatch(now);
    }

    pub(crate) fn resume(&mut self, run: RunId, now: Instant) {
        self.set_paused(run, false, now);
    }

    fn set_paused(&mut self, id: RunId, paused: bool, now: Instant) {
        if self.runs.get(&id).is_none_or(|run| run.paused == paused || !self.workers.contains_key(&run.worker)) {
            return;
        }
        self.pauses(id, paused);
        let Some(run) = self.runs.get_mut(&id) else { return };
        match paused {
            true => run.paused_at = now,
            false => run.since += now.saturating_duration_since(run.paused_at),
        }
        run.paused = paused;
        if let Some(worker) = self.workers.get_mut(&run.worker) {
            let slots = i64::from(run.shape.slots);
            worker.free_slots += if paused { slots } else { -slots };
        }
    }

    /// What an attempt held is free again.
    pub(super) fn vacate(&mut self, id: RunId, run: &super::Run) {
        if let Some(deadline) = run.deadline {
            self.timeouts.remove(&(deadline, id));
        }
        if let Some(worker) = self.workers.get_mut(&run.worker) {
            worker.give_back(id, &run.shape, run.paused);
        }
    }
}
