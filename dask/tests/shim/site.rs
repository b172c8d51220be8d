//! How it comes to a scheduler, and what keeps it from there.

use remuda_core::error::ErrorKind;
use remuda_dask::shim::{self, Preload};
use serde_json::json;

use crate::{
    LEASE, SESSION,
    support::{Cluster, from_value, plain},
};

#[tokio::test]
async fn it_is_installed_once_whoever_asks() {
    needs_dask!("it_is_installed_once_whoever_asks");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let all = futures_of(15, || async {
        let mut rpc = cluster.rpc().await;
        shim::install(&mut rpc).await.unwrap()
    });
    let hellos = all.await;
    assert!(hellos.windows(2).all(|pair| pair[0] == pair[1]) && hellos[0].workers == 1, "{hellos:?}");
    let mut rpc = cluster.installed().await;
    let there = from_value(rpc.call("remuda_shims", []).await.unwrap().body());
    assert_eq!(there, json!([{"hash": shim::hash(), "protocol": shim::PROTOCOL, "version": env!("CARGO_PKG_VERSION")}]));
    let mut stream = cluster.stream(SESSION, LEASE).await;
    stream.submit(&[(1, cluster.python("add", json!({})))], vec![(1, 1, plain([json!(1)]), vec![])]).await;
    stream.until("done", 1).await;
    stream.alive().await;
    assert!(stream.told(1).iter().all(|event| event[0] != "done"), "told once: {:?}", stream.told(1));
    stream.close().await;
}

/// So many at once.
async fn futures_of<T, F: Future<Output = T>>(n: usize, make: impl Fn() -> F) -> Vec<T> {
    let mut pending: Vec<_> = (0..n).map(|_| Box::pin(make())).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                results.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results
}

#[tokio::test]
async fn a_site_may_block_it_and_preload_it() {
    needs_dask!("a_site_may_block_it_and_preload_it");
    let blocked = ("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", r#"["register_scheduler_plugin", "register_worker_plugin"]"#);
    let cluster = Cluster::start(&[blocked]).await;
    let error = shim::install(&mut cluster.rpc().await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.hint().unwrap().contains("--preload"), "{error:?}");
    drop(cluster);

    // Another version's is no use, and is named.
    let other = shim::preload_text(Preload::Plain).replace(shim::hash(), "0badcafe").replace(env!("CARGO_PKG_VERSION"), "9.9.9");
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("shim.py");
    std::fs::write(&file, other).unwrap();
    let preload = format!("[{:?}]", file.to_str().unwrap());
    let name = "DASK_DISTRIBUTED__SCHEDULER__PRELOAD";
    let cluster = Cluster::start(&[blocked, (name, &preload)]).await;
    let error = shim::install(&mut cluster.rpc().await).await.unwrap_err();
    assert!(error.message().contains("9.9.9"), "{error:?}");
    drop(cluster);
    // Where nothing is blocked both live there.
    let mut cluster = Cluster::start(&[(name, &preload)]).await;
    cluster.add("alpha", &[], &[]).await;
    let mut rpc = cluster.installed().await;
    assert_eq!(from_value(rpc.call("remuda_shims", []).await.unwrap().body()).as_array().unwrap().len(), 2);
    run_one(&cluster).await;
    drop(cluster);

    // Preloaded in the scheduler alone, its workers get it from there.
    let line = shim::preload_text(Preload::Line);
    assert!(!line.contains('\n'));
    let preload = format!("[{line:?}]");
    let mut cluster = Cluster::start(&[blocked, (name, &preload)]).await;
    cluster.add("alpha", &[], &[]).await;
    cluster.installed().await;
    run_one(&cluster).await;
}

/// A later Dask, whose scheduler wants to be told something that nobody knows of today.
const LATER: &str = "
import inspect
from distributed import Scheduler

def dask_setup(scheduler):
    known = inspect.signature(Scheduler.update_graph)
    more = inspect.Parameter('from_the_future', inspect.Parameter.KEYWORD_ONLY)
    parameters = sorted([*known.parameters.values(), more], key=lambda parameter: parameter.kind)
    Scheduler.update_graph.__signature__ = known.replace(parameters=parameters)
";

#[tokio::test]
async fn a_scheduler_of_unknown_ways_is_refused_with_their_name() {
    needs_dask!("a_scheduler_of_unknown_ways_is_refused_with_their_name");
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("later.py");
    std::fs::write(&file, LATER).unwrap();
    let mut cluster = Cluster::start(&[("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", &format!("[{:?}]", file.to_str().unwrap()))]).await;
    cluster.add("alpha", &[], &[]).await;
    cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    stream.submit(&[(1, cluster.python("add", json!({})))], vec![(1, 1, plain([json!(1)]), vec![])]).await;
    let refused = stream.until("refused", 1).await;
    assert_eq!(refused[2], "unsupported", "{refused}");
    assert!(refused[3].as_str().unwrap().ends_with("`update_graph` wants from_the_future"), "{refused}");
    assert!(refused[4].as_str().unwrap().contains("supported"), "{refused}");
    stream.close().await;
}

async fn run_one(cluster: &Cluster) {
    let mut stream = cluster.stream(SESSION, LEASE).await;
    stream.submit(&[(1, cluster.python("add", json!({})))], vec![(1, 1, plain([json!(1)]), vec![])]).await;
    stream.until("done", 1).await;
    stream.close().await;
}
