//! The counts against small histories.

use remuda_core::{
    engine::Outlook,
    manager::WorkerId,
    task::{Annotations, TaskError, TaskSpec, TaskState},
};

use super::{
    super::{
        Ended, Place,
        tests::{Bench, id, one, spec},
    },
    *,
};

fn named(name: &Arc<str>, keys: std::ops::Range<u64>, inputs: impl Fn(u64) -> Vec<u64>, slots: u32) -> Vec<TaskSpec> {
    let annotations = Arc::new(Annotations { slots, ..Annotations::default() });
    keys.map(|key| TaskSpec { name: name.clone(), ..spec(key, &inputs(key), &annotations) }).collect()
}

/// Waiting, ready, processing, done, and the groups before it.
type Shown = (u64, u64, u64, u64, Vec<u64>);

fn shown(load: &Load) -> Vec<Shown> {
    load.groups.iter().map(|g| (g.waiting, g.ready, g.processing, g.done, g.dependencies.clone())).collect()
}

#[test]
fn a_map_is_one_group_and_so_is_a_loop_until_somebody_looks() {
    let mut bench = Bench::with_workers(&[2]);
    let (load, sum): (Arc<str>, Arc<str>) = ("load".into(), "sum".into());
    bench.submit(named(&load, 0..10, |_| vec![], 1));
    for key in 10..20 {
        bench.submit(named(&"sum".into(), key..key + 1, |key| vec![key - 10], 1));
    }
    let seen = bench.scheduler.look(bench.now);
    assert_eq!(shown(&seen.load), [(0, 8, 2, 0, vec![]), (10, 0, 0, 0, vec![1])]);
    assert_eq!(seen.load.prefixes.iter().map(|prefix| prefix.arrived).collect::<Vec<_>>(), [10, 10]);
    assert_eq!((seen.workers.len(), seen.workers[0].processing, seen.workers[0].slots), (1, 2, 2));
    bench.now += Duration::from_secs(3);
    (0..10).for_each(|key| bench.done(key));
    // What comes after a look is another group, of the same kind.
    bench.submit(named(&sum, 30..31, |_| vec![], 1));
    let seen = bench.scheduler.look(bench.now);
    assert_eq!(shown(&seen.load), [(0, 0, 0, 10, vec![]), (0, 8, 2, 0, vec![1]), (0, 1, 0, 0, vec![])]);
    let kind = &seen.load.prefixes[0];
    assert_eq!((kind.completions, kind.total, kind.longest), (10, Duration::from_secs(6), Duration::from_secs(3)));
    assert_eq!((seen.load.prefixes.len(), seen.load.prefixes[1].arrived), (2, 11));
    // What was over at a look is gone at the next.
    assert_eq!(bench.scheduler.look(bench.now).load.groups.len(), 2);
}

#[test]
fn levels_of_one_name_are_told_apart_and_the_deepest_are_no_wide_stage() {
    let mut bench = Bench::with_workers(&[1]);
    let name: Arc<str> = "add".into();
    bench.submit(named(&name, 0..4, |_| vec![], 1));
    bench.submit(named(&name, 4..6, |key| vec![2 * (key - 4), 2 * (key - 4) + 1], 1));
    bench.submit(named(&name, 6..7, |_| vec![4, 5], 1));
    let load = bench.scheduler.look(bench.now).load;
    assert_eq!(shown(&load), [(0, 3, 1, 0, vec![]), (2, 0, 0, 0, vec![1]), (1, 0, 0, 0, vec![2])]);
    let mut chain = Bench::with_workers(&[1]);
    chain.submit(named(&name, 0..1000, |key| key.checked_sub(1).into_iter().collect(), 1));
    let load = chain.scheduler.look(chain.now).load;
    assert_eq!(load.groups.len(), LEVELS as usize + 1);
    assert!(load.groups.iter().all(|group| group.unfinished() == 1), "however long the chain, one at a time");
}

#[test]
fn running_times_leave_out_pauses_and_what_ends_while_nobody_looks_leaves_nothing() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(named(&"before".into(), 0..5, |_| vec![], 1));
    (0..5).for_each(|key| bench.done(key));
    assert!(bench.scheduler.tally.batches.is_empty() && bench.scheduler.tally.open.is_empty());
    bench.submit(named(&"parent".into(), 5..6, |_| vec![], 1));
    let run = bench.running[0].run;
    bench.pass(Duration::from_secs(2));
    bench.scheduler.pause(run, bench.now);
    let seen = bench.scheduler.look(bench.now);
    assert_eq!(shown(&seen.load), [(0, 0, 0, 0, vec![])]);
    assert!(seen.workers[0].pinned && seen.workers[0].processing == 0, "it must not go");
    bench.pass(Duration::from_secs(50));
    bench.scheduler.resume(run, bench.now);
    bench.pass(Duration::from_secs(1));
    let seen = bench.scheduler.look(bench.now);
    assert_eq!(seen.load.prefixes[1].running, [Duration::from_secs(3)]);
    bench.end(5, Ended::Outcome(Err(TaskError::failed("x"))));
    let kind = bench.scheduler.look(bench.now).load.prefixes[1].clone();
    assert_eq!((kind.completions, kind.total), (1, Duration::from_secs(3)), "a failure takes its time, too");
}

