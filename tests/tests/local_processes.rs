//! The suite against `local::LocalCluster` with processes.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod local;

use remuda_tests::behaviour::{self, Ability};

#[test]
fn processes_behave() {
    // In a task host, which is this test started again, it does not return.
    remuda_core::host::init(["processes_behave", "--exact", "--nocapture"].map(String::from).to_vec());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let subject = local::subject("local::LocalCluster, processes", true).with([Ability::Processes, Ability::Crashes]);
    let report = runtime.block_on(behaviour::run(&subject));
    println!("{report}");
    report.check();
}
