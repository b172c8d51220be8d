//! Where ledgers are.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File},
    io::{self, ErrorKind as Io},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::error::{Error, ErrorKind, Result};

/// The user's state directory for Remuda: `$REMUDA_STATE_DIR`, else `$XDG_STATE_HOME/remuda`, else `~/.local/state/remuda`. It need not
/// exist.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] where none of these variables is set.
pub fn state_dir() -> Result<PathBuf> {
    choose(|name| std::env::var_os(name))
}

fn choose(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(ours) = path("REMUDA_STATE_DIR") {
        return std::path::absolute(&ours).map_err(|error| failed(&error, "cannot be found", &ours));
    }
    // The XDG specification: a relative path is to be ignored.
    let state = path("XDG_STATE_HOME").filter(|state| state.is_absolute());
    let state = state.or_else(|| path("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("remuda")).ok_or_else(|| {
        Error::new(ErrorKind::ConfigInvalid, "there is no place to write down what is created: HOME is not set")
            .with_hint("set REMUDA_STATE_DIR to a directory that can be written and that outlives this process")
    })
}

pub(super) fn ledgers(state: &Path) -> PathBuf {
    state.join("ledger")
}

/// Makes it, for the user alone, and sees to it that it is still there after a power cut.
pub(super) fn create(directory: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| failed(&error, "cannot be made", directory))?;
    for place in directory.ancestors().skip(1).take(2) {
        // Those above were there before us, as a rule, and may not be readable.
        let _ = sync(place);
    }
    Ok(())
}

pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What the file system said, with what helps.
pub(super) fn failed(error: &io::Error, what: &str, path: &Path) -> Error {
    let kind = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        Io::NotADirectory | Io::InvalidFilename => ErrorKind::ConfigInvalid,
        _ => ErrorKind::Unavailable,
    };
    let hint = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => "free some space there, or set REMUDA_STATE_DIR to a directory on another disk",
        _ => "set REMUDA_STATE_DIR to a directory that can be written",
    };
    Error::new(kind, format!("the ledger {what}: {error}")).with_context("path", path.display()).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)]) -> Result<PathBuf> {
        choose(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn ours_comes_first_then_the_desktop_s_then_home() {
        let all = [("REMUDA_STATE_DIR", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")];
        for (from, expected) in [(0, "/a"), (1, "/b/remuda"), (2, "/c/.local/state/remuda")] {
            assert_eq!(chosen(&all[from..]).unwrap(), Path::new(expected));
        }
        assert_eq!(
            chosen(&[("REMUDA_STATE_DIR", ""), ("XDG_STATE_HOME", "rel"), ("HOME", "/c")]).unwrap(),
            Path::new("/c/.local/state/remuda")
        );
        let error = chosen(&[]).unwrap_err();
        assert!(error.kind() == ErrorKind::ConfigInvalid && error.hint().unwrap().contains("REMUDA_STATE_DIR"));
    }
}
