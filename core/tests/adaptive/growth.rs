//! How many are asked for: more for more work, fewer where starts are slow.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Somebody is asked for where there is work and nobody.
    #[test]
    fn any_work_gets_a_worker(tasks in 1u64..2_000_000, millis in 1u64..10_000_000, known: bool, startup in 0u64..600) {
        let load = map(tasks, Duration::from_millis(millis), known);
        prop_assert!(first(&AdaptConfig::default(), &backend(startup), &load).launch >= 1);
    }

    /// More tasks, or longer ones, never get fewer workers; never more workers than tasks. The slack is one step of the candidates
    /// and the rounding of waves.
    #[test]
    fn more_work_never_gets_fewer(tasks in 1u64..20_000, more in 1u64..10, millis in 1u64..100_000, startup in 0u64..120) {
        let config = bounded(0, 1000);
        let workers = |tasks, millis| first(&config, &backend(startup), &map(tasks, Duration::from_millis(millis), true)).launch;
        let (base, wider, longer) = (workers(tasks, millis), workers(tasks * more, millis), workers(tasks, millis * more));
        prop_assert!(f64::from(wider) >= f64::from(base) / 1.35, "{base} for {tasks}, {wider} for {}", tasks * more);
        prop_assert!(f64::from(longer) >= f64::from(base) / 1.35, "{base} for {millis} ms, {longer} for {}", millis * more);
        prop_assert!(u64::from(base) <= tasks);
    }

    /// A slower start never gets more, a heavier weight on time never fewer.
    #[test]
    fn slow_starts_get_fewer_and_haste_more(tasks in 33u64..20_000, millis in 10u64..20_000, startup in 1u64..100, factor in 2u64..6) {
        let load = map(tasks, Duration::from_millis(millis), true);
        let config = bounded(0, 1000);
        let base = first(&config, &backend(startup), &load).launch;
        let slower = first(&config, &backend(startup * factor), &load).launch;
        let haste = first(&AdaptConfig { time_weight: factor as f64, ..config }, &backend(startup), &load).launch;
        prop_assert!(f64::from(slower) <= f64::from(base) * 1.5, "{base}, slower {slower}");
        prop_assert!(f64::from(haste) >= f64::from(base) / 1.35, "{base}, in haste {haste}");
    }

    /// Losing a worker never makes the policy let others go. How many it asks for may differ either way: another number of workers
    /// needs another number of waves for the same tasks.
    #[test]
    fn losing_a_worker_never_lets_others_go(
        tasks in 0u64..3000, millis in 10u64..60_000, live in 2u32..60, busy in 0u32..60, startup in 1u64..100,
    ) {
        let busy = busy.min(live).min(tasks as u32);
        let mut load = map(tasks, Duration::from_millis(millis), true);
        load.groups[0].ready -= u64::from(busy);
        load.groups[0].processing = u64::from(busy);
        load.prefixes[0].running = vec![Duration::ZERO; busy as usize];
        let workers = |count: u32| (0..count).map(|id| worker(u64::from(id), Phase::Live(secs(0)), u32::from(id < busy))).collect();
        let all = Fleet { workers: workers(live), slots: 1, ..Fleet::default() };
        let mut fewer = all.clone();
        fewer.workers.pop();
        let adaptive = Adaptive::new(bounded(0, 1000), backend(startup));
        let (state, before) = adaptive.decide(State::default(), secs(10), &load, &all);
        let (_, with) = adaptive.decide(state.clone(), secs(11), &load, &all);
        let (_, without) = adaptive.decide(state, secs(11), &load, &fewer);
        prop_assert!(without.victims.len() <= with.victims.len(), "{with:?} {without:?}");
        prop_assert!(without.desired >= with.desired.min(live - 1), "{before:?} {with:?} {without:?}");
    }
}
