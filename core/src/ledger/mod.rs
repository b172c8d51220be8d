//! What a cluster's driver wrote down before it created it, so that what outlives the driver can be found and removed.
//!
//! Each cluster that creates something outside its own process has one file in the user's state directory ([`state_dir`]), made at the
//! first entry: a cluster that creates nothing writes nothing. A line stands there *before* each creation, on the disk and not only
//! handed to the system; another says what became of it, and one that it is gone. When the cluster is closed and nothing remains,
//! the file is removed. Who finds one whose driver is dead may remove what it names: [`sweep`], `remuda gc`.
//!
//! A manager asks its [`Context`](crate::manager::Context::ledger) for the [`Ledger`]:
//!
//! ```
//! use remuda_core::{
//!     error::{Error, Result},
//!     ledger::{Item, MARKER},
//!     manager::Context,
//! };
//!
//! async fn launch(cx: &Context) -> Result<std::process::Child> {
//!     let ledger = cx.ledger();
//!     let entry = ledger.will_create(Item::process("worker 0-0")).await?; // on the disk; an error: create nothing
//!     let child = std::process::Command::new("sleep").arg("60").env(MARKER, ledger.marker(&entry)).spawn();
//!     let child = child.map_err(|error| Error::new(remuda_core::error::ErrorKind::NotInstalled, "no sleep").with_source(error))?;
//!     ledger.is_process(&entry, child.id()).await?;
//!     Ok(child) // and when it was waited for: ledger.gone(&entry).await
//! }
//! ```
//!
//! What proves that a thing is ours: for a process its id, start time and the machine's boot id, or the [`MARKER`] in its environment where
//! the driver died before it could write these down; for a directory the marker file in it; for a file a text that only the cluster's has; for anything else a name that nobody else
//! uses, which its collector compares.

mod collect;
mod directory;
mod file;
#[cfg(test)]
mod histories;
mod place;
mod process;
mod record;
mod write;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

pub use self::{
    collect::{Collector, Found, Outcome, Sweep, Verdict, builtin_collectors, sweep},
    directory::MARKER_FILE,
    place::state_dir,
    process::{Driver, ProcessId},
    record::{Record, Recorded},
};
use self::{record::Line, write::Opening};
use crate::{
    error::{Error, Result},
    manager::CloseReport,
};

/// The environment variable that a manager gives to the processes it starts, see [`Ledger::marker`].
pub const MARKER: &str = "REMUDA_LEDGER_ENTRY";

/// Something that is about to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is, for whoever collects it: `process`, `directory`, `file`, or a word of the class's own (`ecs-task`).
    pub kind: String,
    /// A name, for people and, where the platform takes names, for finding it. Of a directory or file: its path.
    pub name: String,
    /// What else its collector has to know: a region, a namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Item {
    /// Without labels.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into(), labels: BTreeMap::new() }
    }

    /// A process of this machine. Its environment should have the [`MARKER`].
    pub fn process(name: impl Into<String>) -> Self {
        Self::new("process", name)
    }

    /// A file, small, at a place of the user's choice. `contains`: a text that no other file has, such as a scheduler's id. One without it is
    /// somebody else's, who has written over ours.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::error::ErrorKind::ConfigInvalid) when the path is not UTF-8.
    pub fn file(path: &Path, contains: &str) -> Result<Self> {
        file::item(path, contains)
    }

    /// One more label.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }
}

/// What is known of a thing since it exists.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// A process of the driver's machine.
    Process(ProcessId),
    /// What the platform calls it: an ARN, a uid.
    Id(String),
}

/// A line of a ledger, to say later what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(u64);

/// A cluster's ledger. A handle: cheap to clone. The file work is done on blocking threads; a future that is dropped half-way may have
/// written its line, which is harmless: nothing is found under it.
#[derive(Clone)]
pub struct Ledger(Arc<write::Shared>);

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("cluster", &self.0.opening.cluster).field("id", &self.0.opening.id).finish_non_exhaustive()
    }
}

impl Ledger {
    /// For a cluster of that name and class. Nothing is written yet. `state`: the state directory; `None`: [`state_dir`].
    pub(crate) fn new(cluster: &str, class: &str, state: Option<PathBuf>) -> Self {
        Self(Arc::new(write::Shared::new(Opening::new(cluster, class, state))))
    }

    /// The same for a cluster that has got another name. To be called before the first entry.
    pub(crate) fn renamed(&self, cluster: &str) -> Self {
        let Opening { class, state, .. } = &self.0.opening;
        Self::new(cluster, class, state.clone())
    }

