//! From nothing to running to gone.

use std::time::Duration;

use remuda_core::{cluster::Cluster, error::ErrorKind};
use tokio::time::timeout;

use super::{Subject, Verdict, Want, cases};
use crate::{
    bodies::rust,
    gate::{Gate, patience},
    run::{Roll, Run},
};

cases! {
    starts_and_closes []
    close_is_idempotent []
    close_during_start []
    start_can_be_dropped []
    the_last_handle_closes []
    a_closed_cluster_says_so []
    workers_arrive []
    scale_up_down_drains [Scale, Slots]
    scale_to_nothing_and_back [Scale]
    two_clusters_are_apart []
    nothing_left_behind []
}

async fn starts_and_closes(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(0).await?;
    cluster.engine()?;
    let report = cluster.close().await?;
    assert_eq!(report.remaining, [""; 0], "close says that something remains");
    Ok(())
}

async fn close_is_idempotent(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (first, second) = tokio::join!(cluster.close(), cluster.close());
    let third = cluster.close().await?;
    assert_eq!((&first?, &second?), (&third, &third), "every caller hears the same");
    Ok(())
}

async fn close_during_start(subject: &Subject) -> Verdict {
    // Workers are asked for and not yet here when it is closed.
    let (recipe, options) = subject.recipe(&Want { workers: 2, threads_per_worker: 1, ..Want::default() });
    let cluster = Cluster::start(recipe, options).await?;
    cluster.close().await?;
    Ok(())
}

async fn start_can_be_dropped(subject: &Subject) -> Verdict {
    let (recipe, options) = subject.recipe(&Want { workers: 2, threads_per_worker: 1, ..Want::default() });
    // Polled once at least, and dropped wherever it stands then.
    let _ = timeout(Duration::from_millis(1), Cluster::start(recipe, options)).await;
    Ok(())
}

async fn the_last_handle_closes(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut roll = Roll::of(&cluster)?;
    roll.count(1).await;
    let other = cluster.clone();
    drop(cluster);
    assert_eq!(other.live_workers(), 1, "a handle is left");
    drop(other);
    Ok(()) // the census sees whether it did
}

async fn a_closed_cluster_says_so(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    cluster.close().await?;
    let error = cluster.wait_for_workers(2, Duration::from_secs(60)).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    Ok(())
}

async fn workers_arrive(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(3).await?;
    assert_eq!(cluster.live_workers(), 3);
    let mut roll = Roll::of(&cluster)?;
    roll.count(3).await; // those that joined before the call are told first
    cluster.close().await?;
    Ok(())
}

async fn scale_up_down_drains(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut roll = Roll::of(&cluster)?;
    cluster.scale(3);
    roll.count(3).await;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let keys: Vec<_> = (0..3).map(|n| run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]))).collect();
    let here = gate.together(3).await;
    cluster.scale(1);
    // Whoever is asked to leave finishes first.
    roll.nobody_leaves().await;
    for arrival in here {
        arrival.open().await;
    }
    roll.count(1).await;
    for key in keys {
        run.outcome(key).await?;
        let (_, attempt) = run.running(key).await;
        assert_eq!(attempt, 0, "{key} was begun again because its worker left");
    }
    // Those who stay still work.
    let key = run.submit(rust("add", &[1.into(), 2.into()]));
    assert_eq!(run.value::<i64>(key).await, 3);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn scale_to_nothing_and_back(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut roll = Roll::of(&cluster)?;
    cluster.scale(0);
    roll.count(2).await;
    roll.count(0).await;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(rust("add", &[1.into(), 2.into()]));
    cluster.scale(1);
    assert_eq!(run.value::<i64>(key).await, 3, "it waited for a worker");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn two_clusters_are_apart(subject: &Subject) -> Verdict {
    let (one, two) = tokio::try_join!(subject.cluster(1), subject.cluster(1))?;
    one.close().await?;
    let mut run = Run::open(&two).await?;
    let key = run.submit(rust("echo", &["still here".into()]));
    assert_eq!(run.value::<String>(key).await, "still here");
    run.close().await?;
    two.close().await?;
    Ok(())
}

async fn nothing_left_behind(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    for n in 0..4 {
        run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]));
    }
    let here = gate.together(2).await;
    // Closed with tasks under way and tasks waiting, and nobody closed the session.
    let report = timeout(patience(), cluster.close()).await??;
    assert_eq!(report.remaining, [""; 0], "close says that something remains");
    drop(here);
    Ok(())
}
