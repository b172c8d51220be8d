//! Tasks and what they need of each other: submitted, given to Dask, ended, forgotten.

use std::{collections::HashMap, sync::Arc};

use remuda_core::{
    error::Error,
    task::{Key, TaskError, TaskState},
};

use super::{BATCH, Batch, Book, Phase, Place, Standing, Step, Task, Todo, unknown, upstream};
use crate::session::{
    call::{Gate, Submission},
    wire::Def,
};

impl Book {
    pub(crate) fn submit(&mut self, submissions: Vec<Submission>) {
        // How many of one kind come in this submission: only a map of many is worth a batch.
        let mut counts: HashMap<*const Def, usize> = HashMap::new();
        for call in submissions.iter().filter_map(|submission| submission.call.as_ref().ok()) {
            *counts.entry(Arc::as_ptr(&call.def)).or_default() += 1;
        }
        let slots = self.lanes.worth_it();
        for submission in submissions {
            let def = submission.call.as_ref().ok().map(|call| call.def.clone());
            let many = def.as_ref().is_some_and(|def| counts.get(&Arc::as_ptr(def)).is_some_and(|count| *count >= slots));
            let lane = def.filter(|def| many && may_share(def) && submission.inputs.is_empty() && submission.after.is_empty());
            self.add(submission, lane.is_some());
        }
        self.pump();
    }

    fn add(&mut self, submission: Submission, may_share: bool) {
        let Submission { key, name, inputs, after, call } = submission;
        if self.tasks.contains_key(&key) || key.0 & BATCH != 0 {
            tracing::error!(%key, %name, "a task key was used twice; the second task is ignored");
            return;
        }
        let mut doom = self.over.clone();
        let mut missing = 0;
        for input in inputs.iter().chain(&after) {
            let Some(task) = self.tasks.get_mut(&input.key) else {
                doom = doom.or_else(|| Some(TaskError::Refused(unknown(input.key))));
                continue;
            };
            task.users += 1;
            match &task.phase {
                Phase::Ended(error) | Phase::Done(Place::Gone(error)) if !input.allow_failure => {
                    doom = doom.or_else(|| Some(upstream(input.key, &task.name, error)))
                }
                Phase::Done(_) | Phase::Ended(_) => {}
                _ if !input.allow_failure && task.is_open => task.dependents.push((key, false)),
                _ => {
                    task.dependents.push((key, input.allow_failure));
                    missing += 1;
                }
            }
        }
        let (def, args, gate) = match call {
            Ok(call) => (self.defs.enter(call.def), Some(call.args), call.gate),
            Err(error) => {
                doom = Some(TaskError::Refused(error));
                (u32::MAX, None, Gate::None)
            }
        };
        let alone = self.defs.get(def).filter(|_| may_share && doom.is_none());
        let lane = alone.map(|alone| self.lanes.of(def, alone));
        let task = Task {
            name,
            def,
            args,
            inputs,
            after,
            phase: Phase::Waiting,
            unit: None,
            is_sent: false,
            lane,
            in_flight: false,
            missing,
            dependents: Vec::new(),
            is_open: false,
            held: true,
            users: 0,
            base: 0,
            failures: 0,
            losses: 0,
            told: None,
        };
        self.tasks.insert(key, task);
        let doom = doom.or_else(|| self.wait_at(gate, key).err().map(TaskError::Refused));
        match doom {
            Some(error) => self.conclude(Step::End(key, Err(error))),
            None if self.tasks.get(&key).is_some_and(|task| task.missing == 0) => self.ready(key),
            None => {}
        }
    }

    /// What is not known of the workers is asked, once.
    fn wait_at(&mut self, gate: Gate, key: Key) -> Result<(), Error> {
        if gate == Gate::None {
            return Ok(());
        }
        match self.gates.get_mut(&gate) {
            Some(Standing::Open) => return Ok(()),
            Some(Standing::Shut(error)) => return Err(error.clone()),
            Some(Standing::Asked(waiting)) => waiting.push(key),
            None => {
                self.out.checks.push(gate.clone());
                self.gates.insert(gate, Standing::Asked(vec![key]));
            }
        }
        if let Some(task) = self.tasks.get_mut(&key) {
            task.missing += 1;
        }
        Ok(())
    }

