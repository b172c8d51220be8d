//! How many of the workers there are the work needs: those beyond, for long enough, may go.

use super::{project::Plan, view::View};

/// The need of now. The j-th worker is surplus exactly while the need is below j, however the tasks are spread over the workers:
/// the rule "last emptied first" (Lu and Chen 2011) without control over who gets the tasks.
///
/// Tasks that run or could count; a later stage counts if it begins before a worker let go now could be had back; and requests
/// that arrive before the work is done without them. `plan`: the projection without inflow; `alone`: when the work is done by
/// the live workers.
pub(super) fn need(view: &View<'_>, plan: &Plan, alone: f64) -> u32 {
    let side_by_side = view.workers_for(view.tasks() as f64);
    let mut need = side_by_side.min(view.live);
    let before = need;
    let soon = view.timer.max(view.startup + 2.0 * view.adaptive.interval());
    for (begin, stage) in plan.ends.iter().zip(view.stages.iter().skip(1)) {
        if *begin <= soon {
            need = need.max(view.workers_for(stage.count).min(view.current()));
        }
    }
    let useful =
        view.arrivals.iter().enumerate().filter(|(at, arrival)| arrival.after < alone && before.saturating_add(*at as u32) < side_by_side);
    need.saturating_add(useful.count() as u32)
}

/// How long back the need counts: as long as a worker may idle. The short wait is enough where slots idle now cannot be wanted
/// in time: the work at hand outlasts the timer, and nothing comes while it runs.
pub(super) fn window(view: &View<'_>, alone: f64, overlapping: bool) -> f64 {
    let known_tail = view.tasks() > 0 && view.rate <= 0.0 && !overlapping && alone.is_finite() && alone > view.timer;
    if known_tail { view.adaptive.short_wait() } else { view.keep }
}
