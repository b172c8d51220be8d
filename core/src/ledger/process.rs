//! Which process it was, so that one that got its id later is not taken for it.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// One process, for as long as the machine runs: process ids are used again, but not with the same start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine's boot: field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// Which boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessId {
    /// The process that has this id now. `None`: there is none.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Option<Self>> {
        let Some(stat) = Stat::of(pid).map_err(|error| no_proc(&error))? else { return Ok(None) };
        Ok(Some(Self { pid, start: stat.start, boot_id: boot_id()? }))
    }

    /// This process.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn own() -> Result<Self> {
        let own = Self::of(std::process::id())?;
        own.ok_or_else(|| Error::new(ErrorKind::Unavailable, "this process is not listed in /proc").with_hint("mount /proc"))
    }

    /// Whether this very process runs. One that only waits for its parent to hear of its end does not.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn is_alive(&self) -> Result<bool> {
        if self.boot_id != boot_id()? {
            return Ok(false);
        }
        let stat = Stat::of(self.pid).map_err(|error| no_proc(&error))?;
        Ok(stat.is_some_and(|stat| stat.start == self.start && !stat.has_ended()))
    }
}

/// The process that keeps a cluster.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Which.
    #[serde(flatten)]
    pub process: ProcessId,
    /// The machine's name.
    pub host: String,
    /// Its process ids count in here only: containers of one machine have one each. Empty where that is not known.
    pub pid_namespace: String,
}

impl Driver {
    /// This process.
    pub(super) fn own() -> Result<Self> {
        Ok(Self { process: ProcessId::own()?, host: host(), pid_namespace: pid_namespace() })
    }

    /// Why nothing can be said from here about processes of that machine and container. `None`: something can.
    pub(super) fn out_of_sight(&self) -> Result<Option<String>> {
        let (same_boot, same_host) = (self.process.boot_id == boot_id()?, self.host == host());
        Ok(match (same_boot, same_host) {
            (true, _) if self.pid_namespace == pid_namespace() => None,
            (true, _) => Some(format!("its driver ran in another container of this machine ({}); run `remuda gc` there", self.host)),
            // Rebooted: whatever ran here before has ended.
            (false, true) => None,
            (false, false) => Some(format!("its driver ran on another machine ({}); run `remuda gc` there", self.host)),
        })
    }
}

/// What `/proc/PID/stat` says.
pub(super) struct Stat {
    state: u8,
    pub(super) start: u64,
}

impl Stat {
    /// `None`: no such process.
    pub(super) fn of(pid: u32) -> io::Result<Option<Self>> {
        match fs::read(Path::new("/proc").join(pid.to_string()).join("stat")) {
            Ok(text) => Ok(Self::parse(&text)),
            // The process can end between the opening and the reading.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                match Path::new("/proc/self/stat").exists() {
                    true => Ok(None),
                    false => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The name, in parentheses, may hold anything, also parentheses.
    fn parse(text: &[u8]) -> Option<Self> {
        let after = text.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        Some(Self { state, start: fields.nth(18)?.parse().ok()? })
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| no_proc(&error))?;
    Ok(text.trim().to_owned())
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn no_proc(error: &io::Error) -> Error {
    let text = format!("/proc cannot be read, and without it processes cannot be told apart: {error}");
    Error::new(ErrorKind::Unavailable, text).with_hint("mount /proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_more_than_its_number() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive().unwrap());
        assert!(!ProcessId { start: own.start + 1, ..own.clone() }.is_alive().unwrap());
        assert!(!ProcessId { boot_id: "another".into(), ..own }.is_alive().unwrap());
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let text = b"7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 8 9\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start), (b'S', 4242));
        assert!(Stat::parse(b"7 (a").is_none() && Stat::parse(b"7 (a) S 1 2").is_none());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap().expect("not waited for: still listed");
        // Ended, and left as it is.
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(!process.is_alive().unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive().unwrap());
    }
}
