//! What is right after an hour.

use super::*;

/// An hour of random work: no task killed, no bound violated, everything done, and back to nobody.
#[tokio::test(start_paused = true)]
async fn an_hour_of_random_work() {
    for seed in 1..=4u64 {
        let mut random = seed;
        let mut next = move |below: u64| {
            // xorshift: the same session each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let plan = Plan {
            slots: 1 + next(3) as u32,
            launch_waits: next(2) == 0,
            lost: (0..400).filter(|_| next(20) == 0).collect(),
            load_takes: Duration::from_millis(next(300)),
            tells_arrivals: next(4) > 0,
            ..Plan::of(&format!("yard::Hour{seed}"), s(1 + next(40)))
        };
        let (minimum, spread) = (next(3) as u32, 1 + next(20) as u32);
        let (yard, cluster) = open(plan, bounds(minimum, minimum + spread)).await;
        let begin = Instant::now();
        while begin.elapsed() < s(3600) {
            yard.submit(1 + next(80), Duration::from_millis(100 * (1 + next(120))));
            sleep(Duration::from_millis(next(90_000))).await;
            let status = cluster.status();
            assert!(status.wanted >= minimum && status.wanted <= minimum + spread, "{status:?}");
            assert!(status.failure.is_none());
        }
        timeout(s(8 * 3600), yard.done()).await.unwrap(); // some sessions bring more than there may be workers for
        until(&cluster, |status| status.workers.len() == minimum as usize).await;
        assert!(yard.most() <= (minimum + spread) as usize, "{} of {}", yard.most(), minimum + spread);
        assert_eq!(yard.killed(), 0);
        cluster.close().await.unwrap();
    }
}

/// Ten workers' worth of small tasks for an hour: after ten minutes the number does not go both up and down.
#[tokio::test(start_paused = true)]
async fn constant_load_settles() {
    let (yard, cluster) = open(Plan::of("yard::Constant", s(10)), bounds(0, 60)).await;
    let mut numbers = Vec::new();
    for turn in 0..3600 * 5 {
        yard.submit(1, s(2));
        sleep(Duration::from_millis(200)).await;
        if turn >= 600 * 5 {
            numbers.push(cluster.status().wanted);
        }
    }
    let ups = numbers.windows(2).filter(|pair| pair[1] > pair[0]).count();
    let downs = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert_eq!(ups.min(downs), 0, "{ups} up, {downs} down");
    assert!((10..=40).contains(numbers.last().unwrap()), "{:?}", numbers.last());
    assert_eq!(yard.killed(), 0);
    cluster.close().await.unwrap();
}
