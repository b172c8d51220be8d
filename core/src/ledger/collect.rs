//! Removing what dead drivers left.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use super::{Identity, Record, Recorded, directory, file, place};
use crate::error::{Error, Result};

mod kill;

/// Finds and removes things of one kind. A class that creates something outside this machine brings its own.
#[async_trait]
pub trait Collector: fmt::Debug + Send + Sync {
    /// The [`kind`](super::Item::kind) of what it knows about.
    fn kind(&self) -> &str;

    /// Looks for what this entry of a dead driver's ledger names and removes it, unless `dry_run`. Only what is provably the cluster's:
    /// anything else is [`Verdict::Kept`]. Idempotent. Dropped half-way, it may have removed it. An answer, never an error: a platform that
    /// cannot be asked is a reason to keep.
    async fn collect(&self, record: &Record, entry: &Recorded, dry_run: bool) -> Verdict;
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is not there, or never was.
    Gone,
    /// It is there and is the cluster's; without `dry_run` it would be removed.
    Removable,
    /// It was there, and is no more.
    Removed,
    /// It may be there, and stays.
    Kept {
        /// For people.
        why: String,
    },
}

/// One ledger, and what was done about it.
#[derive(Debug)]
pub struct Sweep {
    /// The file.
    pub path: PathBuf,
    /// `None`: it cannot be read.
    pub record: Option<Record>,
    /// What was found and done.
    pub outcome: Outcome,
}

/// What was found and done about one ledger.
#[derive(Debug)]
pub enum Outcome {
    /// Its driver lives; nothing was looked at.
    Live,
    /// Nothing can be said from here, for this reason; nothing was touched.
    OutOfSight(String),
    /// It cannot be read; nothing was touched.
    Unreadable(Error),
    /// Its driver is dead, or gave up on what is left.
    Swept {
        /// Everything that it names and that was not known to be gone.
        found: Vec<Found>,
        /// Nothing of it is left, and so the file was removed.
        settled: bool,
    },
}

/// One thing of a dead driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub entry: Recorded,
    /// What was done.
    pub verdict: Verdict,
}

/// A file that a driver did not come round to giving its name; nothing was created by then.
const STALE: Duration = Duration::from_secs(3600);

/// Those for this machine: `process`, `directory` and `file`.
#[must_use]
pub fn builtin_collectors() -> Vec<Arc<dyn Collector>> {
    vec![Arc::new(Processes), Arc::new(Directories), Arc::new(Files)]
}

/// Goes through the ledgers in a state directory and removes what dead drivers left, as far as a collector knows its kind and can prove that
/// it is theirs. With `dry_run` nothing is removed or written. Ledgers of living drivers are left alone.
///
/// # Errors
/// When the directory cannot be read. What goes wrong with one ledger stands in its [`Outcome`].
pub async fn sweep(state: &Path, collectors: &[Arc<dyn Collector>], dry_run: bool) -> Result<Vec<Sweep>> {
    let directory = place::ledgers(state);
    let listed = blocking(move || list(&directory, dry_run)).await??;
    let mut sweeps = Vec::new();
    for path in listed {
        let of = path.clone();
        let sweep = match blocking(move || look(&of)).await? {
            Look::Nothing => continue,
            Look::Leave(sweep) => *sweep,
            Look::Collect(record, lock) => {
                let outcome = settle(&record, collectors, dry_run).await;
                drop(lock);
                Sweep { path, record: Some(*record), outcome }
            }
        };
        sweeps.push(sweep);
    }
    Ok(sweeps)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|error| Error::from_join("the ledger", error))
}

fn list(directory: &Path, dry_run: bool) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(place::failed(&error, "cannot be looked for", directory)),
    };
    let mut paths = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let old = || {
            entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > STALE))
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => paths.push(path),
            Some("new") if !dry_run && entry.file_name().as_encoded_bytes().starts_with(b".") && old() => drop(fs::remove_file(path)),
            _ => {}
        }
    }
    paths.sort();
    Ok(paths)
}

