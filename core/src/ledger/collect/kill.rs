//! Ending a process that is known for certain. Everything here blocks.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, getpgid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::Verdict;
use crate::ledger::{MARKER, ProcessId};

/// For a process that was asked to end; then it is killed.
const ASKED: Duration = Duration::from_secs(10);
/// For a process that was killed: longer only if the kernel holds it.
const KILLED: Duration = Duration::from_secs(5);

/// Ends this very process, if it runs.
pub(super) fn end(process: &ProcessId, dry_run: bool) -> Verdict {
    let kept = |why: String| Verdict::Kept { why };
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return kept("its process id is none".into()) };
    // First the handle, then the check: from there on the handle means this process, whoever gets its number.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Some(handle),
        Err(Errno::SRCH) => return Verdict::Gone,
        Err(_) => None, // an old kernel or a strict container: the number has to do
    };
    match (process.is_alive(), dry_run) {
        (Ok(false), _) => return Verdict::Gone,
        (Err(error), _) => return kept(error.to_string()),
        (Ok(true), true) => return Verdict::Removable,
        (Ok(true), false) => {}
    }
    let handle = handle.as_ref().map(AsFd::as_fd);
    for (signal, patience) in [(Signal::TERM, ASKED), (Signal::KILL, KILLED)] {
        match send(process, pid, handle, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return kept(format!("process {} cannot be ended: {error}", process.pid)),
        }
        if wait(process, handle, patience) {
            return Verdict::Removed;
        }
    }
    kept(format!("process {} does not end, not even by SIGKILL", process.pid))
}

/// To the process and, where it leads one, to its group: what it has started itself.
fn send(process: &ProcessId, pid: Pid, handle: Option<BorrowedFd<'_>>, signal: Signal) -> rustix::io::Result<()> {
    // As long as the leader is there, nobody else has a group of that number.
    if process.is_alive().unwrap_or(false) && getpgid(Some(pid)) == Ok(pid) {
        let _ = kill_process_group(pid, signal);
    }
    match handle {
        Some(handle) => pidfd_send_signal(handle, signal),
        None if process.is_alive().unwrap_or(false) => kill_process(pid, signal),
        None => Err(Errno::SRCH),
    }
}

/// Whether it has ended in time.
fn wait(process: &ProcessId, handle: Option<BorrowedFd<'_>>, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    // A handle is readable when its process has ended. Without one, or should the wait be interrupted: look again.
    while process.is_alive().unwrap_or(true) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match handle {
            Some(handle) => {
                let left = Timespec::try_from(left).ok();
                let _ = poll(&mut [PollFd::from_borrowed_fd(handle, PollFlags::IN)], left.as_ref());
            }
            None => std::thread::sleep(left.min(Duration::from_millis(50))),
        }
    }
    true
}

/// The process with this marker in its environment, whose id the driver did not come round to writing down. Those that it has started carry
/// the marker, too: it is the oldest.
pub(super) fn marked(marker: &str) -> Option<ProcessId> {
    let line = format!("{MARKER}={marker}");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pids = pids.filter(|pid| *pid != std::process::id());
    let carries = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == line.as_bytes())
    };
    pids.filter(carries).filter_map(|pid| ProcessId::of(pid).ok()?).min_by_key(|process| process.start)
}
