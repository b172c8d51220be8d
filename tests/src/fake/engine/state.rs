//! What the engine in memory knows, and its rules.

use super::*;

/// How often a task may lose its worker when it does not say.
pub(super) const ALLOWED_FAILURES: u32 = 3;

pub(super) type Id = (u64, Key);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) workers: BTreeMap<String, Worker>,
    pub(super) tasks: BTreeMap<Id, Task>,
    pub(super) sessions: HashMap<u64, Option<mpsc::UnboundedSender<TaskEvent>>>,
    pub(super) listeners: Vec<mpsc::UnboundedSender<WorkerChange>>,
    pub(super) opened: u64,
    pub(super) submitted: u64,
    /// Results stay here until they are gathered.
    pub(super) keeps: bool,
    /// How many keys each gather asked for.
    pub(super) gathers: Vec<usize>,
    pub(super) defects: BTreeSet<Defect>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) host: String,
    pub(super) slots: u32,
    pub(super) resources: BTreeMap<String, f64>,
    pub(super) draining: bool,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) spec: TaskSpec,
    pub(super) order: u64,
    pub(super) held: bool,
    pub(super) failures: u32,
    pub(super) lost: u32,
    pub(super) attempt: u32,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum Place {
    Waiting { reason: Option<Arc<str>> },
    On { worker: Arc<str>, cancel: CancellationToken },
    End(Outcome),
}

/// How an attempt ended.
pub(super) enum End {
    Outcome(Outcome),
    WorkerDied(String),
}

impl Task {
    pub(super) fn is_on(&self, name: &str) -> bool {
        matches!(&self.place, Place::On { worker, .. } if **worker == *name)
    }

    pub(super) fn is_final(&self) -> bool {
        matches!(self.place, Place::End(_))
    }

    pub(super) fn needs(&self) -> impl Iterator<Item = &remuda_core::task::Input> {
        self.spec.inputs.iter().chain(&self.spec.after)
    }
}

