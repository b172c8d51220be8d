//! Cut connections, ends of drivers, workers and schedulers, and what strangers do.

use super::*;

#[tokio::test]
async fn a_cut_connection_loses_nothing() {
    needs_dask!("a_cut_connection_loses_nothing");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let file = cluster.path("go");
    let defs = [(1, cluster.python("waits_for", json!({}))), (2, cluster.python("add", json!({})))];
    stream.submit(&defs, vec![(1, 1, plain([json!(file)]), vec![])]).await;
    let started = stream.until("started", 1).await;
    assert_eq!((&started[2], &started[3]), (&json!("alpha"), &json!(0)));
    // Nothing was acknowledged. What was sent is sent again, and understood once.
    let n = stream.n;
    drop(stream);
    std::fs::write(&file, "").unwrap();
    let (mut stream, first) = Stream::open(&cluster.address, SESSION, LEASE, Some((n, 0))).await;
    assert_eq!(first, json!({"t": "attached", "resumed": true, "received": n}));
    stream.until("started", 1).await;
    let done = stream.until("done", 1).await;
    stream.n -= 1;
    stream.submit(&defs, vec![(1, 1, plain([json!(file)]), vec![])]).await;
    stream.submit(&[], vec![(2, 2, plain([json!(5)]), vec![])]).await;
    stream.until("done", 2).await;
    assert_eq!(fetch(&mut rpc, &done, &dask_key("flow_tasks:waits_for", SESSION, 1), -1, &["plain"]).await, json!({"plain": file}));
    // Seen events do not come again; a second connection takes over from the first.
    let (mut second, _) = Stream::open(&cluster.address, SESSION, LEASE, Some((stream.n, stream.seen))).await;
    second.submit(&[], vec![(3, 2, plain([json!(5)]), vec![])]).await;
    second.until("done", 3).await;
    assert!(second.told(1).is_empty() && second.told(2).is_empty(), "{:?}", second.told(2));
    second.close().await;
}

