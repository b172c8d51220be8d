//! The reasons are the real ones.

use remuda_core::adaptive::Hold;

use super::*;

/// A spent budget starts nothing, whatever there is to do, and says so; what there is goes on.
#[test]
fn a_budget_stops_growth() {
    let budget = Some(Seconds(secs(100)));
    let mut herd = Herd::new(AdaptConfig { budget, ..bounded(0, 20) }, backend(5), 1, 1, 0.0);
    herd.submit(secs(0), 40, secs(2));
    herd.submit(secs(30), 2000, secs(2)); // worth many more
    let mut held = 0;
    for _ in 0..100 {
        let (_, decision) = herd.tick();
        if let Reason::Budget { wanted, .. } = decision.reason {
            assert!(wanted > 0);
            held += 1;
            let told = format!("({:.0} of 100 worker-seconds used)", herd.usage().worker_seconds);
            assert!(decision.to_string().contains(&told), "{decision}");
        }
        assert!(decision.launch == 0 || herd.usage().worker_seconds < 100.0, "{decision}");
    }
    assert!(held > 0, "more would have been worth it");
    assert!(herd.usage().launched > 0 && herd.usage().idle_worker_seconds < herd.usage().worker_seconds);
}

/// Where tasks keep coming, the few that are there take long because of those: the reason says so.
#[test]
fn growth_beside_a_stream_is_told_of_the_stream() {
    let mut herd = Herd::new(bounded(0, 8), backend(1), 1, 1, 0.0);
    for at in 0..60 {
        herd.submit(secs(at), if at < 30 { 1 } else { 3 }, Duration::from_millis(900));
    }
    let decisions: Vec<Decision> = (0..60).map(|_| herd.tick().1).collect();
    let starts = |decision: &&Decision| decision.launch > 0 && matches!(decision.reason, Reason::Faster { .. });
    let started: Vec<String> = decisions.iter().filter(starts).map(ToString::to_string).collect();
    assert!(!started.is_empty() && started.iter().all(|told| told.ends_with(" s of work arrive per second")), "{started:?}");
}

/// Of the last of so many decisions, a second apart, on the same load and fleet.
fn decided(adaptive: &Adaptive, load: &Load, fleet: &Fleet, times: u64) -> Decision {
    let mut state = State::default();
    for at in 0..times {
        let (next, decision) = adaptive.decide(state, secs(100 + at), load, fleet);
        state = next;
        if at + 1 == times {
            return decision;
        }
    }
    unreachable!("no decision was asked for")
}

fn live(workers: u64, busy: u64) -> Vec<Worker> {
    (0..workers).map(|id| worker(id, Phase::Live(secs(0)), u32::from(id < busy))).collect()
}

fn of(workers: Vec<Worker>) -> Fleet {
    Fleet { workers, slots: 1, ..Fleet::default() }
}

/// A map of which so many run.
fn running(tasks: u64, each: u64) -> Load {
    let mut load = map(tasks, secs(each), true);
    (load.groups[0].ready, load.groups[0].processing) = (0, tasks);
    load.prefixes[0].running = vec![secs(1); tasks as usize];
    load
}

/// An idle worker is kept for as long as the reason says: from the last decision at which it had work to the one at which it goes.
#[test]
fn who_idles_is_kept_for_as_long_as_is_said() {
    for (startup, wait_count, interval) in [(1, 3, 1.0), (1, 1, 1.0), (1, 6, 1.0), (10, 3, 1.0), (60, 3, 1.0)] {
        let config = AdaptConfig { wait_count, interval: Seconds(Duration::from_secs_f64(interval)), ..bounded(0, 20) };
        let mut herd = Herd::new(config, backend(startup), 1, 1, 0.0);
        herd.submit(secs(0), 30, secs(5));
        let (mut told, mut idle) = (None, 0);
        loop {
            let (fleet, decision) = herd.tick();
            let busy = fleet.workers.iter().any(|worker| worker.processing > 0 || worker.phase == Phase::Starting);
            idle = if busy || fleet.workers.is_empty() { 0 } else { idle + 1 };
            match decision.reason {
                Reason::Idling { patience, .. } if idle > 0 => told = Some(patience),
                Reason::Surplus { needed: 0, .. } => break,
                _ => {}
            }
        }
        let kept = f64::from(idle) * interval;
        // Let go at the very first decision without work, nothing was said before.
        let told = told.unwrap_or(if wait_count == 1 { kept } else { 0.0 });
        assert_eq!(told, kept, "start-up {startup} s, wait_count {wait_count}");
    }
}

