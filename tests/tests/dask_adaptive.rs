//! Adaptive scaling of a Dask cluster, whosever tasks there are on it.
#![allow(clippy::unwrap_used, reason = "tests, and helpers that may panic like a test")]

use std::{process::Stdio, sync::Arc, time::Duration};

use remuda_core::{
    adaptive::AdaptConfig,
    class::ClusterClass as _,
    cluster::{Cluster, ClusterOptions, ClusterStatus},
    duration::Seconds,
    manager::Endpoint,
};
use remuda_dask::{DaskConnect, DaskOptions};
use remuda_local::{DaskCluster, DaskConfig, MemoryLimit};
use remuda_tests::dask::{self, PATIENCE};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Dask's own client: a line for each thing to do, a line when it is done.
const CLIENT: &str = "
import os, sys, time
from distributed import Client, wait

def work(n, seconds, path):
    with open(path, 'a') as f:
        f.write('x')
    time.sleep(seconds)
    return bytes(100000) + str(n).encode()

path = sys.argv[2]
with Client(sys.argv[1]) as client:
    for line in sys.stdin:
        what = line.strip()
        if what == 'submit':
            kept = client.map(work, range(6), [1.0] * 6, [path] * 6, pure=False)
            wait(kept)
        elif what == 'gather':
            assert [int(result[100000:]) for result in client.gather(kept)] == list(range(6))
        elif what == 'drop':
            del kept
        print(what, os.path.getsize(path) if os.path.exists(path) else 0, flush=True)
";

struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(address: &str, path: &str) -> Self {
        let mut command = Command::new(dask::interpreter().unwrap());
        command.args(["-c", CLIENT, address, path]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Has it done: how many calls were begun so far.
    async fn ask(&mut self, what: &str) -> usize {
        self.child.stdin.as_mut().unwrap().write_all(format!("{what}\n").as_bytes()).await.unwrap();
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("the client answers").unwrap().expect("the client lives");
        line.strip_prefix(what).expect(what).trim().parse().unwrap()
    }

    async fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success());
    }
}

async fn until(cluster: &Cluster, what: &str, is_so: impl Fn(&ClusterStatus) -> bool + Send + Sync) {
    let mut watch = cluster.watch();
    let seen = timeout(PATIENCE, watch.wait_for(|status| is_so(status))).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "never {what}: {:?}", cluster.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_python_client_scale_the_cluster_and_their_results_stay() {
    if !dask::available("tasks_of_a_python_client_scale_the_cluster_and_their_results_stay").await {
        return;
    }
    let config = DaskConfig {
        n_workers: Some(0),
        threads_per_worker: Some(1),
        memory_limit: MemoryLimit::Bytes(1 << 30),
        python: dask::python(),
        ..DaskConfig::default()
    };
    let adapt = AdaptConfig { maximum: Some(3), interval: Seconds(Duration::from_millis(200)), ..AdaptConfig::default() };
    let connect = Arc::new(DaskConnect::new(DaskOptions::default()));
    let options = ClusterOptions { adapt: Some(adapt), connect, ..ClusterOptions::default() };
    let cluster = Cluster::start(DaskCluster::from_config(config).unwrap(), options).await.unwrap();
    let Endpoint::Dask { address, .. } = cluster.endpoint().unwrap() else { panic!("no Dask") };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("calls");
    let mut client = Client::start(&address, path.to_str().unwrap());

    // From nothing; nothing is known of how long these take, so it is no single worker.
    let mut most = cluster.watch();
    let (calls, peak) = tokio::join!(client.ask("submit"), async {
        let peak = timeout(PATIENCE, most.wait_for(|status| status.running >= 2)).await;
        peak.is_ok_and(|peak| peak.is_ok())
    });
    assert!(calls == 6 && peak, "{calls}: {:?}", cluster.status());
    // Nobody works, and all go but the one that is the last to hold results: they moved there, and nothing is computed again.
    until(&cluster, "one worker", |status| status.workers.len() == 1 && status.running == 1).await;
    assert_eq!(client.ask("gather").await, 6);
    assert_eq!(cluster.status().running, 1, "{:?}", cluster.status());
    // When they are dropped, it goes, too.
    client.ask("drop").await;
    until(&cluster, "empty", |status| status.workers.is_empty()).await;
    // And back.
    assert_eq!(client.ask("submit").await, 12);
    assert_eq!(client.ask("gather").await, 12);
    client.end().await;
    let report = timeout(PATIENCE, cluster.close()).await.unwrap().unwrap();
    assert!(report.remaining.is_empty(), "{report:?}");
}
