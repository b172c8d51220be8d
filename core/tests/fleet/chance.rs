//! The fleet against a hostile platform made up by proptest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What chance does to the cluster; `u8`s pick among what is possible at that moment.
#[derive(Debug, Clone)]
enum Chance {
    Answer(u8, Outcome),
    Join(u8),
    Die(u8, bool, bool),
    /// A worker whose launch took effect after its stop was confirmed appears.
    Late(u8),
    Scale(u8, u8),
    /// Adaptive scaling begins, or goes on.
    Adapt,
    /// It decides: so many launched; of those that may go, these bits.
    Decide(u8, u8, u8, bool),
    Wait(u16),
    List,
    SchedulerLost,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Ok,
    /// Refused, nothing happened.
    Refused,
    /// Done, but the answer was lost.
    LostAnswer,
    /// Refused, and it happens some time later.
    Later,
}

fn chance() -> impl Strategy<Value = Chance> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Ok),
        3 => Just(Outcome::Refused),
        1 => Just(Outcome::LostAnswer),
        1 => Just(Outcome::Later)
    ];
    prop_oneof![
        240 => (any::<u8>(), outcome).prop_map(|(n, o)| Chance::Answer(n, o)),
        180 => any::<u8>().prop_map(Chance::Join),
        90 => (any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(n, told, busy)| Chance::Die(n, told, busy)),
        40 => any::<u8>().prop_map(Chance::Late),
        60 => (0..9u8, any::<u8>()).prop_map(|(n, v)| Chance::Scale(n, v)),
        25 => Just(Chance::Adapt),
        90 => (0..4u8, any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(n, v, c, lost)| Chance::Decide(n, v, c, lost)),
        120 => (1..400u16).prop_map(Chance::Wait),
        30 => Just(Chance::List),
        1 => Just(Chance::SchedulerLost),
        10 => Just(Chance::Close),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
struct Worker {
    joined: bool,
    /// The keeper was told that it is there, while it wanted it.
    known: bool,
    /// It came after its stop had been confirmed, and nobody told the keeper yet.
    late: bool,
}

/// A platform and a scheduler that do what they are told, in the order chance picks.
#[derive(Default)]
struct World {
    now: Duration,
    desired: u32,
    most_desired: u32,
    /// Nobody but the policy says how many.
    adapting: bool,
    calls: Vec<Action>,
    exists: BTreeMap<WorkerId, Worker>,
    draining: BTreeMap<WorkerId, Duration>,
    drained: BTreeSet<WorkerId>,
    /// Launches that will take effect whenever chance likes.
    late: Vec<WorkerId>,
    close_asked: bool,
    closing: bool,
    finished: bool,
}

impl World {
    fn step(&mut self, fleet: &mut Fleet, input: Input) {
        let news = match &input {
            Input::Joined { name, .. } => WorkerId::from_name(name),
            _ => None,
        };
        let listing = matches!(input, Input::Platform(_));
        let actions = fleet.step(self.now, input);
        if self.adapting {
            // What a decision launches is what is wanted, from then on.
            self.desired = fleet.desired();
            self.most_desired = self.most_desired.max(self.desired);
        }
        let live: BTreeSet<WorkerId> = fleet.live().map(|(id, _)| id).collect();
        for (id, worker) in &mut self.exists {
            worker.known |= live.contains(id);
            worker.late &= !(listing || news == Some(*id));
        }
        self.obey(fleet, actions);
    }

    fn obey(&mut self, fleet: &Fleet, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.close_asked || matches!(action, Action::Report(_) | Action::Finished(_)), "after close: {action:?}");
            match action {
                Action::Launch(ref ids) => {
                    for id in ids {
                        let twin = self.exists.iter().find(|(other, worker)| other.index == id.index && !worker.late);
                        assert!(twin.is_none(), "{id} launched while {twin:?} lives");
                    }
                    self.calls.push(action);
                }
                Action::Drain(ref workers) => {
                    self.draining.extend(workers.iter().map(|(id, _)| (*id, self.now)));
                    self.calls.push(action);
                }
                Action::Retire(ref workers) => {
                    assert!(workers.iter().all(|(id, _)| !self.drained.contains(id)));
                    self.calls.push(action);
                }
                Action::Stop(ref ids) => {
                    for id in ids {
                        let launching = self.calls.iter().any(|c| matches!(c, Action::Launch(ids) if ids.contains(id)));
                        assert!(!launching, "{id} stopped while it is being launched");
                        let works = self.exists.get(id).is_some_and(|worker| worker.known);
                        let waited = self.draining.get(id).is_some_and(|since| self.now >= *since + Limits::default().drain);
                        assert!(!works || waited || self.drained.contains(id), "{id} stopped, not drained");
                    }
                    self.calls.push(action);
                }
                Action::SetTarget(_) => {
                    assert!(!self.calls.iter().any(|c| matches!(c, Action::SetTarget(_))), "two numbers at once");
                    self.calls.push(action);
                }
                Action::Start => self.calls.push(action),
                Action::Close => {
                    self.close_asked = true;
                    self.calls = vec![action]; // the loop drops the rest
                }
                Action::Finished(_) => self.finished = true,
                // From here on a worker that shows up late is the closing's to end.
                Action::Cancel => self.closing = true,
                Action::Report(_) | Action::Failed(_) => {}
            }
        }
        assert!(fleet.wake().is_none_or(|at| at > self.now), "the loop would spin: {:?}", fleet.wake());
        let launching: usize = self.calls.iter().map(|c| if let Action::Launch(ids) = c { ids.len() } else { 0 }).sum();
        let leaving = fleet.leaving();
        let held = self.exists.values().filter(|worker| !worker.late).count();
        assert!(
            self.closing || held <= self.most_desired as usize + launching + leaving,
            "{held} exist, {} desired, {launching} launching, {leaving} leaving",
            self.desired
        );
    }

    fn answer(&mut self, call: Action, outcome: Outcome, scaling: Scaling) -> Input {
        let result = if outcome == Outcome::Ok { Ok(()) } else { Err(error(ErrorKind::Unavailable)) };
        let happened = matches!(outcome, Outcome::Ok | Outcome::LostAnswer);
        match call {
            Action::Start => Input::Started(result.map(|()| (scaling, self.desired))),
            Action::Launch(ids) => {
                match outcome {
                    Outcome::Later => self.late.extend(&ids),
                    _ if happened => self.exists.extend(ids.iter().map(|id| (*id, Worker::default()))),
                    _ => {}
                }
                Input::Launched(ids, result)
            }
            Action::Stop(ids) => {
                if happened {
                    ids.iter().for_each(|id| self.forget(*id));
                }
                Input::Stopped(ids, result)
            }
            Action::Drain(workers) => {
                let ids: Vec<_> = workers.into_iter().map(|(id, _)| id).collect();
                self.drained.extend(&ids);
                Input::Drained(ids)
            }
            Action::Retire(workers) => {
                let ids: Vec<_> = workers.into_iter().map(|(id, _)| id).collect();
                let (drained, rest) = ids.split_at(if outcome == Outcome::Ok { ids.len() } else { ids.len() / 2 });
                self.drained.extend(drained);
                let (busy, refused) = if outcome == Outcome::LostAnswer { (vec![], rest.into()) } else { (rest.into(), vec![]) };
                Input::Retired { drained: drained.into(), busy, refused }
            }
            Action::SetTarget(_) => Input::TargetSet(result),
            Action::Close => {
                self.exists.clear();
                Input::Closed(Ok(CloseReport::default()))
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn forget(&mut self, id: WorkerId) {
        self.exists.remove(&id);
        self.draining.remove(&id);
    }

    fn input(&mut self, fleet: &mut Fleet, chance: &Chance, scaling: Scaling) -> Option<Input> {
        let pick = |n: u8, len: usize| (len > 0).then(|| n as usize % len);
        Some(match *chance {
            Chance::Answer(n, outcome) => {
                let call = self.calls.remove(pick(n, self.calls.len())?);
                self.answer(call, outcome, scaling)
            }
            Chance::Join(n) => {
                let waiting: Vec<_> = self.exists.iter().filter(|(_, worker)| !worker.joined).map(|(id, _)| *id).collect();
                let id = waiting[pick(n, waiting.len())?];
                self.exists.entry(id).and_modify(|worker| worker.joined = true);
                joined(id)
            }
            Chance::Die(n, told, busy) => {
                let ids: Vec<_> = self.exists.keys().copied().collect();
                let id = ids[pick(n, ids.len())?];
                self.forget(id);
                if !told {
                    return None; // noticed later, or by nobody but the join deadline
                }
                left(&id.to_string(), busy)
            }
            Chance::Late(n) => {
                let id = self.late.remove(pick(n, self.late.len())?);
                // Late for the keeper only if it holds the worker for gone.
                self.exists.insert(id, Worker { late: true, ..Worker::default() });
                return None;
            }
            Chance::Scale(count, victim) => {
                (self.desired, self.most_desired, self.adapting) = (count.into(), self.most_desired.max(count.into()), false);
                Input::Scale { count: count.into(), victims: vec![id(u32::from(victim % 8), 0)] }
            }
            Chance::Adapt => {
                self.adapting |= scaling != Scaling::None;
                Input::Adapt { native: None }
            }
            Chance::Decide(launch, victims, cancels, lost) => Input::Decided(decision(fleet, self.now, launch, [victims, cancels], lost)),
            Chance::Wait(seconds) => {
                self.now += s(seconds.into());
                Input::Tick
            }
            Chance::List => Input::Platform(self.exists.keys().map(|id| listed(*id, None, WorkerState::Running)).collect()),
            Chance::SchedulerLost => Input::SchedulerLost(error(ErrorKind::SchedulerLost)),
            Chance::Close => Input::Close,
        })
    }

    /// Everything is answered and told from now on, except drains.
    fn settle(&mut self, fleet: &mut Fleet, scaling: Scaling) {
        for _ in 0..30 {
            while let Some(at) = self.calls.iter().position(|call| !matches!(call, Action::Drain(_))) {
                let call = self.calls.remove(at);
                let input = self.answer(call, Outcome::Ok, scaling);
                self.step(fleet, input);
                if self.finished {
                    return;
                }
            }
            while let Some(input) = self.input(fleet, &Chance::Late(0), scaling).or_else(|| self.input(fleet, &Chance::Join(0), scaling)) {
                self.step(fleet, input);
            }
            let dead: Vec<_> = fleet.live().filter(|(id, _)| !self.exists.contains_key(id)).map(|(id, _)| id.to_string()).collect();
            for name in dead {
                self.step(fleet, left(&name, false));
            }
            if let Some(list) = self.input(fleet, &Chance::List, scaling) {
                self.step(fleet, list);
            }
            self.now += s(61);
            self.step(fleet, Input::Tick);
        }
    }
}

/// Some decision about the workers there are.
fn decision(fleet: &mut Fleet, now: Duration, launch: u8, [victims, cancels]: [u8; 2], lost: bool) -> Decision {
    let members = fleet.members(now);
    let chosen = |bits: u8, phase: fn(&Phase) -> bool| -> Vec<u64> {
        let of_phase = members.iter().filter(|member| phase(&member.phase));
        (0u8..8).zip(of_phase).filter(|(at, _)| bits >> at & 1 == 1).map(|(_, member)| member.id).collect()
    };
    let there = members.iter().filter(|member| member.phase != Phase::Draining).count() as u32;
    let launch = if fleet.is_blocked(now) { 0 } else { launch.into() };
    let victims = if launch > 0 { vec![] } else { chosen(victims, |phase| matches!(phase, Phase::Live(_))) };
    let cancelled = chosen(cancels, |phase| *phase == Phase::Starting);
    let desired = there + launch - (victims.len() + cancelled.len()) as u32;
    let lost = if lost { cancelled.len() as u32 / 2 } else { 0 };
    Decision { desired, launch, victims, cancelled, lost, reason: Reason::Asleep }
}

fn play(scaling: Scaling, first: u32, chances: &[Chance]) {
    let mut fleet = Fleet::new(Limits { crash_loop: 500, ..Limits::default() }, None);
    let mut world = World { desired: first, most_desired: first, ..World::default() };
    world.step(&mut fleet, Input::Tick);
    for chance in chances {
        if let Some(input) = world.input(&mut fleet, chance, scaling) {
            world.step(&mut fleet, input);
        }
        if world.finished {
            break;
        }
    }
    // Left in peace and kept open, it reaches what is desired, although no drain ever ends.
    if !world.close_asked && !world.finished {
        world.settle(&mut fleet, scaling);
        if !world.finished && scaling == Scaling::Workers {
            let there: Vec<_> = world.exists.keys().copied().collect();
            assert_eq!(there, fleet.live().map(|(id, _)| id).collect::<Vec<_>>());
            assert_eq!(there.len(), world.desired as usize, "{:?}", fleet.snapshot());
        }
    }
    // Closed at any time, it ends, and nothing is left.
    for _ in 0..3 {
        if world.finished {
            break;
        }
        world.step(&mut fleet, Input::Close);
        world.now += s(6);
        world.step(&mut fleet, Input::Tick);
        if let Some(call) = world.close_asked.then(|| world.calls.pop()).flatten() {
            let input = world.answer(call, Outcome::Ok, scaling);
            world.step(&mut fleet, input);
        }
    }
    assert!(world.finished && world.exists.is_empty());
}

/// `PROPTEST_CASES`, for long campaigns; else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_doubles_leaks_or_hangs(
        first in 0..6u32,
        counts in proptest::option::weighted(0.15, proptest::bool::ANY),
        chances in proptest::collection::vec(chance(), 0..160),
    ) {
        let scaling = counts.map_or(Scaling::Workers, |counts| if counts { Scaling::Count } else { Scaling::None });
        play(scaling, first, &chances);
    }
}
