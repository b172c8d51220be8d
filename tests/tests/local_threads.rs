//! The suite against `local::LocalCluster` with threads.

mod local;

use remuda_tests::behaviour::{self, Ability};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_behave() {
    let subject = local::subject("local::LocalCluster, threads", false).with([Ability::SharedMemory]);
    let report = behaviour::run(&subject).await;
    println!("{report}");
    report.check();
}
