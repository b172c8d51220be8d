//! The suite against the fake: what it promises is possible, and the fake is fit to be broken on purpose.

use remuda_tests::{
    behaviour::{self, Ability, Subject},
    fake::{FakeCluster, Shape},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_behaves() {
    let subject = Subject::new("fake::FakeCluster", |want| {
        FakeCluster::new(Shape { slots: want.threads_per_worker, resources: want.resources.clone(), ..Shape::default() }).into()
    })
    .with([Ability::SharedMemory, Ability::Crashes, Ability::Scale, Ability::Resources, Ability::Slots]);
    let report = behaviour::run(&subject).await;
    println!("{report}");
    report.check();
}
