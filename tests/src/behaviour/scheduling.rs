//! Who runs first, and where.

use remuda_core::{
    error::ErrorKind,
    task::{Key, TaskError, TaskState},
};

use super::{Ability, Subject, Verdict, Want, cases};
use crate::{
    bodies::rust,
    gate::Gate,
    run::{Run, holding},
};

cases! {
    all_workers_work []
    no_worker_runs_more_than_its_slots []
    priority_order []
    oldest_first_within_a_priority []
    resources_respected [Resources, Slots]
    resources_come_back [Resources]
    tasks_that_wait_take_no_slot [Slots]
    wide_tasks_take_several_slots [Slots, WideTasks]
    work_is_conserved [Resources, Slots]
    only_on_named_workers []
    unsatisfiable_reports_reason []
    unknown_worker_reports_reason []
    timeouts []
}

async fn all_workers_work(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(3).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let keys: Vec<Key> = (0..3).map(|n| run.submit(rust("gate", &[gate.address().into(), n.to_string().into()]))).collect();
    for arrival in gate.together(3).await {
        arrival.open().await;
    }
    let mut workers = Vec::new();
    for key in keys {
        run.outcome(key).await?;
        workers.push(run.running(key).await.0);
    }
    workers.sort();
    workers.dedup();
    assert_eq!(workers.len(), 3, "{workers:?}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn no_worker_runs_more_than_its_slots(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let keys: Vec<Key> = (0..40).map(|n| run.submit(rust("echo", &[n.into()]))).collect();
    for key in &keys {
        run.outcome(*key).await?;
    }
    let mut busy: Vec<(std::sync::Arc<str>, Key)> = Vec::new();
    for (key, state) in run.history() {
        match state {
            TaskState::Running { worker, .. } => {
                let other = busy.iter().find(|(w, _)| w == worker);
                assert!(other.is_none(), "{worker} has one slot and runs {key} beside {other:?}");
                busy.push((worker.clone(), *key));
            }
            state if state.is_final() => busy.retain(|(_, k)| k != key),
            _ => {}
        }
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

/// The order in which tasks of these priorities begin, when they all wait for the one slot there is.
async fn order(subject: &Subject, priorities: &[i64]) -> anyhow::Result<Vec<usize>> {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let holder = run.submit(rust("gate", &[gate.address().into(), "holder".into()]));
    let arrival = gate.arrived("holder").await;
    // In one message: those that come before the others could begin before them.
    let specs: Vec<_> = priorities.iter().map(|p| run.spec(rust("echo", &[(*p).into()]), |a| a.priority = *p)).collect();
    let keys: Vec<Key> = specs.iter().map(|spec| spec.key).collect();
    run.session().submit(specs);
    arrival.open().await;
    run.outcome(holder).await?;
    for key in &keys {
        run.outcome(*key).await?;
    }
    let mut begun: Vec<(usize, usize)> = keys.iter().enumerate().map(|(n, key)| (run.span(*key).0, n)).collect();
    begun.sort_unstable();
    run.close().await?;
    cluster.close().await?;
    Ok(begun.into_iter().map(|(_, n)| n).collect())
}

async fn priority_order(subject: &Subject) -> Verdict {
    assert_eq!(order(subject, &[0, -5, 10, 5]).await?, [2, 3, 0, 1]);
    Ok(())
}

async fn oldest_first_within_a_priority(subject: &Subject) -> Verdict {
    assert_eq!(order(subject, &[1, 1, 1, 2, 1, 2]).await?, [3, 5, 0, 1, 2, 4]);
    Ok(())
}

fn gpu(n: f64) -> Want {
    Want { workers: 1, threads_per_worker: 4, resources: [("GPU".to_owned(), n)].into() }
}

async fn resources_respected(subject: &Subject) -> Verdict {
    let cluster = subject.start(gpu(1.0)).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let address = gate.address().to_owned();
    let first = run.submit_with(rust("gate", &[address.clone().into(), "first".into()]), holding("GPU", 1.0));
    let second = run.submit_with(rust("gate", &[address.clone().into(), "second".into()]), holding("GPU", 1.0));
    let plain = run.submit(rust("gate", &[address.into(), "plain".into()]));
    let (one, other) = (gate.arrived("first").await, gate.arrived("plain").await);
    other.open().await;
    run.outcome(plain).await?;
    assert!(!run.ran(second), "there is one GPU, and it is taken");
    one.open().await;
    gate.arrived("second").await.open().await;
    run.outcome(second).await?;
    assert!(run.span(first).1 < run.span(second).0);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

/// A resource that a failed, a cancelled and a finished task held is free again.
async fn resources_come_back(subject: &Subject) -> Verdict {
    let cluster = subject.start(gpu(1.0)).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let one = holding("GPU", 1.0);
    let failed = run.submit_with(rust("fail", &["x".into()]), &one);
    run.error(failed).await;
    let cancelled = run.submit_with(rust("gate", &[gate.address().into(), "it".into()]), &one);
    let arrival = gate.arrived("it").await;
    run.session().cancel(&[cancelled]);
    arrival.gone().await;
    let parts: Vec<Key> = (0..10).map(|_| run.submit_with(rust("echo", &[1.into()]), holding("GPU", 0.1))).collect();
    for key in parts {
        run.outcome(key).await?;
    }
    let last = run.submit_with(rust("echo", &["whole".into()]), one);
    assert_eq!(run.value::<String>(last).await, "whole", "tenths add up to a whole again");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn tasks_that_wait_take_no_slot(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let keys: Vec<Key> =
        (0..8).map(|n| run.submit_with(rust("gate", &[gate.address().into(), n.to_string().into()]), |a| a.slots = 0)).collect();
    let here = gate.together(8).await; // all at once, on one slot
    let work = run.submit(rust("echo", &["work".into()]));
    assert_eq!(run.value::<String>(work).await, "work", "and the slot is free meanwhile");
    for arrival in here {
        arrival.open().await;
    }
    for key in keys {
        run.outcome(key).await?;
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn wide_tasks_take_several_slots(subject: &Subject) -> Verdict {
    let cluster = subject.start(Want { workers: 1, threads_per_worker: 2, ..Want::default() }).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let narrow = run.submit(rust("gate", &[gate.address().into(), "narrow".into()]));
    let arrival = gate.arrived("narrow").await;
    let wide = run.submit_with(rust("gate", &[gate.address().into(), "wide".into()]), |a| a.slots = 2);
    // Smaller tasks may pass the wide one, but not for ever.
    let small: Vec<Key> = (0..4).map(|n| run.submit(rust("echo", &[n.into()]))).collect();
    arrival.open().await;
    gate.arrived("wide").await.open().await;
    for key in [narrow, wide].into_iter().chain(small) {
        run.outcome(key).await?;
    }
    let (begun, ended) = run.span(wide);
    let beside = run.history()[begun + 1..ended].iter().find(|(_, state)| matches!(state, TaskState::Running { .. }));
    assert!(beside.is_none(), "it holds both slots, and {beside:?} ran beside it");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

/// A task that cannot begin does not keep others from a free slot.
async fn work_is_conserved(subject: &Subject) -> Verdict {
    let cluster = subject.start(gpu(1.0)).await?;
    let mut run = Run::open(&cluster).await?;
    let impossible = run.submit_with(rust("echo", &[1.into()]), |a| {
        a.priority = 100;
        a.resources.insert("GPU".into(), 2.0);
    });
    let possible = run.submit(rust("echo", &["possible".into()]));
    assert_eq!(run.value::<String>(possible).await, "possible");
    assert!(!run.ran(impossible));
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn only_on_named_workers(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let one = run.submit(rust("worker", &[]));
    let name = run.value::<String>(one).await;
    let keys: Vec<Key> = (0..10).map(|_| run.submit_with(rust("worker", &[]), |a| a.workers = vec![name.clone()])).collect();
    for key in keys {
        assert_eq!(run.value::<String>(key).await, name);
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

/// Why it does not run: told as its end, or as what it waits for.
async fn hindrance(subject: &Subject, run: &mut Run, key: Key) -> String {
    if subject.can(Ability::Refusals) {
        return match run.error(key).await {
            TaskError::Refused(error) if error.kind() == ErrorKind::Unschedulable && error.hint().is_some() => error.to_string(),
            other => panic!("refused, with what to do: {other:?}"),
        };
    }
    match run.until(key, |state| matches!(state, TaskState::Pending { reason: Some(_) })).await {
        TaskState::Pending { reason: Some(reason) } => reason.to_string(),
        _ => unreachable!("asked for a reason"),
    }
}

async fn unsatisfiable_reports_reason(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit_with(rust("echo", &[1.into()]), holding("UNICORN", 2.0));
    let reason = hindrance(subject, &mut run, key).await;
    assert!(reason.contains("UNICORN"), "the reason names what is lacking: {reason}");
    assert!(!run.ran(key));
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn unknown_worker_reports_reason(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit_with(rust("echo", &[1.into()]), |a| a.workers = vec!["nobody".into()]);
    let reason = hindrance(subject, &mut run, key).await;
    assert!(reason.contains("nobody"), "the reason names who is lacking: {reason}");
    assert!(!run.ran(key));
    let anyway = run.submit_with(rust("echo", &["anyway".into()]), |a| {
        a.workers = vec!["nobody".into()];
        a.allow_other_workers = true;
    });
    assert_eq!(run.value::<String>(anyway).await, "anyway");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn timeouts(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    // Long enough that it has come to the gate by then, on any machine.
    let limit = std::time::Duration::from_secs(1);
    let key = run.submit_with(rust("gate", &[gate.address().into(), "slow".into()]), |a| a.timeout = Some(limit));
    let arrival = gate.arrived("slow").await;
    let error = run.error(key).await;
    assert_eq!(error.state_name(), "failed", "{error:?}");
    assert!(error.to_string().contains("timeout of 1s"), "the limit is named: {error}");
    arrival.gone().await;
    let next = run.submit_with(rust("echo", &["next".into()]), |a| a.timeout = Some(crate::gate::patience()));
    assert_eq!(run.value::<String>(next).await, "next", "the slot is free again");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}
