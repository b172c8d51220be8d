//! The shim in real schedulers and workers: the `dask` on the PATH, or the one that `REMUDA_DASK` names. Each side of the protocol is
//! written out by hand here.
//!
//! Skipped by name where there is none; with `dask` in `REMUDA_REQUIRE` that is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test may panic")]

macro_rules! needs_dask {
    ($name:literal) => {
        if !$crate::real::can_run($name).await {
            return;
        }
    };
}

mod alone;
mod losses;
mod modules;
#[path = "../real/mod.rs"]
mod real;
mod site;
mod support;

use remuda_dask::{
    Comm, ConnectOptions,
    protocol::{Value, value::map},
    shim::{self, Preload},
};
use serde_json::json;
use tokio::time::timeout;

use self::{
    real::{PATIENCE, Running},
    support::{Arg, Cluster, Stream, args, dask_key, fetch, from_value, plain},
};

const SESSION: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
/// In seconds. Nobody renews it here: longer than any test, on the slowest machine.
const LEASE: f64 = 600.0;

#[tokio::test]
async fn python_tasks_run_and_their_results_come_back() {
    needs_dask!("python_tasks_run_and_their_results_come_back");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let defs = [
        (1, cluster.python("add", json!({}))),
        (2, cluster.python("make_odd", json!({}))),
        (3, cluster.python("of_odd", json!({}))),
        (4, cluster.python("later", json!({}))),
        (5, cluster.python("in_client", json!({"timeout": 60.0}))),
        (6, cluster.python("add", json!({"slots": 0}))),
    ];
    stream
        .submit(
            &defs,
            vec![
                (1, 1, plain([json!(1), json!(2)]), vec![]),
                (2, 1, args(&[Arg::Hole(0), Arg::Plain(json!(10)), Arg::Hole(1)]), vec![[1, -1, 1, 0], [1, -1, 1, 1], [1, -1, 1, -1]]),
                (3, 2, plain([json!(7)]), vec![]),
                (4, 3, args(&[Arg::Hole(0)]), vec![[3, -1, 1, 0]]),
                (5, 4, plain([json!("x")]), vec![]),
                (6, 5, plain([json!(21)]), vec![]),
                (7, 6, plain([json!(1)]), vec![]),
            ],
        )
        .await;
    let key_of = |key, name: &str| (key, dask_key(&format!("flow_tasks:{name}"), SESSION, key));
    let wanted = [("add", json!(3)), ("add", json!(16)), ("make_odd", json!(null)), ("of_odd", json!(7)), ("later", json!("x"))];
    let wanted = wanted.into_iter().chain([("in_client", json!(42)), ("add", json!(1))]);
    for (key, (name, value)) in (1..).zip(wanted) {
        let (key, dask_key) = key_of(key, name);
        let done = stream.until("done", key).await;
        assert_eq!((&done[2], &done[5], &done[7]), (&json!("alpha"), &json!(0), &json!(null)), "{done}");
        if name == "make_odd" {
            assert_eq!(fetch(&mut rpc, &done, &dask_key, -1, &["text"]).await, json!(["text", "Odd(7)", "flow_tasks.Odd"]));
            let refused = fetch(&mut rpc, &done, &dask_key, -1, &["plain", "arrow"]).await;
            assert!(refused[0] == "error" && refused[2].as_str().unwrap().contains("`flow_tasks.Odd` has no plain form"), "{refused}");
        } else {
            assert_eq!(fetch(&mut rpc, &done, &dask_key, -1, &["plain"]).await, json!({"plain": value}), "{name}");
        }
        assert_eq!(fetch(&mut rpc, &done, "no-such-key", -1, &["plain"]).await, json!(["missing"]));
    }
    stream.close().await;
    assert_eq!(remains(&mut rpc, "flow_tasks_add", 1, SESSION).await, Value::Nil);
}

/// The state that the scheduler has a task in.
async fn remains(rpc: &mut remuda_dask::Rpc, name: &str, key: u64, session: &str) -> Value {
    let key = dask_key(name, session, key);
    let answer = rpc.call("get_task_status", [("keys", Value::Array(vec![key.as_str().into()]))]).await.unwrap();
    remuda_dask::protocol::value::get(answer.body(), &key).unwrap().clone()
}

