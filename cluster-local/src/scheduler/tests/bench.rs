//! A scheduler whose runs end when a test says so.

use super::*;

pub(crate) struct Bench {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Instant,
    pub(crate) session: SessionId,
    pub(crate) events: mpsc::UnboundedReceiver<TaskEvent>,
    /// What was started and has not been reported as ended.
    pub(crate) running: Vec<Start>,
    pub(crate) interrupted: Vec<RunId>,
}

pub(crate) fn spec(key: u64, inputs: &[u64], annotations: &Arc<Annotations>) -> TaskSpec {
    TaskSpec {
        key: Key(key),
        name: format!("t{key}").into(),
        inputs: inputs.iter().map(|key| Input::from(Key(*key))).collect(),
        after: vec![],
        work: Work::Command(CommandWork { call: Template::new() }),
        annotations: annotations.clone(),
    }
}

pub(crate) fn id(index: u32) -> WorkerId {
    WorkerId { index, incarnation: 0 }
}

pub(crate) fn any() -> Arc<Annotations> {
    Arc::default()
}

pub(crate) fn needs(resources: &[(&str, f64)]) -> Annotations {
    Annotations { resources: resources.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(), ..Annotations::default() }
}

pub(crate) fn one() -> Outcome {
    Ok(Value::plain(&1).unwrap())
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut scheduler = Scheduler::new(Limits { allowed_failures: 3, no_workers_timeout: Duration::from_secs(60) }, 4);
        let (session, events) = scheduler.open(None);
        Self { scheduler, now: Instant::now(), session, events, running: vec![], interrupted: vec![] }
    }

    pub(crate) fn of_kind(place: Place) -> Self {
        let Self { scheduler, now, session, events, running, interrupted } = Self::new();
        Self { scheduler: scheduler.with_kind(place), now, session, events, running, interrupted }
    }

    pub(crate) fn with_workers(slots: &[u32]) -> Self {
        let mut bench = Self::new();
        for (index, slots) in slots.iter().enumerate() {
            bench.worker(u32::try_from(index).unwrap(), *slots, &[]);
        }
        bench
    }

    pub(crate) fn worker(&mut self, index: u32, slots: u32, resources: &[(&str, f64)]) {
        let resources = resources.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        self.scheduler.expect_worker(id(index), Place { host: "127.0.0.1".into(), slots, resources }, self.now);
        self.scheduler.worker_joined(id(index), self.now);
        self.absorb();
    }

    pub(crate) fn absorb(&mut self) {
        let effects = self.scheduler.take_effects();
        for start in effects.starts {
            for input in &start.inputs {
                assert!(input.is_ok() || start.spec.inputs.iter().any(|i| i.allow_failure), "an input was not there");
            }
            self.running.push(start);
        }
        self.interrupted.extend(effects.interrupts);
        effects.events.into_iter().for_each(|(listener, event)| drop(listener.send(event)));
    }

    pub(crate) fn submit(&mut self, specs: Vec<TaskSpec>) {
        self.scheduler.submit(self.session, specs, self.now);
        self.absorb();
    }

    pub(crate) fn end(&mut self, key: u64, ended: Ended) {
        let at = self.running.iter().position(|start| start.spec.key == Key(key)).expect("it runs");
        let start = self.running.remove(at);
        self.scheduler.finish(start.run, ended, self.now);
        self.scheduler.dispatch(self.now);
        self.absorb();
    }

    pub(crate) fn done(&mut self, key: u64) {
        self.end(key, Ended::Outcome(one()));
    }

    pub(crate) fn keys(&self) -> Vec<u64> {
        self.running.iter().map(|start| start.spec.key.0).collect()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.scheduler.tick(self.now);
        self.absorb();
    }

    pub(crate) fn states(&mut self) -> HashMap<u64, Vec<TaskState>> {
        let mut states: HashMap<u64, Vec<TaskState>> = HashMap::new();
        self.absorb();
        while let Ok(event) = self.events.try_recv() {
            states.entry(event.key.0).or_default().push(event.state);
        }
        states
    }

    pub(crate) fn last(&mut self, key: u64) -> TaskState {
        self.states().remove(&key).and_then(|mut states| states.pop()).expect("an event")
    }
}
