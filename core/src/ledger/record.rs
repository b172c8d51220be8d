//! A ledger's lines, and reading them.
//!
//! Lines of JSON. The first is the header; each of the others is one of [`Line`]. Written front to back and never changed, so only the
//! last one can be torn.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Driver, Identity, Item, place};
use crate::error::{Error, ErrorKind, Result};

/// The form of the lines.
const VERSION: u64 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    remuda_ledger: u64,
    id: String,
    cluster: String,
    class: String,
    driver: Driver,
    created: u64,
}

impl Header {
    pub(super) fn new(id: &str, cluster: &str, class: &str, driver: Driver, created: u64) -> Self {
        Self { remuda_ledger: VERSION, id: id.into(), cluster: cluster.into(), class: class.into(), driver, created }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Will {
        n: u64,
        #[serde(flatten)]
        item: Item,
    },
    Is {
        n: u64,
        #[serde(flatten)]
        identity: Identity,
    },
    Gone {
        n: u64,
    },
    /// The cluster was closed, and this remained.
    End {
        remaining: Vec<String>,
    },
}

impl Line {
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Will { n, .. } | Self::Is { n, .. } | Self::Gone { n } => *n,
            Self::End { .. } => 0,
        }
    }
}

pub(super) fn marker(id: &str, number: u64) -> String {
    format!("{id}/{number}")
}

/// A ledger, as it stands in its file.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The file.
    pub path: PathBuf,
    /// Its name, unique among all ledgers: the cluster's name and a random number.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// The path of its class.
    pub class: String,
    /// Who kept it.
    pub driver: Driver,
    /// When the cluster was begun, in seconds since 1970.
    pub created: u64,
    /// What was or was about to be created, and is not known to be gone.
    pub entries: Vec<Recorded>,
    /// The cluster was closed, and this remained, in the manager's words.
    pub ended: Option<Vec<String>>,
}

/// Something that perhaps exists.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What it is.
    pub item: Item,
    /// `None`: it may never have been created.
    pub identity: Option<Identity>,
    /// What it is marked with, see [`Ledger::marker`](super::Ledger::marker).
    pub marker: String,
}

impl Record {
    /// Reads a ledger. A last line that is torn does not count: who wrote it had not been told that it was written.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for one of a later version; [`ErrorKind::Unexpected`] for one that is damaged; the file system's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| place::failed(&error, "cannot be read", path))?;
        Self::parse(path, &bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |line: usize| {
            Error::new(ErrorKind::Unexpected, format!("line {line} of the ledger cannot be understood"))
                .with_context("path", path.display())
                .with_hint("look at the file; remove it when nothing that it names exists any more")
        };
        // What follows the last newline is torn, whatever it looks like.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines: Vec<_> = bytes[..whole].split_inclusive(|byte| *byte == b'\n').collect();
        if lines.is_empty() {
            return Err(damaged(1));
        }
        let header = Self::header(path, lines.remove(0))?.ok_or_else(|| damaged(1))?;
        let mut parsed: Vec<Option<Line>> = lines.iter().map(|line| serde_json::from_slice(line).ok()).collect();
        // After a power cut the end may be there and what is before it not.
        if parsed.last() == Some(&None) && whole == bytes.len() {
            parsed.pop();
        }
        let mut record = Self {
            path: path.to_owned(),
            id: header.id,
            cluster: header.cluster,
            class: header.class,
            driver: header.driver,
            created: header.created,
            entries: Vec::new(),
            ended: None,
        };
        let mut numbers = Vec::new();
        for (index, line) in parsed.into_iter().enumerate() {
            record.add(line.ok_or_else(|| damaged(index + 2))?, &mut numbers);
        }
        Ok(record)
    }

    fn header(path: &Path, line: &[u8]) -> Result<Option<Header>> {
        #[derive(Deserialize)]
        struct Version {
            remuda_ledger: u64,
        }
        match serde_json::from_slice::<Version>(line) {
            Ok(Version { remuda_ledger: VERSION }) => Ok(serde_json::from_slice(line).ok()),
            Ok(Version { remuda_ledger }) => {
                let text = format!("the ledger is of format {remuda_ledger}, and this Remuda knows {VERSION}");
                let error = Error::new(ErrorKind::Unsupported, text).with_context("path", path.display());
                Err(error.with_hint("use the `remuda gc` of the version that wrote it"))
            }
            Err(_) => Ok(None),
        }
    }

    fn add(&mut self, line: Line, numbers: &mut Vec<u64>) {
        let find = |numbers: &[u64], n| numbers.iter().position(|known| *known == n);
        match line {
            Line::Will { n, item } => {
                numbers.push(n);
                self.entries.push(Recorded { item, identity: None, marker: marker(&self.id, n) });
            }
            Line::Is { n, identity } => {
                if let Some(at) = find(numbers, n) {
                    self.entries[at].identity = Some(identity);
                }
            }
            Line::Gone { n } => {
                if let Some(at) = find(numbers, n) {
                    numbers.remove(at);
                    self.entries.remove(at);
                }
            }
            Line::End { remaining } => self.ended = Some(remaining),
        }
    }
}
