//! Who goes: requests first, then idle workers, those that hold the least first; busy ones only beyond the maximum.

use super::{
    decision::Hold,
    fleet::{Fleet, Phase, Worker},
    floor::MEMORY_FILL,
    view::View,
};

/// Requests to take back that the work does not need: those not billed yet, youngest first.
pub(super) fn unbilled(view: &View<'_>, count: u32) -> Vec<u64> {
    view.starting.iter().filter(|request| !request.billed).take(count as usize).map(|request| request.id).collect()
}

/// Requests among `surplus` workers that are paid for already, but by the second: taken back, youngest first, too. With a minimum
/// charge they may as well arrive, unless there are more than there may be (`over`).
pub(super) fn requests(view: &View<'_>, taken: &[u64], surplus: u32, over: u32) -> Vec<u64> {
    let charged = !view.adaptive.backend.minimum_charge.is_zero();
    let count = if charged { over } else { surplus };
    view.starting.iter().filter(|request| !taken.contains(&request.id)).take(count as usize).map(|request| request.id).collect()
}

/// Up to `count` idle workers. None while a task is ready: it would want one. Those that stay must be able to hold what is
/// stored, and what is paid for as a minimum is used: what held the last one that could not go.
pub(super) fn idle(view: &View<'_>, count: u32, since_billed: impl Fn(u64) -> Option<f64>) -> (Vec<u64>, Option<Hold>) {
    let (mut victims, mut hold) = (vec![], None);
    if view.ready > 0 || count == 0 {
        return (victims, hold);
    }
    let minimum_charge = view.adaptive.backend.minimum_charge.as_secs_f64() - 1.5 * view.adaptive.interval();
    let mut idle: Vec<&Worker> = view.fleet.workers.iter().filter(|worker| worker.is_idle()).collect();
    idle.sort_by_key(|worker| (worker.bytes, worker.id));
    let mut room = Room::of(view.fleet);
    for worker in idle {
        if victims.len() == count as usize {
            break;
        }
        if since_billed(worker.id).is_some_and(|paid| paid < minimum_charge) {
            hold = Some(Hold::Charge);
            continue;
        }
        if !room.holds_without(worker, view.stored) {
            hold = Some(Hold::Results);
            break;
        }
        room.leave(worker);
        victims.push(worker.id);
    }
    (victims, hold)
}

/// Up to `count` workers beyond those, as there are more than there may be: whatever they run, or waits. Idle ones first, and those that
/// hold the least. And how many of them are busy: they finish what they run.
pub(super) fn beyond(view: &View<'_>, victims: &[u64], count: u32) -> (Vec<u64>, u32) {
    let (mut more, mut busy) = (vec![], 0);
    if count == 0 {
        return (more, busy);
    }
    let mut room = Room::of(view.fleet);
    let live = |worker: &&Worker| matches!(worker.phase, Phase::Live(_));
    let (gone, mut left): (Vec<&Worker>, Vec<&Worker>) =
        view.fleet.workers.iter().filter(live).partition(|worker| victims.contains(&worker.id));
    gone.into_iter().for_each(|worker| room.leave(worker));
    left.sort_by_key(|worker| (worker.processing > 0, worker.bytes, worker.processing, worker.id));
    for worker in left.into_iter().filter(|worker| !worker.pinned) {
        if more.len() < count as usize && room.holds_without(worker, view.stored) {
            room.leave(worker);
            busy += u32::from(worker.processing > 0);
            more.push(worker.id);
        }
    }
    (more, busy)
}

/// The memory of the live workers that stay.
#[derive(Debug)]
struct Room {
    workers: u32,
    /// How many of them have no limit, and the limits of the others.
    unlimited: u32,
    bytes: f64,
}

impl Room {
    fn of(fleet: &Fleet) -> Self {
        let mut room = Self { workers: 0, unlimited: 0, bytes: 0.0 };
        for worker in fleet.workers.iter().filter(|worker| matches!(worker.phase, Phase::Live(_))) {
            room.workers += 1;
            room.unlimited += u32::from(worker.memory_limit == 0);
            room.bytes += worker.memory_limit as f64;
        }
        room
    }

    fn holds_without(&self, worker: &Worker, stored: f64) -> bool {
        let unlimited = self.unlimited - u32::from(worker.memory_limit == 0);
        stored <= 0.0 || self.workers > 1 && (unlimited > 0 || stored <= MEMORY_FILL * (self.bytes - worker.memory_limit as f64))
    }

    fn leave(&mut self, worker: &Worker) {
        self.workers -= 1;
        self.unlimited -= u32::from(worker.memory_limit == 0);
        self.bytes -= worker.memory_limit as f64;
    }
}
