//! Which Python has Dask.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use remuda_core::error::{Error, ErrorKind, Mistake, Result};
use remuda_dask::launch::Program;
use serde::Deserialize;
use tokio::{io::unix::AsyncFd, time::timeout};

use super::process::{self, pid_of};

/// For an interpreter to say what it has: it imports next to nothing, but the disk may be a network's.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of a `python` that was named.
const NONE: &str = "there is no Python interpreter";
const NAMED: &str = "`python` is the path of an interpreter, or of a venv: a directory with `bin/python`";

/// The oldest that is supported.
const OLDEST: (u32, u32) = (2023, 5);

/// Nothing of Dask is imported: that would take half a second.
const PROBE: &str = "\
import importlib.util, json, sys
try:
    from importlib.metadata import version
    distributed = version('distributed')
except Exception:
    distributed = None
print(json.dumps({'executable': sys.executable, 'distributed': distributed, 'bokeh': importlib.util.find_spec('bokeh') is not None}))";

/// A Python with Dask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) program: Program,
    pub(crate) distributed: String,
    /// Whether there are pages for people.
    pub(crate) has_bokeh: bool,
}

#[derive(Deserialize)]
struct Answer {
    executable: PathBuf,
    distributed: Option<String>,
    bokeh: bool,
}

impl Installation {
    /// Asks the interpreter (see [`interpreter`]) what it has.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`] with what to install, and how.
    pub(crate) async fn find(python: Option<&str>) -> Result<Self> {
        let python = interpreter(python)?;
        let answer = ask(&python).await?;
        let install = || format!("run: {} -m pip install \"distributed>={}.{}\"", quoted(&python), OLDEST.0, OLDEST.1);
        let Some(distributed) = answer.distributed else {
            let error = Error::new(ErrorKind::NotInstalled, "this Python has no `distributed`").with_context("python", python.display());
            return Err(error.with_hint(install() + "; or name another interpreter or venv with `python`"));
        };
        if version(&distributed).is_some_and(|version| version < OLDEST) {
            let text = format!("`distributed` {distributed} is too old; {}.{} and later will do", OLDEST.0, OLDEST.1);
            return Err(Error::new(ErrorKind::NotInstalled, text).with_context("python", python.display()).with_hint(install()));
        }
        let beside = answer.executable.parent().map(|dir| dir.join("dask")).filter(|path| is_program(path));
        let text = |path: PathBuf| path.into_os_string().into_string().map_err(|path| not_unicode(&path.to_string_lossy()));
        let program = match beside {
            Some(dask) => Program::Dask(text(dask)?),
            None => Program::Python(text(answer.executable)?),
        };
        Ok(Self { program, distributed, has_bokeh: answer.bokeh })
    }
}

pub(super) fn not_unicode(path: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "Dask's command lines take paths in UTF-8 only").with_context("path", path)
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(|c: char| c.is_whitespace() || c == '\'') { format!("'{}'", text.replace('\'', r"'\''")) } else { text }
}

/// The one that was named, as a file, a venv's directory or a name on PATH; else the active venv's, that of `dask` on PATH, `python3`.
fn interpreter(named: Option<&str>) -> Result<PathBuf> {
    if let Some(named) = named {
        // It was there when the kwargs were checked.
        let error = || Error::new(ErrorKind::NotInstalled, NONE).with_context("python", named).with_hint(NAMED);
        return named_interpreter(named).ok_or_else(error);
    }
    let venv = env::var_os("VIRTUAL_ENV").and_then(|dir| in_venv(Path::new(&dir)));
    let of_dask = || fs::read(on_path("dask")?).ok().and_then(|script| shebang(&script)).filter(|path| is_program(path));
    venv.or_else(of_dask).or_else(|| on_path("python3")).ok_or_else(|| {
        let error = Error::new(ErrorKind::NotInstalled, "there is no `dask` and no `python3` on PATH");
        error.with_hint(
            "install Python 3, run: python3 -m pip install \"distributed>=2023.5\"; or name an interpreter or venv with `python`",
        )
    })
}

fn named_interpreter(named: &str) -> Option<PathBuf> {
    let path = Path::new(named);
    if path.is_dir() { in_venv(path) } else { on_path(named) }
}

/// What is wrong with a `python` that was named. Looks at the file system, and starts nothing.
pub(super) fn check(named: &str) -> Option<Mistake> {
    let mistake = || Mistake { value: Some(named.into()), ..Mistake::new("python", format!("{NONE} at \"{named}\"")) };
    named_interpreter(named).is_none().then(|| mistake().with_hint(NAMED))
}

fn in_venv(dir: &Path) -> Option<PathBuf> {
    ["bin/python", "bin/python3"].iter().map(|name| dir.join(name)).find(|path| is_program(path))
}

