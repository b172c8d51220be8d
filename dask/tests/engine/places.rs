//! Where Dask puts our tasks when it changes its mind.

use std::collections::BTreeSet;

use remuda_core::task::{Key, TaskState};
use remuda_dask::{Address, ConnectOptions, Rpc, protocol::value::get};
use tokio::time::{Duration, sleep, timeout};

use crate::{
    alone,
    bench::{self, Bench},
    real::PATIENCE,
};

/// How many tasks are with a worker, begun or not.
async fn processing(address: &str) -> u64 {
    let mut rpc = Rpc::connect(&address.parse::<Address>().unwrap(), &ConnectOptions::default()).await.unwrap();
    let states = rpc.call("get_task_prefix_states", []).await.unwrap();
    let prefixes = states.body().as_map().unwrap();
    prefixes.iter().filter_map(|(_, states)| get(states, "processing")?.as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_a_worker_had_in_advance_are_stolen_by_another() {
    let test = "tasks_that_a_worker_had_in_advance_are_stolen_by_another";
    // All at once, so that the second worker can only have what was the first one's.
    let all = [("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "inf")];
    let Some(mut bench) = Bench::start_configured(test, &["a"], alone(), &all).await else { return };
    let session = bench.session().await;
    let mut events = session.events();
    let gate = tempfile::NamedTempFile::new().unwrap();
    let code = format!("import os, time\nwhile os.path.exists({:?}): time.sleep(0.01)", gate.path());
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