#[tokio::test]
async fn a_session_without_its_driver_leaves_nothing_behind() {
    needs_dask!("a_session_without_its_driver_leaves_nothing_behind");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    // Nothing renews it: what is done below comes before it is over.
    let mut stream = cluster.stream(SESSION, 5.0).await;
    let defs = [(1, cluster.python("add", json!({}))), (2, cluster.python("waits_for", json!({})))];
    let never = plain([json!(cluster.path("never"))]);
    stream.submit(&defs, vec![(1, 1, plain([json!(1)]), vec![]), (2, 2, never, vec![]), (3, 2, plain([json!("x")]), vec![])]).await;
    stream.until("done", 1).await;
    drop(stream);
    let gone = async {
        // Every look is a question that the scheduler answers: this waits for nothing else.
        while remains(&mut rpc, "flow_tasks_add", 1, SESSION).await != Value::Nil
            || remains(&mut rpc, "flow_tasks_waits_for", 2, SESSION).await != Value::Nil
            || remains(&mut rpc, "flow_tasks_waits_for", 3, SESSION).await != Value::Nil
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("its keys are released");
    let (_, first) = Stream::open(&cluster.address, SESSION, 0.5, Some((1, 0))).await;
    assert_eq!(first, json!({"t": "unknown"}));
    // Let the thread of the worker go, which nothing can interrupt.
    std::fs::write(cluster.path("never"), "").unwrap();
}

#[tokio::test]
async fn a_lost_worker_is_told_of_and_its_results_come_again() {
    needs_dask!("a_lost_worker_is_told_of_and_its_results_come_again");
    let mut cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    let mut watch = Watch::open(&cluster, false).await;
    let joined = watch.until("joined").await;
    assert_eq!((&joined[1], &joined[2], &joined[4]), (&json!("alpha"), &json!("127.0.0.1"), &json!(1)), "{joined}");
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let file = cluster.path("go");
    let wait = plain([json!(file)]);
    let defs = [(1, cluster.python("add", json!({}))), (2, cluster.python("waits_for", json!({"allowed": 1})))];
    stream.submit(&defs, vec![(1, 1, plain([json!(1)]), vec![]), (2, 2, wait, vec![])]).await;
    stream.until("done", 1).await;
    stream.until("started", 2).await;
    cluster.workers["alpha"].signal("-KILL");
    let left = watch.until("left").await;
    assert_eq!((&left[1], &left[3]), (&json!("alpha"), &json!(true)), "{left}");
    let again = stream.until("again", 2).await;
    assert_eq!((&again[2], &again[3], &again[4]), (&json!("alpha"), &json!(0), &json!(null)), "{again}");
    stream.until("lost", 1).await;
    assert_eq!(stream.until("pending", 2).await[2], "the cluster has no workers");
    cluster.add("beta", &[], &[]).await;
    assert_eq!(watch.until("joined").await[1], "beta");
    let started = stream.until("started", 2).await;
    assert_eq!((&started[2], &started[3]), (&json!("beta"), &json!(1)), "{started}");
    cluster.workers["beta"].signal("-KILL");
    let crashed = stream.until("crashed", 2).await;
    assert_eq!((&crashed[2], &crashed[3]), (&json!("beta"), &json!(2)), "{crashed}");
    cluster.add("gamma", &[], &[]).await;
    // The second worker may have had it done again before it was lost, too.
    let mut done = stream.until("done", 1).await;
    while done[2] == "beta" {
        done = stream.until("done", 1).await;
    }
    assert!(done[2] == "gamma" && done[5].as_u64() >= Some(1), "{done}");
    assert_eq!(fetch(&mut rpc, &done, &dask_key("flow_tasks:add", SESSION, 1), -1, &["plain"]).await, json!({"plain": 1}));
    stream.close().await;
}

/// The keeper's connection.
struct Watch {
    comm: Comm,
    events: Vec<serde_json::Value>,
}

impl Watch {
    async fn open(cluster: &Cluster, owner: bool) -> Self {
        let mut comm = Comm::connect(&cluster.address, &ConnectOptions::default()).await.unwrap();
        let op = shim::op("watch");
        comm.write(&map([("op", op.as_str().into()), ("owner", owner.into()), ("lease", LEASE.into())]).into()).await.unwrap();
        Self { comm, events: Vec::new() }
    }

    async fn until(&mut self, kind: &str) -> serde_json::Value {
        loop {
            if let Some(at) = self.events.iter().position(|event| event[0] == kind) {
                return self.events.remove(at);
            }
            let message = timeout(PATIENCE, self.comm.read()).await.expect("an event in time").unwrap().expect("no end");
            self.events.extend(from_value(message.body())["events"].as_array().unwrap().iter().cloned());
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_moves_its_results() {
    needs_dask!("a_worker_that_is_told_to_end_moves_its_results");
    let mut cluster = Cluster::start(&[]).await;
    cluster.add("alpha", &[], &[("REMUDA_GRACEFUL", "1")]).await;
    let mut rpc = cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    stream.submit(&[(1, cluster.python("add", json!({})))], vec![(1, 1, plain([json!(1)]), vec![])]).await;
    stream.until("done", 1).await;
    cluster.add("beta", &[], &[]).await;
    cluster.workers["alpha"].signal("-TERM");
    let mut alpha = cluster.workers.remove("alpha").unwrap();
    timeout(PATIENCE, alpha.child.wait()).await.expect("it ends").unwrap();
    let key = Value::Array(vec![dask_key("flow_tasks:add", SESSION, 1).into()]);
    let answer = rpc.call("who_has", [("keys", key)]).await.unwrap();
    let holders = from_value(answer.body());
    assert_eq!(holders[dask_key("flow_tasks:add", SESSION, 1)].as_array().map(Vec::len), Some(1), "{holders}");
    // Whatever would have been told of it came before this.
    stream.submit(&[], vec![(2, 1, plain([json!(1)]), vec![])]).await;
    stream.until("done", 2).await;
    assert!(stream.told(1).iter().all(|event| event[0] == "started"), "{:?}", stream.told(1));
    stream.close().await;
}

#[tokio::test]
async fn a_scheduler_ends_after_its_owner() {
    needs_dask!("a_scheduler_ends_after_its_owner");
    let preload = format!("[{:?}]", shim::preload_text(Preload::Line));
    let env = [("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", preload.as_str()), ("REMUDA_LEASE", "0.5"), ("REMUDA_LEASE_GRACE", "3600")];
    let mut cluster = Cluster::start(&env).await;
    cluster.add("alpha", &[], &[]).await;
    let mut watch = Watch::open(&cluster, true).await;
    watch.until("joined").await;
    let load = cluster.rpc().await.call(&shim::op("load"), []).await.unwrap();
    assert_eq!(from_value(load.body())["workers"][0]["name"], "alpha");
    drop(watch);
    let status = timeout(PATIENCE, cluster.scheduler.child.wait()).await.expect("the scheduler ends").unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn what_others_do_to_a_scheduler_ends_tasks_and_harms_no_session() {
    needs_dask!("what_others_do_to_a_scheduler_ends_tasks_and_harms_no_session");
    let mut cluster = Cluster::start(&[]).await;
    cluster.installed().await;
    let mut stream = cluster.stream(SESSION, LEASE).await;
    let file = cluster.path("go");
    let elsewhere = json!({"workers": ["nobody"]});
    let defs = [(1, cluster.python("waits_for", json!({}))), (2, cluster.python("add", json!({}))), (3, cluster.python("add", elsewhere))];
    let waits = |key| (key, 1, plain([json!(file)]), vec![]);
    let reads = |key, of| (key, 2, args(&[Arg::Hole(0)]), vec![[of, -1, 1, 0]]);
    stream.submit(&defs, vec![(2, 3, plain([json!(1)]), vec![])]).await;
    stream.until("pending", 2).await;
    cluster.add("alpha", &[], &[]).await;
    stream.submit(&[], vec![(1, 2, plain([json!(1)]), vec![]), waits(3), reads(4, 3), waits(5)]).await;
    stream.until("done", 1).await;
    stream.until("started", 3).await;
    // A Python client cancels by force what is not its own.
    let key = dask_key("flow_tasks:waits_for", SESSION, 3);
    let address = cluster.address.to_string();
    let script = |what: &str| format!("import distributed as d\nc = d.Client({address:?})\n{what}\nc.close()");
    let cancel = script(&format!("c.cancel([d.Future({key:?}, c)], force=True)"));
    assert!(real::python().args(["-c", &cancel]).status().await.unwrap().success());
    stream.until("gone", 3).await;
    stream.until("gone", 4).await;
    std::fs::write(&file, "").unwrap();
    stream.until("done", 5).await;
    // And restarts the cluster: workers without a nanny end.
    let restart = script("c.restart(wait_for_workers=False)");
    assert!(real::python().args(["-c", &restart]).status().await.unwrap().success());
    for key in [1, 2, 5] {
        stream.until("gone", key).await;
    }
    cluster.add("beta", &[], &[]).await;
    stream.submit(&[], vec![(6, 2, plain([json!(1)]), vec![])]).await;
    stream.until("done", 6).await;
    stream.close().await;
}
