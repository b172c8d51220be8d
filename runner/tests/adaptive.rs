//! Runs on clusters whose size follows the work.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Barrier},
    time::Duration,
};

use remuda::{
    Flow, TaskRunner,
    config::{self, Document, Format, KeyPath, Layer},
    local::LocalConfig,
};
use remuda_core::{error::ErrorKind, kwargs::Kwargs};

fn threads() -> LocalConfig {
    LocalConfig { processes: false, threads_per_worker: Some(1), ..LocalConfig::default() }
}

/// Four calls that wait for each other: they need four workers at once.
async fn meet(flow: &Flow) -> usize {
    let barrier = Arc::new(Barrier::new(4));
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let barrier = barrier.clone();
            flow.spawn(move || usize::from(barrier.wait().is_leader()))
        })
        .collect();
    let mut leaders = 0;
    for call in calls {
        leaders += call.await.unwrap();
    }
    leaders
}

/// There is nobody when it begins, nor between the two; that is no error.
#[remuda::test]
async fn a_run_gets_whom_it_needs_when_it_needs_them() {
    // Whatever it costs: these calls cannot share a worker.
    let kwargs = Kwargs::new().with("maximum", 4).with("interval", "100ms").with("target_duration", "1ms").with("time_weight", 10);
    let runner = TaskRunner::builder().cluster(threads()).adapt_kwargs(kwargs).build().unwrap();
    let finished = runner.run_on_cluster(std::future::pending(), |flow, cluster| async move {
        let mut decisions = cluster.decisions();
        let first = meet(&flow).await;
        let nobody = cluster.watch().wait_for(|status| status.wanted == 0 && status.workers.is_empty()).await.is_ok();
        let second = meet(&flow).await;
        drop(cluster);
        anyhow::Ok((first, nobody, second, decisions.recv().await.is_some()))
    });
    let finished = tokio::time::timeout(Duration::from_secs(60), finished).await.unwrap();
    assert_eq!(finished.result.unwrap(), (1, true, 1, true));
    assert_eq!(finished.report.tasks.done, 8);
}

#[remuda::test]
async fn a_configuration_switches_it_on_and_code_changes_or_refuses_it() {
    let file = |text: &str| Layer::from_document(&Document::parse("remuda.yaml", text, Format::Yaml).unwrap(), &KeyPath::default());
    let text = "cluster_kwargs: {processes: false, threads_per_worker: 1}\nadapt_kwargs: {maximum: 4, interval: 100ms, target_duration: 1ms, time_weight: 10}";
    let config = config::resolve(vec![file(text)]).unwrap();
    let runner = TaskRunner::builder().config(&config).build().unwrap();
    assert_eq!(runner.run(|flow| async move { anyhow::Ok(meet(&flow).await) }).await.unwrap(), 1);
    let cluster = runner.start_cluster().await.unwrap();
    assert_eq!(cluster.status().adapt.unwrap().config.maximum, Some(4));
    cluster.close().await.unwrap();

    let wrong = TaskRunner::builder().cluster(threads()).adapt_kwargs(Kwargs::new().with("maxmum", 4)).build().unwrap_err();
    assert_eq!(wrong.mistakes()[0].path, "adapt_kwargs.maxmum");
    let beside = TaskRunner::builder().address("tcp://127.0.0.1:1").adapt_kwargs(Kwargs::new()).build().unwrap_err();
    assert_eq!(beside.kind(), ErrorKind::ConfigInvalid);
    assert!(beside.to_string().contains("`adapt_kwargs` beside `address`"), "{beside}");
}
