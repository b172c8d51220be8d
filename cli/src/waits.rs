//! Which waits are worth a word, and when: each is told once, with its reason.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use remuda::ClusterStatus;

use crate::{tally::Tally, workers};

/// What lasts no longer is not worth a word.
const SHORT: Duration = Duration::from_millis(500);

/// Where nothing else is shown only a wait of this length is told,
const LONG: Duration = Duration::from_secs(10);

/// and of this one where the workers are known to be starting, which takes its time on some platforms.
const START: Duration = Duration::from_secs(60);

/// What else is shown of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Progress, in which the workers that start are counted.
    Shown,
    Quiet,
}

/// Who waits, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Wait {
    /// All, for the first worker or the next one: it is known to come.
    Starting,
    /// All, and nobody is on the way.
    Nobody,
    /// Calls of a task, for more than their turn.
    Task(String, Arc<str>),
}

/// What was told.
#[derive(Debug)]
pub(crate) struct Waits {
    manner: Manner,
    since: HashMap<Wait, Instant>,
    told: HashSet<Wait>,
}

impl Waits {
    pub(crate) fn new(manner: Manner) -> Self {
        Self { manner, since: HashMap::new(), told: HashSet::new() }
    }

    /// What is to be told now.
    pub(crate) fn news(&mut self, tally: &Tally, status: &ClusterStatus, now: Instant) -> Vec<String> {
        let current = current(tally, status);
        // A cluster that has had workers and has none again is news.
        self.told.retain(|wait| matches!(wait, Wait::Task(..)) || current.contains_key(wait));
        self.since.retain(|wait, _| current.contains_key(wait));
        let mut due = Vec::new();
        for (wait, line) in current {
            let since = *self.since.entry(wait.clone()).or_insert(now);
            let is_due = self.patience(&wait).is_some_and(|patience| now.duration_since(since) >= patience);
            if is_due && self.told.insert(wait.clone()) {
                due.push((wait, line));
            }
        }
        due.sort();
        due.into_iter().map(|(_, line)| line).collect()
    }

    fn patience(&self, wait: &Wait) -> Option<Duration> {
        match (self.manner, wait) {
            (Manner::Shown, Wait::Starting) => None,
            (Manner::Shown, _) => Some(SHORT),
            (Manner::Quiet, Wait::Starting) => Some(START),
            (Manner::Quiet, _) => Some(LONG),
        }
    }
}

/// Each wait, in words.
fn current(tally: &Tally, status: &ClusterStatus) -> HashMap<Wait, String> {
    let waits = tally.rows().iter().flat_map(|row| row.waits.keys().map(|reason| (row.name.clone(), reason.clone())));
    if status.running > 0 {
        return waits.map(|(name, reason)| (Wait::Task(name.clone(), reason.clone()), format!("{name}: waiting: {reason}"))).collect();
    }
    // Whatever the tasks ask for, what they wait for is a worker.
    let first = waits.map(|(_, reason)| reason).min();
    let all = first.map(|reason| match status.starting {
        0 => (Wait::Nobody, format!("waiting: {reason}")),
        starting => {
            let trouble = status.trouble.as_ref().map_or(String::new(), |trouble| format!("; the last trouble: {trouble}"));
            (Wait::Starting, format!("waiting: no worker has joined, {} starting{trouble}", workers::of(u64::from(starting), "worker")))
        }
    });
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use remuda::{Key, TaskEvent, TaskState};

    use super::*;

    fn pending(tally: &mut Tally, key: u64, name: &str, reason: &str) {
        let state = TaskState::Pending { reason: Some(reason.into()) };
        tally.add(&TaskEvent { key: Key(key), name: name.into(), state });
    }

    fn status(running: u32, starting: u32) -> ClusterStatus {
        let mut status = ClusterStatus::default();
        (status.running, status.starting) = (running, starting);
        status
    }

    const NONE: Vec<String> = Vec::new();

    #[test]
    fn a_reason_to_wait_is_told_once() {
        let (mut tally, mut waits, begin) = (Tally::default(), Waits::new(Manner::Shown), Instant::now());
        pending(&mut tally, 0, "gpu", "no GPU");
        pending(&mut tally, 1, "gpu", "no GPU");
        assert_eq!(waits.news(&tally, &status(1, 0), begin), NONE, "new");
        assert_eq!(waits.news(&tally, &status(1, 0), begin + SHORT), ["gpu: waiting: no GPU"]);
        pending(&mut tally, 2, "gpu", "no GPU");
        assert_eq!(waits.news(&tally, &status(1, 0), begin + 4 * SHORT), NONE);
    }

    #[test]
    fn an_empty_cluster_is_told_once_for_all_tasks_and_not_while_workers_start() {
        let (mut tally, mut waits, begin) = (Tally::default(), Waits::new(Manner::Shown), Instant::now());
        for (key, name) in ["a", "b", "c"].into_iter().enumerate() {
            pending(&mut tally, key as u64, name, "the cluster has no workers");
        }
        for seconds in 0..100 {
            assert_eq!(waits.news(&tally, &status(0, 2), begin + Duration::from_secs(seconds)), NONE, "the progress counts them");
        }
        let mut at = |seconds, running| waits.news(&tally, &status(running, 0), begin + Duration::from_secs(seconds));
        assert_eq!(at(100, 0), NONE);
        assert_eq!(at(101, 0), ["waiting: the cluster has no workers"]);
        assert_eq!(at(200, 0), NONE);
        at(201, 1);
        assert_eq!(at(202, 0), NONE);
        assert_eq!(at(203, 0), ["waiting: the cluster has no workers"], "again");
    }

    #[test]
    fn where_nothing_else_is_shown_a_long_wait_is() {
        let (mut tally, mut waits, begin) = (Tally::default(), Waits::new(Manner::Quiet), Instant::now());
        pending(&mut tally, 0, "a", "the cluster has no workers");
        let mut starting = status(0, 2);
        starting.trouble = Some("worker 0-0: exit code 1".to_owned());
        assert_eq!(waits.news(&tally, &starting, begin), NONE);
        assert_eq!(waits.news(&tally, &starting, begin + LONG), NONE, "they may take their time");
        let told = waits.news(&tally, &starting, begin + START);
        assert_eq!(told, ["waiting: no worker has joined, 2 workers starting; the last trouble: worker 0-0: exit code 1"]);
        let begin = begin + START;
        assert_eq!(waits.news(&tally, &status(0, 0), begin), NONE);
        assert_eq!(waits.news(&tally, &status(0, 0), begin + LONG), ["waiting: the cluster has no workers"]);
        assert_eq!(waits.news(&tally, &status(0, 0), begin + 9 * LONG), NONE);
    }
}
