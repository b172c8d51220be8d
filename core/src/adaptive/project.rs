//! When the work at hand is done, and what it costs until then, with a given fleet.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Up to so many tasks a stage is list-scheduled; more are treated as a fluid.
const EXACT: f64 = 32.0;

/// Tasks that can run side by side, once the stages before are over.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stage {
    /// Seconds of work.
    pub(super) work: f64,
    /// Tasks.
    pub(super) count: f64,
    /// Parallelism to plan for: less than `count` where nothing is known of the tasks.
    pub(super) width: f64,
    /// The longest task.
    pub(super) longest: f64,
    /// What is left of each running task (first stage only).
    pub(super) running: Vec<f64>,
    /// How long it takes until those are over that run on workers on their way out: they want no slot, but later stages wait for them.
    pub(super) leaving: f64,
    /// (count, seconds each) of those that do not run.
    pub(super) classes: Vec<(f64, f64)>,
}

impl Stage {
    /// `count` tasks of `seconds` each, of which `width` are planned side by side.
    pub(super) fn add(&mut self, count: f64, seconds: f64, width: f64) {
        self.work += count * seconds;
        self.count += count;
        self.width += width;
        self.longest = self.longest.max(seconds);
        self.classes.push((count, seconds));
    }

    /// A task that runs for `left` seconds more.
    pub(super) fn add_running(&mut self, left: f64) {
        self.work += left;
        self.count += 1.0;
        self.width += 1.0;
        self.longest = self.longest.max(left);
        self.running.push(left);
    }
}

/// Slots that come later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arrival {
    /// In how many seconds.
    pub(super) after: f64,
    /// How many.
    pub(super) slots: f64,
}

/// What work is projected onto.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots<'a> {
    /// Those there now.
    pub(super) live: f64,
    /// Those to come, soonest first.
    pub(super) arrivals: &'a [Arrival],
    /// A slot without work is paid for at most so long per stage: then it is let go.
    pub(super) hold: f64,
}

/// The outcome of a projection, from now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// When each stage ends; empty stages end with the one before. Infinite from the stage on that never ends.
    pub(super) ends: Vec<f64>,
    /// Slot-seconds paid. Infinite if it never ends.
    pub(super) cost: f64,
}

impl Plan {
    /// When all is done.
    pub(super) fn finish(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }

    /// The same, if that is ever.
    pub(super) fn finite(&self) -> Option<f64> {
        Some(self.finish()).filter(|finish| finish.is_finite())
    }
}

/// Runs `stages` one after the other; `inflow` seconds of new work per second come into the first.
pub(super) fn project(slots: Slots<'_>, stages: &[Stage], inflow: f64) -> Plan {
    let mut plan = Plan { ends: Vec::with_capacity(stages.len()), cost: 0.0 };
    let mut now = 0.0;
    for (at, stage) in stages.iter().enumerate() {
        let inflow = if at == 0 { inflow } else { 0.0 };
        let step = match stage.count {
            count if count <= 0.0 => Some((now + stage.leaving, 0.0)),
            count if count <= EXACT && inflow <= 0.0 => listed(slots, stage, now),
            _ => fluid(slots, stage, now, inflow),
        };
        let Some((end, cost)) = step else {
            plan.ends.resize(stages.len(), f64::INFINITY);
            return Plan { cost: f64::INFINITY, ..plan };
        };
        now = end.max(now + stage.leaving);
        plan.cost += cost;
        plan.ends.push(now);
    }
    plan
}

/// Longest task first onto the slot that is free first (Graham 1969): (end, cost). `None`: no slot ever.
fn listed(slots: Slots<'_>, stage: &Stage, start: f64) -> Option<(f64, f64)> {
    let mut tasks: Vec<f64> = stage.classes.iter().flat_map(|&(count, seconds)| std::iter::repeat_n(seconds, count as usize)).collect();
    tasks.sort_by(|a, b| b.total_cmp(a));
    let (free, surplus) = first_free(slots, stage, start, tasks.len());
    let mut end = stage.running.iter().fold(start, |end, left| end.max(start + left));
    let mut busy: f64 = stage.running.iter().sum();
    let mut heap: BinaryHeap<Reverse<Micros>> = free.iter().map(|&at| Reverse(Micros::of(at))).collect();
    for seconds in tasks {
        let Reverse(at) = heap.pop()?;
        let done = at.seconds() + seconds;
        busy += seconds;
        end = end.max(done);
        heap.push(Reverse(Micros::of(done)));
    }
    // Slots that wait for the end of the stage.
    let waiting = |from: f64| (end - from).max(0.0).min(slots.hold);
    let idle = heap.iter().map(|at| waiting(at.0.seconds())).sum::<f64>()
        + surplus.iter().map(|&(from, count)| count * waiting(from)).sum::<f64>();
    Some((end, busy + idle))
}

