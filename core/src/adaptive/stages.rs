//! The work at hand, cut into what can run side by side.

use std::time::Duration;

use super::{
    durations::{Estimate, UNKNOWN, cautious, residual},
    fleet::{Fleet, Phase},
    load::{Group, Load},
    project::Stage,
};

/// Stages looked ahead. What lies behind the last is counted into it: nobody knows the future that well.
const HORIZON: usize = 64;

/// Stage 0: what runs and what is ready. Stage k: waiting tasks behind k unfinished groups. Tasks do not wait for whole groups
/// in truth, so a stage is an upper bound of what one group can do before the next; good enough where groups are wide.
///
/// `leaving`: of each kind, how many tasks run on workers that are on their way out.
pub(super) fn stages(load: &Load, durations: &[Estimate], leaving: &[u64]) -> Vec<Stage> {
    let mut stages = vec![Stage::default()];
    let mut unlisted = vec![0u64; load.prefixes.len()];
    for group in &load.groups {
        if let Some(count) = unlisted.get_mut(group.prefix) {
            *count = count.saturating_add(group.processing);
        }
    }
    for (((prefix, duration), unlisted), leaving) in load.prefixes.iter().zip(durations).zip(unlisted).zip(leaving) {
        let mut running: Vec<f64> = prefix.running.iter().map(Duration::as_secs_f64).collect();
        running.sort_by(|a, b| b.total_cmp(a));
        let (left, stay) = running.split_at(running.len().min(*leaving as usize));
        for elapsed in left {
            stages[0].leaving = stages[0].leaving.max(residual(duration.mean, *elapsed));
        }
        for elapsed in stay {
            stages[0].add_running(residual(duration.mean, *elapsed));
        }
        // Assigned to a worker that is still at something else: they may be stolen, so they count as ready.
        add(&mut stages[0], unlisted.saturating_sub(stay.len() as u64 + *leaving), *duration);
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

/// Which tasks run on workers that are on their way out: of each kind, how many. Their workers have taken nothing new for a while, so
/// those that run longest are the likeliest.
pub(super) fn leaving(load: &Load, fleet: &Fleet) -> Vec<u64> {
    let mut leaving = vec![0u64; load.prefixes.len()];
    let draining = fleet.workers.iter().filter(|worker| worker.phase == Phase::Draining);
    let count = draining.fold(0u64, |sum, worker| sum.saturating_add(worker.processing.into()));
    if count == 0 {
        return leaving;
    }
    let listed = load.prefixes.iter().enumerate().flat_map(|(kind, prefix)| prefix.running.iter().map(move |elapsed| (*elapsed, kind)));
    let mut listed: Vec<(Duration, usize)> = listed.collect();
    listed.sort_unstable_by(|a, b| b.cmp(a));
    listed.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let mut left = count - listed.len() as u64;
    listed.into_iter().for_each(|(_, kind)| leaving[kind] += 1);
    // Those that wait on such a worker for others there to end. Several groups may be of one kind.
    let mut unlisted = vec![0u64; leaving.len()];
    for group in &load.groups {
        if let Some(count) = unlisted.get_mut(group.prefix) {
            *count = count.saturating_add(group.processing);
        }
    }
    for (leaving, processing) in leaving.iter_mut().zip(unlisted) {
        let more = processing.saturating_sub(*leaving).min(left);
        *leaving += more;
        left -= more;
    }
    leaving
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

    use super::{
        super::{durations::durations, fleet::Worker, load::Prefix},
        *,
    };

    #[test]
    fn those_that_leave_are_of_all_groups_of_a_kind() {
        let of = |id, prefix, processing| Group { id, prefix, processing, ..Group::default() };
        let known = Prefix { running: vec![Duration::from_secs(1); 2], ..Prefix::default() };
        let load = Load { prefixes: vec![known, Prefix::default()], groups: vec![of(1, 0, 3), of(2, 0, 3), of(3, 1, 9)] };
        let gone = |processing| {
            let workers = vec![Worker {
                id: 0,
                phase: Phase::Draining,
                launched: None,
                billed: None,
                slots: 1,
                processing,
                bytes: 0,
                memory_limit: 0,
                pinned: false,
            }];
            leaving(&load, &Fleet { workers, ..Fleet::default() })
        };
        assert_eq!((gone(0), gone(1), gone(5)), (vec![0, 0], vec![1, 0], vec![5, 0]));
        assert_eq!((gone(8), gone(99)), (vec![6, 2], vec![6, 9]));
    }

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
        let stages = stages(&load, &durations(&load), &[0, 0]);
        let counts: Vec<_> = stages.iter().map(|stage| (stage.count, stage.width)).collect();
        assert_eq!(counts, [(5.0, 5.0), (6.0, 6.0), (100.0, 10.0)]);
        assert_eq!((stages[0].work, stages[0].running.len()), (14.0, 1));
    }
}