fn on_path(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The interpreter of a script that pip has written: in the first line, or, where that would be too long for the kernel, in the second
/// one after `exec`.
fn shebang(script: &[u8]) -> Option<PathBuf> {
    let head = String::from_utf8_lossy(&script[..script.len().min(4096)]);
    let mut lines = head.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let mut words = first.split_whitespace();
    match words.next()? {
        "/bin/sh" => {
            let line = lines.next()?.strip_prefix("'''exec' ")?;
            let path = line.strip_suffix(r#" "$0" "$@""#)?;
            Some(PathBuf::from(path.trim_matches('"')))
        }
        env if env.ends_with("/env") => words.next().filter(|name| name.starts_with("python")).and_then(on_path),
        path if path.rsplit('/').next().is_some_and(|name| name.starts_with("python") || name.starts_with("pypy")) => {
            Some(PathBuf::from(path))
        }
        _ => None,
    }
}

/// Year and month.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

async fn ask(python: &Path) -> Result<Answer> {
    let error = |kind, text: String| Error::new(kind, text).with_context("python", python.display());
    let command = Command::new(python).args(["-c", PROBE]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut probe = Probe(Some(command.map_err(|e| error(ErrorKind::NotInstalled, format!("the interpreter cannot be started: {e}")))?));
    let death = probe.death().map_err(|e| error(ErrorKind::Unavailable, format!("the interpreter cannot be watched: {e}")))?;
    if timeout(DEADLINE, death.readable()).await.is_err() {
        return Err(error(ErrorKind::Timeout, format!("the interpreter did not answer within {DEADLINE:?}")));
    }
    let output = probe.0.take().map(Child::wait_with_output).transpose().ok().flatten();
    let answered = output.as_ref().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    answered.ok_or_else(|| {
        let said = output.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned()).unwrap_or_default();
        let last = said.lines().last().unwrap_or("it said nothing").to_owned();
        error(ErrorKind::NotInstalled, format!("this is no working Python 3.8 or later: {last}"))
            .with_hint("name an interpreter or venv with `python`")
    })
}

/// Killed when nobody waits any more.
struct Probe(Option<Child>);

impl Probe {
    fn death(&self) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
        process::death(self.0.as_ref().and_then(pid_of).ok_or(std::io::ErrorKind::NotFound)?)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_in_its_first_lines() {
        let cases = [
            ("#!/venv/bin/python\nimport sys\n", Some("/venv/bin/python")),
            ("#!/venv/bin/python3.11 -sE\n", Some("/venv/bin/python3.11")),
            ("#!/bin/sh\n'''exec' /very long/bin/python \"$0\" \"$@\"\n' '''\n", Some("/very long/bin/python")),
            ("#!/bin/sh\n'''exec' \"/very long/bin/python\" \"$0\" \"$@\"\n' '''\n", Some("/very long/bin/python")),
            ("#!/usr/bin/env bash\nexec pyenv\n", None),
            ("#!/bin/bash\n", None),
            ("\u{7f}ELF", None),
            ("", None),
        ];
        for (script, path) in cases {
            assert_eq!(shebang(script.as_bytes()), path.map(PathBuf::from), "{script}");
        }
    }

    #[test]
    fn versions_are_compared_by_year_and_month() {
        assert_eq!(version("2023.5.0"), Some((2023, 5)));
        assert_eq!(version("2026.8.0+3.gabc"), Some((2026, 8)));
        assert!(version("2023.4.1") < Some(OLDEST) && version("2022.12.1") < Some(OLDEST));
        assert_eq!(version("unknown"), None);
    }

    #[tokio::test]
    async fn a_python_without_dask_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let says = |answer: &str| format!("#!/bin/sh\necho '{answer}'\n");
        let none = script("none/bin/python", &says(r#"{"executable": "/x/python", "distributed": null, "bokeh": false}"#));
        let venv = dir.path().join("none");
        for python in [none.as_str(), venv.to_str().unwrap()] {
            let error = Installation::find(Some(python)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotInstalled);
            assert!(error.hint().unwrap().contains(&format!("{none} -m pip install \"distributed>=2023.5\"")), "{error:?}");
        }
        let old = script("old", &says(r#"{"executable": "/x/python", "distributed": "2022.10.0", "bokeh": false}"#));
        let error = Installation::find(Some(&old)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotInstalled && error.message().contains("2022.10.0"), "{error:?}");
        let fine = script("fine", &says(r#"{"executable": "/x/python", "distributed": "2024.1.0", "bokeh": true}"#));
        let found = Installation::find(Some(&fine)).await.unwrap();
        assert_eq!(found.program, Program::Python("/x/python".into()));
        let broken = script("broken", "#!/bin/sh\necho 'no module named encodings' >&2; exit 1\n");
        let error = Installation::find(Some(&broken)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotInstalled && error.message().contains("encodings"), "{error:?}");
        let error = Installation::find(Some("/no/such/python")).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotInstalled && error.hint().is_some(), "{error:?}");
    }
}
