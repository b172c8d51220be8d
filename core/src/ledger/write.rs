//! The file of a living cluster.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Driver, place,
    record::{Header, Line},
};
use crate::error::{Error, ErrorKind, Result};

/// What is needed to open a ledger.
pub(super) struct Opening {
    pub(super) id: String,
    pub(super) cluster: String,
    pub(super) class: String,
    pub(super) state: Option<PathBuf>,
}

impl Opening {
    pub(super) fn new(cluster: &str, class: &str, state: Option<PathBuf>) -> Self {
        // The standard library's hasher is seeded by the system.
        let random = RandomState::new().hash_one(std::process::id());
        Self { id: format!("{}-{random:016x}", file_name(cluster)), cluster: cluster.into(), class: class.into(), state }
    }

    /// Makes the file, complete from the moment it has its name: nobody sees one without a header.
    fn open(&self) -> Result<Writer> {
        let state = self.state.clone().map_or_else(place::state_dir, Ok)?;
        let directory = place::ledgers(&state);
        place::create(&directory)?;
        let (new, path) = (directory.join(format!(".{}.new", self.id)), directory.join(format!("{}.jsonl", self.id)));
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = line(&Header::new(&self.id, &self.cluster, &self.class, Driver::own()?, created))?;
        let begun = begin(&new, &header).and_then(|file| {
            fs::rename(&new, &path)?;
            place::sync(&directory)?;
            Ok(file)
        });
        match begun {
            Ok(file) => Ok(Writer { file, path, length: header.len() as u64, broken: false }),
            Err(error) => {
                let _ = fs::remove_file(&new).and_then(|()| fs::remove_file(&path));
                Err(place::failed(&error, "cannot be begun", &directory))
            }
        }
    }
}

fn begin(path: &Path, header: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Held as long as the file is open: the sign that the driver lives, also for who cannot see its process. Some network file systems
    // have no locks; then the driver's process id has to do.
    let _ = file.try_lock();
    file.write_all(header)?;
    file.sync_all()?;
    Ok(file)
}

/// `barn` from `barn`, `a_b` from `a/b`: as much of a name as a file's name may hold.
fn file_name(cluster: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = cluster.trim_start_matches('.').chars().map(plain).take(100).collect();
    if name.is_empty() { "cluster".into() } else { name }
}

fn line(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(value);
    let mut text = text.map_err(|error| Error::new(ErrorKind::Unexpected, "a line of the ledger has no text").with_source(error))?;
    text.push(b'\n');
    Ok(text)
}

enum State {
    Unopened,
    Open(Writer),
    Ended,
}

pub(super) struct Shared {
    pub(super) opening: Opening,
    last: AtomicU64,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(opening: Opening) -> Self {
        Self { opening, last: AtomicU64::new(0), state: Mutex::new(State::Unopened) }
    }

    /// A number for an entry.
    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends a ledger that nothing was written to. Does not wait, and needs no thread to block.
    pub(super) fn end_unopened(&self) -> bool {
        match self.state.try_lock() {
            Ok(mut state) if matches!(*state, State::Unopened) => {
                *state = State::Ended;
                true
            }
            _ => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of these lines, or none. Blocks.
    pub(super) fn write(&self, lines: &[Line], durable: bool) -> Result<()> {
        let mut bytes = Vec::new();
        for one in lines {
            bytes.extend(line(one)?);
        }
        let mut state = self.state();
        if let State::Unopened = *state {
            *state = State::Open(self.opening.open()?);
        }
        match &mut *state {
            State::Open(writer) => writer.append(&bytes, durable),
            _ => Err(Error::new(ErrorKind::Closed, "the cluster is closed")),
        }
    }

    /// Removes the file, or has it say what remains. Blocks.
    pub(super) fn end(&self, remaining: Option<Vec<String>>) -> Result<()> {
        let State::Open(mut writer) = std::mem::replace(&mut *self.state(), State::Ended) else { return Ok(()) };
        match remaining {
            None => {
                // Should the removal not outlive a power cut: whoever reads the file finds that nothing of it is there.
                fs::remove_file(&writer.path).map_err(|error| place::failed(&error, "cannot be removed", &writer.path))
            }
            Some(remaining) => writer.append(&line(&Line::End { remaining })?, true),
        }
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    /// Of what was written whole.
    length: u64,
    /// A torn line could not be taken back: what would follow it could not be read.
    broken: bool,
}

impl Writer {
    fn append(&mut self, bytes: &[u8], durable: bool) -> Result<()> {
        if self.broken {
            let error = Error::new(ErrorKind::Unavailable, "the ledger is of no use any more since a line of it was torn");
            return Err(error.with_context("path", self.path.display()).with_hint("start another cluster once there is room on the disk"));
        }
        let written = self.file.write_all(bytes).and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            let back = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            self.broken = back.is_err();
            return Err(place::failed(&error, "cannot be written", &self.path));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_file_s() {
        for (name, expected) in
            [("barn", "barn"), ("../a b", "_a_b"), ("", "cluster"), ("..", "cluster"), (&"x".repeat(300), &"x".repeat(100))]
        {
            assert_eq!(file_name(name), expected);
        }
    }

    #[test]
    fn a_full_disk_is_told_and_later_lines_are_refused() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut writer = Writer { file, path, length: 0, broken: false };
        let error = writer.append(b"{}\n", true).unwrap_err();
        assert!(error.is_retryable() && error.hint().unwrap().contains("free some space"), "{error:?}");
        // A device has no length to go back to.
        assert!(writer.append(b"{}\n", true).unwrap_err().message().contains("torn"));
    }

    #[test]
    fn a_line_that_cannot_be_taken_back_ends_the_writing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ledger");
        fs::write(&path, "whole\ntor").unwrap();
        // Opened for reading only: every write fails.
        let mut writer = Writer { file: File::open(&path).unwrap(), path: path.clone(), length: 6, broken: false };
        assert!(writer.append(b"x\n", false).is_err() && writer.broken);
        writer.file = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(writer.append(b"x\n", false).is_err(), "it stays so");
    }
}