/// When the slots that `tasks` could use become free, and (since when, how many) others idle.
fn first_free(slots: Slots<'_>, stage: &Stage, start: f64, tasks: usize) -> (Vec<f64>, Vec<(f64, f64)>) {
    let mut free: Vec<f64> = stage.running.iter().map(|left| start + left).collect();
    let (mut used, mut surplus) = (0, vec![]);
    let idle = (slots.live - stage.running.len() as f64).max(0.0);
    let later = slots.arrivals.iter().map(|arrival| (arrival.after.max(start), arrival.slots));
    for (from, count) in std::iter::once((start, idle)).chain(later) {
        let take = (count as usize).min(tasks - used);
        used += take;
        free.extend(std::iter::repeat_n(from, take));
        surplus.push((from, count.floor() - take as f64));
    }
    (free, surplus)
}

/// Work flows off at the rate of the slots: (end, cost). `None`: never.
fn fluid(slots: Slots<'_>, stage: &Stage, start: f64, inflow: f64) -> Option<(f64, f64)> {
    let (mut now, mut cost, mut idle) = (start, 0.0, 0.0);
    let mut capacity = slots.live;
    let mut arrivals = slots.arrivals.iter().peekable();
    let mut left = stage.work.max(1e-9);
    while left > 1e-9 {
        while let Some(arrival) = arrivals.next_if(|arrival| arrival.after <= now + 1e-12) {
            capacity += arrival.slots;
        }
        let rate = if inflow > 0.0 { capacity } else { capacity.min(stage.count) };
        let net = rate - inflow;
        let next = arrivals.peek().map(|arrival| arrival.after - now);
        if capacity <= 0.0 || net <= 1e-9 {
            let wait = next?;
            left -= net * wait;
            cost += capacity * wait;
            now += wait;
            continue;
        }
        let step = next.map_or(left / net, |next| next.min(left / net));
        cost += rate * step + (capacity - rate) * step.min((slots.hold - idle).max(0.0));
        if capacity > rate {
            idle += step;
        }
        left -= net * step;
        now += step;
    }
    // The last tasks do not end together, and the longest bounds the stage from below.
    let ragged = if capacity >= stage.count { 0.0 } else { 0.5 * stage.work / stage.count };
    let tail = ragged.max(start + stage.longest - now).max(0.0);
    cost += tail + 0.5 * (capacity - 1.0).max(0.0) * tail.min(slots.hold);
    Some((now + tail, cost))
}

/// A time that can be ordered, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Micros(u64);

impl Micros {
    fn of(seconds: f64) -> Self {
        Self((seconds * 1e6) as u64)
    }

    fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(count: f64, seconds: f64) -> Stage {
        let mut stage = Stage::default();
        stage.add(count, seconds, count);
        stage
    }

    fn run(live: f64, arrivals: &[Arrival], stages: &[Stage], inflow: f64) -> Plan {
        project(Slots { live, arrivals, hold: 60.0 }, stages, inflow)
    }

    /// Each figure by hand; the fluid adds half a task for the ragged end.
    #[test]
    fn it_equals_schedules_made_by_hand() {
        let ten = run(10.0, &[], &[stage(100.0, 1.0)], 0.0);
        assert!((ten.finish() - 10.5).abs() < 1e-6 && (100.0..=105.0).contains(&ten.cost), "{ten:?}");
        let later = run(0.0, &[Arrival { after: 60.0, slots: 10.0 }], &[stage(100.0, 1.0)], 0.0);
        assert!((later.finish() - 70.5).abs() < 1e-6, "{later:?}");
        assert!((run(2.0, &[], &[stage(3.0, 10.0)], 0.0).finish() - 20.0).abs() < 1e-6);
        assert!((run(3.0, &[], &[stage(3.0, 10.0)], 0.0).finish() - 10.0).abs() < 1e-6);
        let stages = [stage(3.0, 10.0), Stage::default(), stage(1.0, 5.0)];
        assert_eq!(run(3.0, &[], &stages, 0.0).ends, [10.0, 10.0, 15.0]);
    }

    #[test]
    fn what_can_not_end_does_not() {
        assert!(run(0.0, &[], &[stage(1.0, 1.0), stage(1.0, 1.0)], 0.0).ends.iter().all(|end| end.is_infinite()));
        assert!(run(5.0, &[], &[stage(1000.0, 1.0)], 6.0).finish().is_infinite());
        assert!((run(10.0, &[], &[stage(1000.0, 1.0)], 6.0).finish() - 250.0).abs() < 2.0);
    }

    #[test]
    fn slots_that_come_too_late_change_no_end_and_idle_ones_cost_their_hold() {
        let work = [stage(20.0, 1.0)];
        let late = [Arrival { after: 62.0, slots: 1.0 }];
        assert_eq!(run(1.0, &[], &work, 0.0).finish(), run(1.0, &late, &work, 0.0).finish());
        // Two tasks of 100 s on ten slots: eight idle for the hold.
        assert!((run(10.0, &[], &[stage(2.0, 100.0)], 0.0).cost - (200.0 + 8.0 * 60.0)).abs() < 1e-6);
    }
}
