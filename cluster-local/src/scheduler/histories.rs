//! Random graphs through random histories: whatever happens, the scheduler's promises hold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use remuda_core::task::{Annotations, Input, TaskState};

use super::{
    tests::{Bench, id, one, spec},
    workers::Standing,
    *,
};

#[derive(Debug, Clone)]
enum Act {
    Submit { inputs: Vec<prop::sample::Index>, shape: u8, priority: i64, allow_failure: bool, retries: u32 },
    Finish(prop::sample::Index),
    Fail(prop::sample::Index),
    Lose(prop::sample::Index),
    Cancel(prop::sample::Index),
    Release(prop::sample::Index),
    Pause(prop::sample::Index),
    Resume(prop::sample::Index),
    Launch,
    Kill(prop::sample::Index),
    Stop(prop::sample::Index),
    Drain(prop::sample::Index),
    Look,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<prop::sample::Index>;
    let submit = (prop::collection::vec(index(), 0..4), 0u8..9, -1i64..2, any::<bool>(), 0u32..2)
        .prop_map(|(inputs, shape, priority, allow_failure, retries)| Act::Submit { inputs, shape, priority, allow_failure, retries });
    prop_oneof![
        8 => submit,
        8 => index().prop_map(Act::Finish),
        2 => index().prop_map(Act::Fail),
        1 => index().prop_map(Act::Lose),
        1 => index().prop_map(Act::Cancel),
        4 => index().prop_map(Act::Release),
        1 => index().prop_map(Act::Pause),
        1 => index().prop_map(Act::Resume),
        2 => Just(Act::Launch),
        1 => index().prop_map(Act::Kill),
        1 => index().prop_map(Act::Stop),
        1 => index().prop_map(Act::Drain),
        1 => (1u64..40).prop_map(Act::Pass),
        1 => Just(Act::Look),
    ]
}

fn annotations(shape: u8, priority: i64, retries: u32) -> Arc<Annotations> {
    let mut annotations = Annotations { priority, retries, allowed_failures: Some(1), ..Annotations::default() };
    match shape {
        1 => annotations.slots = 2,
        2 => annotations.slots = 0,
        3 => drop(annotations.resources.insert("GPU".into(), 1.0)),
        4 => drop(annotations.resources.insert("GPU".into(), 2.0)),
        5 => annotations.workers = vec!["1".into()],
        7 => annotations.workers = vec!["0-0".into()],
        8 => annotations.resources = [("GPU".to_owned(), 3.0)].into(),
        6 => annotations.timeout = Some(Duration::from_secs(30)),
        _ => {}
    }
    Arc::new(annotations)
}

struct World {
    bench: Bench,
    keys: Vec<u64>,
    held: Vec<u64>,
    /// Launched ones are named by ascending index; each has 2 slots and 2 GPUs.
    workers: Vec<u32>,
    finals: BTreeMap<u64, usize>,
    resumed: BTreeSet<RunId>,
    next_worker: u32,
}

impl World {
    fn step(&mut self, act: &Act) {
        let Bench { scheduler, now, session, running, .. } = &mut self.bench;
        let (now, session) = (*now, *session);
        match act {
            Act::Submit { inputs, shape, priority, allow_failure, retries } => {
                let key = self.keys.len() as u64;
                let known: Vec<u64> = if self.held.is_empty() { vec![] } else { inputs.iter().map(|i| *i.get(&self.held)).collect() };
                let mut spec = spec(key, &known, &annotations(*shape, *priority, *retries));
                spec.inputs.iter_mut().for_each(|input: &mut Input| input.allow_failure = *allow_failure);
                self.keys.push(key);
                self.held.push(key);
                scheduler.submit(session, vec![spec], now);
            }
            Act::Finish(at) | Act::Fail(at) | Act::Lose(at) if !running.is_empty() => {
                let start = running.remove(at.index(running.len()));
                let ended = match act {
                    Act::Finish(_) => Ended::Outcome(one()),
                    Act::Fail(_) => Ended::Outcome(Err(TaskError::failed("x"))),
                    _ => Ended::Lost("x".into()),
                };
                scheduler.finish(start.run, ended, now);
                scheduler.dispatch(now);
            }
            Act::Cancel(at) if !self.keys.is_empty() => scheduler.cancel(session, &[Key(*at.get(&self.keys))], now),
            Act::Release(at) if !self.held.is_empty() => {
                let key = self.held.remove(at.index(self.held.len()));
                scheduler.release(session, &[Key(key)], now);
            }
            Act::Pause(at) if !running.is_empty() => {
                scheduler.pause(at.get(running.as_slice()).run, now);
            }
            Act::Resume(at) if !running.is_empty() => {
                let run = at.get(running.as_slice()).run;
                self.resumed.insert(run);
                scheduler.resume(run, now);
            }
            Act::Launch if self.workers.len() < 3 => {
                self.workers.push(self.next_worker);
                self.bench.worker(self.next_worker, 2, &[("GPU", 2.0)]);
                self.next_worker += 1;
            }
            Act::Kill(at) | Act::Stop(at) if !self.workers.is_empty() => {
                let worker = self.workers.remove(at.index(self.workers.len()));
                let cause = matches!(act, Act::Kill(_)).then_some("killed");
                scheduler.worker_gone(id(worker), cause, now);
            }
            Act::Drain(at) if !self.workers.is_empty() => scheduler.drain_worker(id(*at.get(&self.workers)), now),
            Act::Look => {
                let seen = scheduler.look(now);
                // Kinds only ever grow, and everything that is not over is told.
                assert!(seen.load.groups.iter().all(|group| group.prefix < seen.load.prefixes.len()));
                let listed: usize = seen.load.prefixes.iter().map(|prefix| prefix.running.len()).sum();
                assert_eq!(listed as u64, seen.load.processing());
            }
            Act::Pass(seconds) => {
                self.bench.now += Duration::from_secs(*seconds);
                let now = self.bench.now;
                self.bench.scheduler.tick(now);
            }
            _ => {}
        }
        self.bench.absorb();
        self.check();
    }

