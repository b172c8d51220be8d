//! What a single story tells; the random ones are in [`super::histories`].

mod batches;
mod lost;

use remuda_core::{
    task::{Annotations, Failure, PythonWork, RustWork, TaskSpec, Work},
    value::Value,
};

use super::*;
use crate::session::{
    call::Translator,
    wire::{Event, Order, PYTHON, Sent, WRAPPED, What},
};

pub(super) fn spec(key: u64, inputs: &[(u64, bool)], annotations: &Arc<Annotations>) -> TaskSpec {
    let mut args = Template::new();
    args.array(inputs.len().max(1));
    match inputs.len() {
        0 => _ = args.append(&Template::value(&key).unwrap()),
        many => (0..many).for_each(|_| _ = args.append(&Template::hole())),
    }
    TaskSpec {
        key: Key(key),
        name: "f".into(),
        inputs: inputs.iter().map(|(key, allow_failure)| Input { key: Key(*key), allow_failure: *allow_failure }).collect(),
        after: Vec::new(),
        work: Work::Rust(RustWork { function: "f".into(), here: None, args: Some(args) }),
        annotations: annotations.clone(),
    }
}

fn python(key: u64, input: u64) -> TaskSpec {
    let args = Template::hole();
    let work = Work::Python(PythonWork { target: "m:f".into(), args, path: Arc::default() });
    TaskSpec { work, ..spec(key, &[(input, true)], &Arc::default()) }
}

pub(super) fn book(batch: Option<u32>) -> Book {
    let mut book = Book::new(batch);
    for gate in [Gate::Host, Gate::Module { name: "m".into(), path: Arc::default() }] {
        book.gates.insert(gate, Standing::Open);
    }
    book
}

pub(super) fn submit(book: &mut Book, specs: Vec<TaskSpec>) {
    let mut translator = Translator::default();
    book.submit(specs.into_iter().map(|spec| translator.translate(spec)).collect());
}

fn sent(book: &mut Book) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Some((_, order)) = book.next_order() {
        if let Order::Submit { tasks, .. } = order {
            all.extend(tasks);
        }
    }
    all
}

pub(super) fn hear(book: &mut Book, unit: u64, what: What) {
    let seq = book.seen() + 1;
    book.hear(seq, 0, vec![Event { unit, what }]);
}

pub(super) fn done(attempt: u32) -> What {
    What::Done { worker: "w".into(), address: "tcp://w:1".into(), attempt, seconds: 0.001, size: 8, failed: Vec::new() }
}

fn failed(message: &str) -> What {
    What::Failed { worker: "w".into(), attempt: 0, failure: Failure { message: message.into(), ..Failure::default() } }
}

fn states(book: &mut Book) -> Vec<(u64, String)> {
    let events = book.take_effects().events;
    events.iter().map(|event| (event.key.0, event.state.name().to_owned())).collect()
}

fn said(states: &[(u64, &str)]) -> Vec<(u64, String)> {
    states.iter().map(|(key, state)| (*key, (*state).to_owned())).collect()
}

#[test]
fn a_task_runs_before_it_is_done_and_only_once() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default()), spec(2, &[(1, false)], &Arc::default())]);
    let tasks = sent(&mut book);
    assert_eq!(tasks.iter().map(|task| task.unit).collect::<Vec<_>>(), [1, 2], "both go at once");
    assert_eq!(tasks[1].deps.len(), 1);
    hear(&mut book, 1, What::Started { worker: "w".into(), attempt: 0 });
    hear(&mut book, 1, done(0));
    hear(&mut book, 2, done(0));
    assert_eq!(states(&mut book), said(&[(1, "running"), (1, "done"), (2, "running"), (2, "done")]));
    // A second hearing of the same message changes nothing.
    book.hear(1, 0, vec![Event { unit: 1, what: failed("x") }]);
    assert_eq!(states(&mut book), []);
    assert!(matches!(book.find(Key(1)), Whereabouts::At { .. }));
}

