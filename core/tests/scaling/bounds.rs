//! How many there may be: bounds, budgets, platforms that have their own say.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lower_maximum_holds_also_under_a_stream_without_end() {
    let (yard, cluster) = open(Plan::of("yard::Lowered", s(1)), bounds(0, 4)).await;
    let mut events = cluster.events();
    yard.submit(10_000, s(5));
    until(&cluster, |status| status.running == 4).await;
    yard.submit(4, s(90)); // beyond any deadline for drains
    cluster.adapt(bounds(0, 1)).unwrap();
    let begin = Instant::now();
    until(&cluster, |status| status.running == 1 && status.draining == 3).await;
    assert!(begin.elapsed() <= s(1), "{:?}", begin.elapsed());
    until(&cluster, |status| status.workers.len() == 1).await;
    assert!(begin.elapsed() <= s(10), "they take no new tasks: {:?}", begin.elapsed());
    sleep(s(300)).await;
    assert_eq!((cluster.status().running, yard.launches().len(), yard.killed()), (1, 4, 0));
    let told = decisions(&heard(&mut events));
    assert!(told.iter().any(|decision| decision.reason == Reason::Above { maximum: 1, busy: 3, kept: 0 }), "{told:?}");
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_wanted_again_before_a_launch_returns_is_asked_for_once() {
    let (yard, cluster) = open(Plan { launch_waits: true, ..Plan::of("yard::Again", s(60)) }, bounds(4, 8)).await;
    until(&cluster, |status| status.wanted == 4).await;
    cluster.adapt(bounds(0, 8)).unwrap();
    until(&cluster, |status| status.wanted == 0).await;
    cluster.adapt(bounds(5, 8)).unwrap();
    until(&cluster, |status| status.running == 5).await;
    sleep(s(3)).await;
    assert_eq!((yard.launches().len(), cluster.status().adapt.unwrap().usage.launched), (5, 5));
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_nobody_says_how_many_the_class_does() {
    let unbounded = AdaptConfig { maximum: None, ..bounds(0, 1) };
    for (says, minimum, most) in [(Some(3), 0, 3), (Some(3), 5, 5), (None, 0, 100)] {
        let info = ClusterInfo { maximum: says, ..Plan::of("yard::Sensible", s(1)).info };
        let config = AdaptConfig { minimum: Some(minimum), ..unbounded.clone() };
        let (yard, cluster) = open(Plan { info, ..Plan::of("yard::Sensible", s(1)) }, config).await;
        yard.submit(100, s(600));
        until(&cluster, |status| status.running == most).await;
        sleep(s(60)).await;
        assert_eq!(cluster.status().adapt.unwrap().config.maximum, says.map(|_| most));
        assert_eq!(cluster.status().running, most);
        // What the user says goes before it.
        cluster.adapt(bounds(minimum, most + 2)).unwrap();
        until(&cluster, |status| status.adapt.as_ref().is_some_and(|adapt| adapt.config.maximum == Some(most + 2))).await;
        cluster.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_somebody_said_is_not_too_many() {
    let info = ClusterInfo { maximum: Some(3), ..Plan::of("yard::Said", s(1)).info };
    let unbounded = AdaptConfig { maximum: None, ..bounds(0, 1) };
    let yard = Yard::new(Plan { info, ..Plan::of("yard::Said", s(1)) });
    yard.submit(100, s(600));
    let cluster = Cluster::start(yard, ClusterOptions { workers: Some(7), ..here(unbounded.clone()) }).await.unwrap();
    until(&cluster, |status| status.running == 7).await;
    cluster.scale(9);
    until(&cluster, |status| status.running == 9).await;
    cluster.adapt(unbounded).unwrap();
    let maximum = |status: &ClusterStatus| status.adapt.as_ref().and_then(|adapt| adapt.config.maximum);
    assert_eq!(maximum(&until(&cluster, |status| status.adapt.is_some()).await), Some(9));
    sleep(s(60)).await;
    assert_eq!(cluster.status().running, 9);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_said_before_anything_starts() {
    let theirs = ClusterInfo { scaling: Scaling::None, ..ClusterInfo::new("yard::Theirs") };
    let yard = Yard::new(Plan { info: theirs, ..Plan::of("yard::Theirs", s(1)) });
    let error = Cluster::start(yard.clone(), here(bounds(0, 1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("somebody else's") && error.hint().is_some(), "{error:?}");
    let cluster = Cluster::start(yard, ClusterOptions { adapt: None, ..here(bounds(0, 1)) }).await.unwrap();
    assert_eq!(cluster.adapt(bounds(0, 1)).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(cluster.adapt(bounds(2, 1)).unwrap_err().kind(), ErrorKind::ConfigInvalid);
    let error = Cluster::start(Yard::new(Plan::of("yard::Wrong", s(1))), here(bounds(2, 1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_scales_by_itself_is_told_the_bounds_and_one_that_counts_the_numbers() {
    let info = ClusterInfo { scaling: Scaling::Count, native_adaptive: true, ..Plan::of("yard::Gateway", s(1)).info };
    let (yard, cluster) = open(Plan { info: info.clone(), ..Plan::of("yard::Gateway", s(1)) }, bounds(1, 9)).await;
    yard.submit(100, s(10));
    sleep(s(60)).await;
    assert_eq!(yard.told(), [Target::Between { minimum: 1, maximum: Some(9) }]);
    assert_eq!((yard.looks(), cluster.status().adapt.unwrap().native), (0, true));
    cluster.close().await.unwrap();

    let info = ClusterInfo { native_adaptive: false, ..info };
    let (yard, cluster) = open(Plan { info, ..Plan::of("yard::Counts", s(5)) }, bounds(1, 9)).await;
    yard.submit(100, s(10));
    yard.done().await;
    until(&cluster, |status| status.running == 1 && status.wanted == 1).await;
    assert!(yard.told().contains(&Target::Exactly(9)) && *yard.told().last().unwrap() == Target::Exactly(1), "{:?}", yard.told());
    assert!(yard.most() <= 9 && yard.launches().is_empty());
    let learned = cluster.status().adapt.unwrap().startup.unwrap();
    assert!((s(3)..s(5)).contains(&learned), "begun with 1 s, nine starts: {learned:?}");
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_starts_nobody_and_says_so() {
    let config = AdaptConfig { budget: Some(Seconds(s(100))), ..bounds(0, 10) };
    let (yard, cluster) = open(Plan::of("yard::Poor", s(1)), config).await;
    yard.submit(20, s(30));
    let spent = |status: &ClusterStatus| {
        let decision = status.adapt.as_ref().and_then(|adapt| adapt.decision.clone());
        decision.is_some_and(|decision| matches!(decision.reason, Reason::Budget { .. }))
    };
    yard.done().await; // what is there goes on
    until(&cluster, |status| status.wanted == 0).await;
    yard.submit(20, s(30));
    let status = until(&cluster, spent).await;
    let launches = yard.launches().len();
    sleep(s(600)).await;
    assert_eq!((yard.left(), yard.launches().len()), (20, launches));
    assert!(status.adapt.unwrap().usage.worker_seconds >= 100.0);
    cluster.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_engine_is_told_whether_workers_may_come() {
    let budget = Some(Seconds(s(100)));
    let (yard, cluster) = open(Plan::of("yard::Outlook", s(1)), AdaptConfig { budget, ..bounds(0, 10) }).await;
    assert_eq!(yard.outlook(), Outlook::Adaptive { held: None });
    yard.submit(20, s(30));
    yard.done().await;
    until(&cluster, |status| status.wanted == 0).await;
    let told = yard.outlook();
    assert!(
        matches!(&told, Outlook::Nobody { reason, hint } if reason.contains("100 worker-seconds") && hint.contains("budget")),
        "{told:?}"
    );
    cluster.scale(2);
    until(&cluster, |status| status.running == 2).await;
    assert_eq!(yard.outlook(), Outlook::Fixed(2));
    cluster.adapt(bounds(0, 0)).unwrap();
    until(&cluster, |status| status.wanted == 0).await;
    let told = yard.outlook();
    assert!(matches!(&told, Outlook::Nobody { reason, hint } if reason.contains("`maximum` is 0") && hint.contains("maximum")), "{told:?}");
    cluster.close().await.unwrap();

    let deadly = Plan { lifetime: Some(Duration::ZERO), slots: 0, ..Plan::of("yard::Held", s(1)) };
    let (yard, cluster) = open(deadly, bounds(0, 3)).await;
    yard.submit(3, s(10));
    until(&cluster, |status| {
        let decision = status.adapt.as_ref().and_then(|adapt| adapt.decision.as_ref());
        decision.is_some_and(|decision| matches!(decision.reason, Reason::Blocked { .. }))
    })
    .await;
    let told = yard.outlook();
    assert!(matches!(&told, Outlook::Adaptive { held: Some(held) } if held.contains("fails")), "{told:?}");
    cluster.close().await.unwrap();
}