#[test]
fn idle_workers_are_said_to_be_kept_by_what_keeps_them() {
    let policy = |minimum| Adaptive::new(bounded(minimum, 50), backend(1));
    let reason = |load: &Load, fleet: &Fleet| decided(&policy(0), load, fleet, 9).reason;
    // A stage ahead.
    let mut chain = running(1, 2);
    chain.groups.push(Group { id: 2, waiting: 3, dependencies: vec![1], ..Group::default() });
    assert_eq!(reason(&chain, &of(live(3, 1))), Reason::Ahead { surplus: 2 });
    // Results: there is no other place for them, or only one among several.
    let with =
        |bytes, limit| -> Vec<Worker> { live(2, 0).into_iter().map(|worker| Worker { bytes, memory_limit: limit, ..worker }).collect() };
    let nothing = map(0, secs(1), true);
    assert_eq!(reason(&nothing, &of(with(1, 0)[..1].to_vec())), Reason::Held { surplus: 1, by: Hold::Results });
    assert_eq!(reason(&nothing, &Fleet { memory_limit: 100, ..of(with(50, 100)) }), Reason::Memory { stored: 100 });
    // Workers that must not go.
    let pinned = live(2, 0).into_iter().map(|worker| Worker { pinned: true, ..worker }).collect();
    assert_eq!(reason(&nothing, &of(pinned)), Reason::Held { surplus: 2, by: Hold::Pinned });
    // The minimum charge.
    let charged = Backend { minimum_charge: secs(600), ..backend(1) };
    let young = live(2, 0).into_iter().map(|worker| Worker { billed: Some(secs(90)), ..worker }).collect();
    let kept = decided(&Adaptive::new(bounded(0, 50), charged), &nothing, &of(young), 9);
    assert_eq!(kept.reason, Reason::Held { surplus: 2, by: Hold::Charge });
    // Those on their way, paid for already.
    let coming = vec![Worker { billed: Some(secs(90)), ..worker(0, Phase::Starting, 0) }];
    let charged = Backend { minimum_charge: secs(600), ..backend(60) };
    assert_eq!(decided(&Adaptive::new(bounded(0, 50), charged), &nothing, &of(coming), 9).reason, Reason::Coming { surplus: 1 });
    // The minimum keeps its own, and no more are said to be idle.
    assert_eq!(decided(&policy(2), &nothing, &of(live(2, 0)), 9).reason, Reason::Enough { tasks: 0, finish: Some(0.0) });
    assert!(matches!(decided(&policy(2), &running(5, 60), &of(live(5, 5)), 9).reason, Reason::Enough { tasks: 5, .. }));
}

#[test]
fn requests_that_go_are_said_to_be_unneeded() {
    let fleet = of(vec![Worker { billed: None, launched: Some(secs(100)), ..worker(0, Phase::Starting, 0) }]);
    let adaptive = Adaptive::new(bounded(0, 50), backend(60));
    let (state, first) = adaptive.decide(State::default(), secs(100), &map(1, secs(60), true), &fleet);
    assert!(first.cancelled.is_empty(), "{first}");
    let mut state = Some(state);
    let decisions: Vec<Decision> = (101..104)
        .map(|at| {
            let (next, decision) = adaptive.decide(state.take().unwrap(), secs(at), &map(0, secs(60), true), &fleet);
            state = Some(next);
            decision
        })
        .collect();
    assert_eq!(decisions[2].cancelled, [0], "{decisions:?}");
    assert_eq!(decisions[2].reason, Reason::Unneeded { requests: 1, decisions: 3 });
    assert_eq!(decisions[0].reason, Reason::Coming { surplus: 1 });
}

