//! Files that a cluster writes where the user wants them.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::{Item, Verdict};
use crate::error::{Error, ErrorKind, Result};

const CONTAINS: &str = "contains";

/// Nothing that we write is longer.
const LONGEST: u64 = 1024 * 1024;

pub(super) fn item(path: &Path, contains: &str) -> Result<Item> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = path
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::ConfigInvalid, "the path of a file is not UTF-8").with_context("path", path.display()))?;
    Ok(Item::new("file", text).with_label(CONTAINS, contains))
}

/// Removes the file if it has the text that makes it ours.
pub(super) fn collect(item: &Item, dry_run: bool) -> Verdict {
    let path = Path::new(&item.name);
    let kept = |why: String| Verdict::Kept { why };
    let Some(contains) = item.labels.get(CONTAINS).filter(|text| !text.is_empty()) else {
        return kept("what is written down of it does not say what is in it".into());
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Verdict::Gone,
        Err(error) => return kept(format!("it cannot be looked at: {error}")),
    };
    // Ours was a small file of this user: whatever is there now was put in its place.
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.len() > LONGEST {
        return Verdict::Gone;
    }
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
        Err(error) => kept(format!("it cannot be read: {error}")),
        Ok(_) if !bytes.windows(contains.len()).any(|window| window == contains.as_bytes()) => Verdict::Gone,
        Ok(_) if dry_run => Verdict::Removable,
        Ok(_) => match fs::remove_file(path) {
            Ok(()) => Verdict::Removed,
            Err(error) => kept(format!("it cannot be removed: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_with_the_text_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("scheduler.json");
        let item = item(&path, "Scheduler-17").unwrap();
        assert_eq!(collect(&item, false), Verdict::Gone);
        fs::write(&path, "{\"id\": \"Scheduler-18\"}").unwrap();
        assert_eq!(collect(&item, false), Verdict::Gone, "somebody else's");
        assert!(path.exists());
        fs::write(&path, "{\"id\": \"Scheduler-17\"}").unwrap();
        assert_eq!(collect(&item, true), Verdict::Removable);
        assert!(path.exists());
        assert_eq!(collect(&item, false), Verdict::Removed);
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        assert_eq!(collect(&item, false), Verdict::Gone);
        let unknown = Item::new("file", path.to_str().unwrap());
        assert!(matches!(collect(&unknown, false), Verdict::Kept { .. }));
    }
}
