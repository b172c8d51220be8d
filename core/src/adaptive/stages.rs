//! The work at hand, cut into what can run side by side.

use super::{
    durations::{Estimate, UNKNOWN, cautious, residual},
    load::{Group, Load},
    project::Stage,
};

/// Stages looked ahead. What lies behind the last is counted into it: nobody knows the future that well.
const HORIZON: usize = 64;

/// Stage 0: what runs and what is ready. Stage k: waiting tasks behind k unfinished groups. Tasks do not wait for whole groups
/// in truth, so a stage is an upper bound of what one group can do before the next; good enough where groups are wide.
pub(super) fn stages(load: &Load, durations: &[Estimate]) -> Vec<Stage> {
    let mut stages = vec![Stage::default()];
    let mut unlisted = vec![0u64; load.prefixes.len()];
    for group in &load.groups {
        if let Some(count) = unlisted.get_mut(group.prefix) {
            *count = count.saturating_add(group.processing);
        }
    }
    for ((prefix, duration), unlisted) in load.prefixes.iter().zip(durations).zip(&mut unlisted) {
        for elapsed in &prefix.running {
            stages[0].add_running(residual(duration.mean, elapsed.as_secs_f64()));
        }
        // Assigned to a worker that is still at something else: they may be stolen, so they count as ready.
        *unlisted = unlisted.saturating_sub(prefix.running.len() as u64);
        add(&mut stages[0], *unlisted, *duration);
    }
    for (group, place) in load.groups.iter().zip(load.places()) {
        let duration = of(durations, group);
        add(&mut stages[0], group.ready, duration);
        if group.waiting > 0 {
            let level = place.level.clamp(1, HORIZON);
            if stages.len() <= level {
                stages.resize(level + 1, Stage::default());
            }
            add(&mut stages[level], group.waiting, duration);
        }
    }
    stages
}

fn add(stage: &mut Stage, tasks: u64, duration: Estimate) {
    if tasks > 0 {
        let count = tasks as f64;
        stage.add(count, duration.mean, if duration.blind { cautious(count) } else { count });
    }
}

/// The duration of a group's tasks; of a kind that is not in the load, which only a defect could report, the first guess.
pub(super) fn of(durations: &[Estimate], group: &Group) -> Estimate {
    durations.get(group.prefix).copied().unwrap_or(Estimate { mean: UNKNOWN, unknown: true, blind: true })
}

#[cfg(test)]
mod tests {
    use std::time::Duration as Time;

    use super::{super::durations::durations, super::load::Prefix, *};

    #[test]
    fn tasks_stand_behind_what_they_wait_for() {
        let known = Prefix {
            completions: 1,
            total: Time::from_secs(2),
            longest: Time::from_secs(2),
            running: vec![Time::from_secs(1)],
            arrived: 9,
        };
        let groups = vec![
            Group { id: 1, prefix: 0, ready: 3, processing: 2, ..Group::default() },
            Group { id: 2, prefix: 0, waiting: 5, dependencies: vec![1], ..Group::default() },
            Group { id: 3, prefix: 1, waiting: 100, dependencies: vec![2], ..Group::default() },
            Group { id: 4, prefix: 7, waiting: 1, ..Group::default() },
        ];
        let load = Load { prefixes: vec![known, Prefix::default()], groups };
        let stages = stages(&load, &durations(&load));
        let counts: Vec<_> = stages.iter().map(|stage| (stage.count, stage.width)).collect();
        assert_eq!(counts, [(5.0, 5.0), (6.0, 6.0), (100.0, 10.0)]);
        assert_eq!((stages[0].work, stages[0].running.len()), (14.0, 1));
    }
}
