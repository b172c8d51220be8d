//! Holds the workers' processes to `memory_limit`. Sleeps while nothing runs: what is idle does not grow.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    manager::WorkerId,
};

use crate::{
    engine::{RunnerId, Shared},
    runner::Message,
    units::bytes_text,
};

/// How long a process may be over the limit unseen.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Monitor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    watching: AtomicBool,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Monitor {
    pub(crate) fn start(&self, shared: Weak<Shared>, limit: u64) -> Result<()> {
        let inner = self.0.clone();
        let thread = std::thread::Builder::new().name("remuda memory".into());
        let started = thread.spawn(move || inner.run(&shared, limit));
        started
            .map(drop)
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the thread that watches memory could not be started").with_source(e))
    }

    /// Something runs.
    pub(crate) fn wake(&self) {
        if !self.0.watching.swap(true, Ordering::AcqRel) {
            drop(self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.changed.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_one();
    }
}

impl Inner {
    fn run(&self, shared: &Weak<Shared>, limit: u64) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            if !self.watching.load(Ordering::Acquire) {
                stopped = self.changed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(stopped);
            // Before looking: what begins from now on wakes us again.
            self.watching.store(false, Ordering::Release);
            let Some(shared) = shared.upgrade() else { return };
            if look(&shared, limit) {
                self.watching.store(true, Ordering::Release);
            }
            drop(shared);
            stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            if !*stopped {
                stopped = self.changed.wait_timeout(stopped, PERIOD).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Kills the largest process of every worker over the limit. Whether anything runs.
fn look(shared: &Shared, limit: u64) -> bool {
    let mut workers: BTreeMap<WorkerId, Vec<(RunnerId, u32)>> = BTreeMap::new();
    let mut busy = false;
    for (id, handle) in &shared.state().runners {
        busy |= handle.current.is_some();
        workers.entry(handle.worker).or_default().extend(handle.children.iter().map(|pid| (*id, *pid)));
    }
    for (worker, children) in workers {
        let sizes: Vec<_> = children.into_iter().map(|(runner, pid)| (tree(pid), runner, pid)).collect();
        let used: u64 = sizes.iter().map(|(bytes, ..)| bytes).sum();
        if used > limit
            && let Some((_, runner, pid)) = sizes.into_iter().max()
        {
            let cause = format!("memory_limit {} exceeded: the worker used {}", bytes_text(limit), bytes_text(used));
            tracing::warn!(worker = %worker, pid, cause, "a worker process is killed");
            if let Some(handle) = shared.state().runners.get(&runner) {
                handle.mailbox.send(Message::Kill { pid, cause });
            }
        }
    }
    busy
}

/// Resident bytes of a process and all it has started.
pub(crate) fn tree(pid: u32) -> u64 {
    let (mut sum, mut left) = (0, vec![pid]);
    while let Some(pid) = left.pop() {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        sum += pages * rustix::param::page_size() as u64;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    sum
}
