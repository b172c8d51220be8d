//! Workers to have at least: bounds, streams, recurring graphs, stored results.

use super::{decision::Reason, view::View};

/// Share of the workers' memory that stored results may fill (as Dask has it).
pub(super) const MEMORY_FILL: f64 = 0.6;

/// The largest of the floors, and which one it is.
pub(super) fn floor(view: &View<'_>, base: u32) -> (u32, Reason) {
    let minimum = view.adaptive.minimum();
    let floors = [
        (minimum, Reason::Minimum { workers: minimum }),
        (view.streaming, Reason::Stream { rate: view.rate }),
        (recurring(view, base), Reason::Recurring { workers: base }),
        (short_of_memory(view), Reason::Memory { stored: view.stored as u64 }),
    ];
    let mut largest = floors[0].clone();
    for floor in floors.into_iter().skip(1) {
        if floor.0 > largest.0 {
            largest = floor;
        }
    }
    largest
}

/// An investment in graphs like the recent ones: made while there is a backlog, kept until it has arrived.
fn recurring(view: &View<'_>, base: u32) -> u32 {
    let tasks = view.tasks() as f64;
    let backlog = tasks > f64::from(view.current()) * view.slots;
    let widest = view.stages.iter().map(|stage| stage.width).fold(0.0, f64::max);
    let floor = base.min(view.workers_for(widest));
    match backlog {
        true => floor,
        false if tasks > 0.0 && !view.starting.is_empty() => floor.min(view.current()),
        false => 0,
    }
}

fn short_of_memory(view: &View<'_>) -> u32 {
    let needed = memory(view);
    let live = view.fleet.workers.iter().filter(|worker| matches!(worker.phase, super::fleet::Phase::Live(_)));
    let limit: Option<f64> = live.map(|worker| (worker.memory_limit > 0).then_some(worker.memory_limit as f64)).sum();
    let short = limit.is_some_and(|limit| view.stored > MEMORY_FILL * limit);
    if short || view.current() <= needed { needed } else { 0 }
}

/// Workers whose memory holds what is stored.
pub(super) fn memory(view: &View<'_>) -> u32 {
    match view.fleet.memory_limit {
        0 => 0,
        limit => (view.stored / (MEMORY_FILL * limit as f64)).ceil() as u32,
    }
}
