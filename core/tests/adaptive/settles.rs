//! Under constant load the number of workers does not go up and down for ever.

use std::time::Duration;

use proptest::prelude::*;
use remuda_core::adaptive::{AdaptConfig, Adaptive, Backend, Fleet, Phase, State};

use crate::{
    bounded,
    herd::{Herd, Plot},
    input::{map, secs, worker},
    long,
};

/// One task of `each` every `every` seconds for so many seconds: how often the number of workers turned after `settled` of them.
fn turns(startup: u64, every: f64, each: f64, (settled, seconds): (usize, usize)) -> (usize, Vec<u32>) {
    let mut herd = Herd::new(bounded(0, 200), Backend::new(secs(startup)), 1, 7, 0.0);
    for k in 0..(seconds as f64 / every) as u32 {
        herd.submit(Duration::from_secs_f64(every * f64::from(k)), 1, Duration::from_secs_f64(each));
    }
    let Plot { mut desired, killed } = herd.plot(seconds - 10);
    assert_eq!(killed, 0, "start-up {startup} s, {each} s every {every} s");
    let desired = desired.split_off(settled);
    let steps: Vec<_> = desired.windows(2).map(|pair| pair[1].cmp(&pair[0])).filter(|step| step.is_ne()).collect();
    (steps.windows(2).filter(|pair| pair[0] != pair[1]).count(), desired)
}

/// Tasks at even times where workers start in a second: nobody is let go and started again, however short or rare the tasks are. It once
/// let the only worker go after each task.
#[test]
fn constant_load_settles_where_starts_are_fast() {
    for every in [0.137, 0.263, 0.617, 1.3, 5.0] {
        for each in [0.1, 0.25, 1.0, 2.0, 3.458, 6.0, 9.0] {
            let (turns, desired) = turns(1, every, each, (300, 900));
            assert_eq!(turns, 0, "{each} s every {every} s: {desired:?}");
        }
    }
}

/// Any load of tasks one by one that is not a pause of more than a quarter of a minute after each task: a worker that waits as long for the next
/// one goes. It once went between one worker and two for ever under loads a little above one. A campaign (`PROPTEST_CASES`) takes
/// more start-ups and loads.
#[test]
fn one_task_after_the_other_settles() {
    let campaign = std::env::var("PROPTEST_CASES").is_ok();
    let startups: &[u64] = if campaign { &[1, 2, 3, 5, 10] } else { &[1] };
    let (step, seconds) = if campaign { (1, 1800) } else { (8, 1100) };
    for &startup in startups {
        for each in [0.5, 1.0, 2.0, 3.3, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0] {
            // Tenths from 0.3 to 3.5, and the hard ones a little beside whole numbers.
            let tenths = (3..=35).step_by(step).map(|tenth| f64::from(tenth) / 10.0);
            for load in tenths.chain([0.97, 1.05, 1.2, 2.05, 3.05]) {
                let every = each / load;
                if every - each > 14.0 {
                    continue;
                }
                let (turns, desired) = turns(startup, every, each, (600, seconds));
                assert_eq!(turns, 0, "start-up {startup} s, {each} s every {every} s: {desired:?}");
            }
        }
    }
}

/// While it is being learned what comes, and how long it takes, the number may go beyond what it settles at, as workers are started for what
/// has piled up meanwhile; and after the very first task it may go. But from the second task on nobody is let go who is asked for again. With one
/// task of a second each second it once went 2, 1, 2, with one each five seconds 1, 0, 1, 0, 1. (Tasks of some seconds that
/// leave a worker a tenth to spare take longer to settle: a few times a second one comes for the one that waits, and goes.)
#[test]
fn a_constant_load_lets_nobody_go_who_is_asked_for_again() {
    let millis = Duration::from_millis;
    let often = [(300, 1000), (500, 1000), (700, 200), (1000, 500), (1000, 900), (1000, 1000), (1000, 1100), (1000, 2500), (2000, 1000)];
    let seldom = [(2000, 5000), (3000, 1000), (5000, 1000), (7000, 8000), (10_000, 1000), (14_000, 5000)];
    for (every, each) in often.into_iter().chain(seldom) {
        for (startup, phase) in
            [500, 1000, 1500, 2000, 3000, 5000].into_iter().flat_map(|startup| [50, 450, 850].map(|phase| (startup, phase)))
        {
            let mut herd = Herd::new(bounded(0, 4), Backend::new(secs(1)), 1, 7, 0.0);
            herd.starts_in(millis(startup));
            (0..120_000 / every).for_each(|k| herd.submit(millis(phase + every * k), 1, millis(each)));
            let Plot { mut desired, killed } = herd.plot(110);
            // The decision that is the first to see the second task, and those after it: one each second.
            let desired = desired.split_off((phase + every).div_ceil(1000) as usize - 1);
            let again = desired.windows(2).skip_while(|pair| pair[1] >= pair[0]).any(|pair| pair[1] > pair[0]);
            assert!(!again && killed == 0, "{each} ms every {every} ms, start-up {startup} ms, from {phase} ms on: {desired:?}");
        }
    }
}

