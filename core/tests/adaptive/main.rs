//! What the scaling policy promises, on random input and in a small simulated cluster.

mod growth;
mod herd;
mod input;
mod reasons;
mod settles;

use std::time::Duration;

use proptest::prelude::*;
use remuda_core::{
    adaptive::{AdaptConfig, Adaptive, Backend, Decision, Entry, Fleet, Group, Load, Phase, Reason, Replay, State, Worker},
    duration::Seconds,
};

use crate::{
    herd::{Herd, Plot},
    input::{config, fleet, load, map, secs, worker},
};

fn backend(startup: u64) -> Backend {
    Backend::new(secs(startup))
}

fn bounded(minimum: u32, maximum: u32) -> AdaptConfig {
    AdaptConfig { minimum: Some(minimum), maximum: Some(maximum), ..AdaptConfig::default() }
}

/// Cases of what takes long: so many, and in a campaign a hundredth of what it asks for.
fn long(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse::<u32>().ok()).map_or(usual, |cases| (cases / 100).max(1))
}

/// What holds for any answer to any question.
fn sound(adaptive: &AdaptConfig, fleet: &Fleet, decision: &Decision) -> Result<(), TestCaseError> {
    let phase = |id: &u64| fleet.workers.iter().find(|worker| worker.id == *id);
    let (low, high) = (adaptive.minimum.unwrap_or(0), adaptive.maximum.unwrap_or(u32::MAX));
    let counted = fleet.workers.iter().filter(|worker| worker.phase != Phase::Draining).count() as u32;
    let mut busy = 0;
    for worker in decision.victims.iter().map(phase) {
        let goes = worker.is_some_and(|worker| matches!(worker.phase, Phase::Live(_)) && !worker.pinned);
        prop_assert!(goes, "{worker:?} is a victim: {decision:?}");
        busy += u32::from(worker.is_some_and(|worker| !worker.is_idle()));
    }
    // Busy ones only where there are more than there may be, no more of them than that, and said so; and not before idle ones.
    let above = matches!(&decision.reason, Reason::Above { busy: told, .. } if *told == busy);
    prop_assert!(busy == 0 || counted > high && decision.desired >= high && above, "busy victims: {decision:?}");
    let stays = |worker: &&Worker| !decision.victims.contains(&worker.id) && matches!(worker.phase, Phase::Live(_)) && !worker.pinned;
    if fleet.workers.iter().all(|worker| worker.bytes == 0) {
        prop_assert!(busy == 0 || !fleet.workers.iter().filter(stays).any(Worker::is_idle), "{decision:?}");
        prop_assert!(decision.desired <= high || !fleet.workers.iter().any(|worker| stays(&worker)), "{decision:?}");
    }
    for id in &decision.cancelled {
        prop_assert!(phase(id).is_some_and(|worker| worker.phase == Phase::Starting), "{id} is cancelled and not starting");
    }
    let mut gone: Vec<_> = decision.victims.iter().chain(&decision.cancelled).collect();
    gone.sort();
    gone.dedup();
    prop_assert_eq!(gone.len(), decision.victims.len() + decision.cancelled.len(), "named twice: {:?}", decision);
    prop_assert_eq!(decision.desired, counted - gone.len() as u32 + decision.launch);
    prop_assert!(decision.launch == 0 || decision.desired <= high, "{decision:?}");
    prop_assert!(gone.len() as u32 == decision.lost || decision.desired >= low, "{decision:?}");
    prop_assert!(decision.desired >= low.min(high) || matches!(decision.reason, Reason::Budget { .. }), "{decision:?}");
    prop_assert!(!decision.to_string().contains("NaN"));
    Ok(())
}

/// The stored results fit in 60 % of what stays, if anybody goes.
fn fits(fleet: &Fleet, decision: &Decision) -> bool {
    let stays = |id| !decision.victims.contains(id);
    let left: Vec<_> = fleet.workers.iter().filter(|worker| matches!(worker.phase, Phase::Live(_)) && stays(&worker.id)).collect();
    let stored: f64 = fleet.workers.iter().map(|worker| worker.bytes as f64).sum();
    let limit: f64 = left.iter().map(|worker| if worker.memory_limit == 0 { f64::INFINITY } else { worker.memory_limit as f64 }).sum();
    decision.victims.is_empty() || stored <= 0.6 * limit + 1.0
}

