//! Tasks, their results and their ends.

use std::sync::Arc;

use remuda_core::{
    task::{Key, TaskError, TaskState},
    value::{Here, Value},
};

use super::{Ability, Subject, Verdict, cases};
use crate::{
    bodies::{Arg, Prepared, closure, rust},
    gate::Gate,
    run::{Run, holding, read},
};

cases! {
    submits_and_gathers []
    results_are_arguments []
    the_same_result_twice []
    order_without_data []
    big_values []
    the_user_s_error_comes_back []
    a_panic_is_a_failure []
    retries []
    upstream_failure []
    failure_can_be_allowed []
    cancels_what_waits []
    cancels_what_runs []
    session_close_makes_all_final []
    two_sessions_are_apart []
    unheld_work_is_not_begun []
    release_frees [SharedMemory]
    by_reference [SharedMemory]
}

async fn submits_and_gathers(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let specs: Vec<_> = (0..200).map(|n| run.spec(rust("add", &[n.into(), 1.into()]), |_| {})).collect();
    let keys: Vec<Key> = specs.iter().map(|spec| spec.key).collect();
    run.session().submit(specs);
    let values = run.session().gather(&keys).await?;
    let values: Vec<i64> = values.iter().map(read).collect();
    assert_eq!(values, (1..=200).collect::<Vec<i64>>(), "in the order of the keys");
    for key in keys {
        run.outcome(key).await?;
        assert!(run.ran(key), "{key} was done without running");
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn results_are_arguments(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let mut run = Run::open(&cluster).await?;
    let sums: Vec<Key> = (0..10).map(|n| run.submit(rust("add", &[n.into(), n.into()]))).collect();
    let total = run.submit(rust("sum", &[Arg::List(sums.into_iter().map(Arg::Of).collect())]));
    // At any depth.
    let deep = run.submit(rust("echo", &[Arg::List(vec![1.into(), Arg::List(vec![total.into(), "x".into()])])]));
    assert_eq!(run.value::<i64>(total).await, 90);
    assert_eq!(run.value::<serde_json::Value>(deep).await, serde_json::json!([1, [90, "x"]]));
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn the_same_result_twice(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let one = run.submit(rust("add", &[3.into(), 4.into()]));
    let two = run.submit(rust("add", &[one.into(), one.into()]));
    assert_eq!(run.value::<i64>(two).await, 14);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn order_without_data(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let first = run.submit(rust("gate", &[gate.address().into(), "first".into()]));
    let second = run.submit_after(rust("echo", &["second".into()]), &[first]);
    let arrival = gate.arrived("first").await;
    assert!(!run.ran(second), "it should wait, although a worker is free");
    arrival.open().await;
    run.outcome(second).await?;
    assert!(run.span(first).1 < run.span(second).0, "the second began before the first was done");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn big_values(subject: &Subject) -> Verdict {
    const SIZE: usize = 8 << 20;
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let big = run.submit(rust("zeros", &[SIZE.into()]));
    let length = run.submit(rust("length", &[big.into()]));
    let sent = run.submit(rust("length", &["1".repeat(SIZE).into()]));
    assert_eq!(run.value::<usize>(length).await, SIZE);
    assert_eq!(run.value::<usize>(sent).await, SIZE);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn the_user_s_error_comes_back(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(rust("fail", &["no such luck".into()]));
    match run.error(key).await {
        TaskError::Failed(failure) => assert_eq!(failure.message, "no such luck"),
        other => panic!("it failed by itself, and is {}: {other}", other.state_name()),
    }
    let error = run.session().gather(&[key]).await.expect_err("it has no result");
    assert!(matches!(error, TaskError::Failed(_)), "gather tells the task's own error, not {error:?}");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn a_panic_is_a_failure(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let key = run.submit(rust("panic", &["at the disco".into()]));
    let error = run.error(key).await;
    assert!(matches!(error, TaskError::Failed(_)), "{error:?}");
    assert!(error.to_string().contains("at the disco"), "the message is lost: {error}");
    let key = run.submit(rust("echo", &["next".into()]));
    assert_eq!(run.value::<String>(key).await, "next", "the slot is usable afterwards");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn retries(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let enough = run.submit_with(rust("fail_until", &[2.into()]), |a| a.retries = 2);
    let short = run.submit_with(rust("fail_until", &[2.into()]), |a| a.retries = 1);
    let none = run.submit(rust("fail_until", &[1.into()]));
    assert_eq!(run.value::<u32>(enough).await, 2);
    assert_eq!(run.error(short).await.to_string(), "attempt 1", "the last attempt's error");
    assert_eq!(run.error(none).await.to_string(), "attempt 0", "by default it is tried once");
    let attempts: Vec<u32> = run
        .history()
        .iter()
        .filter_map(|(key, state)| match state {
            TaskState::Running { attempt, .. } if *key == enough => Some(*attempt),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [0, 1, 2]);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn upstream_failure(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let root = run.submit(rust("fail", &["the root".into()]));
    let child = run.submit(rust("echo", &[root.into()]));
    let grandchild = run.submit(rust("echo", &[Arg::List(vec![child.into()])]));
    let after = run.submit_after(rust("echo", &[1.into()]), &[root]);
    let bystander = run.submit(rust("echo", &[1.into()]));
    for key in [child, grandchild, after] {
        let error = run.error(key).await;
        assert_eq!(error.state_name(), "upstream_failed", "{key}: {error}");
        assert_eq!(error.root().to_string(), "the root", "{key} names the cause");
        assert!(!run.ran(key), "{key} was run without its input");
    }
    assert_eq!(run.value::<i64>(bystander).await, 1, "others are not touched");
    // Submitted when its input has failed already.
    let late = run.submit(rust("echo", &[root.into()]));
    assert_eq!(run.error(late).await.state_name(), "upstream_failed");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn failure_can_be_allowed(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let bad = run.submit(rust("fail", &["expected".into()]));
    let good = run.submit(rust("echo", &[1.into()]));
    let told = run.submit(rust("is_err", &[Arg::Either(bad)]));
    let fine = run.submit(rust("is_err", &[Arg::Either(good)]));
    let message = run.value::<Option<String>>(told).await;
    assert!(message.as_ref().is_some_and(|text| text.contains("expected")), "{message:?}");
    assert_eq!(run.value::<Option<String>>(fine).await, None);
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn cancels_what_waits(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let holder = run.submit(rust("gate", &[gate.address().into(), "holder".into()]));
    let arrival = gate.arrived("holder").await;
    let waiting = run.submit(rust("echo", &[1.into()]));
    let dependent = run.submit(rust("echo", &[waiting.into()]));
    run.session().cancel(&[waiting]);
    run.session().cancel(&[waiting]); // again: nothing more happens
    assert!(matches!(run.error(waiting).await, TaskError::Cancelled));
    assert_eq!(run.error(dependent).await.state_name(), "upstream_failed");
    assert!(!run.ran(waiting));
    arrival.open().await;
    run.outcome(holder).await?;
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn cancels_what_runs(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let key = run.submit(rust("gate", &[gate.address().into(), "it".into()]));
    let arrival = gate.arrived("it").await;
    run.session().cancel(&[key]);
    assert!(matches!(run.error(key).await, TaskError::Cancelled));
    arrival.gone().await; // the body was dropped, not left to run
    let next = run.submit(rust("echo", &["next".into()]));
    assert_eq!(run.value::<String>(next).await, "next", "the slot is free again");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn session_close_makes_all_final(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let running = run.submit(rust("gate", &[gate.address().into(), "it".into()]));
    let waiting = run.submit(rust("echo", &[1.into()]));
    let blocked = run.submit(rust("echo", &[running.into()]));
    let impossible = run.submit_with(rust("echo", &[1.into()]), holding("UNICORN", 1.0));
    let arrival = gate.arrived("it").await;
    run.close().await?; // asserts that each of them is final
    arrival.gone().await;
    for key in [running, waiting, impossible] {
        let was_refused = key == impossible && subject.can(Ability::Refusals);
        let error = run.error(key).await;
        assert!(if was_refused { matches!(error, TaskError::Refused(_)) } else { matches!(error, TaskError::Cancelled) }, "{key}: {error}");
    }
    assert!(run.outcome(blocked).await.is_err());
    run.session().close().await?; // again
    let mut next = Run::open(&cluster).await?;
    let key = next.submit(rust("echo", &["next run".into()]));
    assert_eq!(next.value::<String>(key).await, "next run", "the cluster is free for the next run");
    next.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn two_sessions_are_apart(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(2).await?;
    let (mut one, mut two, mut gate) = (Run::open(&cluster).await?, Run::open(&cluster).await?, Gate::new().await?);
    let ours = one.submit(rust("gate", &[gate.address().into(), "one".into()]));
    let theirs = two.submit(rust("gate", &[gate.address().into(), "two".into()]));
    assert_eq!(ours, theirs, "both count from the same number");
    let (first, second) = (gate.arrived("one").await, gate.arrived("two").await);
    one.session().cancel(&[ours]);
    assert!(matches!(one.error(ours).await, TaskError::Cancelled));
    first.gone().await;
    one.close().await?;
    second.open().await;
    assert_eq!(two.value::<String>(theirs).await, "two");
    two.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn unheld_work_is_not_begun(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let (mut run, mut gate) = (Run::open(&cluster).await?, Gate::new().await?);
    let holder = run.submit(rust("gate", &[gate.address().into(), "holder".into()]));
    let arrival = gate.arrived("holder").await;
    let dropped = run.submit(rust("gate", &[gate.address().into(), "dropped".into()]));
    let input = run.submit(rust("echo", &[7.into()]));
    let needed = run.submit(rust("echo", &[input.into()]));
    run.session().release(&[dropped, input]);
    arrival.open().await;
    run.outcome(holder).await?;
    assert_eq!(run.value::<i64>(needed).await, 7, "a result that a task needs is made, held or not");
    assert!(!run.ran(dropped), "nobody wanted it");
    run.session().release(&[holder, needed]);
    run.session().release(&[holder]); // again: nothing more happens
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

/// A closure that returns a shared value, and the means to see who still holds it.
fn shared() -> (Prepared, std::sync::Weak<Vec<u8>>) {
    let value = Arc::new(vec![1_u8; 1 << 20]);
    let watch = Arc::downgrade(&value);
    let slot = std::sync::Mutex::new(Some(value));
    let body = closure(move |_| {
        let value = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().expect("called once");
        Ok(Value::Here(Here { value, type_name: "Vec<u8>", encode: None }))
    });
    (body, watch)
}

async fn release_frees(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let (body, watch) = shared();
    let key = run.submit(body);
    run.outcome(key).await?;
    run.session().release(&[key]);
    run.forget(key);
    // A round trip through the scheduler and a slot: what was said before it has been heard.
    let next = run.submit(rust("echo", &[1.into()]));
    run.outcome(next).await?;
    assert_eq!(watch.strong_count(), 0, "the engine still holds a result that nobody wants");
    run.close().await?;
    cluster.close().await?;
    Ok(())
}

async fn by_reference(subject: &Subject) -> Verdict {
    let cluster = subject.cluster(1).await?;
    let mut run = Run::open(&cluster).await?;
    let (body, watch) = shared();
    let key = run.submit(body);
    match run.outcome(key).await? {
        Value::Here(here) => assert_eq!(Arc::as_ptr(&here.value).cast(), watch.as_ptr(), "it was copied on its way"),
        other => panic!("{other:?} should have stayed what it was"),
    }
    run.close().await?;
    cluster.close().await?;
    Ok(())
}
