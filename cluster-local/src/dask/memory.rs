//! `memory_limit`, for a worker with all it has started: Dask's own watch sees the worker's process alone.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::task::spawn_blocking;

use super::{inner::Inner, process::Process};
use crate::{monitor::tree, units::bytes_text};

/// How long a worker may be over the limit unseen.
const PERIOD: Duration = Duration::from_millis(200);

/// Kills workers over the limit, until the cluster is gone.
pub(super) async fn watch(cluster: Weak<Inner>, limit: u64) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(workers) = cluster.upgrade().map(|cluster| cluster.running()) else { return };
        let _ = spawn_blocking(move || workers.iter().for_each(|worker| look(worker, limit))).await;
    }
}

fn look(worker: &Arc<Process>, limit: u64) {
    let used = tree(worker.pid());
    // Dead by now, its number may be somebody else's: what was measured does not count.
    if used > limit && worker.end().is_none() {
        let cause = format!("memory_limit {} exceeded: the worker used {}", bytes_text(limit), bytes_text(used));
        tracing::warn!(worker = worker.name(), pid = worker.pid(), cause, "a worker is killed");
        worker.kill(Some(cause));
    }
}