fn first(config: &AdaptConfig, backend: &Backend, load: &Load) -> Decision {
    Adaptive::new(config.clone(), backend.clone()).decide(State::default(), secs(0), load, &Fleet { slots: 1, ..Fleet::default() }).1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    /// Any sequence of questions, consistent or not: the answer is sound, the same again, and the same from a stored state.
    #[test]
    fn any_input_gets_a_sound_answer_and_the_same_again(
        config in config(),
        startup in 0u64..200,
        asked in prop::collection::vec((0u64..200_000, load(), fleet()), 1..6),
    ) {
        let adaptive = Adaptive::new(config.clone(), backend(startup));
        let mut state = State::default();
        for (now, load, fleet) in asked {
            let now = Duration::from_millis(now);
            let (next, decision) = adaptive.decide(state.clone(), now, &load, &fleet);
            sound(&config, &fleet, &decision)?;
            prop_assert!(fits(&fleet, &decision), "{:?}", decision);
            prop_assert_eq!(&adaptive.decide(state.clone(), now, &load, &fleet), &(next.clone(), decision.clone()));
            let stored: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&next).unwrap()).unwrap();
            prop_assert_eq!(&stored, &next);
            // Everything is a number: JSON has no NaN and no infinity, and would not come back.
            let json = serde_json::to_string(&(&next, &decision)).unwrap();
            serde_json::from_str::<(State, Decision)>(&json).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
            state = next;
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// In a cluster that does what it is told (or loses requests): every promise at every decision, and the work gets done.
    #[test]
    fn random_sessions_keep_every_promise(
        seed: u64,
        startup in 1u64..60,
        lost in prop::sample::select(vec![0.0, 0.0, 0.3]),
        graphs in prop::collection::vec((0u64..200, 1u64..200, 50u64..8000), 1..6),
        (minimum, spread) in (0u32..4, 1u32..40),
        slots in 1u32..5,
    ) {
        let config = bounded(minimum, minimum + spread);
        let mut herd = Herd::new(config.clone(), backend(startup), slots, seed, lost);
        for (at, tasks, millis) in graphs {
            herd.submit(secs(at), tasks, Duration::from_millis(millis));
        }
        let mut ticks = 0;
        while !herd.done() {
            let (fleet, decision) = herd.tick();
            sound(&config, &fleet, &decision)?;
            prop_assert!(fits(&fleet, &decision));
            prop_assert!(decision.desired <= minimum + spread, "{:?}", decision);
            prop_assert!(decision.desired >= minimum);
            ticks += 1;
            prop_assert!(ticks < 40_000, "it hangs: {:?}", decision);
        }
        // And back to the minimum: no worker idles longer than two break-evens and the reaction.
        let patience = 2 * (2.0 * 2.0 * herd.startup() + 40.0) as usize;
        for _ in 0..patience {
            herd.tick();
        }
        prop_assert_eq!(herd.tick().1.desired, minimum);
    }

    /// A jump of the clock by an hour, either way, at any decision, changes no decision.
    #[test]
    fn clock_jumps_change_nothing(seed: u64, startup in 1u64..60, at in 1usize..200, forth: bool) {
        let run = |jump: Option<bool>| {
            let mut herd = Herd::new(bounded(0, 30), backend(startup), 1, seed, 0.0);
            for k in 0..4 {
                herd.submit(secs(40 * k), 60, Duration::from_millis(1500));
            }
            let decisions: Vec<Decision> = (0..250).map(|tick| {
                if let (Some(forth), true) = (jump, tick == at) { herd.jump(forth) }
                herd.tick().1
            }).collect();
            decisions
        };
        let (smooth, jumpy) = (run(None), run(Some(forth)));
        for (tick, (a, b)) in smooth.iter().zip(&jumpy).enumerate() {
            prop_assert_eq!((a.desired, a.launch, &a.victims, &a.cancelled), (b.desired, b.launch, &b.victims, &b.cancelled), "at {}", tick);
        }
    }
}

/// One task of two seconds every fifth of a second for an hour: ten workers' worth. After five minutes the number does not go both
/// up and down.
#[test]
fn constant_load_settles() {
    for startup in [1, 10, 60] {
        let mut herd = Herd::new(bounded(0, 100), backend(startup), 1, 7, 0.0);
        for k in 0..18_000 {
            herd.submit(Duration::from_millis(200 * k), 1, secs(2));
        }
        let plot: Plot = herd.plot(3590);
        let settled = &plot.desired[300..];
        let ups = settled.windows(2).filter(|pair| pair[1] > pair[0]).count();
        let downs = settled.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert_eq!(ups.min(downs), 0, "start-up {startup} s: {ups} ups, {downs} downs: {settled:?}");
        assert!((10..=40).contains(settled.last().unwrap()), "start-up {startup} s: {:?}", settled.last());
        assert_eq!(plot.killed, 0);
    }
}

