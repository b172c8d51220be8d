//! What fails and is mended: looks, launches, workers.

use super::*;

#[tokio::test(start_paused = true)]
async fn looks_that_fail_hang_or_panic_change_nothing_and_end_nothing() {
    for blind in [Blind::Fails(Error::new(ErrorKind::Unavailable, "no answer")), Blind::Hangs, Blind::Panics] {
        let (yard, cluster) = open(Plan::of("yard::Blind", s(1)), bounds(0, 8)).await;
        yard.submit(8, s(600));
        until(&cluster, |status| status.running == 8).await;
        let mut events = cluster.events();
        yard.blind(Some(blind));
        sleep(s(700)).await; // the work is over
        let status = cluster.status();
        assert_eq!(status.running, 8);
        let trouble = status.adapt.unwrap().trouble.unwrap();
        assert!(["no answer", "no answer within 5s", "panicked: bad day"].iter().any(|text| trouble.contains(text)), "{trouble}");
        let news = heard(&mut events);
        let told = news.iter().filter(|event| matches!(event, ClusterEvent::Degraded(text) if text.contains("stays at 8"))).count();
        assert!((2..15).contains(&told), "{told}");
        yard.blind(None);
        let status = until(&cluster, |status| status.wanted == 0).await;
        assert_eq!(status.adapt.unwrap().trouble, None);
        cluster.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_lost_while_the_work_cannot_be_seen_is_replaced() {
    let (yard, cluster) = open(Plan::of("yard::BlindLoss", s(1)), bounds(2, 8)).await;
    yard.submit(8, s(3000));
    until(&cluster, |status| status.running == 8).await;
    sleep(s(60)).await; // a loss is no crash loop
    let mut events = cluster.events();
    yard.blind(Some(Blind::Fails(Error::new(ErrorKind::Unavailable, "no answer"))));
    for _ in 0..3 {
        yard.kill();
    }
    sleep(s(30)).await;
    assert_eq!((cluster.status().running, cluster.status().wanted), (8, 8));
    let launched = cluster.status().adapt.unwrap().usage.launched;
    assert_eq!(launched, 11);
    let news = heard(&mut events);
    assert!(news.iter().any(|event| matches!(event, ClusterEvent::Degraded(text) if text.contains("stays at 8"))), "{news:?}");
    assert!(decisions(&news).iter().any(|decision| decision.reason == Reason::Unseen { workers: 8 }), "{news:?}");
    yard.blind(None);
    yard.done().await;
    until(&cluster, |status| status.wanted == 2).await;
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_is_replaced_soon_however_long_the_interval() {
    let config = AdaptConfig { interval: Seconds(s(240)), ..bounds(2, 8) };
    let (yard, cluster) = open(Plan::of("yard::Slow", s(1)), config).await;
    until(&cluster, |status| status.running == 2).await;
    for lived in [s(300), s(2)] {
        sleep(lived).await;
        yard.kill();
        until(&cluster, |status| status.running < 2).await;
        let begin = Instant::now();
        until(&cluster, |status| status.running == 2).await;
        assert!(begin.elapsed() < s(5), "{:?} after it lived for {lived:?}", begin.elapsed());
    }
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_requests_are_written_off_and_replaced_whether_or_not_launch_returns() {
    for launch_waits in [false, true] {
        let plan = Plan { lost: BTreeSet::from([0, 2]), launch_waits, ..Plan::of("yard::Lossy", s(5)) };
        let (yard, cluster) = open(plan, bounds(0, 3)).await;
        yard.submit(3, s(100));
        timeout(s(400), yard.done()).await.unwrap();
        assert!(yard.launches().len() >= 5 && yard.most() <= 3, "{:?}", yard.launches());
        cluster.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn workers_that_only_die_are_cut_off_and_adapting_again_is_a_new_try() {
    let plan = Plan { lifetime: Some(Duration::ZERO), slots: 0, ..Plan::of("yard::Deadly", s(1)) };
    let (yard, cluster) = open(plan, bounds(0, 3)).await;
    yard.submit(3, s(10));
    let failure = timeout(s(600), cluster.failed()).await.unwrap();
    assert_eq!(failure.kind(), ErrorKind::CrashLoop, "{failure}");
    let launches = yard.launches();
    assert!((5..=15).contains(&launches.len()), "{launches:?}");
    // One second, two, four, eight between the tries.
    assert!(*launches.last().unwrap() - launches[0] >= s(15), "{launches:?}");
    let adapt = until(&cluster, |status| status.adapt.as_ref().unwrap().decision.as_ref().unwrap().launch == 0).await.adapt.unwrap();
    assert!(matches!(adapt.decision.unwrap().reason, Reason::Blocked { .. }));
    sleep(s(600)).await;
    assert_eq!(yard.launches().len(), launches.len());
    cluster.adapt(bounds(0, 1)).unwrap();
    until(&cluster, |status| status.failure.is_none()).await;
    sleep(s(3)).await;
    assert!(yard.launches().len() > launches.len());
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_goes_is_not_stopped_while_nobody_knows_what_it_runs() {
    let (yard, cluster) = open(Plan::of("yard::Mute", s(1)), bounds(0, 2)).await;
    yard.surprise(s(100), 9);
    yard.mute(true);
    yard.submit(2, s(5));
    until(&cluster, |status| status.draining > 0).await;
    sleep(s(60)).await;
    assert!(cluster.status().draining > 0 && yard.left() == 1, "it is asked again, and runs on");
    yard.mute(false);
    yard.done().await;
    until(&cluster, |status| status.workers.is_empty()).await;
    assert_eq!(yard.killed(), 0);
    cluster.close().await.unwrap();
}
