//! What came in, and what it changes.

use super::{
    Cause, Error, Fleet, Input, Phase, Seen, Slot, Stop, TOLD, Time, Told, backoff,
    message::Action,
    slots::{Fate, Place, Places},
};
use crate::{
    error::Result,
    manager::{ClusterEvent, Scaling, WorkerId, WorkerInfo, WorkerState},
};

impl Fleet {
    pub(super) fn take_in(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {}
            Input::Started(result) => self.started(now, result),
            Input::Scale { count, victims } => self.scale(now, count, &victims),
            Input::Adapt { native } => self.adapt(native),
            Input::Decided(decision) => self.decided(now, &decision),
            Input::Launched(ids, result) => self.launched(now, &ids, &result),
            Input::Platform(workers) => self.observed(now, workers),
            Input::Joined { name, host, slots } => self.joined(now, name, host, slots),
            Input::Left { name, reason, busy } => self.left(now, &name, &reason, busy),
            Input::Drained(ids) => self.drained(&ids),
            Input::Retired { drained, busy, refused } => self.retired(now, &drained, &busy, &refused),
            Input::Stopped(ids, result) => self.stopped(now, &ids, &result),
            Input::TargetSet(result) => self.target_set(now, result),
            Input::Note(text) => self.out.push(Action::Report(ClusterEvent::Degraded(text))),
            Input::SchedulerLost(error) => self.fail(now, error),
            Input::Close => self.begin_close(now),
            Input::Closed(result) => {
                self.phase = Phase::Done;
                self.places.clear();
                self.strangers.clear();
                self.out.push(Action::Report(ClusterEvent::Closed));
                self.out.push(Action::Finished(result));
            }
        }
    }

    fn started(&mut self, now: Time, result: Result<(Scaling, u32)>) {
        self.answered();
        match (result, &self.phase) {
            (Ok((scaling, workers)), Phase::Starting { .. }) => {
                (self.phase, self.scaling) = (Phase::Open, scaling);
                let first = *self.desired.get_or_insert(workers);
                self.begin_with(first);
            }
            (Err(error), Phase::Starting { .. }) => self.fail(now, error),
            _ => {} // closing: whatever was started is closed with the rest
        }
    }

    fn scale(&mut self, now: Time, count: u32, victims: &[WorkerId]) {
        self.desired = Some(count);
        if matches!(self.phase, Phase::Closing { .. } | Phase::Done) {
            return;
        }
        if self.scaling == Scaling::None {
            let text = "the cluster is somebody else's: it is not scaled from here";
            return self.out.push(Action::Report(ClusterEvent::Degraded(text.to_owned())));
        }
        if self.adapting.take().is_some() {
            self.out.push(Action::Report(ClusterEvent::AdaptingEnded { workers: count }));
        }
        self.try_again();
        if self.phase != Phase::Open || self.scaling == Scaling::Count {
            return;
        }
        for place in self.places.iter_mut() {
            if let Slot::Waiting { until } = &mut place.slot {
                *until = now;
            }
        }
        let surplus = self.places.wanted().saturating_sub(count as usize);
        self.shed(now, surplus, victims);
    }

    /// The user said something: a new chance.
    pub(super) fn try_again(&mut self) {
        self.failures.forgive();
        self.failure = None;
        (self.told.retry, self.told.tries, self.told.last) = (None, 0, None);
    }

    /// Cheapest first: places not filled yet, requests under way, then the chosen, then the highest index.
    fn shed(&mut self, now: Time, surplus: usize, victims: &[WorkerId]) {
        let rank = |place: &Place| match place.slot {
            Slot::Waiting { .. } | Slot::Stopping { .. } => 0,
            Slot::Launching { .. } => 1,
            Slot::Starting { .. } => 2,
            _ => 4 - u8::from(victims.contains(&place.id)),
        };
        let mut order: Vec<Place> = self.places.iter().filter(|place| place.is_wanted()).cloned().collect();
        order.sort_by_key(|place| (rank(place), std::cmp::Reverse(place.id)));
        let (mut drain, mut stop) = (Vec::new(), Vec::new());
        for Place { id, slot, .. } in order.into_iter().take(surplus) {
            match slot {
                Slot::Waiting { .. } => self.places.remove(id),
                Slot::Stopping { stop, .. } => self.places.set(id, Slot::Stopping { replace: None, stop }),
                Slot::Launching { gone, .. } => self.places.set(id, Slot::Launching { fate: Fate::Unneeded, gone }),
                Slot::Starting { .. } => stop.push(id),
                Slot::Live { .. } | Slot::Draining { .. } => drain.push(id),
            }
        }
        self.stop(&stop, None);
        self.drain(now, &drain);
    }

    fn launched(&mut self, now: Time, ids: &[WorkerId], result: &Result<()>) {
        self.answered();
        if result.is_ok() {
            self.failures.well(&[Cause::Refused, Cause::Capacity]);
        }
        let (mut stop, mut drain) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(Place { slot: Slot::Launching { fate, gone }, seen, .. }) = self.places.of(*id).cloned() else { continue };
            match (fate.is_doomed(), gone, seen, result) {
                // It has joined, so it may have work already.
                (true, None, Some(_), _) => drain.push(*id),
                (true, ..) => stop.push(*id),
                (false, Some((reason, busy)), ..) => self.lost(now, *id, &reason, (!busy).then_some(Cause::Died)),
                (false, None, Some(seen), _) => self.arrive(now, *id, seen),
                (false, None, None, Ok(())) => self.places.set(*id, Slot::Starting { since: now }),
                (false, None, None, Err(error)) => self.refused(now, *id, error),
            }
        }
        self.stop(&stop, None);
        self.let_go(now, &drain);
    }

    fn refused(&mut self, now: Time, id: WorkerId, error: &Error) {
        if error.is_retryable() {
            return self.lost(now, id, &error.to_string(), Some(Cause::of(error)));
        }
        let first = self.failures.broken().is_none();
        self.failures.cut_off(error);
        self.lost(now, id, &error.to_string(), None);
        if first {
            self.out.push(Action::Report(ClusterEvent::Degraded(format!("no more workers are launched: {error}"))));
        }
    }

    fn observed(&mut self, now: Time, workers: Vec<WorkerInfo>) {
        for WorkerInfo { id, host, state, .. } in workers {
            let Some(id) = id else { continue };
            let slot = self.places.of(id).map(|place| place.slot.clone());
            match (state, slot) {
                (WorkerState::Gone { reason }, Some(Slot::Starting { .. })) => self.lost(now, id, &reason, Some(Cause::Died)),
                (WorkerState::Gone { reason }, Some(Slot::Live { settles })) => self.lost(now, id, &reason, settles.map(|_| Cause::Died)),
                (WorkerState::Gone { .. }, Some(Slot::Draining { .. })) => self.stop(&[id], None),
                (WorkerState::Gone { .. }, _) => {}
                (_, None | Some(Slot::Waiting { .. })) if self.places.issued(id) => self.haunt(id),
                (_, Some(Slot::Starting { .. } | Slot::Launching { .. } | Slot::Live { .. })) => {
                    if let Some(host) = host {
                        self.recognise(now, id, host);
                    }
                }
                _ => {}
            }
        }
    }

    /// The platform says whose address that is; the worker may be at the scheduler already.
    fn recognise(&mut self, now: Time, id: WorkerId, host: String) {
        let unseen = self.places.of(id).is_some_and(|place| place.seen.is_none());
        let name = self.strangers.iter().find(|(_, (theirs, _))| *theirs == host).map(|(name, _)| name.clone());
        self.hosts.insert(host, id);
        if let (true, Some(name)) = (unseen, name)
            && let Some((_, slots)) = self.strangers.remove(&name)
        {
            self.arrive(now, id, Seen { name, slots, since: now });
        }
    }

    fn joined(&mut self, now: Time, name: String, host: String, slots: u32) {
        let unseen = |places: &Places, id: &WorkerId| places.of(*id).is_some_and(|place| place.seen.is_none());
        let by_name = WorkerId::from_name(&name).filter(|id| self.scaling == Scaling::Workers && self.places.issued(*id));
        match by_name.or_else(|| self.hosts.get(&host).copied().filter(|id| unseen(&self.places, id))) {
            Some(id) => self.arrive(now, id, Seen { name, slots, since: now }),
            None => {
                if self.scaling != Scaling::Workers {
                    self.out.push(Action::Report(ClusterEvent::Joined { id: None, name: name.clone(), slots }));
                }
                self.strangers.insert(name, (host, slots)); // until the platform tells whose address that is
            }
        }
    }

    fn arrive(&mut self, now: Time, id: WorkerId, seen: Seen) {
        let settles = Some(now.saturating_add(self.limits.stable));
        let Some(place) = self.places.of_mut(id) else { return self.haunt(id) };
        match &mut place.slot {
            // Its launch call is not answered: nothing else may be asked about it.
            slot @ Slot::Launching { .. } if place.seen.is_none() => {
                place.seen = Some(seen);
                if let Slot::Launching { gone, .. } = slot {
                    *gone = None;
                }
                return;
            }
            Slot::Launching { .. } | Slot::Starting { .. } => place.slot = Slot::Live { settles },
            Slot::Live { .. } => {
                place.seen = Some(seen);
                return;
            }
            Slot::Waiting { .. } => return self.haunt(id),
            Slot::Draining { .. } | Slot::Stopping { .. } => return,
        }
        place.seen = Some(seen.clone());
        self.failures.well(&[Cause::NeverJoined]);
        self.out.push(Action::Report(ClusterEvent::Joined { id: Some(id), name: seen.name, slots: seen.slots }));
    }

    fn left(&mut self, now: Time, name: &str, reason: &str, busy: bool) {
        self.strangers.remove(name);
        let Some(id) = self.places.named(name) else { return };
        let Some(place) = self.places.of_mut(id) else { return };
        match &mut place.slot {
            Slot::Launching { gone, .. } => (*gone, place.seen) = (Some((reason.to_owned(), busy)), None),
            Slot::Live { settles } => {
                let cause = (settles.is_some() && !busy).then_some(Cause::Died);
                self.lost(now, id, reason, cause);
            }
            Slot::Draining { .. } => self.stop(&[id], None),
            _ => {}
        }
    }

    fn drained(&mut self, ids: &[WorkerId]) {
        self.answered();
        let is_draining = |id: &WorkerId| self.places.of(*id).is_some_and(|place| matches!(place.slot, Slot::Draining { .. }));
        let drained: Vec<WorkerId> = ids.iter().copied().filter(is_draining).collect();
        self.stop(&drained, None);
    }

    fn stopped(&mut self, now: Time, ids: &[WorkerId], result: &Result<()>) {
        self.answered();
        for id in ids {
            let ghost = self.places.ghosts.contains_key(id);
            let place = match self.places.of(*id) {
                Some(Place { slot: Slot::Stopping { replace, stop }, .. }) if stop.retry.is_none() => Some((*replace, stop.clone())),
                _ => None,
            };
            match (result, place) {
                (Ok(()), Some((Some(until), _))) => self.vacate(*id, until),
                (Ok(()), Some((None, _))) => self.places.remove(*id),
                (Ok(()), None) => drop(self.places.ghosts.remove(id)),
                (Err(error), Some((_, stop))) => self.refused_stop(now, *id, error, ghost, Some(stop)),
                (Err(error), None) => self.refused_stop(now, *id, error, ghost, None),
            }
        }
    }

    fn vacate(&mut self, id: WorkerId, until: Time) {
        if let Some(place) = self.places.of_mut(id) {
            (place.slot, place.seen) = (Slot::Waiting { until }, None);
        }
    }

    /// Asked again without end, more and more slowly.
    fn refused_stop(&mut self, now: Time, id: WorkerId, error: &Error, ghost: bool, stop: Option<Stop>) {
        let stop = match (stop, ghost) {
            (None, false) => return,
            (None, true) => self.places.ghosts.get(&id).cloned().unwrap_or_default(),
            (Some(stop), _) => stop,
        };
        let tries = stop.tries.saturating_add(1);
        let again = Stop { tries, retry: Some(now.saturating_add(backoff(self.limits.backoff, tries))) };
        match self.places.of_mut(id) {
            Some(Place { slot: Slot::Stopping { stop, .. }, .. }) => *stop = again,
            _ => drop(self.places.ghosts.insert(id, again)),
        }
        if tries == TOLD || tries > TOLD && tries.is_power_of_two() {
            let text = format!("worker {id} cannot be stopped, {tries} times tried: {error}");
            self.trouble = Some(text.clone());
            self.out.push(Action::Report(ClusterEvent::Degraded(text)));
        }
    }

    fn target_set(&mut self, now: Time, result: Result<()>) {
        self.answered();
        let asked = self.told.asked.take();
        let Err(error) = result else {
            self.told = Told { last: asked, ..Told::default() };
            return;
        };
        self.trouble = Some(error.to_string());
        if !error.is_retryable() {
            self.told.last = asked; // until the user scales
            if self.failure.is_none() && self.phase == Phase::Open {
                self.failure = Some(error.clone());
                self.out.push(Action::Failed(error));
            }
            return;
        }
        // It may have been heard all the same, so that the number before is to be said again, should it be wanted again.
        self.told.last = None;
        self.told.tries = self.told.tries.saturating_add(1);
        let delays = if Cause::of(&error) == Cause::Capacity { self.limits.capacity_backoff } else { self.limits.backoff };
        self.told.retry = Some(now.saturating_add(backoff(delays, self.told.tries)));
        self.out.push(Action::Report(ClusterEvent::Degraded(error.to_string())));
    }

    pub(super) fn answered(&mut self) {
        self.calls = self.calls.saturating_sub(1);
    }
}
