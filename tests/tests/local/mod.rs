//! `local::LocalCluster` as a subject.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::{process::Command, time::Duration};

use remuda_core::{
    class::ClusterClass,
    cluster::{ClusterOptions, Limits},
};
use remuda_local::{LocalCluster, LocalConfig};
use remuda_tests::{
    behaviour::{Ability, Subject},
    census,
};

pub(crate) fn subject(name: &str, processes: bool) -> Subject {
    let subject = Subject::new(name, move |want| {
        let config = LocalConfig {
            n_workers: Some(want.workers),
            threads_per_worker: Some(want.threads_per_worker.max(1)),
            processes,
            resources: want.resources.clone(),
            ..LocalConfig::default()
        };
        LocalCluster::from_config(config).expect("the suite's own kwargs").into()
    })
    // A worker that a case kills on purpose should not be waited for as if it had died by itself.
    .with_options(|| {
        let second = Duration::from_secs(1);
        ClusterOptions { limits: Limits { backoff: (second / 100, second), ..Limits::default() }, ..ClusterOptions::default() }
    })
    .with_census(census::processes)
    .with([
        Ability::Scale,
        Ability::Adaptive,
        Ability::Resources,
        Ability::Slots,
        Ability::WideTasks,
        Ability::Refusals,
        Ability::Commands,
    ]);
    let python = |args: &[&str]| Command::new("python3").args(args).output();
    let subject = match python(&["--version"]) {
        Ok(_) => subject.with([Ability::Python]),
        Err(error) => subject.without(Ability::Python, format!("python3: {error}")),
    };
    match python(&["-c", "import pandas, pyarrow"]) {
        Ok(output) if output.status.success() => subject.with([Ability::Tables]),
        _ => subject.without(Ability::Tables, "python3 has no pandas or no pyarrow"),
    }
}