#[test]
fn what_no_worker_can_run_is_no_work_and_slots_count() {
    let mut bench = Bench::new();
    bench.submit(named(&"wide".into(), 0..3, |_| vec![], 4));
    assert_eq!(shown(&bench.scheduler.look(bench.now).load), [(0, 12, 0, 0, vec![])], "nobody there: one will show");
    bench.worker(0, 2, &[]);
    assert_eq!(shown(&bench.scheduler.look(bench.now).load), [(0, 0, 0, 0, vec![])]);
    bench.worker(1, 4, &[]);
    let load = bench.scheduler.look(bench.now).load;
    assert_eq!((shown(&load), load.prefixes[0].running.len()), (vec![(0, 8, 4, 0, vec![])], 4));
    bench.end(0, Ended::Outcome(one()));
}

#[test]
fn what_no_worker_will_do_for_asks_for_none_also_after_the_last_one_and_one_that_drains_says_nothing() {
    let place = |slots| Place { host: "h".into(), slots, resources: BTreeMap::new() };
    let mut bench = Bench::new();
    bench.submit(named(&"wide".into(), 0..1, |_| vec![], 4));
    bench.worker(0, 2, &[]);
    bench.scheduler.worker_gone(id(0), None, bench.now);
    assert_eq!(bench.scheduler.look(bench.now).load.ready(), 0, "the last worker would not do");
    bench.scheduler.expect_worker(id(1), place(4), bench.now);
    assert_eq!(bench.scheduler.look(bench.now).load.ready(), 4, "this one does");
    let mut known = Bench::of_kind(place(2));
    known.submit(named(&"wide".into(), 0..1, |_| vec![], 4));
    assert_eq!(known.scheduler.look(known.now).load.ready(), 0);
    let mut draining = Bench::with_workers(&[1]);
    draining.submit(named(&"long".into(), 0..1, |_| vec![], 1));
    draining.scheduler.drain_worker(id(0), draining.now);
    draining.submit(named(&"next".into(), 1..4, |_| vec![], 1));
    let seen = draining.scheduler.look(draining.now);
    assert_eq!((seen.load.ready(), seen.load.processing(), seen.workers[0].processing), (3, 1, 1));
}

