//! How far a run is, by task name. Pure: events in, rows out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use remuda::{Key, TaskEvent, TaskState};

/// One task of the flow file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// `None` until it is known.
    pub(crate) total: Option<u64>,
    pub(crate) done: u64,
    pub(crate) running: u64,
    /// Ended without a result, for whatever reason.
    pub(crate) failed: u64,
    /// Why calls wait for more than their turn, and how many do.
    pub(crate) waits: BTreeMap<Arc<str>, u64>,
}

impl Row {
    pub(crate) fn ended(&self) -> u64 {
        self.done + self.failed
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.ended() + self.running > 0
    }

    pub(crate) fn is_over(&self) -> bool {
        self.total == Some(self.ended())
    }

    /// `37/100, 4 running, 1 failed`.
    pub(crate) fn counts(&self) -> String {
        let mut text = match self.total {
            Some(total) => format!("{}/{total}", self.done),
            None => self.done.to_string(),
        };
        for (count, word) in [(self.running, "running"), (self.failed, "failed")] {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        text
    }
}

/// The rows of a run, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rows: Vec<Row>,
    index: HashMap<Arc<str>, usize>,
    running: HashMap<Key, usize>,
    waiting: HashMap<Key, (usize, Arc<str>)>,
}

impl Tally {
    /// Names and numbers of calls, where they are known. Tasks that share a name share a row.
    pub(crate) fn new(tasks: impl IntoIterator<Item = (String, Option<u64>)>) -> Self {
        let mut tally = Self::default();
        for (name, total) in tasks {
            match tally.index.get(name.as_str()) {
                Some(at) => {
                    let row = &mut tally.rows[*at];
                    row.total = row.total.zip(total).map(|(a, b)| a + b);
                }
                None => {
                    tally.index.insert(name.as_str().into(), tally.rows.len());
                    tally.rows.push(Row { name, total, ..Row::default() });
                }
            }
        }
        tally
    }

    pub(crate) fn add(&mut self, event: &TaskEvent) {
        let at = match self.index.get(&event.name) {
            Some(at) => *at,
            None => {
                self.index.insert(event.name.clone(), self.rows.len());
                self.rows.push(Row { name: event.name.to_string(), ..Row::default() });
                self.rows.len() - 1
            }
        };
        let was_running = self.running.remove(&event.key).is_some();
        self.waits_no_more(event.key);
        let row = &mut self.rows[at];
        row.running -= u64::from(was_running);
        match &event.state {
            TaskState::Running { .. } => {
                row.running += 1;
                self.running.insert(event.key, at);
            }
            TaskState::Done(_) => row.done += 1,
            TaskState::Ended(_) => row.failed += 1,
            // A reason that comes with the end of an attempt says why there is another one, which is counted elsewhere.
            TaskState::Pending { reason: Some(reason) } if !was_running => {
                *row.waits.entry(reason.clone()).or_default() += 1;
                self.waiting.insert(event.key, (at, reason.clone()));
            }
            TaskState::Pending { .. } => {}
        }
    }

    fn waits_no_more(&mut self, key: Key) {
        if let Some((at, reason)) = self.waiting.remove(&key)
            && let Some(count) = self.rows[at].waits.get_mut(&reason)
        {
            *count -= 1;
            if *count == 0 {
                self.rows[at].waits.remove(&reason);
            }
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All rows as one.
    pub(crate) fn sum(&self) -> Row {
        self.rows.iter().fold(Row { name: "tasks".into(), total: Some(0), ..Row::default() }, |mut sum, row| {
            sum.total = sum.total.zip(row.total).map(|(a, b)| a + b);
            sum.done += row.done;
            sum.running += row.running;
            sum.failed += row.failed;
            row.waits.iter().for_each(|(reason, count)| *sum.waits.entry(reason.clone()).or_default() += count);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use remuda::TaskError;

    use super::*;

    fn event(key: u64, name: &str, state: TaskState) -> TaskEvent {
        TaskEvent { key: Key(key), name: name.into(), state }
    }

    fn running(attempt: u32) -> TaskState {
        TaskState::Running { worker: "0-0".into(), attempt }
    }

    #[test]
    fn a_task_is_counted_once_wherever_it_is() {
        let mut tally = Tally::new([("incs".into(), Some(2)), ("each".into(), None), ("incs".into(), Some(1))]);
        tally.add(&event(0, "incs", running(0)));
        tally.add(&event(1, "incs", running(0)));
        assert_eq!(tally.rows()[0].counts(), "0/3, 2 running");
        // Its worker was lost: it waits, and runs again.
        tally.add(&event(0, "incs", TaskState::Pending { reason: None }));
        tally.add(&event(0, "incs", running(1)));
        tally.add(&event(0, "incs", running(2)));
        tally.add(&event(1, "incs", TaskState::Ended(TaskError::Cancelled)));
        assert_eq!(tally.rows()[0].counts(), "0/3, 1 running, 1 failed");
        // Never begun: nobody needs it any more.
        tally.add(&event(2, "each", TaskState::Ended(TaskError::Cancelled)));
        tally.add(&event(9, "new", running(0)));
        assert_eq!(tally.rows()[1].counts(), "0, 1 failed");
        assert_eq!((tally.sum().total, tally.sum().running, tally.rows().len()), (None, 2, 3));
    }
    #[test]
    fn a_reason_to_wait_lasts_as_long_as_somebody_waits_for_it() {
        let pending = |reason: &str| TaskState::Pending { reason: Some(reason.into()) };
        let mut tally = Tally::new([("a".into(), Some(3))]);
        tally.add(&event(0, "a", pending("no GPU")));
        tally.add(&event(1, "a", pending("no GPU")));
        tally.add(&event(1, "a", pending("no GPU")));
        assert_eq!(tally.sum().waits, BTreeMap::from([("no GPU".into(), 2)]));
        tally.add(&event(0, "a", running(0)));
        tally.add(&event(1, "a", TaskState::Pending { reason: None }));
        assert_eq!(tally.rows()[0].waits, BTreeMap::new());
        tally.add(&event(0, "a", pending("attempt 1 failed: oh")));
        assert_eq!(tally.rows()[0].waits, BTreeMap::new(), "the next attempt has its turn");
    }
}