/// Also those that were just made are taken back only when so many decisions have found them unneeded.
#[test]
fn requests_are_not_taken_back_in_haste() {
    let adaptive = Adaptive::new(bounded(0, 50), backend(60));
    let (state, first) = adaptive.decide(State::default(), secs(100), &map(1, secs(60), true), &of(vec![]));
    assert_eq!(first.launch, 1);
    let fleet = of(vec![Worker { billed: None, launched: Some(secs(100)), ..worker(0, Phase::Starting, 0) }]);
    let (mut state, mut cancelled) = (state, vec![]);
    for at in 101..104 {
        let (next, decision) = adaptive.decide(state, secs(at), &map(0, secs(60), true), &fleet);
        (state, cancelled) = (next, [cancelled, vec![decision.cancelled]].concat());
    }
    assert_eq!(cancelled, [vec![], vec![], vec![0]]);
}

/// Tasks are ready and workers idle, three decisions in a row: more workers would wait for the scheduler, too.
#[test]
fn a_scheduler_that_is_the_limit_gets_no_more_workers() {
    let (adaptive, load) = (Adaptive::new(bounded(0, 50), backend(1)), map(1000, secs(10), true));
    let decision = decided(&adaptive, &load, &of(live(8, 0)), 3);
    assert_eq!((decision.launch, decision.reason), (0, Reason::SchedulerBound { ready: 1000 }));
    assert!(decided(&adaptive, &load, &of(live(8, 0)), 2).launch > 0);
    let mut busy = running(8, 10);
    busy.groups[0].ready = 1000;
    assert!(decided(&adaptive, &busy, &of(live(8, 8)), 3).launch > 0);
}

/// Where a platform starts two workers at once and then one in twenty seconds, those far behind are worth nothing.
#[test]
fn fewer_are_asked_for_where_the_platform_starts_few_at_a_time() {
    let (load, free) = (map(300, secs(10), true), backend(1));
    let slow = Backend { launch_burst: 2, launch_rate: 0.05, ..free.clone() };
    let launch = |backend| first(&bounded(0, 1000), backend, &load).launch;
    assert!(launch(&slow) >= 2 && 2 * launch(&slow) < launch(&free), "{} {}", launch(&slow), launch(&free));
}

/// Results that fill more than 60 % of the memory get room, also where nothing is to be done.
#[test]
fn results_that_need_the_memory_start_workers() {
    let adaptive = Adaptive::new(bounded(0, 50), backend(1));
    let decide = |bytes| {
        let workers = live(2, 0).into_iter().map(|worker| Worker { bytes, memory_limit: 100, ..worker }).collect();
        adaptive.decide(State::default(), secs(100), &Load::default(), &Fleet { memory_limit: 100, ..of(workers) }).1
    };
    assert_eq!((decide(70).launch, decide(70).reason), (1, Reason::Memory { stored: 140 }));
    assert_eq!(decide(60).launch, 0);
}

/// What the user says of starts goes before what the class says.
#[test]
fn a_start_up_that_is_said_counts() {
    let launch = |startup| first(&AdaptConfig { startup, ..bounded(0, 1000) }, &backend(1), &map(300, secs(10), true)).launch;
    assert!(2 * launch(Some(Seconds(secs(60)))) < launch(None), "{} {}", launch(Some(Seconds(secs(60)))), launch(None));
}

/// Workers idle over the gaps between graphs that keep coming, if they may.
#[test]
fn a_fleet_is_kept_over_gaps_only_for_as_long_as_it_may_idle() {
    let launched = |idle_max| {
        let mut herd = Herd::new(AdaptConfig { idle_max, ..bounded(0, 50) }, backend(30), 1, 5, 0.0);
        (0..12).for_each(|k| herd.submit(secs(100 * k), 20, secs(10)));
        (0..1300).for_each(|_| drop(herd.tick()));
        herd.usage().launched
    };
    let (hasty, usual) = (launched(0.15), launched(2.0));
    assert!(hasty > 2 * usual, "{hasty} {usual}");
}

