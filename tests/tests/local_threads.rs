//! The suite against `local::LocalCluster` with threads.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod local;

use remuda_tests::behaviour::{self, Ability};

#[test]
fn threads_behave() {
    // Python tasks and commands run in task hosts, which are this test started again; there it does not return.
    remuda_core::host::init(["threads_behave", "--exact", "--nocapture"].map(String::from).to_vec());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let subject = local::subject("local::LocalCluster, threads", false).with([Ability::SharedMemory]);
    let report = runtime.block_on(behaviour::run(&subject));
    println!("{report}");
    report.check();
}
