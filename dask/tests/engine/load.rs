//! What the engine tells those who scale, and what it does for them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use remuda_core::{
    adaptive::{Group, Load, Prefix},
    engine::{Engine, Observation},
    task::{Annotations, Key, TaskSpec, TaskState},
};
use remuda_dask::{DaskOptions, shim};
use tokio::time::{sleep, timeout};

use crate::{
    alone,
    bench::{self, Bench, finals},
    real::{PATIENCE, Running},
};

/// Asked until it is so: what others compute tells nobody here of itself.
pub async fn load_where(engine: &Arc<dyn Engine>, what: &str, mut is_so: impl FnMut(&Observation) -> bool + Send) -> Observation {
    let mut last = None;
    let found = timeout(PATIENCE, async {
        loop {
            let load = engine.load().await.unwrap();
            if is_so(&load) {
                return load;
            }
            last = Some(load);
            sleep(Duration::from_millis(20)).await;
        }
    });
    let found = found.await;
    found.unwrap_or_else(|_| panic!("never {what}: {last:#?}"))
}

fn unfinished(load: &Load) -> u64 {
    load.groups.iter().map(Group::unfinished).sum()
}

/// Three calls of half a second by another client, which waits for them.
const CLIENT: &str = "
import sys, time
from distributed import Client
client = Client(sys.argv[1])
futures = client.map(time.sleep, [0.5, 0.5, 0.5], key=['nap-%d' % n for n in range(3)])
sys.stderr.write('submitted\\n'), sys.stderr.flush()
client.gather(futures)
sys.stdin.read()
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_counts_tasks_whosever_they_are() {
    let test = "the_load_counts_tasks_whosever_they_are";
    // Somebody else's: another worker may come that is not like the first.
    let Some(mut bench) = Bench::start_with(test, &[], DaskOptions { owner: false, ..alone() }).await else { return };
    let engine = bench.engine().clone();
    let empty = engine.load().await.unwrap();
    assert!(empty.load.groups.is_empty() && empty.workers.is_empty(), "{empty:?}");
    let (session, mut arrivals) = (bench.session().await, engine.arrivals().unwrap());
    let mut events = session.events();
    let gpu = Arc::new(Annotations { resources: BTreeMap::from([("GPU".to_owned(), 1.0)]), ..Annotations::default() });
    let (gate, held) = bench::gate();
    let nap = format!("{held}\ntime.sleep(0.3)");
    let mut specs: Vec<_> = (0..4).map(|key| bench::with(key, "builtins:exec", &nap)).collect();
    specs.push(bench::with_inputs(4, "builtins:print", &[0, 1, 2, 3]));
    specs.push(bench::with(5, "builtins:int", &1));
    specs[5].annotations = gpu;
    session.submit(specs);
    timeout(PATIENCE, arrivals.changed()).await.expect("arrivals are told").unwrap();
    let client = Running::python(CLIENT, &[&bench.address()], "submitted").await;
    let all = load_where(&engine, "everything", |observed| unfinished(&observed.load) == 9).await;
    assert_eq!((all.load.ready(), all.load.processing()), (8, 0), "{all:?}");
    let waits = all.load.groups.iter().find(|group| group.waiting == 1).expect("a group that waits");
    let sleeps = all.load.groups.iter().find(|group| group.ready == 4).expect("a group that sleeps");
    assert_eq!(waits.dependencies, [sleeps.id]);
    assert_eq!(all.load.prefixes[sleeps.prefix].arrived, 4);

    bench.add_worker("a").await;
    let busy = load_where(&engine, "running", |observed| observed.load.prefixes.iter().any(|prefix| !prefix.running.is_empty())).await;
    let worker = &busy.workers[0];
    assert!(worker.name == "a" && worker.slots == 2 && worker.processing > 0 && worker.memory_limit > 0 && !worker.pinned, "{worker:?}");
    drop(gate);
    // What no such worker will do for does not ask for another.
    let over = load_where(&engine, "over", |observed| unfinished(&observed.load) == 0).await;
    let known = &over.load.prefixes[sleeps.prefix];
    assert!(
        known.completions == 4 && known.total >= Duration::from_millis(1200) && known.longest >= Duration::from_millis(300),
        "{known:?}"
    );
    let ended = finals(&mut events, 5).await;
    assert!(ended.values().all(|state| matches!(state, TaskState::Done(_))) && !ended.contains_key(&5), "{ended:?}");

    // The same function again is work of its own, for who learns from graphs that come again.
    session.submit(vec![bench::with(6, "builtins:exec", "pass")]);
    finals(&mut events, 1).await;
    let again = load_where(&engine, "again", |observed| observed.load.prefixes[sleeps.prefix].completions == 5).await;
    assert!(again.load.groups.iter().any(|group| group.id > sleeps.id && group.prefix == sleeps.prefix), "{again:?}");
    client.end().await;
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_to_share_a_task_count_too() {
    let Some(mut bench) = Bench::start("calls_that_wait_to_share_a_task_count_too", &[]).await else { return };
    let engine = bench.engine().clone();
    let session = bench.session().await;
    session.submit((0..1000).map(|key| bench::with(key, "time:sleep", &0.001)).collect());
    let all = load_where(&engine, "everything", |observed| unfinished(&observed.load) >= 1000).await;
    assert_eq!((all.load.ready(), all.load.prefixes[0].arrived), (1000, 1000), "{all:?}");
    bench.add_worker("a").await;
    let keys: Vec<Key> = (0..1000).map(Key).collect();
    timeout(PATIENCE, session.gather(&keys)).await.expect("they end").unwrap();
    let over = load_where(&engine, "over", |observed| unfinished(&observed.load) == 0).await;
    // Held back or not, they came once.
    assert_eq!(over.load.prefixes[0].arrived, 1000, "{over:?}");
    bench.end_session(session).await;
    bench.end().await;
}

/// Calls that take long are held back only until that is known, and then go all at once: no look counts them twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_held_back_no_more_are_not_counted_twice() {
    let Some(mut bench) = Bench::start("calls_that_are_held_back_no_more_are_not_counted_twice", &["a"]).await else { return };
    let engine = bench.engine().clone();
    let session = bench.session().await;
    session.submit((0..40).map(|key| bench::with(key, "time:sleep", &0.15)).collect());
    let mut seen = 0;
    load_where(&engine, "over", |observed| {
        let arrived = observed.load.prefixes.iter().map(|prefix| prefix.arrived).sum::<u64>();
        assert!(arrived <= 40 && observed.load.groups.len() <= 1, "{observed:?}");
        seen = seen.max(arrived);
        seen > 0 && unfinished(&observed.load) == 0
    })
    .await;
    assert_eq!(seen, 40);
    bench.end_session(session).await;
    bench.end().await;
}