#[tokio::test]
async fn failures_are_told_in_text() {
    needs_dask!("failures_are_told_in_text");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let defs = [
        (1, cluster.python("divide", json!({}))),
        (2, cluster.python("time:sleep", json!({"timeout": 0.3}))),
        (3, cluster.python("no_such_module.x:f", json!({}))),
        (4, cluster.python("ad", json!({}))),
        (5, cluster.python("fails_once", json!({"retries": 1}))),
        (6, cluster.python("leave", json!({}))),
        (7, cluster.python("broken:f", json!({}))),
    ];
    std::fs::write(cluster.path("broken.py"), "def f(x:\n    return 1\n").unwrap();
    let marker = cluster.path("marker");
    stream
        .submit(
            &defs,
            vec![
                (1, 1, plain([json!(1), json!(0)]), vec![]),
                (2, 2, plain([json!(3600)]), vec![]),
                (3, 3, plain([]), vec![]),
                (4, 4, plain([]), vec![]),
                (5, 5, plain([json!(marker)]), vec![]),
                (6, 6, plain([json!(3)]), vec![]),
                (7, 99, plain([]), vec![]),
                (8, 7, plain([]), vec![]),
                (9, 1, plain([json!(1)]), vec![]),
            ],
        )
        .await;
    // One task that makes no sense takes no others with it.
    let refused = stream.until("refused", 7).await;
    assert_eq!(refused[2], "unexpected", "{refused}");
    let failed = stream.until("failed", 1).await;
    assert_eq!(
        (&failed[2], &failed[4]["kind"], &failed[4]["message"]),
        (&json!("alpha"), &json!("ZeroDivisionError"), &json!("division by zero"))
    );
    let traceback = failed[4]["traceback"].as_str().unwrap();
    assert!(traceback.contains("flow_tasks.py") && !traceback.contains("_remuda"), "{traceback}");
    let failed = stream.until("failed", 2).await;
    assert_eq!((&failed[4]["kind"], &failed[4]["message"]), (&json!("TimeoutError"), &json!("it did not end within its timeout of 300ms")));
    let failed = stream.until("failed", 3).await;
    assert!(failed[4]["kind"].is_null(), "{failed}");
    assert!(failed[4]["message"].as_str().unwrap().starts_with("there is no Python module `no_such_module`; searched in "), "{failed}");
    let failed = stream.until("failed", 4).await;
    assert!(failed[4]["message"].as_str().unwrap().starts_with("module `flow_tasks` has no `ad`; did you mean `add`?"), "{failed}");
    let again = stream.until("again", 5).await;
    assert_eq!((&again[2], &again[3], &again[4]["message"]), (&json!("alpha"), &json!(0), &json!("first")), "{again}");
    let done = stream.until("done", 5).await;
    assert_eq!(done[5], 1, "{done}");
    let failed = stream.until("failed", 6).await;
    assert_eq!((&failed[4]["kind"], &failed[4]["message"]), (&json!("SystemExit"), &json!("exit code 3")));
    // Frames are the user's, or there is none; what has none does not say its message again.
    let failed = stream.until("failed", 8).await;
    let traceback = failed[4]["traceback"].as_str().unwrap();
    assert!(
        failed[4]["kind"] == "SyntaxError" && traceback.contains("broken.py\", line 1") && !traceback.contains("importlib"),
        "{failed}"
    );
    let failed = stream.until("failed", 9).await;
    assert_eq!((&failed[4]["kind"], &failed[4]["traceback"]), (&json!("TypeError"), &json!(null)), "{failed}");
    // The slot of the one that was not in time is free, and a session that was sent nonsense goes on.
    stream.submit(&[(8, cluster.python("add", json!({})))], vec![(20, 8, plain([json!(1)]), vec![])]).await;
    stream.until("done", 20).await;
    stream.close().await;
    assert_eq!(remains(&mut rpc, "flow_tasks_divide", 1, SESSION).await, Value::Nil);
}

