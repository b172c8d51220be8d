//! Results that went with their worker.

use super::*;

#[test]
fn a_lost_result_is_waited_for_and_not_told() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default())]);
    sent(&mut book);
    hear(&mut book, 1, done(0));
    book.take_effects();
    hear(&mut book, 1, What::Lost);
    assert!(matches!(book.find(Key(1)), Whereabouts::Pending));
    hear(&mut book, 1, done(1));
    let effects = book.take_effects();
    assert!(effects.events.is_empty() && effects.settled == [Key(1)], "{effects:?}");
    assert!(matches!(book.find(Key(1)), Whereabouts::At { unit: (1, -1), .. }));
}

#[test]
fn why_a_lost_result_does_not_come_is_told_once() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default()), spec(2, &[], &Arc::default())]);
    sent(&mut book);
    for key in [1, 2] {
        hear(&mut book, key, done(0));
        hear(&mut book, key, What::Lost);
    }
    book.take_effects();
    let pending = || What::Pending { reason: Some("the cluster has no workers".into()) };
    hear(&mut book, 1, pending());
    hear(&mut book, 2, pending());
    let effects = book.take_effects();
    assert!(effects.events.is_empty(), "done is final: {:?}", effects.events);
    assert!(matches!(&effects.notes[..], [note] if note.contains("`f`") && note.contains("no workers")), "{:?}", effects.notes);
    hear(&mut book, 1, What::Pending { reason: None });
    hear(&mut book, 1, done(1));
    hear(&mut book, 1, pending());
    assert!(book.take_effects().notes.is_empty(), "it is there");
    hear(&mut book, 2, pending());
    assert_eq!(book.take_effects().notes.len(), 1, "it waits again");
}

#[test]
fn tasks_that_were_to_read_a_result_that_does_not_come_again_end() {
    let mut book = book(Some(1));
    let plain: Arc<Annotations> = Arc::default();
    submit(&mut book, vec![spec(1, &[], &plain), spec(2, &[(1, false)], &plain), spec(3, &[(2, false)], &plain), spec(4, &[], &plain)]);
    assert_eq!(sent(&mut book).len(), 4);
    hear(&mut book, 1, done(0));
    states(&mut book);
    // Lost before it was read. Dask fails the second task for the first one's sake: nothing is told of it.
    hear(&mut book, 1, What::Lost);
    hear(&mut book, 1, failed("no"));
    assert_eq!(states(&mut book), said(&[(2, "upstream_failed"), (3, "upstream_failed")]));
    assert!(matches!(book.find(Key(1)), Whereabouts::Ended(TaskError::Failed(_))));
    assert_eq!(book.open_tasks(), 1, "the fourth has nothing to do with it");
    submit(&mut book, vec![spec(5, &[(1, false)], &plain)]);
    assert_eq!(states(&mut book), said(&[(5, "upstream_failed")]));
}

#[test]
fn who_waits_for_a_lost_result_is_told_when_it_is_released() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default())]);
    sent(&mut book);
    hear(&mut book, 1, done(0));
    hear(&mut book, 1, What::Lost);
    assert!(matches!(book.find(Key(1)), Whereabouts::Pending));
    book.take_effects();
    book.release(&[Key(1)]);
    assert_eq!(book.take_effects().settled, [Key(1)]);
    assert!(matches!(book.find(Key(1)), Whereabouts::Ended(_)));
}
