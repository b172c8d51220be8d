//! Why a task cannot run anywhere, said at once, and its end when that does not change.

use std::{sync::Arc, time::Instant};

use remuda_core::{
    engine::Outlook,
    error::{Error, ErrorKind},
    kwargs::nearest,
    task::{TaskError, TaskState},
};

use super::{
    Scheduler, TaskId,
    graph::{Phase, Step},
    shape::{Amount, Group, GroupId, Shape},
    workers::{Standing, Worker},
};

/// Why nothing can run a shape now.
struct Hindrance {
    reason: Arc<str>,
    hint: Option<Arc<str>>,
    /// No worker of the kind there is would do.
    unfit: bool,
    /// Nor is one to come that could run it.
    hopeless: bool,
}

const CORRECT: &str = "correct the task's annotations or the cluster's workers; `no_workers_timeout` sets how long a task waits";
const NONE_WANTED: &str = "give `n_workers`, or scale the cluster up; `no_workers_timeout` sets how long a task waits";

impl Scheduler {
    /// After a change of the workers: which queues can be served?
    pub(super) fn review(&mut self, now: Instant) {
        for id in self.groups.ids() {
            self.review_group(id, now);
        }
    }

    pub(super) fn review_group(&mut self, id: GroupId, now: Instant) {
        let Some(group) = self.groups.group(id) else { return };
        let hindrance = self.hindrance(group);
        let Some(group) = self.groups.group_mut(id) else { return };
        let hopeless = hindrance.as_ref().is_some_and(|h| h.hopeless);
        if hopeless && !group.hopeless {
            group.unrunnable = group.ready.iter().map(|(_, _, task)| (now, *task)).collect();
        } else if !hopeless {
            group.unrunnable.clear();
        }
        (group.hopeless, group.unfit) = (hopeless, hindrance.as_ref().is_some_and(|h| h.unfit));
        group.hint = hindrance.as_ref().and_then(|h| h.hint.clone());
        let reason = hindrance.map(|h| h.reason);
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
                let (reason, hint) = (group.reason.clone(), group.hint.clone());
                if self.tasks.get(&task).is_some_and(|t| matches!(t.phase, Phase::Ready)) {
                    let reason = reason.unwrap_or_else(|| "no worker can run it".into());
                    let error = Error::new(ErrorKind::Unschedulable, format!("no worker could run it for {limit:?}: {reason}"))
                        .with_hint(hint.as_deref().unwrap_or(CORRECT));
                    self.conclude(Step::End(task, Err(TaskError::Refused(error))), now);
                }
            }
        }
    }

    fn hindrance(&self, group: &Group) -> Option<Hindrance> {
        let shape = &*group.shape;
        let of = |standing| self.workers.values().filter(move |worker| worker.standing == standing);
        let (live, starting): (Vec<&Worker>, Vec<&Worker>) = (of(Standing::Live).collect(), of(Standing::Starting).collect());
        let could = |workers: &[&Worker]| workers.iter().any(|worker| worker.could_run(shape));
        if could(&live) {
            return None;
        }
        if could(&starting) {
            let reason = if live.is_empty() { self.none_yet(starting.len()) } else { lacking(shape, &live) };
            return Some(Hindrance { reason: reason.into(), hint: None, unfit: false, hopeless: false });
        }
        // Those that drain say nothing: whoever comes next does.
        let there = if live.is_empty() { starting } else { live };
        let refused = |reason: Arc<str>| Some(Hindrance { reason, hint: None, unfit: true, hopeless: true });
        if !there.is_empty() {
            return refused(lacking(shape, &there).into());
        }
        if let Some(kind) = self.kind.as_ref().filter(|kind| !kind.offers(shape)) {
            return refused(
                lacking(&Shape { workers: vec![], other_workers: true, resources: shape.resources.clone(), ..*shape }, &[kind]).into(),
            );
        }
        if let (true, Some(reason)) = (group.unfit, &group.reason) {
            return refused(reason.clone()); // it was seen with the last worker
        }
        let (reason, hint, hopeless) = match &self.outlook {
            Outlook::Adaptive { held: None } => ("no workers now: adaptive scaling starts them".to_owned(), None, false),
            Outlook::Adaptive { held: Some(held) } => (format!("no workers now: {held}"), None, false),
            Outlook::Nobody { reason, hint } => (reason.clone(), Some(hint.as_str()), true),
            Outlook::Fixed(0) => ("the cluster has no workers, and none are wanted".to_owned(), Some(NONE_WANTED), true),
            Outlook::Fixed(wanted) => (format!("no workers: 0 of {wanted} are there"), None, true),
            _ => ("no workers".to_owned(), None, true),
        };
        Some(Hindrance { reason: reason.into(), hint: hint.map(Into::into), unfit: false, hopeless })
    }

    fn none_yet(&self, starting: usize) -> String {
        let wanted = if let Outlook::Fixed(wanted) = self.outlook { wanted as usize } else { 0 };
        format!("no workers yet: 0 of {} joined", wanted.max(starting))
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
