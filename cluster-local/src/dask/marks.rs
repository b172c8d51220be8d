//! Processes known by a variable in their environment: what a worker has started, in whatever group or session, and whoever is its
//! parent by now.

use std::{fs, time::Duration};

use remuda_core::ledger::MARKER;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// What is killed is gone soon; a machine under load takes its time.
const SOON: Duration = Duration::from_secs(5);

/// Kills every process with that mark and waits for their end. Blocks. Returns the ids of those that are still there.
pub(crate) fn kill(mark: &str) -> Vec<u32> {
    let entry = format!("{MARKER}={mark}");
    // What is killed may have started another one just before.
    for _ in 0..3 {
        let marked = pids().filter_map(|pid| {
            // First the handle, then the look: what is killed is what was looked at.
            let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes()).then_some((pid, handle))
        });
        let found: Vec<_> = marked.filter(|(_, handle)| pidfd_send_signal(handle, Signal::KILL).is_ok()).collect();
        if found.is_empty() {
            return Vec::new();
        }
        let timeout = Timespec::try_from(SOON).ok();
        let left =
            found.iter().filter(|(_, handle)| !poll(&mut [PollFd::new(handle, PollFlags::IN)], timeout.as_ref()).is_ok_and(|n| n > 0));
        let left: Vec<_> = left.map(|(pid, _)| *pid).collect();
        if !left.is_empty() {
            return left;
        }
    }
    Vec::new()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