/// More workers would pay at the maximum, and only there.
#[test]
fn the_maximum_is_named_where_it_holds_back() {
    let load = |tasks| {
        let mut load = map(tasks, secs(10), true);
        (load.groups[0].ready, load.groups[0].processing) = (tasks - 4, 4);
        load.prefixes[0].running = vec![secs(1); 4];
        load
    };
    let reason = |tasks, maximum| decided(&Adaptive::new(bounded(0, maximum), backend(1)), &load(tasks), &of(live(4, 4)), 1).reason;
    assert!(matches!(reason(400, 4), Reason::Maximum { workers: 4, tasks: 400, finish: Some(_) }), "{}", reason(400, 4));
    assert!(matches!(reason(400, 50), Reason::Faster { .. }), "{}", reason(400, 50));
    assert!(matches!(reason(4, 4), Reason::Enough { tasks: 4, .. }), "{}", reason(4, 4));
}

#[test]
fn starts_that_fail_or_are_late_are_told() {
    let adaptive = Adaptive::new(bounded(2, 9), backend(5));
    let request = |launched| Worker { launched: Some(secs(launched)), ..worker(launched, Phase::Starting, 0) };
    let load = map(3, secs(1), true);
    let fleet = |launched, failed| Fleet { failed, ..of((launched..launched + 3).map(request).collect()) };
    let told = |launched, failed| decided(&adaptive, &load, &fleet(launched, failed), 1).reason;
    assert_eq!(told(96, 3), Reason::Failing { starting: 3, failed: 3 });
    assert!(matches!(told(96, 0), Reason::Enough { tasks: 3, .. }));
    assert_eq!(told(85, 0), Reason::Late { starting: 3, waited: 15.0, usual: 5.0 });
    let blocked = Fleet { blocked: true, failed: 1, ..Fleet::default() };
    assert_eq!(decided(&adaptive, &map(0, secs(1), true), &blocked, 1).reason, Reason::Blocked { wanted: 2 });
}

#[test]
fn one_is_told_as_one() {
    let all = [
        (Reason::First { tasks: 1 }, "1 task and no worker"),
        (
            Reason::Faster { tasks: 1, before: None, after: 2.0, beside: 0.9 },
            "1 task, done in 2.0 s instead of never, as 0.9 s of work arrive per second",
        ),
        (Reason::Faster { tasks: 2, before: Some(9.0), after: 2.0, beside: 0.0 }, "2 tasks, done in 2.0 s instead of 9.0 s"),
        (Reason::Unknown { tasks: 1 }, "1 task of unknown duration"),
        (Reason::Recurring { workers: 1 }, "graphs like this keep coming: 1 worker pays"),
        (Reason::Maximum { workers: 1, tasks: 1, finish: None }, "the maximum is 1: 1 task"),
        (
            Reason::Budget { spent: 112.4, budget: 100.0, wanted: 1 },
            "the budget is spent (112 of 100 worker-seconds used): 1 more worker would help",
        ),
        (Reason::Blocked { wanted: 1 }, "1 more worker wanted, but starting workers fails: none is asked for now"),
        (Reason::Failing { starting: 1, failed: 1 }, "starting workers failed: 1 worker tried again"),
        (Reason::Failing { starting: 2, failed: 3 }, "starting workers failed 3 times in a row: 2 workers tried again"),
        (Reason::Late { starting: 1, waited: 9.0, usual: 0.3 }, "1 worker on the way for 9.0 s: a start usually takes 0.3 s"),
        (Reason::Enough { tasks: 1, finish: None }, "1 task: more workers do not pay"),
        (Reason::Unneeded { requests: 1, decisions: 1 }, "1 request not needed any more"),
        (Reason::Surplus { needed: 0, window: 2.0 }, "none was needed in the last 2.0 s"),
        (Reason::Surplus { needed: 1, window: 2.0 }, "not more than 1 was needed in the last 2.0 s"),
    ];
    for (reason, text) in all {
        let decision = Decision { desired: 1, launch: 1, victims: vec![], cancelled: vec![], lost: 0, reason };
        assert_eq!(decision.to_string(), format!("1 worker (start +1): {text}"));
    }
}