/// Nobody may call these.
pub fn forbidden(ops: &[&str]) -> String {
    format!("{ops:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_load_is_guessed_a_worker_without_results_holds_none() {
    let op = shim::op("load");
    let variable = [("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", &*forbidden(&[&op]))];
    let test = "where_the_load_is_guessed_a_worker_without_results_holds_none";
    let Some(mut bench) = Bench::start_configured(test, &["a"], DaskOptions::default(), &variable).await else { return };
    // It has told of its process by now.
    let idle = load_where(bench.engine(), "a worker", |observed| observed.workers.first().is_some_and(|a| a.memory_limit > 0)).await;
    let session = bench.session().await;
    assert_eq!(idle.workers[0].bytes, 0, "{idle:?}");
    session.submit(vec![bench::with(0, "builtins:bytes", &1_000_000)]);
    load_where(bench.engine(), "a result", |observed| observed.workers[0].bytes >= 1_000_000).await;
    session.release(&[Key(0)]);
    let gone = load_where(bench.engine(), "none", |observed| observed.workers[0].bytes == 0).await;
    assert_eq!((gone.load.ready(), gone.load.processing()), (0, 0), "{gone:?}");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_without_number_are_counted_together() {
    let Some(mut bench) = Bench::start("names_without_number_are_counted_together", &["a"]).await else { return };
    let (engine, session) = (bench.engine().clone(), bench.session().await);
    let sum = |load: &Load, of: fn(&Prefix) -> u64| load.prefixes.iter().map(of).sum::<u64>();
    let mut next = 0;
    let mut calls = |names: Vec<String>| -> (Vec<_>, Vec<Key>) {
        let first = next;
        next += names.len() as u64;
        let named = |(key, name): (u64, String)| TaskSpec { name: name.into(), ..bench::with(key, "builtins:int", &1) };
        ((first..next).zip(names).map(named).collect(), (first..next).map(Key).collect())
    };
    engine.load().await.unwrap();
    let (mut done, mut most) = (0, 0);
    // What is new, again and again; a name of the first ones, and one that is there no more.
    for round in 0..3 {
        let mut names: Vec<String> = (0..200).map(|n| format!("once{round}x{n}")).collect();
        names.extend(["known", "known", "once0x150"].map(str::to_owned));
        names.reverse();
        let (specs, keys) = calls(names);
        session.submit(specs);
        timeout(PATIENCE, session.gather(&keys)).await.expect("they end").unwrap();
        done += keys.len() as u64;
        let load = load_where(&engine, "all", |observed| sum(&observed.load, |prefix| prefix.completions) >= done).await.load;
        assert_eq!((sum(&load, |prefix| prefix.completions), sum(&load, |prefix| prefix.arrived)), (done, done));
        assert!(load.groups.iter().all(|group| group.prefix < load.prefixes.len()));
        most = most.max(load.prefixes.iter().map(|prefix| prefix.completions).filter(|count| *count < 10).max().unwrap());
        session.release(&keys);
        let load = load_where(&engine, "none", |observed| observed.workers[0].bytes == 0).await.load;
        assert!(load.prefixes.len() <= 257, "{}", load.prefixes.len());
        assert_eq!(sum(&load, |prefix| prefix.arrived), done);
    }
    assert_eq!(most, 6, "a name that comes again stays one");
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_all_before_it_is_no_work_beside_them() {
    let test = "what_waits_for_all_before_it_is_no_work_beside_them";
    // What waits for a batch is not seen before that is sent.
    let Some(mut bench) = Bench::start_with(test, &[], DaskOptions { batch: Some(1), ..DaskOptions::default() }).await else { return };
    let (engine, session) = (bench.engine().clone(), bench.session().await);
    engine.load().await.unwrap();
    // The same function before and behind: one group of Dask's.
    let (gate, held) = bench::gate();
    let mut specs: Vec<_> = (0..4).map(|key| bench::with(key, "builtins:exec", "pass")).collect();
    specs.push(bench::with_inputs(4, "builtins:print", &[0, 1, 2, 3]));
    specs.extend((5..11).map(|key| TaskSpec { after: vec![Key(4).into()], ..bench::with(key, "builtins:exec", &held) }));
    specs.push(TaskSpec { name: "end".into(), ..bench::with_inputs(11, "builtins:print", &[5, 6, 7, 8, 9, 10]) });
    let keys: Vec<Key> = (0..12).map(Key).collect();
    session.submit(specs);
    let all = load_where(&engine, "everything", |observed| unfinished(&observed.load) == 12).await;
    let of = |load: &Load, ready: u64, waiting: u64| {
        let group = load.groups.iter().find(|group| (group.ready, group.waiting) == (ready, waiting));
        group.cloned().unwrap_or_else(|| panic!("none with {ready} and {waiting}: {load:?}"))
    };
    let (first, behind) = (of(&all.load, 4, 0), of(&all.load, 0, 6));
    let barrier = all.load.groups.iter().find(|group| group.waiting == 1 && group.dependencies == [first.id]).expect("a barrier");
    assert_eq!(behind.dependencies, [barrier.id], "{all:?}");
    assert!(all.load.groups.iter().any(|group| group.waiting == 1 && group.dependencies.contains(&behind.id)), "{all:?}");
    let known: Vec<u64> = all.load.groups.iter().map(|group| group.id).collect();
    bench.add_worker("a").await;
    let later = load_where(&engine, "the second half", |observed| {
        observed.load.groups.iter().any(|group| group.id == first.id && group.done >= 4 && group.unfinished() > 0)
    });
    let later = later.await;
    drop(gate);
    assert!(later.load.groups.iter().all(|group| known.contains(&group.id)), "nothing has come: {later:?}");
    timeout(PATIENCE, session.gather(&keys)).await.expect("they end").unwrap();
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_next_worker_is_work_when_nobody_is_there() {
    let test = "what_waits_for_the_next_worker_is_work_when_nobody_is_there";
    let Some(mut bench) = Bench::start_with(test, &["1-0"], alone()).await else { return };
    let (engine, session) = (bench.engine().clone(), bench.session().await);
    load_where(&engine, "a worker", |observed| observed.workers.len() == 1).await;
    let mut events = session.events();
    let on = |key, place: &str| {
        let workers = Arc::new(Annotations { workers: vec![place.to_owned()], ..Annotations::default() });
        TaskSpec { annotations: workers, ..bench::with(key, "builtins:int", &1) }
    };
    session.submit(vec![on(0, "0"), on(1, "7")]);
    for _ in 0..2 {
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        assert!(matches!(event.state, TaskState::Pending { reason: Some(_) }), "{event:?}");
    }
    let others = engine.load().await.unwrap();
    assert_eq!((unfinished(&others.load), others.workers.len()), (0, 1), "another one like it is of no use");
    bench.kill_worker("1-0").await;
    let nobody = load_where(&engine, "nobody", |observed| observed.workers.is_empty() && unfinished(&observed.load) > 0).await;
    assert_eq!(nobody.load.ready(), 1, "the eighth is not the next: {nobody:?}");
    let same = engine.load().await.unwrap();
    assert_eq!(same.load.ready(), 1, "{same:?}");
    bench.add_worker("0-0").await;
    assert!(matches!(finals(&mut events, 1).await[&0], TaskState::Done(_)));
    bench.end_session(session).await;
    bench.end().await;
}