/// Seven and eight tasks by turns in each bin of the rate: the fleet stays all the same. It once went up and down every ten seconds.
#[test]
fn uneven_constant_load_settles() {
    for (startup, every, each) in [(10, 0.263, 3.458), (10, 0.617, 9.0), (60, 0.263, 3.458)] {
        let (turns, desired) = turns(startup, every, each, (600, 3600));
        assert_eq!(turns, 0, "{startup} {every} {each}: {desired:?}");
    }
}

/// A worker is missed when another is started in its place, not while none can be.
#[test]
fn who_is_let_go_is_missed_when_another_starts() {
    let adaptive = Adaptive::new(bounded(0, 9), Backend::new(secs(1)));
    let there = Fleet { workers: vec![worker(0, Phase::Live(secs(0)), 0)], slots: 1, ..Fleet::default() };
    let (nothing, work) = (map(0, secs(1), true), map(1, secs(1), true));
    let (mut state, mut let_go) = (State::default(), false);
    for at in 10..20 {
        let (next, decision) = adaptive.decide(state, secs(at), &nothing, &there);
        (state, let_go) = (next, let_go || !decision.victims.is_empty());
    }
    assert!(let_go);
    let regrets = |state: &State| serde_json::to_value(state).unwrap()["regret"].clone();
    let blocked = Fleet { blocked: true, ..Fleet::default() };
    let (state, decision) = adaptive.decide(state, secs(20), &work, &blocked);
    assert!(decision.launch == 0 && regrets(&state)["missed"].is_null() && !regrets(&state)["let_go"].is_null(), "{}", regrets(&state));
    let (state, decision) = adaptive.decide(state, secs(21), &work, &Fleet::default());
    assert!(decision.launch == 1 && regrets(&state)["missed"].is_number() && regrets(&state)["let_go"].is_null(), "{}", regrets(&state));
}

/// A large graph comes in pieces while it is submitted, at even times as seen from here: that is no load that goes on for ever.
#[test]
fn a_graph_that_comes_in_pieces_is_no_stream() {
    for startup in [1, 60] {
        let (adaptive, mut state) = (Adaptive::new(bounded(0, 100_000), Backend::new(secs(startup))), State::default());
        let (mut now, mut most) = (Duration::ZERO, 0);
        for piece in 1..=10 {
            let mut load = map(1000 * piece, secs(1), false);
            load.prefixes[0].arrived = 1000 * piece;
            let decided = adaptive.decide(state, now, &load, &Fleet { slots: 1, ..Fleet::default() });
            (state, most) = (decided.0, decided.1.desired.max(most));
            now += Duration::from_millis(if piece < 6 { 220 } else { 1000 });
        }
        // Nobody came, and nothing is known of the tasks: the square root of them all.
        assert!(most <= 100, "start-up {startup} s: {most} workers");
    }
}

/// One task after the other, at even times. Tenths of a second.
#[derive(Debug, Clone)]
struct Constant {
    startup: u64,
    slots: u32,
    every: u64,
    each: u64,
}