    /// Writes down that this will be created. Returns when the line is on the disk.
    ///
    /// # Errors
    /// When it is not: then nothing may be created. The directory cannot be written, the disk is full
    /// ([`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable): tried again by the keeper), the cluster is closed.
    pub async fn will_create(&self, item: Item) -> Result<Entry> {
        let entry = Entry(self.0.next());
        self.write(vec![Line::Will { n: entry.0, item }], true).await?;
        Ok(entry)
    }

    /// The same for several things at once, for the price of one.
    ///
    /// # Errors
    /// As [`will_create`](Self::will_create); then none of them is written down.
    pub async fn will_create_all(&self, items: impl IntoIterator<Item = Item> + Send) -> Result<Vec<Entry>> {
        let lines: Vec<_> = items.into_iter().map(|item| Line::Will { n: self.0.next(), item }).collect();
        let entries = lines.iter().map(|line| Entry(line.number())).collect();
        self.write(lines, true).await?;
        Ok(entries)
    }

    /// Writes down what was created under this entry. Returns when it is on the disk.
    ///
    /// # Errors
    /// As [`will_create`](Self::will_create). The thing exists: end it, or live with its being found by name or marker only.
    pub async fn is(&self, entry: &Entry, identity: Identity) -> Result<()> {
        self.write(vec![Line::Is { n: entry.0, identity }], true).await
    }

    /// [`is`](Self::is) for a child process that was not waited for yet.
    ///
    /// # Errors
    /// As [`is`](Self::is). A process that has ended and was reaped meanwhile is no error.
    pub async fn is_process(&self, entry: &Entry, pid: u32) -> Result<()> {
        match ProcessId::of(pid)? {
            Some(process) => self.is(entry, Identity::Process(process)).await,
            None => Ok(()),
        }
    }

    /// Writes down that what was created under this entry is gone, or never came to be. Best effort, as a line that is lost costs a look
    /// and no more: a failure is logged.
    pub async fn gone(&self, entry: &Entry) {
        if let Err(error) = self.write(vec![Line::Gone { n: entry.0 }], false).await {
            tracing::warn!(%error, "a line of the ledger was not written");
        }
    }

    /// Makes a directory that is ours to remove, in `parent`, with a name of its own: for the working files of local processes. Only the
    /// user may enter it. Remove it, then say [`gone`](Self::gone).
    ///
    /// # Errors
    /// As [`will_create`](Self::will_create), and the file system's.
    pub async fn create_directory(&self, parent: PathBuf) -> Result<(Entry, PathBuf)> {
        let number = self.0.next();
        let path = std::path::absolute(&parent).unwrap_or(parent).join(format!("{}-{number}", self.0.opening.id));
        self.write(vec![Line::Will { n: number, item: directory::item(&path)? }], true).await?;
        let (entry, made) = (Entry(number), path.clone());
        let marker = self.marker(&entry);
        let created = spawn_blocking(move || directory::create(&made, &marker)).await;
        match created.unwrap_or_else(|error| Err(Error::from_join("the ledger", error))) {
            Ok(()) => Ok((entry, path)),
            Err(error) => {
                self.gone(&entry).await;
                Err(error)
            }
        }
    }

    /// Names the entry among all ledgers: the value of [`MARKER`] for a process, a label elsewhere.
    #[must_use]
    pub fn marker(&self, entry: &Entry) -> String {
        record::marker(&self.0.opening.id, entry.0)
    }

    async fn write(&self, lines: Vec<Line>, durable: bool) -> Result<()> {
        let shared = self.0.clone();
        let written = spawn_blocking(move || shared.write(&lines, durable)).await;
        written.unwrap_or_else(|error| Err(Error::from_join("the ledger", error)))
    }

    /// The cluster is closed: the file goes, or says what remains.
    pub(crate) async fn end(&self, closed: &Result<CloseReport>) {
        if self.0.end_unopened() {
            return;
        }
        let remaining = match closed {
            Ok(report) if report.remaining.is_empty() => None,
            Ok(report) => Some(report.remaining.clone()),
            Err(error) => Some(vec![format!("unknown: {error}")]),
        };
        let shared = self.0.clone();
        let ended = spawn_blocking(move || shared.end(remaining)).await;
        if let Err(error) = ended.unwrap_or_else(|error| Err(Error::from_join("the ledger", error))) {
            tracing::warn!(%error, "the ledger of a closed cluster stays behind");
        }
    }
}
