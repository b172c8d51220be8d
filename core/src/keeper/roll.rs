//! The clusters of this process that are not closed yet, for whoever ends the process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::WeakUnboundedSender;

use super::Command;

static ROLL: Roll = Roll { entries: Mutex::new(BTreeMap::new()), changed: Condvar::new() };
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Roll {
    entries: Mutex<BTreeMap<u64, Entry>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Entry {
    /// For people.
    what: String,
    commands: WeakUnboundedSender<Command>,
    /// The runtime of its keeper was dropped: nobody will close it.
    lost: bool,
}

impl Roll {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn what(class: &str, name: &str) -> String {
    format!("cluster {name} ({class})")
}

/// A cluster's name on the roll, struck out when the last holder drops it.
#[derive(Debug)]
pub(crate) struct Listed {
    id: u64,
    ended: AtomicBool,
}

impl Listed {
    pub(crate) fn new(class: &str, name: &str, commands: WeakUnboundedSender<Command>) -> Arc<Self> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        ROLL.lock().insert(id, Entry { what: what(class, name), commands, lost: false });
        Arc::new(Self { id, ended: AtomicBool::new(false) })
    }

    /// Its manager has another name for it.
    pub(crate) fn rename(&self, class: &str, name: &str) {
        ROLL.lock().get_mut(&self.id).into_iter().for_each(|entry| entry.what = what(class, name));
    }

    /// The keeper came to its end; otherwise it was dropped with its runtime.
    pub(crate) fn ended(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut entries = ROLL.lock();
        match self.ended.load(Ordering::Acquire) {
            true => drop(entries.remove(&self.id)),
            false => entries.get_mut(&self.id).into_iter().for_each(|entry| entry.lost = true),
        }
        drop(entries);
        ROLL.changed.notify_all();
    }
}

pub(crate) fn join_all(deadline: Duration) -> Vec<String> {
    let end = Instant::now() + deadline;
    let mut entries = ROLL.lock();
    let closing: Vec<_> = entries.values().filter_map(|entry| entry.commands.upgrade()).collect();
    closing.into_iter().for_each(|commands| drop(commands.send(Command::Close)));
    while entries.values().any(|entry| !entry.lost) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        entries = ROLL.changed.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    let told = |entry: &Entry| match entry.lost {
        true => format!("{}: the runtime that kept it was dropped before it was closed", entry.what),
        false => format!("{}: not closed in time", entry.what),
    };
    entries.values().map(told).collect()
}