#[tokio::test]
async fn a_batch_keeps_its_elements_apart() {
    needs_dask!("a_batch_keeps_its_elements_apart");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let array = |elements: &[Vec<u8>]| {
        let elements: Vec<_> = elements.iter().map(|element| serde_bytes::Bytes::new(element)).collect();
        rmp_serde::to_vec(&elements).unwrap()
    };
    let divisions = array(&[plain([json!(6), json!(2)]), plain([json!(1), json!(0)]), plain([json!(8), json!(2)])]);
    let sums = array(&[args(&[Arg::Hole(0), Arg::Plain(json!(1))]), args(&[Arg::Hole(1)]), args(&[Arg::Hole(2), Arg::Hole(0)])]);
    let files = array(&[plain([json!(cluster.path("a"))]), plain([json!(cluster.path("b"))])]);
    let defs = [
        (1, cluster.python("divide", json!({"batch": true}))),
        (2, cluster.python("add", json!({"batch": true}))),
        (3, cluster.python("fails_once", json!({"batch": true, "retries": 1}))),
        (4, cluster.python("add", json!({}))),
    ];
    stream
        .submit(
            &defs,
            vec![
                (1, 1, divisions, vec![]),
                (2, 2, sums, vec![[1, 0, 1, 0], [1, 1, 1, 1], [1, 2, 1, 2]]),
                (3, 3, files, vec![]),
                (4, 4, args(&[Arg::Hole(0)]), vec![[1, 1, 1, 0]]),
            ],
        )
        .await;
    let done = stream.until("done", 1).await;
    assert_eq!((&done[7][0][0], &done[7][0][1]["kind"], &done[7][1]), (&json!(1), &json!("ZeroDivisionError"), &json!(null)), "{done}");
    let key = dask_key("flow_tasks:divide", SESSION, 1);
    assert_eq!(fetch(&mut rpc, &done, &key, 2, &["plain"]).await, json!({"plain": 4.0}));
    assert_eq!(fetch(&mut rpc, &done, &key, 1, &["plain"]).await[0], "error");
    assert_eq!(fetch(&mut rpc, &done, &key, 3, &["plain"]).await, json!(["missing"]));
    let done = stream.until("done", 2).await;
    assert_eq!((&done[7][0][0], &done[7][0][1]["upstream"], &done[7][1]), (&json!(1), &json!(true), &json!(null)), "{done}");
    assert_eq!(fetch(&mut rpc, &done, &dask_key("flow_tasks:add", SESSION, 2), 2, &["plain"]).await, json!({"plain": 7.0}));
    let done = stream.until("done", 3).await;
    assert!(done[7].is_null(), "tried again in place: {done}");
    let failed = stream.until("failed", 4).await;
    assert_eq!(failed[4]["kind"], "Upstream", "{failed}");
    stream.close().await;
}

#[tokio::test]
async fn what_keeps_a_task_from_running_is_told() {
    needs_dask!("what_keeps_a_task_from_running_is_told");
    let mut cluster = Cluster::start(&[]).await;
    cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let add = |more| cluster.python("add", more);
    let defs = [
        (1, add(json!({"resources": {"GPU": 2}}))),
        (2, add(json!({"resources": {"GUP": 1}}))),
        (3, add(json!({"workers": ["7"]}))),
        (4, add(json!({"workers": ["omega"], "loose": true}))),
        (5, add(json!({"workers": ["alpha"], "priority": 3, "resources": {"GPU": 1}}))),
    ];
    let one = || plain([json!(1)]);
    stream.submit(&defs, (1..=5).map(|key| (key, key, one(), vec![])).collect()).await;
    // Without any worker all of them may still come.
    for key in 1..=5 {
        assert_eq!(stream.until("pending", key).await[2], "the cluster has no workers");
    }
    cluster.add("alpha", &["--resources", "GPU=1"], &[]).await;
    let reasons = [
        (1, "no worker offers GPU=2; the most any offers is GPU=1"),
        (2, "no worker offers GUP=1; none offers any GUP; did you mean `GPU`?"),
        (3, "no worker is called `7`; there are alpha"),
    ];
    for (key, reason) in reasons {
        assert_eq!(stream.until("pending", key).await[2], reason);
    }
    stream.until("done", 4).await;
    stream.until("done", 5).await;
    // What none of those that are there fits is refused at once; what needs it does not go either.
    stream.submit(&[], vec![(6, 1, one(), vec![]), (7, 3, one(), vec![]), (8, 4, one(), vec![[6, -1, 1, -1]])]).await;
    for (key, (_, reason)) in [(6, reasons[0]), (7, reasons[2])] {
        let refused = stream.until("refused", key).await;
        assert_eq!((&refused[2], &refused[3]), (&json!("unschedulable"), &json!(reason)));
        assert!(refused[4].is_string(), "what to do is said: {refused}");
    }
    stream.until("refused", 8).await;
    cluster.add("7", &["--resources", "GPU=2"], &[]).await;
    for key in [1, 3] {
        let done = stream.until("done", key).await;
        assert_eq!(done[2], "7", "{done}");
    }
    // One that was there may be there again, under the same name.
    cluster.workers.remove("alpha").unwrap().end().await;
    let pinned = cluster.python("add", json!({"workers": ["alpha"]}));
    stream.submit(&[(6, pinned)], vec![(9, 6, one(), vec![])]).await;
    assert_eq!(stream.until("pending", 9).await[2], "no worker is called `alpha`; there are 7");
    cluster.add("alpha", &[], &[]).await;
    assert_eq!(stream.until("done", 9).await[2], "alpha");
    stream.release(&[2]).await;
    stream.close().await;
}

