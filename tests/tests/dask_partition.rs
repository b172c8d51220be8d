//! The driver and its cluster cut off from each other: a cluster in a network namespace of its own, and packets that vanish.
//!
//! Needs root and `ip`; elsewhere skipped by name, and with `netns` in `REMUDA_REQUIRE` that is a failure.
#![allow(clippy::unwrap_used, reason = "tests, and helpers that may panic like a test")]

mod dask_site;

use std::{
    future::pending,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use dask_site::{FAULTS, runner};
use remuda::python;
use remuda_tests::dask::{self, Dask, Site};

/// A namespace and a cable to it. Gone when it is dropped.
#[derive(Debug)]
struct Net {
    name: String,
    ours: String,
    theirs: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split_whitespace()).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}

impl Net {
    fn new() -> Result<Self, String> {
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Relaxed));
        // Four addresses out of those that RFC 2544 sets apart for benchmarks.
        let (third, fourth) = (pid % 251, (pid / 251 * 8 + count * 4) % 252);
        let address = |n| format!("198.18.{third}.{}", fourth + n);
        let net = Self { name: format!("remuda-{pid}-{count}"), ours: address(1), theirs: address(2) };
        let (name, here, there) = (&net.name, format!("rm{pid}a{count}"), format!("rm{pid}b{count}"));
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {here} type veth peer name {there} netns {name}"))?;
        ip(&format!("addr add {}/30 dev {here}", net.ours))?;
        ip(&format!("link set {here} up"))?;
        // What comes from where nothing can be sent to is dropped.
        ip(&format!("netns exec {name} sysctl -qw net.ipv4.conf.all.rp_filter=1"))?;
        ip(&format!("-n {name} addr add {}/30 dev {there}", net.theirs))?;
        ip(&format!("-n {name} link set {there} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        Ok(net)
    }

    /// From here on nothing passes, in either direction, and nobody is told.
    fn cut(&self) {
        ip(&format!("-n {} route add blackhole {}/32", self.name, self.ours)).unwrap();
    }

    fn heal(&self) {
        ip(&format!("-n {} route del blackhole {}/32", self.name, self.ours)).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(ip(&format!("netns del {}", self.name)));
    }
}

async fn net(test: &str) -> Option<Net> {
    if !dask::available(test).await {
        return None;
    }
    match Net::new() {
        Ok(net) => Some(net),
        Err(missing) => {
            dask::skip(test, "netns", &missing);
            None
        }
    }
}

async fn cluster(net: &Net) -> Dask {
    let site = Site { namespace: Some((net.name.clone(), net.theirs.clone())), ..Site::default() }.module("faults.py", FAULTS);
    Dask::start(site, 2).await.unwrap()
}

/// A task that says that it runs by a file, and ends when there is another.
fn hold(directory: &Path, label: &str) -> remuda::Call<String> {
    python("faults:hold").arg(directory.to_string_lossy().into_owned()).arg(label).call()
}

async fn runs(directory: &Path, label: &str) {
    let file = directory.join(format!("{label}.runs"));
    while !file.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[remuda::test]
async fn a_partition_shorter_than_the_lease_loses_nothing() {
    let Some(net) = net("a_partition_shorter_than_the_lease_loses_nothing").await else { return };
    let cluster = cluster(&net).await;
    let runner = runner(&cluster);
    let directory = cluster.directory().to_owned();
    let run = runner.run_until(pending(), |flow| async move {
        let before = flow.submit(python("faults:word").call::<String>());
        before.done().await;
        let held = flow.submit(hold(&directory, "held"));
        let after = flow.submit(python("faults:twice").arg(&held).call::<String>());
        Ok((before.await?, held.await?, after.await?))
    });
    let cut = async {
        runs(cluster.directory(), "held").await;
        // The one that needs it is there, too.
        let script = "def waits(dask_scheduler):
    return any(state.state == 'waiting' for state in dask_scheduler.tasks.values())
while not client.run_on_scheduler(waits):
    time.sleep(0.05)";
        cluster.python(script).await.unwrap();
        net.cut();
        std::fs::write(cluster.directory().join("held.go"), "").unwrap();
        // It ends, and the next one with it, while nobody can be told.
        let script = "def runs(dask_scheduler):
    return any(state.state != 'memory' for state in dask_scheduler.tasks.values())
while client.run_on_scheduler(runs):
    time.sleep(0.05)";
        cluster.python(script).await.unwrap();
        net.heal();
    };
    let (finished, ()) = tokio::join!(run, cut);
    let (word, held, after) = finished.result.unwrap();
    assert_eq!((word.len(), held.as_str(), after.as_str()), (32, "held", "heldheld"));
    assert_eq!((finished.report.tasks.done, finished.report.tasks.retried), (3, 0));
    let runs = std::fs::read_to_string(cluster.directory().join("held.runs")).unwrap();
    assert_eq!(runs.lines().count(), 1, "the body ran once");
    cluster.forgets().await.unwrap();
}

#[remuda::test]
async fn a_partition_longer_than_the_lease_is_an_error_with_its_name() {
    let Some(net) = net("a_partition_longer_than_the_lease_is_an_error_with_its_name").await else { return };
    let cluster = cluster(&net).await;
    let runner = runner(&cluster);
    let directory = cluster.directory().to_owned();
    let run = runner.run_until(pending(), |flow| async move { Ok(flow.submit(hold(&directory, "held")).await?) });
    let cut = async {
        runs(cluster.directory(), "held").await;
        net.cut();
        // The lease runs out: what we wanted is forgotten.
        cluster.forgets().await.unwrap();
        net.heal();
    };
    let (finished, ()) = tokio::join!(run, cut);
    std::fs::write(cluster.directory().join("held.go"), "").unwrap();
    let error = finished.result.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    let text = error.to_string();
    assert!(text.contains("lease") || text.contains("connection") || text.contains("scheduler"), "{text}");
}