fn constant() -> impl Strategy<Value = Constant> {
    let startup = prop::sample::select(vec![1u64, 1, 1, 2, 3, 5, 10, 30]);
    (startup, 1..3u32, 1..550u64, prop_oneof![0.02..1.0f64, 0.02..4.0f64]).prop_map(|(startup, slots, every, load)| {
        let each = ((every as f64 * load) as u64).clamp(1, 600);
        Constant { startup, slots, every, each }
    })
}

impl Constant {
    /// Long tasks take long to settle: until eighty have come.
    fn seconds(&self) -> u64 {
        (8 * self.every).max(1600)
    }

    fn every(&self) -> f64 {
        self.every as f64 / 10.0
    }

    fn each(&self) -> f64 {
        self.each as f64 / 10.0
    }

    /// The numbers of the second half, how often they turned, and the worker-seconds of all.
    fn run(&self, config: AdaptConfig) -> (Vec<u32>, usize, f64) {
        let mut herd = Herd::new(config, Backend::new(secs(self.startup)), self.slots, 7, 0.0);
        let tenths = |tenths: u64| Duration::from_millis(100 * tenths);
        (0..10 * self.seconds() / self.every).for_each(|k| herd.submit(tenths(self.every * k), 1, tenths(self.each)));
        let Plot { mut desired, killed } = herd.plot(self.seconds() as usize);
        assert_eq!(killed, 0);
        let desired = desired.split_off(desired.len() / 2);
        let steps: Vec<_> = desired.windows(2).map(|pair| pair[1].cmp(&pair[0])).filter(|step| step.is_ne()).collect();
        let turns = steps.windows(2).filter(|pair| pair[0] != pair[1]).count();
        (desired, turns, herd.usage().worker_seconds)
    }
}

/// The only worker stays over pauses of so many seconds for certain (15, less what the rate of long tasks is misjudged by), and over so
/// many at most where a start takes a second.
const STAYS: f64 = 11.0;
const GOES: f64 = 19.0;

proptest! {
    #![proptest_config(ProptestConfig { cases: long(12), failure_persistence: None, ..ProptestConfig::default() })]

    /// What "no oscillation under constant load" means, for tasks that come one by one at even times, less than a minute apart. Once it has
    /// settled, the number of workers
    /// - never turns, unless each task leaves the only worker without work for longer than `STAYS`;
    /// - is one or none there: scaling to nothing and back, not more than once for each task. Where starts take a second and the pause is
    ///   longer than `GOES` that happens, as `cost x time` is less than that of a worker that stays.
    #[test]
    fn constant_load_does_not_make_the_number_go_up_and_down(load in constant()) {
        let (numbers, turns, used) = load.run(bounded(0, 200));
        let pause = load.every() - load.each();
        prop_assert!(turns == 0 || pause > STAYS, "{} turns, pause {}: {:?}", turns, pause, numbers);
        if turns > 0 {
            prop_assert!(numbers.iter().all(|number| *number <= 1), "pause {}: {:?}", pause, numbers);
            prop_assert!(turns <= 2 * (numbers.len() as f64 / load.every()).ceil() as usize, "pause {}: {:?}", pause, numbers);
        }
        if load.startup == 1 && pause > GOES {
            let (_, never, kept) = load.run(bounded(1, 200));
            // Faster than in the target duration is worth nothing; a start may be seen to be needed a second late.
            let worth = |seconds: f64| seconds.max(5.0);
            let (comes, stays) = (used * worth(load.each() + 2.1), kept * worth(load.each()));
            prop_assert!(turns > 0 && never == 0 && comes < stays, "pause {}: {:.2} of a worker that stays", pause, comes / stays);
        }
    }
}

/// `idle_max` is the longest idle time also where tasks come evenly and where a worker was missed: 15 s at 2, which is the default.
#[test]
fn idle_max_bounds_how_long_a_steady_load_keeps_its_worker() {
    let turns = |idle_max, pause: u64| {
        let load = Constant { startup: 1, slots: 1, every: 20 + pause, each: 20 };
        load.run(AdaptConfig { idle_max, ..bounded(0, 9) }).1
    };
    assert_eq!([turns(2.0, 130), turns(0.9, 50), turns(4.0, 250)], [0, 0, 0]);
    assert!(turns(2.0, 200) > 0 && turns(0.9, 100) > 0 && turns(0.3, 50) > 0);
}