#[tokio::test]
async fn a_worker_with_many_short_tasks_tells_of_several_at_once() {
    needs_dask!("a_worker_with_many_short_tasks_tells_of_several_at_once");
    let mut cluster = Cluster::start(&[("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "inf")]).await;
    cluster.add("alpha", &[], &[]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let first = cluster.python("intervals", json!({}));
    stream.submit(&[(1, first)], (1..=1000).map(|key| (key, 1, plain([]), vec![])).collect()).await;
    for from in [1001, 2001] {
        stream.submit(&[], (from..from + 1000).map(|key| (key, 1, plain([]), vec![])).collect()).await;
    }
    let last = stream.until("done", 3000).await;
    let seen = fetch(&mut rpc, &last, &dask_key("flow_tasks:intervals", SESSION, 3000), -1, &["plain"]).await;
    assert_eq!(seen, json!({"plain": [0.002, 0.01]}));
    // Only while it is so.
    let usual = cluster.python("usual", json!({"timeout": 60.0}));
    stream.submit(&[(2, usual)], vec![(3001, 2, plain([]), vec![])]).await;
    let done = stream.until("done", 3001).await;
    let usual = fetch(&mut rpc, &done, &dask_key("flow_tasks:usual", SESSION, 3001), -1, &["plain"]).await;
    assert_eq!(usual, json!({"plain": 0.002}));
    stream.close().await;
}

#[tokio::test]
async fn sessions_do_not_touch_each_other() {
    needs_dask!("sessions_do_not_touch_each_other");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut one = cluster.stream(SESSION, LEASE).await;
    let mut two = cluster.stream(OTHER, LEASE).await;
    for stream in [&mut one, &mut two] {
        stream.submit(&[(1, cluster.python("add", json!({})))], vec![(1, 1, plain([json!(1)]), vec![])]).await;
    }
    one.until("done", 1).await;
    let done = two.until("done", 1).await;
    one.close().await;
    assert_eq!(remains(&mut rpc, "flow_tasks_add", 1, SESSION).await, Value::Nil);
    assert_eq!(fetch(&mut rpc, &done, &dask_key("flow_tasks:add", OTHER, 1), -1, &["plain"]).await, json!({"plain": 1}));
    two.close().await;
}

#[tokio::test]
async fn a_worker_is_checked_before_anything_is_submitted() {
    needs_dask!("a_worker_is_checked_before_anything_is_submitted");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let modules = Value::Array(vec!["flow_tasks".into(), "no_such_module.x".into()]);
    let paths = Value::Array(vec![cluster.path("").into(), "/no/such/directory".into()]);
    let answer = rpc.call(&shim::op("prepare"), [("modules", modules), ("paths", paths)]).await.unwrap();
    let answer = from_value(answer.body());
    assert_eq!((&answer["alpha"]["missing"], &answer["alpha"]["error"]), (&json!(["no_such_module.x"]), &json!(null)), "{answer}");
    assert_eq!(answer["alpha"]["python"][0], 3);
}

/// What is set aside is what Python's full collections do not go over.
#[tokio::test]
async fn a_large_submission_is_set_aside_until_it_is_gone() {
    needs_dask!("a_large_submission_is_set_aside_until_it_is_gone");
    let cluster = Cluster::start(&[]).await;
    cluster.installed().await;
    let set_aside = format!(
        "import distributed as d, gc\nprint('there:', d.Client({:?}).run_on_scheduler(gc.get_freeze_count), file=__import__('sys').stderr)",
        cluster.address.to_string()
    );
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let definition = cluster.python("add", json!({}));
    for first in (0..6000).step_by(1000) {
        stream.submit(&[(1, definition.clone())], (first..first + 1000).map(|key| (key, 1, plain([json!(1)]), vec![])).collect()).await;
    }
    stream.until("pending", 5999).await;
    let count = || async { Running::python(&set_aside, &[], "there:").await.said.parse::<u64>().unwrap() };
    assert!(count().await > 6000, "none");
    stream.close().await;
    let given_back = async { while count().await > 0 {} };
    timeout(PATIENCE, given_back).await.expect("it is given back");
}
