//! Under constant load the number of workers does not go up and down for ever.

use std::time::Duration;

use remuda_core::adaptive::{Adaptive, Backend, Fleet, Phase, State};

use crate::{
    bounded,
    herd::{Herd, Plot},
    input::{map, secs, worker},
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