enum Look {
    /// Its driver removed it meanwhile.
    Nothing,
    Leave(Box<Sweep>),
    /// With the lock, so that two who sweep do not meet.
    Collect(Box<Record>, File),
}

fn look(path: &Path) -> Look {
    let leave = |record, outcome| Look::Leave(Box::new(Sweep { path: path.to_owned(), record, outcome }));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Nothing,
        Err(error) => return leave(None, Outcome::Unreadable(place::failed(&error, "cannot be read", path))),
    };
    // Before the reading, so that nothing is added after it. An error other than this says that there are no locks here.
    let locked = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
    let record = match Record::read(path) {
        Ok(record) => record,
        Err(_) if !path.exists() => return Look::Nothing,
        Err(error) => return leave(None, Outcome::Unreadable(error)),
    };
    if locked {
        return leave(Some(record), Outcome::Live);
    }
    let alive = record.ended.is_none().then(|| record.driver.process.is_alive());
    match (record.driver.out_of_sight(), alive.transpose()) {
        (Err(error), _) | (_, Err(error)) => leave(Some(record), Outcome::Unreadable(error)),
        (Ok(Some(why)), _) => leave(Some(record), Outcome::OutOfSight(why)),
        (_, Ok(Some(true))) => leave(Some(record), Outcome::Live),
        _ => Look::Collect(Box::new(record), file),
    }
}

async fn settle(record: &Record, collectors: &[Arc<dyn Collector>], dry_run: bool) -> Outcome {
    let mut found = Vec::new();
    // What was made last goes first: workers before the scheduler, processes before the directories they write to.
    for entry in record.entries.iter().rev() {
        let verdict = match collectors.iter().find(|collector| collector.kind() == entry.item.kind) {
            Some(collector) => collector.collect(record, entry, dry_run).await,
            None => Verdict::Kept { why: format!("this build does not know how to remove a {}", entry.item.kind) },
        };
        found.push(Found { entry: entry.clone(), verdict });
    }
    let over = found.iter().all(|found| matches!(found.verdict, Verdict::Gone | Verdict::Removed));
    let path = record.path.clone();
    let removed = over && !dry_run && blocking(move || fs::remove_file(path)).await.is_ok_and(|removed| removed.is_ok());
    Outcome::Swept { found, settled: removed }
}

#[derive(Debug)]
struct Directories;

#[async_trait]
impl Collector for Directories {
    fn kind(&self) -> &str {
        "directory"
    }

    async fn collect(&self, _record: &Record, entry: &Recorded, dry_run: bool) -> Verdict {
        let (path, marker) = (entry.item.name.clone(), entry.marker.clone());
        answered(blocking(move || directory::collect(&path, &marker, dry_run)).await)
    }
}

#[derive(Debug)]
struct Files;

#[async_trait]
impl Collector for Files {
    fn kind(&self) -> &str {
        "file"
    }

    async fn collect(&self, _record: &Record, entry: &Recorded, dry_run: bool) -> Verdict {
        let item = entry.item.clone();
        answered(blocking(move || file::collect(&item, dry_run)).await)
    }
}

#[derive(Debug)]
struct Processes;

#[async_trait]
impl Collector for Processes {
    fn kind(&self) -> &str {
        "process"
    }

    async fn collect(&self, _record: &Record, entry: &Recorded, dry_run: bool) -> Verdict {
        let (identity, marker) = (entry.identity.clone(), entry.marker.clone());
        let ended = blocking(move || {
            let process = match identity {
                Some(Identity::Process(process)) => Some(process),
                Some(Identity::Id(_)) => return Verdict::Kept { why: "what is written down of it is no process id".into() },
                None => kill::marked(&marker),
            };
            match process {
                Some(process) => kill::end(&process, dry_run),
                None => Verdict::Gone,
            }
        });
        answered(ended.await)
    }
}

fn answered(result: Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| Verdict::Kept { why: error.to_string() })
}