/// An idle worker goes after `wait_count` decisions, where nothing speaks for keeping it.
#[test]
fn a_worker_idles_for_as_many_decisions_as_it_may() {
    let idles = |wait_count| {
        let (adaptive, mut state) = (Adaptive::new(AdaptConfig { wait_count, ..bounded(0, 5) }, backend(0)), State::default());
        let busy = Load { groups: vec![Group { id: 1, processing: 1, ..Group::default() }], ..map(0, secs(1), true) };
        let decide = |state, now, load: &Load| {
            let workers = vec![worker(1, Phase::Live(secs(0)), load.processing() as u32)];
            adaptive.decide(state, secs(now), load, &Fleet { workers, slots: 1, ..Fleet::default() })
        };
        for now in 0..10 {
            state = decide(state, now, &busy).0;
        }
        for idle in 1..100 {
            let (next, decision) = decide(state, 9 + idle, &map(0, secs(1), true));
            if !decision.victims.is_empty() {
                return idle;
            }
            state = next;
        }
        panic!("it stays");
    };
    assert_eq!([1, 3, 10].map(idles), [1, 3, 10]);
}

/// A task on a worker that is on its way out ends there: it is no work for anybody else, but what waits for it comes only then.
#[test]
fn what_runs_on_a_draining_worker_starts_nobody() {
    let each = secs(60);
    let mut load = map(0, each, true);
    load.groups[0].processing = 1;
    load.prefixes[0].running = vec![secs(5)];
    let leaves = |load: &Load, live: u32| {
        let mut workers = vec![worker(0, Phase::Draining, 1)];
        workers.extend((1..=live).map(|id| worker(u64::from(id), Phase::Live(secs(0)), 0)));
        let fleet = Fleet { workers, slots: 1, ..Fleet::default() };
        Adaptive::new(bounded(0, 50), backend(1)).decide(State::default(), secs(10), load, &fleet).1
    };
    assert_eq!((leaves(&load, 0).launch, leaves(&load, 0).desired), (0, 0), "{:?}", leaves(&load, 0));
    // Of two that run, one wants somebody.
    let mut two = load.clone();
    (two.groups[0].processing, two.groups[0].ready) = (1, 1);
    assert_eq!(leaves(&two, 0).launch, 1);
    // Forty that wait for it, for nearly a minute.
    let mut chain = load.clone();
    chain.groups.push(Group { id: 2, waiting: 40, dependencies: vec![1], ..Group::default() });
    assert_eq!(leaves(&chain, 1).launch, 0, "{:?}", leaves(&chain, 1));
    chain.prefixes[0].running = vec![each - Duration::from_millis(100)];
    assert!(leaves(&chain, 1).launch <= 40);
}

/// More than there may be, all of them busy and tasks waiting: as many as are above go, idle ones and those that hold the least first;
/// who must stay stays, and who holds what the others have no room for.
#[test]
fn what_is_above_the_maximum_goes_busy_or_not() {
    let mut load = map(1000, secs(10), true);
    load.groups[0].processing = 3;
    load.prefixes[0].running = vec![secs(1); 3];
    let busy = |id: u64, bytes: u64| Worker { bytes, ..worker(id, Phase::Live(secs(0)), 1) };
    let idle = Worker { bytes: 9, ..worker(3, Phase::Live(secs(0)), 0) };
    let workers = vec![busy(0, 7), busy(1, 5), busy(2, 6), idle];
    let decide = |maximum, workers: &[Worker]| {
        let fleet = Fleet { workers: workers.to_vec(), slots: 1, ..Fleet::default() };
        Adaptive::new(bounded(0, maximum), backend(1)).decide(State::default(), secs(10), &load, &fleet).1
    };
    for (maximum, victims) in [(4, vec![]), (3, vec![3]), (2, vec![3, 1]), (1, vec![3, 1, 2])] {
        let decision = decide(maximum, &workers);
        assert_eq!((decision.desired, decision.launch, &decision.victims), (maximum, 0, &victims), "{decision}");
        let told = matches!(decision.reason, Reason::Above { busy, kept: 0, .. } if busy as usize + 1 == victims.len());
        assert!(told || victims.is_empty(), "{decision}");
    }
    assert!(decide(1, &workers).to_string().contains("the maximum is 1: those above it go, 2 when they have finished"));
    let pinned: Vec<_> = workers.iter().map(|worker| Worker { pinned: worker.id != 2, ..worker.clone() }).collect();
    let decision = decide(1, &pinned);
    assert_eq!((decision.desired, &decision.victims), (3, &vec![2]));
    assert!(matches!(decision.reason, Reason::Above { busy: 1, kept: 2, .. }), "{decision}");
    let full: Vec<_> = workers.iter().map(|worker| Worker { bytes: 50, memory_limit: 100, ..worker.clone() }).collect();
    let decision = decide(1, &full);
    assert!(matches!(decision.reason, Reason::Above { busy: 0, kept: 3, .. }) && decision.victims.is_empty(), "{decision}");
    // One on its way goes before all of them.
    let mut more = workers;
    more.push(worker(4, Phase::Starting, 0));
    assert_eq!((decide(4, &more).cancelled, decide(4, &more).victims), (vec![4], vec![]));
}

