//! Where Dask puts our tasks when it changes its mind.

use std::collections::BTreeSet;

use remuda_core::task::{Key, TaskState};
use remuda_dask::{Address, ConnectOptions, Rpc, protocol::value::get};
use tokio::time::{Duration, sleep, timeout};

use crate::{
    alone,
    bench::{self, Bench},
    real::{PATIENCE, Running},
};

/// How many tasks are with a worker, begun or not.
async fn processing(address: &str) -> u64 {
    let mut rpc = Rpc::connect(&address.parse::<Address>().unwrap(), &ConnectOptions::default()).await.unwrap();
    let states = rpc.call("get_task_prefix_states", []).await.unwrap();
    let prefixes = states.body().as_map().unwrap();
    prefixes.iter().filter_map(|(_, states)| get(states, "processing")?.as_u64()).sum()
}

/// Has the worker pause as if its memory were full, or go on.
const PAUSE: &str = "
import sys
from distributed import Client
from distributed.core import Status
def turn(dask_worker, status):
    # Else it sees that there is room.
    dask_worker.memory_manager.memory_pause_fraction = False
    dask_worker.status = status
with Client(sys.argv[1]) as client:
    client.run(turn, status=Status[sys.argv[2]])
sys.stderr.write('turned\\n')
";

async fn turn(bench: &Bench, status: &str) {
    Running::python(PAUSE, &[&bench.address(), status], "turned").await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_on_a_worker_that_has_paused_says_so() {
    let Some(mut bench) = Bench::start("what_waits_on_a_worker_that_has_paused_says_so", &["a"]).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let (gate, code) = bench::gate();
    // Two run on it, the others were sent to it as well.
    session.submit((0..4).map(|key| bench::with(key, "builtins:exec", &code)).collect());
    let given = async {
        while processing(&bench.address()).await < 4 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, given).await.expect("the worker has all of them");
    turn(&bench, "paused").await;
    let (mut begun, mut told) = (BTreeSet::new(), BTreeSet::new());
    let paused = async {
        while told.len() < 2 {
            let event = events.recv().await.expect("the events go on");
            match event.state {
                TaskState::Running { .. } => _ = begun.insert(event.key),
                TaskState::Pending { reason: Some(reason) } => {
                    assert!(reason.contains("worker a has paused"), "{reason}");
                    told.insert(event.key);
                }
                _ => {}
            }
        }
    };
    timeout(PATIENCE, paused).await.expect("it is told why they wait");
    assert!(begun.len() == 2 && begun.is_disjoint(&told), "{begun:?} run, and {told:?} wait");
    turn(&bench, "running").await;
    let resumed = async {
        while !told.is_empty() {
            let event = events.recv().await.expect("the events go on");
            match event.state {
                TaskState::Pending { reason: None } => _ = told.remove(&event.key),
                TaskState::Pending { reason } => panic!("{reason:?}"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, resumed).await.expect("it is told that they wait for nothing but their turn");
    drop(gate);
    let keys: Vec<Key> = (0..4).map(Key).collect();
    timeout(PATIENCE, session.gather(&keys)).await.expect("they end").unwrap();
    // What is queued, and nobody takes.
    turn(&bench, "paused").await;
    session.submit(vec![bench::with(4, "builtins:int", &1)]);
    let queued = async {
        loop {
            let event = events.recv().await.expect("the events go on");
            if let (Key(4), TaskState::Pending { reason: Some(reason) }) = (event.key, event.state) {
                return reason;
            }
        }
    };
    let reason = timeout(PATIENCE, queued).await.expect("it is told why it waits");
    assert!(reason.contains("paused"), "{reason}");
    turn(&bench, "running").await;
    timeout(PATIENCE, session.gather(&[Key(4)])).await.expect("it ends").unwrap();
    bench.end_session(session).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_a_worker_had_in_advance_are_stolen_by_another() {
    let test = "tasks_that_a_worker_had_in_advance_are_stolen_by_another";
    // All at once, so that the second worker can only have what was the first one's.
    let all = [("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "inf")];
    let Some(mut bench) = Bench::start_configured(test, &["a"], alone(), &all).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let (gate, code) = bench::gate();
    let many = 40;
    session.submit((0..many).map(|key| bench::with(key, "builtins:exec", &code)).collect());
    let given = async {
        while processing(&bench.address()).await < many {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, given).await.expect("the first worker has all of them");
    bench.add_worker("b").await;
    let mut gate = Some(gate);
    let (mut places, mut done) = (BTreeSet::new(), BTreeSet::new());
    let all = timeout(PATIENCE, async {
        while done.len() < 40 {
            let event = events.recv().await.expect("the events go on");
            match event.state {
                TaskState::Running { worker, attempt } => {
                    assert_eq!(attempt, 0, "what is stolen has not been tried");
                    places.insert(worker.to_string());
                    if &*worker == "b" {
                        // Stolen before anything was done: only now may any of them end.
                        gate = None;
                    }
                }
                TaskState::Done(_) => assert!(gate.is_none() && done.insert(event.key), "{} twice, or too early", event.key),
                TaskState::Pending { .. } => {}
                other => panic!("{}: {other:?}", event.key),
            }
        }
    });
    all.await.expect("all of them end");
    assert_eq!(places, ["a", "b"].map(str::to_owned).into());
    assert_eq!(session.gather(&(0..many).map(Key).collect::<Vec<_>>()).await.unwrap().len(), 40);
    bench.end_session(session).await;
    bench.end().await;
}
