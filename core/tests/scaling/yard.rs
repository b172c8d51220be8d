//! A cluster under a paused clock: workers take time to start, tasks take time to run, and it counts what must not happen.

mod roles;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    adaptive::{Group, Load, Prefix},
    engine::{Drain, Drains, Engine, Observation, Outlook, Session, WorkerChange, WorkerChanges, WorkerLoad},
    error::{Error, ErrorKind, Result},
    manager::*,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};

/// How it is made, and how it misbehaves.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) info: ClusterInfo,
    pub(crate) startup: Duration,
    pub(crate) slots: u32,
    /// `launch` returns when the workers are there, as some platforms have it.
    pub(crate) launch_waits: bool,
    /// These launches, counted from 0, never arrive.
    pub(crate) lost: BTreeSet<usize>,
    /// A worker ends so long after it joined, if it has nothing to do.
    pub(crate) lifetime: Option<Duration>,
    /// Between a look and its answer.
    pub(crate) load_takes: Duration,
    pub(crate) tells_arrivals: bool,
}

impl Plan {
    /// Each test has a class of its own: start-up times are remembered by class.
    pub(crate) fn of(class: &str, startup: Duration) -> Self {
        let info = ClusterInfo { backend: remuda_core::adaptive::Backend::new(startup), slots: 1, ..ClusterInfo::new(class) };
        Self {
            info,
            startup,
            slots: 1,
            launch_waits: false,
            lost: BTreeSet::new(),
            lifetime: None,
            load_takes: Duration::ZERO,
            tells_arrivals: true,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Yard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: Plan,
    state: Mutex<State>,
    arrivals: watch::Sender<u64>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are not over, by id.
    groups: BTreeMap<u64, Work>,
    submitted: u64,
    prefixes: Vec<(Duration, Prefix)>,
    workers: BTreeMap<WorkerId, Beast>,
    /// Asked for and not there, or there: for the bounds.
    exists: BTreeSet<WorkerId>,
    launches: Vec<(Instant, WorkerId)>,
    told: Vec<Target>,
    listeners: Vec<mpsc::UnboundedSender<WorkerChange>>,
    /// What the next looks answer, instead of the truth.
    blind: Option<Blind>,
    looks: u32,
    outlooks: Vec<Outlook>,
    /// So many calls of `launch` will fail.
    refusals: u32,
    /// A task of that length comes just when workers are told to go.
    surprise: Option<Duration>,
    /// Workers of these indices cannot be drained.
    stuck: BTreeSet<u32>,
    /// Nobody learns how far those are that were told to go.
    mute: bool,
    killed: u32,
    met: u32,
    most: usize,
    next: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Blind {
    Fails(Error),
    Hangs,
    Panics,
}

#[derive(Debug)]
struct Work {
    group: Group,
    takes: Duration,
}

#[derive(Debug, Default)]
struct Beast {
    running: BTreeMap<u64, (u64, Instant)>,
    draining: bool,
}

impl Yard {
    pub(crate) fn new(plan: Plan) -> Self {
        Self(Arc::new(Inner { plan, state: Mutex::default(), arrivals: watch::Sender::new(0), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// A map of tasks that take so long each; tasks of the same length are of one kind.
    pub(crate) fn submit(&self, tasks: u64, takes: Duration) {
        {
            let mut state = self.state();
            let prefix = state.prefixes.iter().position(|(known, _)| *known == takes).unwrap_or_else(|| {
                state.prefixes.push((takes, Prefix::default()));
                state.prefixes.len() - 1
            });
            state.prefixes[prefix].1.arrived += tasks;
            let id = state.submitted;
            state.submitted += 1;
            state.groups.insert(id, Work { group: Group { id, prefix, ready: tasks, ..Group::default() }, takes });
        }
        self.0.arrivals.send_modify(|count| *count += 1);
        self.assign();
    }

    fn assign(&self) {
        let mut state = self.state();
        let slots = self.0.plan.slots as usize;
        loop {
            let free = state.workers.iter().find(|(_, beast)| !beast.draining && beast.running.len() < slots).map(|(id, _)| *id);
            let work = state.groups.values_mut().find(|work| work.group.ready > 0);
            let (Some(at), Some(work)) = (free, work) else { return };
            (work.group.ready, work.group.processing) = (work.group.ready - 1, work.group.processing + 1);
            let (group, takes) = (work.group.id, work.takes);
            state.next += 1;
            let run = state.next;
            state.workers.get_mut(&at).unwrap().running.insert(run, (group, Instant::now()));
            let yard = self.clone();
            tokio::spawn(async move {
                sleep(takes).await;
                yard.finish(at, run);
            });
        }
    }

    fn finish(&self, at: WorkerId, run: u64) {
        {
            let mut state = self.state();
            // Killed meanwhile: it runs again elsewhere.
            let Some((group, _)) = state.workers.get_mut(&at).and_then(|beast| beast.running.remove(&run)) else { return };
            let work = state.groups.get_mut(&group).unwrap();
            (work.group.processing, work.group.done) = (work.group.processing - 1, work.group.done + 1);
            let (prefix, takes, over) = (work.group.prefix, work.takes, work.group.unfinished() == 0);
            if over {
                state.groups.remove(&group);
            }
            let prefix = &mut state.prefixes[prefix].1;
            prefix.completions += 1;
            prefix.total += takes;
            prefix.longest = takes;
        }
        self.0.changed.notify_waiters();
        self.assign();
    }

    fn joins(&self, id: WorkerId) {
        {
            let mut state = self.state();
            if !state.exists.contains(&id) {
                return; // stopped meanwhile
            }
            state.workers.insert(id, Beast::default());
            let joined = WorkerChange::Joined { name: id.to_string(), host: "h".into(), slots: self.0.plan.slots };
            state.tell(&joined);
        }
        self.0.changed.notify_waiters();
        self.assign();
        if let Some(lifetime) = self.0.plan.lifetime {
            let yard = self.clone();
            tokio::spawn(async move {
                sleep(lifetime).await;
                let mut state = yard.state();
                if state.workers.get(&id).is_some_and(|beast| beast.running.is_empty()) {
                    state.workers.remove(&id);
                    state.exists.remove(&id);
                    state.tell(&WorkerChange::Left { name: id.to_string(), reason: "exit 1".into(), busy: false });
                }
            });
        }
    }

    pub(crate) fn blind(&self, blind: Option<Blind>) {
        self.state().blind = blind;
    }

    /// One of its workers ends by accident, the one of the lowest index.
    pub(crate) fn kill(&self) {
        let first = self.state().workers.keys().next().copied();
        let Some(id) = first else { return };
        self.take_away(&[id], true);
        self.state().tell(&WorkerChange::Left { name: id.to_string(), reason: "killed".into(), busy: false });
        self.assign();
    }

    pub(crate) fn refuse_launches(&self, calls: u32) {
        self.state().refusals = calls;
    }

    /// They are not there any more, and what they ran is to be run again.
    fn take_away(&self, workers: &[WorkerId], by_accident: bool) -> usize {
        let mut state = self.state();
        let beasts: Vec<Beast> = workers.iter().filter_map(|id| state.workers.remove(id)).collect();
        state.exists.retain(|id| !workers.contains(id));
        for (group, _) in beasts.iter().flat_map(|beast| beast.running.values()) {
            let group = &mut state.groups.get_mut(group).unwrap().group;
            (group.processing, group.ready) = (group.processing - 1, group.ready + 1);
        }
        let killed = beasts.iter().map(|beast| beast.running.len()).sum();
        state.killed += if by_accident { 0 } else { killed as u32 };
        killed
    }

    pub(crate) fn surprise(&self, takes: Duration, stuck: u32) {
        let mut state = self.state();
        (state.surprise, state.stuck) = (Some(takes), BTreeSet::from([stuck]));
    }

    /// Tasks that are not over.
    pub(crate) fn left(&self) -> u64 {
        self.state().groups.values().map(|work| work.group.unfinished()).sum()
    }

    pub(crate) async fn done(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.left() == 0 {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn launches(&self) -> Vec<Instant> {
        self.state().launches.iter().map(|(at, _)| *at).collect()
    }

    pub(crate) fn told(&self) -> Vec<Target> {
        self.state().told.clone()
    }

    /// What it was told last of workers to come.
    pub(crate) fn outlook(&self) -> Outlook {
        self.state().outlooks.last().unwrap().clone()
    }

    pub(crate) fn looks(&self) -> u32 {
        self.state().looks
    }

    /// Tasks that were running on a worker that was stopped.
    pub(crate) fn killed(&self) -> u32 {
        self.state().killed
    }

    /// Workers that were running something when they were told to go.
    pub(crate) fn met(&self) -> u32 {
        self.state().met
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.state().mute = mute;
    }

    /// The most workers that were asked for or there, at one moment, draining ones apart.
    pub(crate) fn most(&self) -> usize {
        self.state().most
    }

    fn observe(&self) -> Observation {
        let state = self.state();
        let mut prefixes: Vec<Prefix> = state.prefixes.iter().map(|(_, prefix)| prefix.clone()).collect();
        let mut workers = Vec::new();
        for (id, beast) in &state.workers {
            for (group, since) in beast.running.values() {
                prefixes[state.groups[group].group.prefix].running.push(since.elapsed());
            }
            let processing = beast.running.len() as u32;
            workers.push(WorkerLoad { name: id.to_string(), slots: self.0.plan.slots, processing, ..WorkerLoad::default() });
        }
        let groups = state.groups.values().map(|work| work.group.clone()).collect();
        Observation { load: Load { prefixes, groups }, workers }
    }
}

impl State {
    fn refuses(&mut self) -> bool {
        let refuses = self.refusals > 0;
        self.refusals = self.refusals.saturating_sub(1);
        refuses
    }

    fn tell(&mut self, change: &WorkerChange) {
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }
}
