//! Why nobody is asked for, and nobody goes.

use super::{
    decision::{Decision, Hold, Reason},
    fleet::Phase,
    project::Plan,
    view::View,
};

/// A request is late that is older than so many start-ups.
const LATE: f64 = 2.0;

/// What keeps workers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Workers that the work needs now, floors apart.
    pub(super) bare: u32,
    /// The largest floor, and which it is.
    pub(super) floor: u32,
    pub(super) why: Option<Reason>,
    /// For what is stored.
    pub(super) memory: u32,
    /// Workers that were needed at most, lately.
    pub(super) lately: u32,
    /// How long they stay that were needed lately.
    pub(super) patience: f64,
    /// Workers beyond all of that, and what holds them.
    pub(super) spare: u32,
    pub(super) hold: Option<Hold>,
    /// How long requests are waited for.
    pub(super) waited: f64,
}

/// The reason for a decision that starts nobody, unless it has one.
pub(super) fn explain(view: &View<'_>, decision: &Decision, base: &Plan, kept: Kept) -> Reason {
    if decision.reason != Reason::Asleep {
        return decision.reason.clone();
    }
    let (tasks, starting) = (view.unfinished(), view.starting.len() as u32);
    let enough = Reason::Enough { tasks, finish: base.finite() };
    match (decision.lost, decision.desired, view.fleet.failed) {
        (1.., ..) => return Reason::Lost { after: kept.waited },
        (0, 0, _) => return if tasks == 0 { Reason::Asleep } else { enough },
        (0, _, failed @ 1..) if starting > 0 => return Reason::Failing { starting, failed },
        _ => {}
    }
    let oldest = view.starting.last().map_or(0.0, |request| request.age);
    if oldest > LATE * view.startup + view.adaptive.interval() {
        return Reason::Late { starting, waited: oldest, usual: view.startup };
    }
    // More than there are tasks for, and may be fewer.
    let surplus = decision.desired.saturating_sub(view.workers_for(view.tasks() as f64).max(view.adaptive.minimum()));
    let workless = view.fleet.workers.iter().filter(|worker| matches!(worker.phase, Phase::Live(_)) && worker.processing == 0);
    let (idle, free) = workless.fold((0, 0), |(idle, free), worker| (idle + 1, free + u32::from(!worker.pinned)));
    match (surplus.min(idle), surplus.min(starting)) {
        (0, 0) => enough,
        (0, coming) => Reason::Coming { surplus: coming },
        (idle, _) if kept.spare > 0 => match kept.hold {
            Some(by) => Reason::Held { surplus: idle, by },
            None if free == 0 => Reason::Held { surplus: idle, by: Hold::Pinned },
            None => enough, // a task is ready, and may go to one of them
        },
        (idle, _) => kept.needed(view, idle),
    }
}

impl Kept {
    /// Which of the needs it is.
    fn needed(self, view: &View<'_>, surplus: u32) -> Reason {
        let now = self.bare.max(self.floor);
        if self.lately > now.max(self.memory) {
            Reason::Idling { surplus, patience: self.patience }
        } else if self.memory > now {
            Reason::Memory { stored: view.stored as u64 }
        } else {
            self.why.filter(|_| self.floor >= self.bare).unwrap_or(Reason::Ahead { surplus })
        }
    }
}