#[test]
fn a_worker_that_was_let_go_is_asked_for_by_its_index_and_one_that_would_have_another_is_not() {
    let place = || Place { host: "h".into(), slots: 1, resources: BTreeMap::new() };
    let adaptive = || {
        let mut bench = Bench::of_kind(place());
        bench.scheduler.expect(Outlook::Adaptive { held: None }, bench.now);
        bench
    };
    let only_on = |name: &str, key| {
        let annotations = Arc::new(Annotations { workers: vec![name.into()], ..Annotations::default() });
        vec![spec(key, &[], &annotations)]
    };
    let ready = |bench: &mut Bench| bench.scheduler.look(bench.now).load.ready();

    // Beside one that is busy it would be the next, and where nobody is.
    let mut bench = adaptive();
    (0..2).for_each(|index| bench.worker(index, 1, &[]));
    bench.submit(named(&"long".into(), 0..2, |_| vec![], 1));
    bench.done(0);
    bench.scheduler.worker_gone(id(0), None, bench.now);
    bench.submit(only_on("0", 2));
    assert_eq!(ready(&mut bench), 1, "1-0 is busy");
    bench.done(1);
    assert_eq!(ready(&mut bench), 0, "1-0 idles: one more would be for this task alone");
    bench.pass(Duration::from_secs(30));
    bench.scheduler.worker_gone(id(1), None, bench.now);
    assert_eq!(ready(&mut bench), 1, "it would be 0-1");
    bench.pass(Duration::from_secs(600));
    let again = WorkerId { index: 0, incarnation: 1 };
    bench.scheduler.expect_worker(again, place(), bench.now);
    bench.scheduler.worker_joined(again, bench.now);
    bench.absorb();
    assert_eq!(bench.keys(), [2]);

    // While the one it is for is on its way out nobody else is started for it.
    let mut bench = adaptive();
    bench.worker(0, 1, &[]);
    bench.submit(named(&"long".into(), 0..1, |_| vec![], 1));
    bench.scheduler.drain_worker(id(0), bench.now);
    bench.submit(only_on("0", 1));
    assert_eq!(ready(&mut bench), 0);
    bench.done(0);
    bench.scheduler.worker_gone(id(0), None, bench.now);
    assert_eq!(ready(&mut bench), 1);

    // Nobody knows that this one will not come before one has: then it asks for no more, and waits for a minute.
    let mut bench = adaptive();
    bench.submit(only_on("5", 0));
    assert_eq!((ready(&mut bench), bench.scheduler.wake()), (1, None));
    bench.worker(0, 1, &[]);
    assert_eq!(ready(&mut bench), 0);
    bench.pass(Duration::from_secs(30));
    bench.scheduler.worker_gone(id(0), None, bench.now);
    assert_eq!(ready(&mut bench), 0);
    bench.pass(Duration::from_secs(30));
    match bench.last(0) {
        TaskState::Ended(TaskError::Refused(error)) => assert!(error.to_string().contains("no worker is called `5`"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn needs_of_what_is_gone_are_forgotten_and_so_is_all_that_is_over_when_nobody_looks_any_more() {
    let mut bench = Bench::with_workers(&[1]);
    bench.submit(named(&"first".into(), 0..1, |_| vec![], 1)); // runs on
    let mut sizes = 0;
    for key in 1..400u64 {
        bench.submit(named(&format!("part{}", key % 7).into(), 2 * key..2 * key + 1, |_| vec![], 0));
        bench.submit(named(&"sum".into(), 2 * key + 1..2 * key + 2, |sum| vec![sum - 1, 0], 1));
        if key % 8 != 0 {
            bench.done(2 * key);
        }
        if key >= 200 && key % 50 == 0 {
            bench.scheduler.look(bench.now);
        }
        let known = &bench.scheduler.tally.batches;
        sizes = known.values().map(|batch| batch.needs.len()).max().unwrap();
        assert!(sizes <= 2 * known.len() + 2, "{sizes} needs, {} batches", known.len());
    }
    assert!(sizes > 0);
    assert!(bench.scheduler.tally.watched);
    bench.scheduler.expect(Outlook::Fixed(1), bench.now);
    assert!(!bench.scheduler.tally.watched);
}

#[test]
fn needs_that_come_and_go_cost_a_few_steps_each_however_many_stay() {
    let mut bench = Bench::with_workers(&[1]);
    // So many stay that with one more, and the next, a power of two is reached, again and again.
    const STAY: u64 = 1022;
    for key in 0..STAY {
        bench.submit(named(&format!("stays{}", key % 500).into(), key..key + 1, |key| key.checked_sub(500).into_iter().collect(), 2));
    }
    bench.submit(named(&"sum".into(), STAY..STAY + 1, |_| (0..STAY).collect(), 1));
    let sum = bench.scheduler.tally.batches.values().map(|batch| batch.key).max_by_key(|key| key.1).unwrap();
    let needs = |bench: &Bench| bench.scheduler.tally.batches.values().find(|batch| batch.key == sum).unwrap().needs.len();
    let (stay, mut looks) = (needs(&bench), 0);
    assert_eq!(stay, STAY as usize);
    for round in 0..4000u64 {
        let key = STAY + 1 + 2 * round;
        bench.submit(named(&format!("goes{}", round % 400).into(), key..key + 1, |_| vec![], 0));
        let before = needs(&bench);
        bench.submit(named(&"sum".into(), key + 1..key + 2, |sum| vec![sum - 1, STAY - 1], 1));
        looks += usize::from(needs(&bench) <= before);
        bench.done(key);
        assert!(needs(&bench) <= 2 * stay + 2, "{}", needs(&bench));
    }
    assert!(looks <= 4000 / stay + 2, "each look at all needs must be paid for by as many that came: {looks}");
}

#[test]
fn no_two_of_the_deepest_groups_need_each_other() {
    let mut bench = Bench::with_workers(&[1]);
    // Two functions by turns, further down than levels are told apart.
    for key in 0..2 * u64::from(LEVELS) {
        let name = if key % 2 == 0 { "there" } else { "back" };
        bench.submit(named(&name.into(), key..key + 1, |key| key.checked_sub(1).into_iter().collect(), 1));
    }
    let mut groups = bench.scheduler.look(bench.now).load.groups;
    assert_eq!(groups.len(), LEVELS as usize + 2);
    while !groups.is_empty() {
        let left: HashSet<u64> = groups.iter().map(|group| group.id).collect();
        groups.retain(|group| group.dependencies.iter().any(|need| left.contains(need)));
        assert!(groups.len() < left.len(), "a circle: {groups:?}");
    }
}

#[test]
fn names_beyond_number_share_their_statistics() {
    let mut bench = Bench::new();
    for key in 0..2000 {
        bench.submit(named(&format!("t{key}").into(), key..key + 1, |_| vec![], 1));
    }
    let load = bench.scheduler.look(bench.now).load;
    assert_eq!((load.prefixes.len(), load.prefixes[NAMES].arrived, load.ready()), (NAMES + 1, 1000, 2000));
}
