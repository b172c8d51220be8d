//! Random graphs through random histories, with a shim that is cut off, forgets nothing and repeats itself: whatever happens, the
//! promises of the books hold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use remuda_core::task::{Annotations, Failure};

use super::{
    tests::{book, spec, submit},
    *,
};
use crate::session::wire::{Event, Order, Trouble, What};

#[derive(Debug, Clone)]
enum Act {
    Submit {
        inputs: Vec<prop::sample::Index>,
        allow_failure: bool,
        retries: u32,
    },
    Map(u8),
    Finish(prop::sample::Index),
    Fail(prop::sample::Index),
    Crash(prop::sample::Index),
    Again(prop::sample::Index),
    Lose(prop::sample::Index),
    Cancel(prop::sample::Index),
    Release(prop::sample::Index),
    /// The shim takes so many messages.
    Send(u8),
    /// And says what has happened.
    Tell,
    Cut(bool),
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<prop::sample::Index>;
    let submit = (prop::collection::vec(index(), 0..4), any::<bool>(), 0u32..2).prop_map(|(inputs, allow_failure, retries)| Act::Submit {
        inputs,
        allow_failure,
        retries,
    });
    prop_oneof![
        6 => submit,
        2 => (4u8..40).prop_map(Act::Map),
        10 => index().prop_map(Act::Finish),
        2 => index().prop_map(Act::Fail),
        1 => index().prop_map(Act::Crash),
        1 => index().prop_map(Act::Again),
        1 => index().prop_map(Act::Lose),
        2 => index().prop_map(Act::Cancel),
        4 => index().prop_map(Act::Release),
        6 => (1u8..4).prop_map(Act::Send),
        6 => Just(Act::Tell),
        1 => any::<bool>().prop_map(Act::Cut),
    ]
}

/// The shim and the scheduler behind it, as simple as can be.
#[derive(Default)]
struct Shim {
    received: u64,
    /// Units that are wanted: how many calls each has, and whether it has a result.
    wanted: BTreeMap<u64, (usize, bool)>,
    ever: BTreeMap<u64, usize>,
    events: Vec<Event>,
    seq: u64,
    /// What has been told and is not acknowledged.
    unseen: Vec<(u64, Vec<Event>)>,
}

impl Shim {
    fn take(&mut self, n: u64, order: Order) {
        assert!(n <= self.received + 1, "a message is missing before {n}");
        if n <= self.received {
            return;
        }
        self.received = n;
        match order {
            Order::Submit { tasks, .. } => {
                for task in tasks {
                    for dep in &task.deps {
                        assert!(self.wanted.contains_key(&dep.unit), "{} needs {}, which was let go", task.unit, dep.unit);
                    }
                    let calls = if task.unit & BATCH == 0 { 1 } else { remuda_core::value::elements(&task.args).unwrap().len() };
                    assert!(!task.args.is_empty());
                    *self.ever.entry(task.unit).or_default() += 1;
                    self.wanted.insert(task.unit, (calls, false));
                }
            }
            Order::Release { units, .. } => {
                for unit in units {
                    assert!(self.wanted.remove(&unit).is_some() || !self.ever.contains_key(&unit), "{unit} was let go twice");
                }
            }
            Order::Close => self.wanted.clear(),
        }
    }

    fn tell(&mut self, book: &mut Book) {
        self.seq += 1;
        self.unseen.push((self.seq, std::mem::take(&mut self.events)));
        for (seq, events) in &self.unseen {
            book.hear(*seq, self.received, events.clone());
        }
        self.unseen.retain(|(seq, _)| *seq > book.seen());
    }
}

struct World {
    book: Book,
    shim: Shim,
    next: u64,
    held: Vec<u64>,
    running: BTreeMap<u64, u32>,
    finals: BTreeMap<u64, usize>,
}

impl World {
    fn unit(&self, at: prop::sample::Index, has_result: bool) -> Option<u64> {
        let some: Vec<u64> = self.shim.wanted.iter().filter(|(_, (_, done))| *done == has_result).map(|(unit, _)| *unit).collect();
        (!some.is_empty()).then(|| *at.get(&some))
    }

    fn happen(&mut self, unit: u64, what: What) {
        self.shim.events.push(Event { unit, what });
    }

    fn finish(&mut self, unit: u64, fails: bool) {
        let Some((calls, done)) = self.shim.wanted.get_mut(&unit) else { return };
        let failed = (0..*calls).filter(|_| fails).step_by(3).map(|call| (u32::try_from(call).unwrap(), trouble(call))).collect();
        let is_batch = unit & BATCH != 0;
        *done = is_batch || !fails;
        let attempt = self.running.remove(&unit).unwrap_or_default();
        let (worker, address) = ("w".into(), "tcp://w:1".into());
        let what = match is_batch || !fails {
            true => What::Done { worker, address, attempt, seconds: 0.001, size: 8, failed },
            false => What::Failed { worker, attempt, failure: failure() },
        };
        self.happen(unit, what);
    }

