//! The number of workers follows the work, between bounds.

use std::time::Duration;

use remuda_core::{
    adaptive::AdaptConfig,
    cluster::{Cluster, ClusterOptions, ClusterStatus},
    duration::Seconds,
    manager::ClusterEvent,
};
use tokio::time::timeout;

use super::{Subject, Verdict, Want, cases};
use crate::{
    bodies::rust,
    gate::{Gate, patience},
    run::Run,
};

cases! {
    work_brings_workers_and_rest_sends_them_home [Adaptive, Slots]
    bounds_hold_whatever_there_is_to_do [Adaptive, Slots]
    scaling_down_spares_what_runs_and_keeps_what_was_done [Adaptive, Slots]
    saying_a_number_ends_adapting_until_it_begins_again [Adaptive, Slots]
}

/// Decides ten times a second, and pays for every second that is saved: tasks at a gate wait for each other.
fn between(minimum: u32, maximum: u32) -> AdaptConfig {
    AdaptConfig {
        minimum: Some(minimum),
        maximum: Some(maximum),
        interval: Seconds(Duration::from_millis(100)),
        target_duration: Seconds(Duration::from_millis(1)),
        time_weight: 10.0,
        ..AdaptConfig::default()
    }
}

async fn start(subject: &Subject, workers: u32, adapt: Option<AdaptConfig>) -> remuda_core::error::Result<Cluster> {
    let (recipe, options) = subject.recipe(&Want { workers, threads_per_worker: 1, ..Want::default() });
    Cluster::start(recipe, ClusterOptions { adapt, ..options }).await
}

/// Returns when it has come to that.
async fn until(cluster: &Cluster, what: &str, reached: impl FnMut(&ClusterStatus) -> bool) -> ClusterStatus {
    let seen = timeout(2 * patience(), cluster.watch().wait_for(reached)).await.map(|seen| seen.map(|seen| seen.clone()));
    match seen {
        Ok(Ok(status)) => status,
        other => panic!("{what}: {other:?}, {:?}", cluster.status().adapt),
    }
}

async fn work_brings_workers_and_rest_sends_them_home(subject: &Subject) -> Verdict {
    let cluster = start(subject, 0, Some(between(0, 3))).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    for round in 0..2 {
        assert_eq!(cluster.status().wanted, 0, "nothing to do, nobody there");
        let keys: Vec<_> = (0..3).map(|n| run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]))).collect();
        // Side by side, so on three workers.
        for arrival in gate.together(3).await {
            arrival.open().await;
        }
        for (n, key) in keys.into_iter().enumerate() {
            assert_eq!(run.value::<String>(key).await, n.to_string());
            assert_eq!(run.running(key).await.1, 0, "begun once");
            run.release(key); // results may be what keeps a worker
        }
        let status = until(&cluster, "nobody is needed", |status| status.wanted == 0 && status.workers.is_empty()).await;
        let adapt = status.adapt.unwrap_or_else(|| panic!("it adapts"));
        assert!(adapt.usage.launched >= 3 * (round + 1) && adapt.usage.worker_seconds > 0.0, "{adapt:?}");
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn bounds_hold_whatever_there_is_to_do(subject: &Subject) -> Verdict {
    let cluster = start(subject, 0, Some(between(1, 2))).await?;
    cluster.wait_for_workers(1, 2 * patience()).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let keys: Vec<_> = (0..8).map(|n| run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]))).collect();
    let (mut most, mut watch) = (0, cluster.watch());
    // Two at once while there are more for whoever comes; later one may stand behind another at the same Dask worker, and is not stolen.
    for together in [2, 1, 1, 1, 1, 1, 1] {
        for arrival in gate.together(together).await {
            most = most.max(watch.borrow_and_update().wanted);
            arrival.open().await;
        }
    }
    for key in keys {
        run.outcome(key).await?;
        run.release(key);
    }
    assert_eq!(most, 2, "two are worth having, and more may not be");
    let status = until(&cluster, "back to the minimum", |status| status.wanted == 1 && status.workers.len() == 1).await;
    assert_eq!(status.running, 1);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn scaling_down_spares_what_runs_and_keeps_what_was_done(subject: &Subject) -> Verdict {
    let cluster = start(subject, 0, Some(between(0, 3))).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let keys: Vec<_> = (0..3).map(|n| run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]))).collect();
    let mut here = gate.together(3).await;
    let last = here.pop().unwrap_or_else(|| panic!("three came"));
    for arrival in here {
        arrival.open().await;
    }
    // The two that are idle go, not the one that works.
    until(&cluster, "only one is needed", |status| status.wanted == 1 && status.workers.len() == 1).await;
    last.open().await;
    for (n, key) in keys.into_iter().enumerate() {
        assert_eq!(run.value::<String>(key).await, n.to_string(), "a result was lost");
        assert_eq!(run.running(key).await.1, 0, "it was begun again because a worker left");
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn saying_a_number_ends_adapting_until_it_begins_again(subject: &Subject) -> Verdict {
    let cluster = start(subject, 1, None).await?;
    cluster.wait_for_workers(1, 2 * patience()).await?;
    let mut events = cluster.events();
    cluster.adapt(between(0, 2))?;
    until(&cluster, "nothing to do", |status| status.wanted == 0 && status.workers.is_empty()).await;
    cluster.scale(2);
    let status = until(&cluster, "two were asked for", |status| status.running == 2).await;
    assert!(status.adapt.is_none());
    let ended = async {
        while let Ok(event) = events.recv().await {
            if let ClusterEvent::AdaptingEnded { workers } = event {
                return workers;
            }
        }
        0
    };
    assert_eq!(timeout(patience(), ended).await?, 2, "it is said that nobody adapts any more");
    cluster.adapt(between(1, 2))?;
    until(&cluster, "one is the minimum", |status| status.wanted == 1 && status.workers.len() == 1).await;
    cluster.close().await?;
    Ok(())
}
