//! Why a task cannot run anywhere, said at once, and its end when that does not change.

use std::{sync::Arc, time::Instant};

use remuda_core::{
    error::{Error, ErrorKind},
    kwargs::nearest,
    task::{TaskError, TaskState},
};

use super::{
    Scheduler, TaskId,
    graph::{Phase, Step},
    shape::{Amount, GroupId, Shape},
    workers::{Standing, Worker},
};

/// Why nothing can run a shape now, and whether a worker that was asked for could change that.
struct Hindrance {
    reason: String,
    hopeless: bool,
}

impl Scheduler {
    /// After a change of the workers: which queues can be served?
    pub(super) fn review(&mut self, now: Instant) {
        for id in self.groups.ids() {
            self.review_group(id, now);
        }
    }

    pub(super) fn review_group(&mut self, id: GroupId, now: Instant) {
        let Some(shape) = self.groups.group(id).map(|group| group.shape.clone()) else { return };
        let hindrance = self.hindrance(&shape);
        let Some(group) = self.groups.group_mut(id) else { return };
        let hopeless = hindrance.as_ref().is_some_and(|h| h.hopeless);
        if hopeless && !group.hopeless {
            group.unrunnable = group.ready.iter().map(|(_, _, task)| (now, *task)).collect();
        } else if !hopeless {
            group.unrunnable.clear();
        }
        group.hopeless = hopeless;
        let reason: Option<Arc<str>> = hindrance.map(|h| h.reason.into());
        if group.reason != reason {
            group.reason.clone_from(&reason);
            let told: Vec<TaskId> = group.ready.iter().map(|(_, _, task)| *task).collect();
            for task in told {
                self.tell(task, TaskState::Pending { reason: reason.clone() });
            }
        }
    }

    pub(super) fn refuse_unrunnable(&mut self, now: Instant) {
        let limit = self.limits.no_workers_timeout;
        for id in self.groups.ids() {
            while let Some(group) = self.groups.group_mut(id)
                && let Some((since, task)) = group.unrunnable.front().copied()
                && since + limit <= now
            {
                group.unrunnable.pop_front();
                let reason = group.reason.clone();
                if self.tasks.get(&task).is_some_and(|t| matches!(t.phase, Phase::Ready)) {
                    let reason = reason.unwrap_or_else(|| "no worker can run it".into());
                    let error = Error::new(ErrorKind::Unschedulable, format!("no worker could run it for {limit:?}: {reason}")).with_hint(
                        "correct the task's annotations or the cluster's workers; `no_workers_timeout` sets how long a task waits",
                    );
                    self.conclude(Step::End(task, Err(TaskError::Refused(error))), now);
                }
            }
        }
    }

    fn hindrance(&self, shape: &Shape) -> Option<Hindrance> {
        let live = || self.workers.values().filter(|worker| worker.standing == Standing::Live);
        let starting = || self.workers.values().filter(|worker| worker.standing == Standing::Starting);
        if live().any(|worker| worker.could_run(shape)) {
            return None;
        }
        let hopeless = !starting().any(|worker| worker.could_run(shape));
        let reason = if live().next().is_none() {
            match (self.planned, starting().count()) {
                (_, 0) if self.tally.is_watched() => "no workers now: adaptive scaling starts them".to_owned(),
                (0, 0) => "the cluster has no workers (`n_workers` is 0)".to_owned(),
                (planned, 0) => format!("no workers: 0 of {planned} are there"),
                (planned, starting) => format!("no workers yet: 0 of {} joined", (planned as usize).max(starting)),
            }
        } else {
            lacking(shape, &live().collect::<Vec<_>>())
        };
        Some(Hindrance { reason, hopeless })
    }
}

fn lacking(shape: &Shape, workers: &[&Worker]) -> String {
    let named: Vec<_> = workers.iter().copied().filter(|worker| worker.is_named(&shape.workers)).collect();
    let candidates = if shape.other_workers { workers } else { &named };
    if candidates.is_empty() {
        let known: Vec<&str> = workers.iter().map(|worker| &*worker.name).collect();
        let asked: Vec<String> = shape.workers.iter().map(|name| format!("`{name}`")).collect();
        let hint = shape.workers.first().map(|name| did_you_mean(name, &known)).unwrap_or_default();
        return format!("no worker is called {}; there are {}{hint}", asked.join(" or "), list(&known));
    }
    let most_slots = candidates.iter().map(|worker| worker.slots).max().unwrap_or_default();
    if shape.slots > most_slots {
        return format!("no worker has {} slots; the most any has is {most_slots}", shape.slots);
    }
    for (name, need) in &shape.resources {
        let most = candidates.iter().filter_map(|worker| worker.total.get(name)).max();
        match most {
            None => {
                let offered: Vec<&str> = candidates.iter().flat_map(|worker| worker.total.keys()).map(String::as_str).collect();
                let hint = did_you_mean(name, &offered);
                return format!("no worker offers {name}={}; none offers any {name}{hint}", number(*need));
            }
            Some(most) if most < need => {
                return format!("no worker offers {name}={}; the most any offers is {name}={}", number(*need), number(*most));
            }
            Some(_) => {}
        }
    }
    let needs: Vec<String> = shape.resources.iter().map(|(name, need)| format!("{name}={}", number(*need))).collect();
    format!("no single worker offers all of {} with {} slots", needs.join(", "), shape.slots)
}

fn list(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        0 => "none".to_owned(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}

fn number(amount: Amount) -> String {
    (amount as f64 / 1e6).to_string()
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
