//! The suite against the fake: what it promises is possible. And against the fake broken on purpose: what it promises is noticed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use remuda_core::error::ErrorKind;
use remuda_tests::{
    behaviour::{self, Ability, Subject, Want},
    fake::{Call, Defect, FakeCluster, Fault, Shape},
};

fn subject(make: impl Fn(FakeCluster) -> FakeCluster + Send + Sync + 'static) -> Subject {
    let cluster = |want: &Want| {
        FakeCluster::new(Shape { slots: want.threads_per_worker.max(1), resources: want.resources.clone(), ..Shape::default() })
    };
    Subject::new("fake::FakeCluster", move |want| make(cluster(want)).into()).with([
        Ability::SharedMemory,
        Ability::Crashes,
        Ability::Scale,
        Ability::Adaptive,
        Ability::Resources,
        Ability::Slots,
        Ability::WideTasks,
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_behaves() {
    let report = behaviour::run(&subject(|cluster| cluster)).await;
    println!("{report}");
    report.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_behaves_when_it_keeps_results() {
    let subject = subject(|cluster| {
        cluster.engine().keep_results();
        cluster
    });
    // What is held by reference cannot be elsewhere.
    let chosen: Vec<_> = behaviour::names().filter(|case| *case != "by_reference").collect();
    let report = behaviour::run_only(&subject, &chosen).await;
    println!("{report}");
    report.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_defect_is_noticed() {
    let defects = [
        (Defect::NoPriorities, "priority_order"),
        (Defect::NoResources, "resources_respected"),
        (Defect::NoSlots, "no_worker_runs_more_than_its_slots"),
        (Defect::NoPlaces, "only_on_named_workers"),
        (Defect::NoRetries, "retries"),
        (Defect::EndlessRetries, "a_lost_task_is_tried_again"),
        (Defect::NoUpstream, "upstream_failure"),
        (Defect::NoOrder, "order_without_data"),
        (Defect::TellsTwice, "submits_and_gathers"),
        (Defect::KeepsAll, "unheld_work_is_not_begun"),
        (Defect::KeepsAll, "release_frees"),
        (Defect::NoClose, "session_close_makes_all_final"),
        (Defect::NoDrain, "scale_up_down_drains"),
        (Defect::AllDie, "a_crash_harms_no_sibling"),
        (Defect::WrongLimit, "timeouts"),
    ];
    for (defect, case) in defects {
        let subject = subject(move |cluster| {
            cluster.engine().break_by(defect);
            cluster
        })
        .with_patience(Duration::from_secs(2));
        let report = behaviour::run_only(&subject, &[case]).await;
        assert_eq!(report.failed.len(), 1, "{defect:?} was not noticed by {case}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_behind_is_noticed() {
    let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::<FakeCluster>::new()));
    let seen = kept.clone();
    let subject = subject(move |cluster| {
        let cluster = cluster.with_fault(Call::Close, Fault::Lie);
        kept.lock().unwrap().push(cluster.clone());
        cluster
    })
    .with_census(move || {
        let clusters = seen.lock().unwrap();
        clusters.iter().enumerate().flat_map(|(n, c)| c.alive().into_iter().map(move |id| format!("cluster {n}: {id}"))).collect()
    });
    let report = behaviour::run_only(&subject, &["workers_arrive"]).await;
    assert!(report.failed[0].1.contains("left behind: cluster 0: 0-"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_cannot_start_fails_by_name() {
    let subject = subject(|cluster| cluster.with_fault(Call::Start, Fault::Refuse(ErrorKind::PermissionDenied)));
    let report = behaviour::run_only(&subject, &["starts_and_closes", "workers_arrive"]).await;
    assert_eq!(report.failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["starts_and_closes", "workers_arrive"]);
    assert!(report.failed[0].1.contains("refused Start"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_skipped_by_name() {
    let subject = subject(|cluster| cluster).without(Ability::Scale, "the quota is used up");
    let report = behaviour::run_only(&subject, &["scale_up_down_drains", "python_functions"]).await;
    let skipped: Vec<_> = report.skipped.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    assert_eq!(skipped, ["scale_up_down_drains: the quota is used up", "python_functions: fake::FakeCluster has no python3"]);
}