#[test]
fn failures_go_down_the_line_where_they_are_not_allowed() {
    let mut book = book(Some(1));
    let plain: Arc<Annotations> = Arc::default();
    submit(
        &mut book,
        vec![
            spec(1, &[], &plain),
            spec(2, &[(1, false)], &plain),
            spec(3, &[(2, false)], &plain),
            spec(4, &[(1, true)], &plain),
            python(5, 1),
        ],
    );
    assert_eq!(sent(&mut book).len(), 3, "what takes a failure waits for it here");
    hear(&mut book, 1, failed("no"));
    assert_eq!(states(&mut book), said(&[(1, "running"), (1, "failed"), (2, "upstream_failed"), (3, "upstream_failed")]));
    let tasks = sent(&mut book);
    assert_eq!(tasks.iter().map(|task| (task.unit, task.deps.len())).collect::<Vec<_>>(), [(4, 0), (5, 0)]);
    assert!(tasks[0].args.windows(3).any(|bytes| bytes == b"Err"), "Rust takes a Result");
    assert!(matches!(tasks[1].args[..], [0xc7..=0xc9, ..]), "Python takes an extension: {:x?}", tasks[1].args);
}

#[test]
fn an_allowed_failure_that_did_not_happen_is_a_dependency() {
    let mut book = book(Some(1));
    submit(&mut book, vec![python(1, 1), spec(2, &[], &Arc::default()), spec(3, &[(2, true)], &Arc::default()), python(4, 2)]);
    assert_eq!(states(&mut book), said(&[(1, "refused")]), "it needs itself");
    assert_eq!(sent(&mut book).len(), 1);
    hear(&mut book, 2, done(0));
    let tasks = sent(&mut book);
    assert_eq!((tasks[0].deps[0].mode, tasks[1].deps[0].mode), (WRAPPED, 0));
    hear(&mut book, 4, done(0));
    submit(&mut book, vec![spec(5, &[(4, true)], &Arc::default())]);
    assert_eq!(sent(&mut book)[0].deps[0].mode, WRAPPED | PYTHON);
}

#[test]
fn definitions_that_no_task_has_any_more_are_forgotten_here_and_there() {
    let mut book = book(Some(1));
    let (mut told, mut forgotten) = (std::collections::HashSet::new(), 0);
    for key in 0..1000 {
        let annotations = Arc::new(Annotations { priority: i64::try_from(key).unwrap(), ..Annotations::default() });
        submit(&mut book, vec![spec(key, &[], &annotations)]);
        while let Some((n, order)) = book.next_order() {
            match order {
                Order::Submit { defs, tasks } => {
                    told.extend(defs.iter().map(|(number, _)| *number));
                    assert!(tasks.iter().all(|task| told.contains(&task.def)), "it is there when a task needs it");
                }
                Order::Release { defs, .. } => {
                    forgotten += defs.len();
                    assert!(defs.iter().all(|number| told.remove(number)), "{defs:?}");
                }
                Order::Close => {}
            }
            book.attached(n);
        }
        hear(&mut book, key, done(0));
        book.release(&[Key(key)]);
    }
    assert!(book.defs.len() < 100 && told.len() < 100 && forgotten > 900, "{} here, {} there", book.defs.len(), told.len());
}

#[test]
fn what_nobody_needs_is_let_go_once() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default()), spec(2, &[(1, false)], &Arc::default())]);
    sent(&mut book);
    book.release(&[Key(1)]);
    assert!(book.next_order().is_none(), "the second needs the first");
    hear(&mut book, 1, done(0));
    hear(&mut book, 2, done(0));
    assert!(matches!(book.next_order(), Some((2, Order::Release { units, .. })) if units == [1]));
    book.release(&[Key(2), Key(2)]);
    assert!(matches!(book.next_order(), Some((3, Order::Release { units, .. })) if units == [2]));
    assert!(book.next_order().is_none() && book.tasks.is_empty());
}

#[test]
fn what_the_shim_has_not_received_is_sent_again() {
    let mut book = book(Some(1));
    submit(&mut book, (0..2500).map(|key| spec(key, &[], &Arc::default())).collect());
    let first: Vec<u64> = std::iter::from_fn(|| book.next_order()).map(|(n, _)| n).collect();
    assert_eq!(first, [1, 2, 3]);
    book.attached(1);
    let again: Vec<_> = std::iter::from_fn(|| book.next_order()).collect();
    assert_eq!(again.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 3]);
    let Order::Submit { defs, tasks } = &again[0].1 else { panic!("{again:?}") };
    assert!(defs.is_empty() && tasks.len() == 1000 && tasks[0].unit == 1000);
    assert!(!tasks[0].args.is_empty());
}

