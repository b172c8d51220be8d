//! Temporary directories of a cluster.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{Item, Verdict};
use crate::error::{Error, ErrorKind, Result};

/// The file in a temporary directory of a cluster that says whose it is.
pub const MARKER_FILE: &str = ".remuda-ledger-entry";

pub(super) fn item(path: &Path) -> Result<Item> {
    let text = path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::ConfigInvalid, "the path of a temporary directory is not UTF-8").with_context("path", path.display())
    })?;
    Ok(Item::new("directory", text))
}

pub(super) fn create(path: &Path, marker: &str) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path).and_then(|()| fs::write(path.join(MARKER_FILE), marker));
    made.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::ConfigInvalid,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("no temporary directory can be made: {error}"))
            .with_context("path", path.display())
            .with_hint("choose another place for temporary files")
    })
}

/// Removes the directory if it carries the marker, or nothing at all.
pub(super) fn collect(path: &str, marker: &str, dry_run: bool) -> Verdict {
    let path = PathBuf::from(path);
    let kept = |why: String| Verdict::Kept { why };
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Verdict::Gone,
        Err(error) => return kept(format!("it cannot be looked at: {error}")),
    };
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return kept("it is not a directory of this user".into());
    }
    let ours = match fs::read(path.join(MARKER_FILE)) {
        Ok(found) => found == marker.as_bytes(),
        // The driver died between making it and marking it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()),
        Err(_) => false,
    };
    match (ours, dry_run) {
        (false, _) => kept(format!("it does not carry the mark of this cluster ({MARKER_FILE})")),
        (true, true) => Verdict::Removable,
        (true, false) => match remove(&path) {
            Ok(()) => Verdict::Removed,
            Err(error) => kept(format!("it cannot be removed: {error}")),
        },
    }
}

/// The marker goes last: what is left half-way is still known to be ours.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER_FILE {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir_all(path)
}
