//! Why a task cannot run anywhere, said at once, and its end when that does not change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    /// How long a worker that could run it is waited for. `None`: one comes.
    patience: Option<Duration>,
}

const NAME: &str = "name workers that are there, or let others do it with `allow_other_workers`";
const ASK_LESS: &str = "ask for what the workers have, or give them more: `resources` and `threads_per_worker` say what each has";
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
        let patience = hindrance.as_ref().and_then(|h| h.patience);
        match (group.patience, patience) {
            (None, Some(_)) => group.unrunnable = group.ready.iter().map(|(_, _, task)| (now, *task)).collect(),
            (_, None) => group.unrunnable.clear(),
            _ => {}
        }
        (group.patience, group.unfit) = (patience, hindrance.as_ref().is_some_and(|h| h.unfit));
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
        for id in self.groups.ids() {
            while let Some(group) = self.groups.group_mut(id)
                && let (Some(patience), Some((since, task))) = (group.patience, group.unrunnable.front().copied())
                && since + patience <= now
            {
                group.unrunnable.pop_front();
                let error = refusal(group, patience);
                if self.tasks.get(&task).is_some_and(|t| matches!(t.phase, Phase::Ready)) {
                    self.conclude(Step::End(task, Err(TaskError::Refused(error))), now);
                }
            }
        }
    }

    /// Why a task is not even waited with: what it asks for never comes.
    pub(super) fn in_vain(&self, id: GroupId) -> Option<TaskError> {
        let group = self.groups.group(id).filter(|group| group.patience == Some(Duration::ZERO))?;
        Some(TaskError::Refused(refusal(group, Duration::ZERO)))
    }

    /// Whether another worker would be of no use to the tasks of a group.
    pub(super) fn wants_nobody(&self, group: &Group) -> bool {
        // All that are there are busy, so the next would be one more, and it would have the name that is asked for.
        let is_next = || !self.workers.values().any(Worker::has_free_slot) && self.could_be_next(&group.shape);
        group.unfit && !is_next()
    }

    fn hindrance(&self, group: &Group) -> Option<Hindrance> {
        let (shape, limit) = (&*group.shape, self.limits.no_workers_timeout);
        let of = |standing| self.workers.values().filter(move |worker| worker.standing == standing);
        let could = |standing| of(standing).any(|worker| worker.could_run(shape));
        if could(Standing::Live) {
            return None; // nearly always, so nothing is gathered for it
        }
        let (live, starting): (Vec<&Worker>, Vec<&Worker>) = (of(Standing::Live).collect(), of(Standing::Starting).collect());
        if could(Standing::Starting) {
            let reason = if live.is_empty() { self.none_yet(starting.len()) } else { lacking(shape, &live) };
            return Some(Hindrance { reason: reason.into(), hint: None, unfit: false, patience: None });
        }
        // Those that drain say nothing: whoever comes next does.
        let there = if live.is_empty() { starting } else { live };
        let refused = |reason: Arc<str>, patience, hint: Option<&str>| {
            Some(Hindrance { reason, hint: hint.map(Into::into), unfit: true, patience: Some(patience) })
        };
        if let Some(kind) = self.kind.as_ref().filter(|kind| !kind.offers(shape)) {
            let any = Shape { workers: vec![], other_workers: true, resources: shape.resources.clone(), ..*shape };
            return refused(lacking(&any, &[kind]).into(), Duration::ZERO, Some(ASK_LESS));
        }
        if !self.may_come(shape) {
            return refused(lacking(shape, &there).into(), Duration::ZERO, Some(NAME));
        }
        if !there.is_empty() {
            return refused(lacking(shape, &there).into(), limit, None);
        }
        if !self.could_be_next(shape) {
            let leaving = of(Standing::Draining).find(|worker| !shape.other_workers && worker.could_run(shape));
            if let Some(worker) = leaving {
                return refused(format!("worker {} is let go and takes no more work", worker.name).into(), limit, None);
            }
            if let (true, Some(reason)) = (group.unfit, &group.reason) {
                return refused(reason.clone(), limit, None); // it was seen with the last worker
            }
        }
        let (hint, patience) = match &self.outlook {
            Outlook::Adaptive { .. } => (None, None),
            Outlook::Nobody { hint, .. } => (Some(hint.as_str()), Some(limit)),
            Outlook::Fixed(0) => (Some(NONE_WANTED), Some(limit)),
            _ => (None, Some(limit)),
        };
        let reason = match self.outlook {
            // None of them starts: no "yet".
            Outlook::Fixed(wanted @ 1..) => format!("no workers: 0 of {wanted} are there"),
            _ => self.outlook.absence(),
        };
        Some(Hindrance { reason: reason.into(), hint: hint.map(Into::into), unfit: false, patience })
    }

    fn none_yet(&self, starting: usize) -> String {
        let wanted = if let Outlook::Fixed(wanted) = self.outlook { wanted } else { 0 };
        Outlook::Fixed(wanted.max(u32::try_from(starting).unwrap_or(u32::MAX))).absence()
    }
}

fn refusal(group: &Group, patience: Duration) -> Error {
    let reason = group.reason.as_deref().unwrap_or("no worker can run it");
    let text = if patience.is_zero() { reason.to_owned() } else { format!("no worker could run it for {patience:?}: {reason}") };
    Error::new(ErrorKind::Unschedulable, text).with_hint(group.hint.as_deref().unwrap_or(CORRECT))
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