    fn check(&mut self) {
        let scheduler = &self.bench.scheduler;
        scheduler.check_tally();
        for worker in scheduler.workers.values() {
            worker.check();
            let running: Vec<_> = worker.runs.iter().map(|run| &scheduler.runs[run]).collect();
            let slots: u32 = running.iter().filter(|run| !run.paused).map(|run| run.shape.slots).sum();
            // Going on after a wait may take a worker over its number.
            let paused = running.iter().any(|run| run.paused) || worker.runs.iter().any(|run| self.resumed.contains(run));
            assert!(slots <= worker.slots || paused, "{slots} slots are taken of {}", worker.slots);
            let gpus: u128 = running.iter().flat_map(|run| &run.shape.resources).map(|(_, need)| *need).sum();
            assert!(gpus <= worker.total["GPU"]);
            // Work conserving: a plain task waits only where nothing is free.
            let waits = scheduler.groups.ids().into_iter().filter_map(|id| scheduler.groups.group(id));
            let plain = waits.filter(|group| !group.ready.is_empty() && group.shape.resources.is_empty() && group.shape.slots == 1);
            let wide_waits = scheduler
                .groups
                .ids()
                .into_iter()
                .filter_map(|id| scheduler.groups.group(id))
                .any(|group| !group.ready.is_empty() && group.shape.slots > 1);
            for group in plain {
                let idle = worker.standing == Standing::Live && worker.could_run(&group.shape) && worker.has_room(&group.shape);
                assert!(!idle || wide_waits, "a worker idles while a task waits");
            }
        }
        for (key, states) in self.bench.states() {
            for state in states {
                let count = self.finals.entry(key).or_default();
                assert!(*count == 0, "task {key} is {} after its end", state.name());
                *count += usize::from(matches!(state, TaskState::Done(_) | TaskState::Ended(_)));
            }
        }
    }
}

/// `PROPTEST_CASES`, for long campaigns; else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_final_once_and_nothing_is_left(acts in prop::collection::vec(act(), 1..120), is_kind_known: bool) {
        let kind = Place { host: "127.0.0.1".into(), slots: 2, resources: [("GPU".to_owned(), 2.0)].into() };
        let mut world = World {
            bench: if is_kind_known { Bench::of_kind(kind) } else { Bench::new() },
            keys: vec![],
            held: vec![],
            workers: vec![],
            finals: BTreeMap::new(),
            resumed: BTreeSet::new(),
            next_worker: 0,
        };
        for act in &acts {
            world.step(act);
        }
        // The end: workers for everything, and everything that runs ends.
        world.workers.drain(..).for_each(|worker| world.bench.scheduler.worker_gone(id(worker), None, world.bench.now));
        world.bench.absorb();
        world.step(&Act::Launch);
        // What is refused in the end may be an allowed failure of something that then runs.
        for _ in 0..world.keys.len() + 1 {
            while !world.bench.running.is_empty() {
                let start = world.bench.running.remove(0);
                world.bench.scheduler.finish(start.run, Ended::Outcome(one()), world.bench.now);
                world.bench.scheduler.dispatch(world.bench.now);
                world.bench.absorb();
                world.check();
            }
            world.step(&Act::Pass(61));
        }
        for key in &world.keys {
            prop_assert_eq!(world.finals.get(key), Some(&1), "task {}", key);
        }
        let held: Vec<_> = world.held.iter().map(|key| Key(*key)).collect();
        world.bench.scheduler.release(world.bench.session, &held, world.bench.now);
        prop_assert!(world.bench.scheduler.tasks.is_empty());
        prop_assert!(world.bench.scheduler.runs.is_empty());
        prop_assert!(world.bench.scheduler.timeouts.is_empty());
        prop_assert_eq!(world.bench.scheduler.groups.len(), 0);
        prop_assert_eq!(world.bench.scheduler.wake(), None);
    }
}
