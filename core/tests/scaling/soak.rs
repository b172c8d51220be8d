//! The whole keeper under schedules that chance makes: work, accidents, launches that fail or get lost, looks that fail, and a user who
//! adapts and scales by turns. `PROPTEST_CASES` says how many of them.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    /// So many tasks, so many tenths of a second each: shorter than any drain.
    Submit(u64, u64),
    /// A worker ends by accident.
    Kill,
    Refuse(u32),
    Blind(bool),
    Adapt(u32, u32),
    Scale(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..60u64, 1..200u64).prop_map(|(tasks, tenths)| Event::Submit(tasks, tenths)),
        3 => Just(Event::Kill),
        1 => (1..4u32).prop_map(Event::Refuse),
        2 => any::<bool>().prop_map(Event::Blind),
        2 => (0..4u32, 1..12u32).prop_map(|(minimum, spread)| Event::Adapt(minimum, minimum + spread)),
        1 => (0..8u32).prop_map(Event::Scale),
    ]
}

/// Times in milliseconds.
#[derive(Debug, Clone)]
struct Schedule {
    startup: u64,
    load_takes: u64,
    slots: u32,
    launch_waits: bool,
    tells_arrivals: bool,
    lost: BTreeSet<usize>,
    bounds: (u32, u32),
    events: Vec<(u64, Event)>,
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let wait = prop_oneof![Just(0u64), 1..1500u64, 1..90_000u64];
    (
        (10..40_000u64, 0..1200u64, 1..4u32, any::<bool>(), any::<bool>()),
        prop::collection::btree_set(0..60usize, 0..6),
        (0..4u32, 1..12u32),
        prop::collection::vec((wait, event()), 1..25),
    )
        .prop_map(|((startup, load_takes, slots, launch_waits, tells_arrivals), lost, (minimum, spread), events)| Schedule {
            startup,
            load_takes,
            slots,
            launch_waits,
            tells_arrivals,
            lost,
            bounds: (minimum, minimum + spread),
            events,
        })
}

async fn play(schedule: Schedule) {
    let millis = Duration::from_millis;
    let plan = Plan {
        slots: schedule.slots,
        launch_waits: schedule.launch_waits,
        lost: schedule.lost,
        load_takes: millis(schedule.load_takes),
        tells_arrivals: schedule.tells_arrivals,
        ..Plan::of("yard::Soak", millis(schedule.startup))
    };
    let yard = Yard::new(plan);
    let (minimum, mut most) = schedule.bounds;
    // Nobody gives up: what fails here passes.
    let limits = Limits { crash_loop: 10_000, ..Limits::default() };
    let cluster = Cluster::start(yard.clone(), ClusterOptions { limits, ..here(bounds(minimum, most)) }).await.unwrap();
    let begin = Instant::now();
    let arrivals = schedule.events.len() as u64;
    for (wait, event) in schedule.events {
        sleep(millis(wait)).await;
        match event {
            Event::Submit(tasks, tenths) => yard.submit(tasks, millis(100 * tenths)),
            Event::Kill => yard.kill(),
            Event::Refuse(calls) => yard.refuse_launches(calls),
            Event::Blind(blind) => yard.blind(blind.then(|| Blind::Fails(Error::new(ErrorKind::Unavailable, "no answer")))),
            Event::Adapt(minimum, maximum) => {
                most = most.max(maximum);
                cluster.adapt(bounds(minimum, maximum)).unwrap();
            }
            Event::Scale(count) => {
                most = most.max(count);
                cluster.scale(count);
            }
        }
        assert!(cluster.status().failure.is_none());
    }
    yard.blind(None);
    cluster.adapt(bounds(1, 6)).unwrap();
    timeout(s(24 * 3600), yard.done()).await.expect("some work is never done");
    let idle = |status: &ClusterStatus| status.workers.len() == 1 && status.running == 1 && status.wanted == 1;
    until(&cluster, idle).await;
    assert_eq!(yard.killed(), 0, "a busy worker was stopped");
    assert!(yard.most() <= most.max(6) as usize, "{} of {most}", yard.most());
    let seconds = begin.elapsed().as_secs();
    assert!(u64::from(yard.looks()) <= 6 * seconds + 6 * arrivals + 60, "{} looks in {seconds} s", yard.looks());
    let begin = Instant::now();
    cluster.close().await.unwrap();
    assert!(begin.elapsed() <= s(6));
}

/// `PROPTEST_CASES`, for long campaigns; else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), failure_persistence: None, ..ProptestConfig::default() })]

    /// Never a busy worker stopped, never more workers than there may be, nothing hangs or spins, and all the work is done.
    #[test]
    fn whatever_happens_the_work_is_done_and_nobody_is_interrupted(schedule in schedule()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(schedule));
    }
}
