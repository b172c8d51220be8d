//! The suite against `local::DaskCluster`, with the Dask on the PATH or the one that `REMUDA_DASK` names.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{sync::Arc, time::Duration};

use remuda_core::{
    class::ClusterClass,
    cluster::{ClusterOptions, Limits},
};
use remuda_dask::{DaskConnect, DaskOptions};
use remuda_local::{DaskCluster, DaskConfig, MemoryLimit};
use remuda_tests::{
    behaviour::{self, Ability, Subject},
    census, dask,
};

fn subject() -> Subject {
    let python = dask::python();
    Subject::new("local::DaskCluster", move |want| {
        let config = DaskConfig {
            n_workers: Some(want.workers),
            threads_per_worker: Some(want.threads_per_worker.max(1)),
            resources: want.resources.clone(),
            memory_limit: MemoryLimit::None,
            python: python.clone(),
            ..DaskConfig::default()
        };
        DaskCluster::from_config(config).expect("the suite's own kwargs").into()
    })
    // A worker that a case kills on purpose should not be waited for as if it had died by itself.
    .with_options(|| {
        let second = Duration::from_secs(1);
        let limits = Limits { backoff: (second / 100, second), ..Limits::default() };
        ClusterOptions { limits, connect: Arc::new(DaskConnect::new(DaskOptions::default())), ..ClusterOptions::default() }
    })
    .with_census(census::processes)
    .with_patience(Duration::from_secs(60))
    .with([Ability::Processes, Ability::Scale, Ability::Resources, Ability::Slots, Ability::Commands, Ability::Python])
    .with([Ability::Crashes, Ability::Refusals, Ability::Adaptive])
}

#[test]
fn dask_behaves() {
    // In a task host, which is this test started again, it does not return.
    remuda_core::host::init(["dask_behaves", "--exact", "--nocapture"].map(String::from).to_vec());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if !dask::available("dask_behaves").await {
            return;
        }
        let report = behaviour::run(&subject()).await;
        println!("{report}");
        report.check();
    });
}