impl State {
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defects.contains(&defect)
    }

    pub(super) fn tell(&mut self, change: WorkerChange) {
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }

    pub(super) fn event(&self, id: Id, state: TaskState) {
        if let (Some(Some(listener)), Some(task)) = (self.sessions.get(&id.0), self.tasks.get(&id)) {
            let _ = listener.send(TaskEvent { key: id.1, name: task.spec.name.clone(), state });
        }
    }

    pub(super) fn put(&mut self, id: Id, place: Place) {
        let state = match &place {
            Place::Waiting { reason } => TaskState::Pending { reason: reason.clone() },
            Place::On { worker, .. } => TaskState::Running { worker: worker.clone(), attempt: self.tasks[&id].attempt },
            Place::End(Ok(_)) if self.keeps => TaskState::Done(Value::There),
            Place::End(Ok(value)) => TaskState::Done(value.clone()),
            Place::End(Err(error)) => TaskState::Ended(error.clone()),
        };
        if self.has(Defect::TellsTwice) && state.is_final() {
            self.event(id, state.clone());
        }
        self.event(id, state);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.place = place;
        }
    }

    /// An input that ended badly ends its task; true if there was one.
    pub(super) fn fail_dependents(&mut self) -> bool {
        if self.has(Defect::NoUpstream) {
            return false;
        }
        let doomed = self.tasks.iter().filter(|(_, task)| matches!(task.place, Place::Waiting { .. })).find_map(|(id, task)| {
            task.needs().filter(|input| !input.allow_failure).find_map(|input| match self.tasks.get(&(id.0, input.key)) {
                Some(Task { place: Place::End(Err(cause)), spec, .. }) => {
                    let error = match cause {
                        TaskError::UpstreamFailed { .. } => cause.clone(),
                        _ => TaskError::UpstreamFailed { key: input.key, name: spec.name.clone(), cause: Box::new(cause.clone()) },
                    };
                    Some((*id, error))
                }
                _ => None,
            })
        });
        doomed.map(|(id, error)| self.put(id, Place::End(Err(error)))).is_some()
    }

    /// The next task that can begin, and where. Those that fit nowhere are told why, once.
    pub(super) fn next(&mut self) -> Option<(Id, String)> {
        let (no_order, no_priorities) = (self.has(Defect::NoOrder), self.has(Defect::NoPriorities));
        let is_ready = |id: &Id, task: &Task| {
            matches!(task.place, Place::Waiting { .. })
                && task
                    .needs()
                    .take(if no_order { task.spec.inputs.len() } else { usize::MAX })
                    .all(|input| self.tasks.get(&(id.0, input.key)).is_some_and(Task::is_final))
        };
        let mut ready: Vec<(Id, i64, u64)> = self
            .tasks
            .iter()
            .filter(|(id, task)| is_ready(id, task))
            .map(|(id, task)| (*id, if no_priorities { 0 } else { -task.spec.annotations.priority }, task.order))
            .collect();
        ready.sort_by_key(|(_, priority, order)| (*priority, *order));
        for (id, ..) in ready {
            let wants = self.tasks[&id].spec.annotations.clone();
            match self.workers.iter().find(|(name, worker)| self.fits_now(name, worker, &wants)) {
                Some((name, _)) => return Some((id, name.clone())),
                None => self.explain(id, &wants),
            }
        }
        None
    }

    pub(super) fn named(&self, name: &str, worker: &Worker, wants: &Annotations) -> bool {
        self.has(Defect::NoPlaces)
            || wants.workers.is_empty()
            || wants.allow_other_workers
            || wants.workers.iter().any(|w| w == name || *w == worker.host)
    }

    pub(super) fn fits_now(&self, name: &str, worker: &Worker, wants: &Annotations) -> bool {
        let running = || self.tasks.values().filter(|task| task.is_on(name)).map(|task| &task.spec.annotations);
        let slots: u32 = running().map(|a| a.slots).sum();
        let taken = |what: &str| running().filter_map(|a| a.resources.get(what)).sum::<f64>();
        !worker.draining
            && self.named(name, worker, wants)
            && slots + wants.slots <= worker.slots + u32::from(self.has(Defect::NoSlots))
            && wants.resources.iter().all(|(what, n)| {
                self.has(Defect::NoResources) || taken(what) + n <= worker.resources.get(what).copied().unwrap_or_default()
            })
    }

    pub(super) fn explain(&mut self, id: Id, wants: &Annotations) {
        let offers = |worker: &Worker, what: &str, n: f64| worker.resources.get(what).is_some_and(|has| *has >= n);
        let reason = if self.workers.is_empty() {
            Some("there is no worker".to_owned())
        } else if !self.workers.iter().any(|(name, worker)| self.named(name, worker, wants)) {
            Some(format!("no worker is called {}", wants.workers.join(" or ")))
        } else {
            let lacking = wants.resources.iter().find(|(what, n)| !self.workers.values().any(|worker| offers(worker, what, **n)));
            lacking.map(|(what, n)| format!("no worker offers {what}={n}"))
        };
        let reason = reason.map(Arc::from);
        if !matches!(&self.tasks[&id].place, Place::Waiting { reason: told } if *told == reason) {
            self.put(id, Place::Waiting { reason });
        }
    }

    pub(super) fn begin(&mut self, id: Id, worker: &str) -> (TaskSpec, TaskScope, Vec<Outcome>) {
        let (spec, attempt) = (self.tasks[&id].spec.clone(), self.tasks[&id].attempt);
        let outcome = |key: Key| match &self.tasks[&(id.0, key)].place {
            Place::End(outcome) => outcome.clone(),
            _ => unreachable!("only ready tasks are begun"),
        };
        let inputs = spec.inputs.iter().map(|input| outcome(input.key)).collect();
        let (worker, cancel): (Arc<str>, _) = (worker.into(), CancellationToken::new());
        self.put(id, Place::On { worker: worker.clone(), cancel: cancel.clone() });
        (spec, TaskScope { key: id.1, attempt, worker, cancel, slot: None, session: None }, inputs)
    }

    pub(super) fn ended(&mut self, id: Id, outcome: Outcome) {
        let no_retries = self.has(Defect::NoRetries);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let again = !no_retries && matches!(outcome, Err(TaskError::Failed(_))) && task.failures < task.spec.annotations.retries;
        if again {
            task.failures += 1;
            task.attempt += 1;
        }
        self.put(id, if again { Place::Waiting { reason: None } } else { Place::End(outcome) });
    }

    pub(super) fn lose(&mut self, id: Id, worker: &str, reason: &str) {
        let endless = self.has(Defect::EndlessRetries);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if let Place::On { cancel, .. } = &task.place {
            cancel.cancel();
        }
        task.lost += 1;
        task.attempt += 1;
        let crash = Crash { cause: reason.to_owned(), worker: worker.to_owned(), attempts: task.lost };
        let spent = !endless && task.lost > task.spec.annotations.allowed_failures.unwrap_or(ALLOWED_FAILURES);
        self.put(id, if spent { Place::End(Err(TaskError::Crashed(Arc::new(crash)))) } else { Place::Waiting { reason: None } });
    }

    pub(super) fn cancel(&mut self, id: Id) {
        let Some(task) = self.tasks.get(&id).filter(|task| !task.is_final()) else { return };
        if let (Place::On { cancel, .. }, false) = (&task.place, self.has(Defect::NoInterrupt)) {
            cancel.cancel();
        }
        self.put(id, Place::End(Err(TaskError::Cancelled)));
    }

    pub(super) fn is_needed(&self, id: Id) -> bool {
        self.tasks.iter().any(|(other, task)| other.0 == id.0 && !task.is_final() && task.needs().any(|input| input.key == id.1))
    }

    /// What nobody holds and nobody needs is not begun, and not kept.
    pub(super) fn sweep(&mut self) {
        if self.has(Defect::KeepsAll) {
            return;
        }
        loop {
            let idle = |task: &Task| !task.held && !matches!(task.place, Place::On { .. });
            let Some(id) = self.tasks.iter().find(|(id, task)| idle(task) && !self.is_needed(**id)).map(|(id, _)| *id) else { return };
            self.cancel(id);
            self.tasks.remove(&id);
        }
    }
}