    fn step(&mut self, act: &Act) {
        match act {
            Act::Submit { inputs, allow_failure, retries } => {
                let inputs: Vec<(u64, bool)> =
                    if self.held.is_empty() { vec![] } else { inputs.iter().map(|at| (*at.get(&self.held), *allow_failure)).collect() };
                let annotations = Arc::new(Annotations { retries: *retries, ..Annotations::default() });
                submit(&mut self.book, vec![spec(self.next, &inputs, &annotations)]);
                self.held.push(self.next);
                self.next += 1;
            }
            Act::Map(calls) => {
                let keys = self.next..self.next + u64::from(*calls);
                let annotations = Arc::new(Annotations { retries: 1, ..Annotations::default() });
                submit(&mut self.book, keys.clone().map(|key| spec(key, &[], &annotations)).collect());
                self.next = keys.end;
                self.held.extend(keys);
            }
            Act::Finish(at) | Act::Fail(at) => {
                if let Some(unit) = self.unit(*at, false) {
                    self.finish(unit, matches!(act, Act::Fail(_)));
                }
            }
            Act::Crash(at) => {
                if let Some(unit) = self.unit(*at, false) {
                    // Final there: nothing more will be told of it.
                    self.shim.wanted.insert(unit, (0, true));
                    self.happen(unit, What::Crashed { worker: "w".into(), attempts: 1, cause: "exit code 3".into(), attempt: 0 });
                }
            }
            Act::Again(at) => {
                if let Some(unit) = self.unit(*at, false) {
                    let attempt = self.running.entry(unit).or_default();
                    *attempt += 1;
                    let what = What::Again { worker: "w".into(), attempt: *attempt - 1, failure: None, cause: None };
                    self.happen(unit, what);
                }
            }
            Act::Lose(at) => {
                if let Some(unit) = self.unit(*at, true).filter(|unit| self.shim.wanted[unit].0 > 0) {
                    self.shim.wanted.get_mut(&unit).unwrap().1 = false;
                    self.happen(unit, What::Lost);
                }
            }
            Act::Cancel(at) if self.next > 0 => self.book.cancel(&[Key(at.index(self.next as usize) as u64)]),
            Act::Release(at) if !self.held.is_empty() => {
                let key = self.held.remove(at.index(self.held.len()));
                self.book.release(&[Key(key)]);
            }
            Act::Send(many) => {
                for _ in 0..*many {
                    let Some((n, order)) = self.book.next_order() else { break };
                    self.shim.take(n, order);
                }
            }
            Act::Tell => self.shim.tell(&mut self.book),
            Act::Cut(on_the_way) => {
                // What was written may never arrive; what was told may never have been heard.
                if *on_the_way {
                    let _ = self.book.next_order();
                    self.shim.seq += 1;
                    let events = std::mem::take(&mut self.shim.events);
                    self.shim.unseen.push((self.shim.seq, events));
                }
                self.book.attached(self.shim.received);
            }
            _ => {}
        }
        self.check();
    }

    fn check(&mut self) {
        let mut running = BTreeMap::new();
        for event in self.book.take_effects().events {
            let count = self.finals.entry(event.key.0).or_default();
            assert!(*count == 0, "task {} is {} after its end", event.key, event.state.name());
            *count += usize::from(event.state.is_final());
            match event.state {
                TaskState::Running { attempt, .. } => assert!(running.insert(event.key, attempt).is_none_or(|before| before < attempt)),
                TaskState::Done(_) => assert!(self.book.tasks.get(&event.key).is_none_or(|task| task.told.is_some())),
                _ => {}
            }
        }
    }
}

fn trouble(call: usize) -> Trouble {
    if call.is_multiple_of(2) { Trouble::Failed(failure()) } else { Trouble::Crashed("signal 6 (SIGABRT)".into()) }
}

fn failure() -> Failure {
    Failure { message: "no".into(), ..Failure::default() }
}

/// `PROPTEST_CASES`, for long campaigns; else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_final_once_and_nothing_is_left(acts in prop::collection::vec(act(), 1..150)) {
        let shim = Shim::default();
        let mut world = World { book: book(None), shim, next: 0, held: vec![], running: BTreeMap::new(), finals: BTreeMap::new() };
        for act in &acts {
            world.step(act);
        }
        // The end: everything that is wanted ends, everything arrives.
        for _ in 0..10_000 {
            world.step(&Act::Cut(false));
            world.step(&Act::Send(100));
            let open: Vec<u64> = world.shim.wanted.iter().filter(|(_, (_, done))| !done).map(|(unit, _)| *unit).collect();
            open.iter().for_each(|unit| world.finish(*unit, false));
            world.step(&Act::Tell);
            if world.book.open_tasks() == 0 && open.is_empty() {
                break;
            }
        }
        for key in 0..world.next {
            prop_assert_eq!(world.finals.get(&key), Some(&1), "task {}", key);
        }
        prop_assert!(world.shim.ever.values().all(|times| *times == 1), "doubled: {:?}", world.shim.ever);
        let held: Vec<Key> = world.held.iter().map(|key| Key(*key)).collect();
        world.book.release(&held);
        world.step(&Act::Send(255));
        world.step(&Act::Tell);
        prop_assert!(world.shim.wanted.is_empty(), "not let go: {:?}", world.shim.wanted);
        prop_assert!(world.book.tasks.is_empty() && world.book.batches.is_empty());
        prop_assert!(!world.book.outbox.is_due());
    }
}