#[test]
fn no_more_is_sent_than_is_acknowledged() {
    let mut book = book(Some(1));
    submit(&mut book, (0..20_000).map(|key| spec(key, &[], &Arc::default())).collect());
    assert_eq!(sent(&mut book).len(), 8000);
    book.hear(1, 2, Vec::new());
    assert_eq!(sent(&mut book).len(), 2000);
    assert!(book.tasks[&Key(0)].args.is_none(), "the shim has it now");
}

#[test]
fn a_check_that_fails_refuses_what_waited_for_it() {
    let mut book = Book::new(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default()), spec(2, &[(1, false)], &Arc::default())]);
    let checks = book.take_effects().checks;
    assert_eq!(checks, [Gate::Host], "asked once");
    assert!(book.next_order().is_none());
    book.gate(Gate::Host, Err(Error::new(ErrorKind::ConfigInvalid, "older")));
    submit(&mut book, vec![spec(3, &[], &Arc::default())]);
    assert_eq!(states(&mut book), said(&[(1, "refused"), (2, "upstream_failed"), (3, "refused")]));
}

#[test]
fn what_dask_cannot_do_is_refused() {
    let mut book = book(Some(1));
    let wide = Arc::new(Annotations { slots: 2, ..Annotations::default() });
    let mut closure = spec(2, &[], &Arc::default());
    closure.work = Work::Rust(RustWork { function: "closure".into(), here: None, args: None });
    submit(&mut book, vec![spec(1, &[], &wide), closure]);
    let events = book.take_effects().events;
    let kinds: Vec<_> = events
        .iter()
        .map(|event| if let TaskState::Ended(TaskError::Refused(error)) = &event.state { Some(error.kind()) } else { None })
        .collect();
    assert_eq!(kinds, [Some(ErrorKind::Unsupported), Some(ErrorKind::Unserializable)]);
}

#[test]
fn the_end_of_the_scheduler_ends_everything() {
    let mut book = book(Some(1));
    submit(&mut book, vec![spec(1, &[], &Arc::default()), spec(2, &[], &Arc::default())]);
    sent(&mut book);
    hear(&mut book, 1, done(0));
    book.take_effects();
    book.give_up(Error::new(ErrorKind::SchedulerLost, "gone"));
    assert_eq!(states(&mut book), said(&[(2, "refused")]));
    assert!(matches!(book.find(Key(1)), Whereabouts::Ended(_)));
    submit(&mut book, vec![spec(3, &[], &Arc::default())]);
    assert_eq!(states(&mut book), said(&[(3, "refused")]));
}

#[test]
fn small_results_come_along_with_one_that_is_awaited_alone() {
    let mut book = book(Some(1));
    submit(&mut book, (0..20).map(|key| spec(key, &[], &Arc::default())).collect());
    sent(&mut book);
    for key in 0..20 {
        let size = if key == 7 { 1 << 20 } else { 8 };
        let address = if key == 8 { "tcp://v:1" } else { "tcp://w:1" }.into();
        hear(&mut book, key, What::Done { worker: "w".into(), address, attempt: 0, seconds: 0.001, size, failed: Vec::new() });
    }
    let along = |book: &mut Book, key| book.along(Key(key), "tcp://w:1").iter().map(|(key, ..)| key.0).collect::<Vec<_>>();
    assert_eq!([along(&mut book, 0), along(&mut book, 1), along(&mut book, 2)], [vec![], vec![2], vec![3, 4, 5]], "more with each trip");
    (3..6).for_each(|key| book.keep(Key(key), "tcp://w:1", vec![0; 8].into()));
    book.keep(Key(8), "tcp://w:1", vec![0; 8].into());
    let here = |book: &mut Book, key| matches!(book.find(Key(key)), Whereabouts::At { copy: Some(_), .. });
    assert!(here(&mut book, 3) && here(&mut book, 5) && !here(&mut book, 8), "the eighth has moved meanwhile");
    // Not what is here, large, elsewhere or released.
    book.release(&[Key(9)]);
    assert_eq!(along(&mut book, 2), [6, 10, 11, 12, 13, 14, 15]);
    hear(&mut book, 3, What::Lost);
    hear(&mut book, 3, done(1));
    assert!(!here(&mut book, 3), "it was computed again");
    book.release(&[Key(3), Key(4), Key(5)]);
    assert_eq!(book.ahead.room(), 64 << 20, "what is released takes no room");
}
