//! Workers that die.

use remuda_core::task::{Key, TaskError};

use super::{Subject, Verdict, Want, cases};
use crate::{bodies::rust, gate::Gate, run::Run};

cases! {
    a_crash_has_a_cause [Crashes]
    lost_worker_replaced [Crashes]
    a_lost_task_is_tried_again [Crashes]
    a_crash_harms_no_sibling [Crashes, Slots]
    finished_work_is_not_done_again [Crashes]
    dependents_of_a_crash [Crashes]
}

async fn a_crash_has_a_cause(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit_with(rust("exit", &[3.into()]), |a| a.allowed_failures = Some(0));
    match run.error(key).await {
        TaskError::Crashed(crash) => {
            assert!(crash.cause.contains('3'), "the exit code is named: {}", crash.cause);
            assert_eq!(crash.attempts, 1);
            assert!(!crash.worker.is_empty());
        }
        other => panic!("its worker died, and it is {}: {other}", other.state_name()),
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn lost_worker_replaced(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit_with(rust("abort", &[]), |a| a.allowed_failures = Some(0));
    assert_eq!(run.error(key).await.state_name(), "crashed");
    let next = run.submit(rust("echo", &["next".into()]));
    assert_eq!(run.value::<String>(next).await, "next", "somebody took its place");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_lost_task_is_tried_again(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    // Retries are for failures, allowed failures for lost workers: neither pays for the other.
    let key = run.submit_with(rust("exit", &[1.into()]), |a| {
        a.allowed_failures = Some(1);
        a.retries = 5;
    });
    match run.error(key).await {
        TaskError::Crashed(crash) => assert_eq!(crash.attempts, 2),
        other => panic!("its workers died, and it is {}: {other}", other.state_name()),
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_crash_harms_no_sibling(subject: &Subject) -> Verdict {
    if subject.can(super::Ability::Processes) {
        // One process per slot: another slot of the same worker goes on.
        let cluster = subject.start(Want { workers: 1, threads_per_worker: 2, ..Want::default() }).await?;
        siblings(&cluster).await?;
        cluster.close().await?;
    }
    let cluster = subject.cluster(2).await?;
    siblings(&cluster).await?;
    cluster.close().await?;
    Ok(())
}

async fn siblings(cluster: &remuda_core::cluster::Cluster) -> Verdict {
    let (mut run, mut gate) = (Run::open(cluster).await?, Gate::new().await?);
    let sibling = run.submit(rust("gate", &[gate.address().into(), "sibling".into()]));
    let arrival = gate.arrived("sibling").await;
    let key = run.submit_with(rust("exit", &[1.into()]), |a| a.allowed_failures = Some(0));
    assert_eq!(run.error(key).await.state_name(), "crashed");
    arrival.open().await;
    assert_eq!(run.value::<String>(sibling).await, "sibling");
    assert_eq!(run.running(sibling).await.1, 0, "it was begun once");
    run.close().await?;
    Ok(())
}

async fn finished_work_is_not_done_again(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let done: Vec<Key> = (0..5).map(|n| run.submit(rust("add", &[n.into(), n.into()]))).collect();
    for key in &done {
        run.outcome(*key).await?;
    }
    let key = run.submit_with(rust("exit", &[1.into()]), |a| a.allowed_failures = Some(0));
    assert_eq!(run.error(key).await.state_name(), "crashed");
    // `Run` ends the test when something that was final changes its state.
    let values = run.session().gather(&done).await?;
    assert_eq!(values.iter().map(crate::run::read::<i64>).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn dependents_of_a_crash(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let root = run.submit_with(rust("exit", &[1.into()]), |a| a.allowed_failures = Some(0));
    let child = run.submit(rust("echo", &[root.into()]));
    let error = run.error(child).await;
    assert_eq!(error.state_name(), "upstream_failed");
    assert!(matches!(error.root(), TaskError::Crashed(_)), "{error:?}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}
