//! A driver that is to be killed: this test program, started again for its test `driver_entry`.
#![allow(dead_code, reason = "not both test programs need all of it")]

use std::{
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    process::{Child, ChildStderr, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

const AS_DRIVER: &str = "REMUDA_TEST_DRIVER";

/// Whether this process is to be killed.
pub(crate) fn is_driver() -> bool {
    std::env::var_os(AS_DRIVER).is_some()
}

/// It ends with `kill -9`, also when the test fails.
pub(crate) struct Driver {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Driver {
    /// `entry`: its test, by its whole name.
    pub(crate) fn start(entry: &str, edit: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([entry, "--exact", "--nocapture"]).env(AS_DRIVER, "1").stdout(Stdio::null()).stderr(Stdio::piped());
        edit(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// What stands behind `word` on the next line that begins with it.
    pub(crate) fn told(&mut self, word: &str) -> Vec<String> {
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the driver tells its {word}");
        }
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    /// The processes that it has told.
    pub(crate) fn children(&mut self) -> Vec<u32> {
        self.told("children ").iter().map(|pid| pid.parse().unwrap()).collect()
    }

    /// `end`: how.
    pub(crate) fn end(mut self, end: impl FnOnce(u32)) {
        end(self.child.id());
        self.child.wait().unwrap();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a process is known by, whoever gets its number later.
pub(crate) fn handle(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Waits for the end of a process that need not be our child.
pub(crate) fn ended(pid: u32, handle: &OwnedFd) {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    // Generous for a loaded machine; without an end it would be an hour.
    let count = poll(&mut fds, Some(&Timespec { tv_sec: 120, tv_nsec: 0 })).unwrap();
    assert_eq!(count, 1, "process {pid} does not end");
}