/// Learned start-up times are kept, and given to the next cluster of the class.
#[test]
fn start_up_times_are_learned() {
    let mut herd = Herd::new(bounded(0, 50), backend(30), 1, 3, 0.0);
    herd.starts_in(secs(10));
    herd.submit(secs(0), 3000, secs(3));
    (0..200).for_each(|_| drop(herd.tick()));
    let (learned, billed) = herd.learned().unwrap();
    assert!((10.0..15.0).contains(&learned.as_secs_f64()), "{learned:?}");
    assert_eq!(State::with_startup(learned, billed).startup(), Some((learned, billed)));
}

/// A log that was written and read again makes the same decisions, number by number; a changed one does not pass.
#[test]
fn a_log_can_be_replayed() {
    let mut herd = Herd::new(AdaptConfig { time_weight: 1.1, ..bounded(1, 40) }, backend(7), 2, 11, 0.1);
    for k in 0..12 {
        herd.submit(secs(23 * k), 40 + 31 * k, Duration::from_millis(137 * (k + 1)));
    }
    (0..60).for_each(|_| drop(herd.tick()));
    // From the middle of a life, so that the state has numbers of every kind in it.
    let log = herd.log(240);
    let mut replay = Replay::default();
    let mut told = 0;
    for line in &log {
        let entry = Entry::parse(line).unwrap();
        assert_eq!(&entry.to_line().unwrap(), line);
        let again = replay.next(&entry).unwrap();
        if let Entry::Decided(decided) = &entry {
            assert_eq!(again.as_ref(), Some(&decided.decision));
            told += usize::from(decided.decision.launch > 0 || !decided.decision.victims.is_empty());
        }
    }
    assert!(told > 5, "it has seen too little: {told}");
    let without_begin = Replay::default().next(&Entry::parse(&log[1]).unwrap()).unwrap_err();
    assert!(without_begin.to_string().contains("does not begin"), "{without_begin}");
    // Another load gives another decision.
    let mut other = Replay::default();
    let differ = log.iter().any(|line| {
        let mut entry = Entry::parse(line).unwrap();
        if let Entry::Decided(decided) = &mut entry {
            decided.load.groups.iter_mut().for_each(|group| group.ready *= 3);
        }
        let again = other.next(&entry).unwrap();
        matches!((&entry, again), (Entry::Decided(decided), Some(again)) if again != decided.decision)
    });
    assert!(differ);
    assert!(Entry::parse("{\"decided\":{}}").is_err() && Entry::parse("not JSON").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(long(8)))]

    /// An hour of graphs that come at random, requests that are lost and late starts, wide or narrow bounds: every promise at every
    /// decision, no graph waits for ever, and nobody is there for nothing at the end.
    #[test]
    fn an_hour_of_anything_keeps_every_promise(
        seed: u64,
        startup in prop::sample::select(vec![1u64, 10, 60]),
        lost in prop::sample::select(vec![0.0, 0.05, 0.3]),
        sessions in prop::collection::vec((0u64..3000, 1u64..30, 5u64..200, 1u64..60, 20u64..3000), 1..5),
        (minimum, spread) in (0u32..4, 1u32..60),
        slots in 1u32..5,
    ) {
        let config = bounded(minimum, minimum + spread);
        let mut herd = Herd::new(config.clone(), backend(startup), slots, seed, lost);
        // Each session: so many graphs, from some time on, so far apart.
        for (begin, graphs, apart, tasks, millis) in sessions {
            for k in 0..graphs {
                herd.submit(secs(begin + k * apart), tasks, Duration::from_millis(millis));
            }
        }
        let mut ticks = 0;
        while !herd.done() || ticks < 3600 {
            let (fleet, decision) = herd.tick();
            sound(&config, &fleet, &decision)?;
            prop_assert!(decision.desired <= minimum + spread && decision.desired >= minimum, "{decision:?}");
            ticks += 1;
            prop_assert!(ticks < 100_000, "it hangs: {decision:?}");
        }
        let patience = 2 * (2.0 * 2.0 * herd.startup() + 40.0) as usize;
        let Plot { desired, killed } = herd.plot(patience);
        prop_assert_eq!(desired.last().copied(), Some(minimum));
        prop_assert_eq!(killed, 0);
    }
}