    pub(crate) fn cancel(&mut self, keys: &[Key]) {
        for key in keys {
            self.conclude(Step::End(*key, Err(TaskError::Cancelled)));
        }
        self.pump();
    }

    pub(crate) fn release(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(task) = self.tasks.get_mut(key) {
                task.held = false;
                self.conclude(Step::Collect(*key));
            }
        }
        self.pump();
    }

    pub(super) fn one_less(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(&key).filter(|task| matches!(task.phase, Phase::Waiting)) else { return };
        task.missing = task.missing.saturating_sub(1);
        if task.missing == 0 {
            self.ready(key);
        }
    }

    /// Everything that it waited for is there. A chain of tasks that wait for each other is followed without recursion.
    fn ready(&mut self, first: Key) {
        let mut ready = vec![first];
        while let Some(key) = ready.pop() {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            match task.lane {
                Some(lane) => {
                    task.phase = Phase::Queued;
                    self.lanes.push(lane, key);
                }
                None => ready.extend(self.place(key)),
            }
        }
    }

    /// Gives a task to Dask as a unit of its own. Returns who may follow.
    pub(super) fn place(&mut self, key: Key) -> Vec<Key> {
        let Some(task) = self.tasks.get_mut(&key) else { return Vec::new() };
        task.phase = Phase::Placed;
        task.unit = Some((key.0, -1));
        task.is_sent = false;
        self.outbox.submit(key.0);
        self.open(key)
    }

    /// Its unit can be referred to. Returns who can go on.
    fn open(&mut self, key: Key) -> Vec<Key> {
        let Some(task) = self.tasks.get_mut(&key).filter(|task| !task.is_open) else { return Vec::new() };
        task.is_open = true;
        let strict: Vec<Key> = task.dependents.iter().filter(|(_, allowed)| !allowed).map(|(key, _)| *key).collect();
        let mut free = Vec::new();
        for key in strict {
            let Some(task) = self.tasks.get_mut(&key).filter(|task| matches!(task.phase, Phase::Waiting)) else { continue };
            task.missing = task.missing.saturating_sub(1);
            if task.missing == 0 {
                free.push(key);
            }
        }
        free
    }

    /// Places a task that was in a batch, or is tried again by us.
    pub(super) fn place_alone(&mut self, key: Key) {
        for free in self.place(key) {
            self.ready(free);
        }
    }

    /// Carries out a step and everything that follows from it.
    pub(super) fn conclude(&mut self, first: Step) {
        let mut todo = Todo::from([first]);
        while let Some(step) = todo.pop_front() {
            match step {
                Step::End(key, outcome) => self.end(key, outcome, &mut todo),
                Step::Collect(key) => self.collect(key, &mut todo),
            }
        }
    }

    fn end(&mut self, key: Key, outcome: Result<Place, TaskError>, todo: &mut Todo) {
        let Some(task) = self.tasks.get_mut(&key).filter(|task| !task.is_final()) else { return };
        if let (Phase::Queued, Some(lane)) = (&task.phase, task.lane) {
            self.lanes.leave(lane);
        }
        let failure = outcome.as_ref().err().map(|error| upstream(key, &task.name, error));
        let state = match &outcome {
            Ok(_) => TaskState::Done(remuda_core::value::Value::There),
            Err(error) => TaskState::Ended(error.clone()),
        };
        let was_open = task.is_open;
        task.args = None;
        task.phase = match outcome {
            Ok(place) => Phase::Done(place),
            Err(error) => Phase::Ended(error),
        };
        let dependents = std::mem::take(&mut task.dependents);
        let edges: Vec<Key> = task.edges().map(|input| input.key).collect();
        (task.inputs, task.after) = (Vec::new(), Vec::new());
        self.landed(key);
        self.settle(key);
        self.tell(key, state);
        if failure.is_some() {
            self.let_go(key);
        } else if let Some(task) = self.tasks.get_mut(&key) {
            task.is_open = true;
        }
        for (dependent, allowed) in dependents {
            match &failure {
                Some(error) if !allowed => todo.push_back(Step::End(dependent, Err(error.clone()))),
                // It went on when this one was placed.
                _ if !allowed && was_open => {}
                _ => self.one_less(dependent),
            }
        }
        for edge in edges {
            if let Some(input) = self.tasks.get_mut(&edge) {
                input.users = input.users.saturating_sub(1);
                todo.push_back(Step::Collect(edge));
            }
        }
        todo.push_back(Step::Collect(key));
    }

    /// A result that was lost does not come again. Dask ends the tasks that were still to read it and says nothing of them.
    pub(super) fn cascade(&mut self, key: Key, error: &TaskError) {
        let Some(task) = self.tasks.get(&key).filter(|task| task.users > 0) else { return };
        let error = upstream(key, &task.name, error);
        // One that takes a failure, and is still here, takes this one.
        let is_hit = |task: &Task| task.edges().any(|edge| edge.key == key && (task.is_sent || !edge.allow_failure));
        let needs_it = |task: &Task| !task.is_final() && is_hit(task);
        let mut needing: Vec<Key> = self.tasks.iter().filter(|(_, task)| needs_it(task)).map(|(key, _)| *key).collect();
        needing.sort_unstable();
        needing.into_iter().for_each(|key| self.conclude(Step::End(key, Err(error.clone()))));
    }

    /// Nobody holds it, nobody needs it.
    fn collect(&mut self, key: Key, todo: &mut Todo) {
        let Some(task) = self.tasks.get(&key).filter(|task| !task.held && task.users == 0) else { return };
        if task.is_final() {
            self.let_go(key);
            if let Some(task) = self.tasks.remove(&key) {
                self.defs.leave(task.def);
            }
            // Whoever waits for its result to be computed again finds that it is not there.
            self.settle(key);
        } else {
            todo.push_back(Step::End(key, Err(TaskError::Cancelled)));
        }
    }

    /// Dask need not keep it for this task.
    pub(super) fn let_go(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let Some((unit, _)) = task.unit.take() else { return };
        let Some(batch) = self.batches.get_mut(&unit) else {
            if task.is_sent {
                self.outbox.release(unit);
            }
            return;
        };
        batch.live -= 1;
        if batch.live == 0 {
            let batch = self.batches.remove(&unit);
            if let Some(Batch { def, lane, is_sent, in_flight, .. }) = batch {
                self.defs.leave(def);
                if is_sent {
                    self.outbox.release(unit);
                }
                if in_flight {
                    self.lanes.land(lane);
                }
            }
        }
    }

    /// A unit of its own is not in flight any more.
    pub(super) fn landed(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(&key).filter(|task| task.in_flight) else { return };
        task.in_flight = false;
        if let Some(lane) = task.lane {
            self.lanes.land(lane);
        }
    }

    pub(super) fn settle(&mut self, key: Key) {
        if self.watched.remove(&key) {
            self.out.settled.push(key);
        }
    }

    /// Gives to Dask what its lanes let through.
    pub(super) fn pump(&mut self) {
        while let Some((lane, keys)) = self.lanes.next(|key| match self.tasks.get(&key) {
            Some(task) if matches!(task.phase, Phase::Queued) => task.args.as_ref().map(|args| args.size()),
            _ => None,
        }) {
            if let [key] = keys[..] {
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.in_flight = true;
                }
                self.place_alone(key);
                continue;
            }
            let unit = self.next_batch;
            self.next_batch += 1;
            for (element, key) in keys.iter().enumerate() {
                if let Some(task) = self.tasks.get_mut(key) {
                    task.phase = Phase::Placed;
                    task.unit = Some((unit, i64::try_from(element).unwrap_or(i64::MAX)));
                }
            }
            let def = self.lanes.batch_def(lane);
            let def = self.defs.enter(def);
            let live = keys.len();
            let batch = Batch { members: keys, live, def, lane, is_sent: false, in_flight: true, packed: None };
            self.batches.insert(unit, batch);
            self.outbox.submit(unit);
        }
    }
}

/// Several calls of it may be one task of Dask's.
fn may_share(def: &Def) -> bool {
    // A command costs more than its way through the scheduler; a limit of time is one of Dask's tasks; `slots: 0` gives its thread back;
    // where a lost worker is not to be survived, nobody knows which call it was.
    def.kind != "command" && def.timeout.is_none() && def.slots == 1 && def.allowed != Some(0)
}
