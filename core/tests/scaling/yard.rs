//! A cluster under a paused clock: workers take time to start, tasks take time to run, and it counts what must not happen.

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

#[async_trait]
impl Engine for Yard {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "tasks come otherwise"))
    }

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains> {
        let ids: Vec<WorkerId> = workers.iter().filter_map(|name| WorkerId::from_name(name)).collect();
        let drains = || {
            let state = self.state();
            let drain = |id: &WorkerId| match state.workers.get(id) {
                Some(_) if state.stuck.contains(&id.index) => Drain::Refused,
                Some(beast) if !beast.running.is_empty() => Drain::Busy,
                _ => Drain::Done,
            };
            ids.iter().map(|id| (id.to_string(), drain(id))).collect::<Drains>()
        };
        let surprise = self.state().surprise.take();
        surprise.into_iter().for_each(|takes| self.submit(1, takes));
        {
            let mut state = self.state();
            let stuck = state.stuck.clone();
            for id in ids.iter().filter(|id| !stuck.contains(&id.index)) {
                let Some(beast) = state.workers.get_mut(id) else { continue };
                let meets = !beast.draining && !beast.running.is_empty();
                beast.draining = true;
                state.met += u32::from(meets);
            }
        }
        let wait = async {
            loop {
                let changed = self.0.changed.notified();
                if drains().values().all(|drain| *drain != Drain::Busy) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(deadline, wait).await;
        Ok(drains())
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, listen) = mpsc::unbounded_channel();
        self.state().listeners.push(tell);
        listen
    }

    async fn load(&self) -> Result<Observation> {
        self.state().looks += 1;
        let blind = self.state().blind.clone();
        match blind {
            Some(Blind::Fails(error)) => return Err(error),
            Some(Blind::Hangs) => std::future::pending().await,
            Some(Blind::Panics) => panic!("bad day"),
            None => {}
        }
        let seen = self.observe();
        sleep(self.0.plan.load_takes).await;
        Ok(seen)
    }

    fn expect(&self, outlook: Outlook) {
        self.state().outlooks.push(outlook);
    }

    fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        self.0.plan.tells_arrivals.then(|| self.0.arrivals.subscribe())
    }
}

#[async_trait]
impl ClusterManager for Yard {
    fn info(&self) -> ClusterInfo {
        self.0.plan.info.clone()
    }

    async fn start(&self, _cx: &Context) -> Result<Endpoint> {
        Ok(Endpoint::Embedded(Arc::new(self.clone())))
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let plan = &self.0.plan;
        if self.state().refuses() {
            return Err(Error::new(ErrorKind::Unavailable, "not now"));
        }
        for id in workers {
            let lost = {
                let mut state = self.state();
                let number = state.launches.len();
                state.launches.push((Instant::now(), *id));
                state.exists.insert(*id);
                let draining = state.workers.values().filter(|beast| beast.draining).count();
                state.most = state.most.max(state.exists.len() - draining);
                plan.lost.contains(&number)
            };
            if !lost {
                let (yard, id, startup) = (self.clone(), *id, plan.startup);
                cx.spawn(async move {
                    sleep(startup).await;
                    yard.joins(id);
                });
            }
        }
        if plan.launch_waits {
            sleep(plan.startup).await;
        }
        Ok(())
    }

    async fn stop(&self, _cx: &Context, workers: &[WorkerId]) -> Result<()> {
        let killed = self.take_away(workers, false);
        for id in workers {
            self.state().tell(&WorkerChange::Left { name: id.to_string(), reason: "stopped".into(), busy: false });
        }
        if killed > 0 {
            self.assign();
        }
        Ok(())
    }

    async fn scale(&self, _cx: &Context, target: Target) -> Result<()> {
        self.state().told.push(target);
        let Target::Exactly(count) = target else { return Ok(()) };
        // A platform that counts: it starts at once, and lets idle ones go.
        let there: Vec<WorkerId> = self.state().exists.iter().copied().collect();
        for index in there.len() as u32..count {
            let id = WorkerId { index: index + 1000, incarnation: self.state().told.len() as u32 };
            let mut state = self.state();
            state.exists.insert(id);
            state.most = state.most.max(state.exists.len());
            drop(state);
            let (yard, startup) = (self.clone(), self.0.plan.startup);
            tokio::spawn(async move {
                sleep(startup).await;
                yard.joins(id);
            });
        }
        let surplus = there.len().saturating_sub(count as usize);
        let idle = |id: &WorkerId| self.state().workers.get(id).is_none_or(|beast| beast.running.is_empty());
        let gone: Vec<WorkerId> = there.into_iter().filter(idle).take(surplus).collect();
        let cx_free = |id: &WorkerId| {
            let mut state = self.state();
            state.exists.remove(id);
            state.workers.remove(id);
            state.tell(&WorkerChange::Left { name: id.to_string(), reason: "scaled".into(), busy: false });
        };
        gone.iter().for_each(cx_free);
        Ok(())
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        Ok(vec![])
    }

    async fn close(&self, _cx: &Context) -> Result<CloseReport> {
        let mut state = self.state();
        state.workers.clear();
        state.exists.clear();
        Ok(CloseReport::default())
    }
}
