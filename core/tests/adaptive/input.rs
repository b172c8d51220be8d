//! Random loads and fleets: sensible in their parts, not in the whole.

use std::time::Duration;

use proptest::prelude::*;
use remuda_core::{
    adaptive::{AdaptConfig, Fleet, Group, Load, Phase, Prefix, Worker},
    duration::Seconds,
};

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn worker(id: u64, phase: Phase, processing: u32) -> Worker {
    Worker { id, phase, launched: None, billed: Some(secs(0)), slots: 1, processing, bytes: 0, memory_limit: 0, pinned: false }
}

/// One graph of tasks side by side.
pub(crate) fn map(tasks: u64, each: Duration, known: bool) -> Load {
    let mut prefix = Prefix { arrived: tasks, ..Prefix::default() };
    if known {
        prefix = Prefix { completions: 20, total: 20 * each, longest: each, ..prefix };
    }
    Load { prefixes: vec![prefix], groups: vec![Group { id: 1, ready: tasks, ..Group::default() }] }
}

pub(crate) fn config() -> impl Strategy<Value = AdaptConfig> {
    let bounds = (0u32..20, prop::option::of(0u32..200));
    (bounds, 10u64..5000, 1u32..6, 0u64..100, 0.0..4.0f64, 0.15..8.0f64, prop::option::of(0u64..2000)).prop_map(
        |((minimum, spread), interval, wait_count, target, time_weight, idle_max, budget)| AdaptConfig {
            minimum: Some(minimum),
            maximum: spread.map(|spread| minimum + spread),
            interval: Seconds(Duration::from_millis(interval)),
            wait_count,
            target_duration: Seconds(secs(target)),
            time_weight,
            idle_max,
            startup: None,
            budget: budget.map(|budget| Seconds(secs(budget))),
        },
    )
}

fn millis(most: u64) -> impl Strategy<Value = Duration> {
    (0..most).prop_map(Duration::from_millis)
}

pub(crate) fn load() -> impl Strategy<Value = Load> {
    let prefix = (0u64..50, millis(1_000_000), millis(100_000), prop::collection::vec(millis(300_000), 0..8), 0u64..10_000)
        .prop_map(|(completions, total, longest, running, arrived)| Prefix { completions, total, longest, running, arrived });
    let count = prop_oneof![Just(0u64), 1u64..40, 1u64..100_000, Just(u64::MAX)];
    let group = (0usize..5, count.clone(), count.clone(), 0u64..100, count, prop::collection::vec(0u64..12, 0..3));
    let group = group.prop_map(|(prefix, waiting, ready, processing, done, dependencies)| Group {
        id: 0,
        prefix,
        waiting,
        ready,
        processing,
        done,
        dependencies,
    });
    (prop::collection::vec(prefix, 0..5), prop::collection::vec(group, 0..10)).prop_map(|(prefixes, mut groups)| {
        (0..).zip(&mut groups).for_each(|(id, group)| group.id = id);
        Load { prefixes, groups }
    })
}

pub(crate) fn fleet() -> impl Strategy<Value = Fleet> {
    let phase = prop_oneof![Just(Phase::Starting), Just(Phase::Draining), millis(200_000).prop_map(Phase::Live)];
    let flags = (any::<bool>(), 0u32..3, 0u32..5);
    let memory = (prop_oneof![Just(0u64), 1u64..1 << 30], prop_oneof![Just(0u64), Just(1u64 << 30)]);
    let times = (prop::option::of(millis(200_000)), prop::option::of(millis(200_000)));
    let worker =
        (phase, times, flags, memory).prop_map(|(phase, (launched, billed), (pinned, processing, slots), (bytes, memory_limit))| Worker {
            id: 0,
            phase,
            launched,
            billed,
            slots,
            processing,
            bytes,
            memory_limit,
            pinned: pinned && processing == 0,
        });
    (prop::collection::vec(worker, 0..40), 0u32..5, prop_oneof![Just(0u64), Just(1u64 << 30)]).prop_map(
        |(mut workers, slots, memory_limit)| {
            (0..).zip(&mut workers).for_each(|(id, worker)| worker.id = id);
            Fleet { workers, slots, memory_limit, ..Fleet::default() }
        },
    )
}
