//! Calls that share a Dask task.

use super::*;
use crate::session::wire::Trouble;

#[test]
fn calls_of_a_batch_fail_and_are_tried_again_each_for_itself() {
    let mut book = book(None);
    let retries = Arc::new(Annotations { retries: 1, ..Annotations::default() });
    submit(&mut book, (0..100).map(|key| spec(key, &[], &retries)).collect());
    let probes = sent(&mut book);
    assert_eq!(probes.len(), 2);
    hear(&mut book, 0, done(0));
    let batch = sent(&mut book).pop().unwrap();
    assert!(batch.unit & BATCH != 0);
    let members = book.batches[&batch.unit].members.clone();
    book.take_effects();
    let failure = Trouble::Failed(Failure { message: "no".into(), ..Failure::default() });
    let What::Done { worker, address, attempt, seconds, .. } = done(0) else { return };
    hear(&mut book, batch.unit, What::Done { worker, address, attempt, seconds, size: 16, failed: vec![(1, failure)] });
    let (first, second) = (members[0].0, members[1].0);
    let heard = states(&mut book);
    assert!(heard.starts_with(&said(&[(first, "running"), (first, "done"), (second, "running"), (second, "pending")])), "{heard:?}");
    assert!(matches!(book.find(Key(first)), Whereabouts::At { unit: (unit, 0), .. } if unit == batch.unit));
    let alone = sent(&mut book).into_iter().find(|task| task.unit == second).expect("it is tried again alone");
    assert_eq!(book.defs.get(alone.def).unwrap().retries, 0, "its only retry is this one");
    hear(&mut book, second, done(0));
    assert!(matches!(book.take_effects().events[..], [.., TaskEvent { state: TaskState::Done(Value::There), .. }]));
}

/// A map of a hundred calls whose first batch is sent: its number and its calls.
fn batch_of(book: &mut Book, annotations: &Arc<Annotations>) -> (u64, Vec<Key>) {
    submit(book, (0..100).map(|key| spec(key, &[], annotations)).collect());
    sent(book);
    hear(book, 0, done(0));
    let batch = sent(book).pop().unwrap();
    book.take_effects();
    (batch.unit, book.batches[&batch.unit].members.clone())
}

#[test]
fn a_call_whose_host_died_goes_on_alone_and_harms_no_other() {
    let mut book = book(None);
    let allowed = Arc::new(Annotations { allowed_failures: Some(2), ..Annotations::default() });
    let (unit, members) = batch_of(&mut book, &allowed);
    let crash = Trouble::Crashed("signal 6 (SIGABRT)".into());
    let What::Done { worker, address, attempt, seconds, .. } = done(0) else { return };
    hear(&mut book, unit, What::Done { worker, address, attempt, seconds, size: 16, failed: vec![(1, crash)] });
    let (first, second) = (members[0].0, members[1].0);
    assert!(matches!(book.find(members[0]), Whereabouts::At { unit: (at, 0), .. } if at == unit));
    let told: Vec<_> = book.take_effects().events.into_iter().filter(|event| event.key.0 != first).collect();
    let [TaskState::Running { attempt: 0, .. }, TaskState::Pending { reason: Some(reason) }] = [&told[0].state, &told[1].state] else {
        panic!("{told:?}")
    };
    assert_eq!(&**reason, "attempt 1 lost its task host on worker w: signal 6 (SIGABRT)");
    let alone = sent(&mut book).into_iter().find(|task| task.unit == second).expect("it is tried again alone");
    assert_eq!(book.defs.get(alone.def).unwrap().allowed, Some(1), "one is used up");
    hear(&mut book, second, What::Again { worker: "w".into(), attempt: 0, failure: None, cause: Some("signal 6 (SIGABRT)".into()) });
    hear(&mut book, second, What::Crashed { worker: "w".into(), attempts: 2, cause: "signal 6 (SIGABRT)".into(), attempt: 1 });
    let states: Vec<_> = book.take_effects().events.into_iter().map(|event| event.state).collect();
    let [TaskState::Running { attempt: 1, .. }, TaskState::Pending { .. }, TaskState::Running { attempt: 2, .. }, end] = &states[..] else {
        panic!("{states:?}")
    };
    assert!(matches!(end, TaskState::Ended(TaskError::Crashed(crash)) if crash.attempts == 3), "{end:?}");
}

#[test]
fn a_worker_lost_with_a_batch_counts_for_its_calls() {
    let mut book = book(None);
    let (unit, members) = batch_of(&mut book, &Arc::default());
    hear(&mut book, unit, What::Crashed { worker: "w".into(), attempts: 1, cause: "lost".into(), attempt: 0 });
    let alone = sent(&mut book);
    let of = |key: &Key| alone.iter().find(|task| task.unit == key.0).expect("it goes on alone");
    assert!(members.iter().all(|key| book.defs.get(of(key).def).unwrap().allowed == Some(2)));
    hear(&mut book, members[0].0, What::Crashed { worker: "w".into(), attempts: 3, cause: "lost".into(), attempt: 2 });
    let events = book.take_effects().events;
    assert!(
        matches!(&events.last().unwrap().state, TaskState::Ended(TaskError::Crashed(crash)) if crash.attempts == 4),
        "the last of one and three: {events:?}"
    );
}

#[test]
fn what_no_worker_can_run_for_one_call_none_can_for_the_others() {
    let annotations = Arc::default();
    let mut book = book(None);
    submit(&mut book, (0..1000).map(|key| spec(key, &[], &annotations)).collect());
    let first = sent(&mut book)[0].unit;
    let why = Error::new(ErrorKind::Unschedulable, "no worker offers GPU=2");
    hear(&mut book, first, What::Refused(why.clone()));
    let refused = states(&mut book).iter().filter(|(_, state)| state == "refused").count();
    assert!(refused > 990, "{refused}; those that are sent already hear it by themselves");
    let mut book = super::book(None);
    let (batch, members) = batch_of(&mut book, &annotations);
    hear(&mut book, batch, What::Refused(why));
    let told = states(&mut book);
    assert!(members.iter().all(|key| told.contains(&(key.0, "refused".to_owned()))), "{told:?}");
    assert!(sent(&mut book).is_empty(), "none of them is tried alone");
}

#[test]
fn what_must_not_lose_a_worker_shares_no_batch() {
    let mut book = book(None);
    let never = Arc::new(Annotations { allowed_failures: Some(0), ..Annotations::default() });
    submit(&mut book, (0..100).map(|key| spec(key, &[], &never)).collect());
    assert_eq!(sent(&mut book).len(), 100);
}

#[test]
fn a_cancelled_call_takes_no_place_in_a_batch_that_is_not_sent() {
    let mut book = book(None);
    submit(&mut book, (0..1000).map(|key| spec(key, &[], &Arc::default())).collect());
    sent(&mut book);
    book.cancel(&(500..1000).map(Key).collect::<Vec<_>>());
    hear(&mut book, 0, done(0));
    let mut rounds = 0;
    while book.open_tasks() > 0 {
        rounds += 1;
        assert!(rounds < 1000, "{} are left", book.open_tasks());
        let units: Vec<u64> = sent(&mut book).iter().map(|task| task.unit).chain([1]).collect();
        units.into_iter().for_each(|unit| hear(&mut book, unit, done(0)));
        let n = book.seen() + 1;
        book.hear(n, u64::MAX, Vec::new());
    }
    let cancelled = book.take_effects().events.iter().filter(|event| event.state.name() == "cancelled").count();
    assert_eq!(cancelled, 500);
}
