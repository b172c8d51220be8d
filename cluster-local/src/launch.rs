//! The command lines of the children.

use std::{
    process::Command,
    sync::{Arc, LazyLock},
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    host::{self, HOST_ENV, wire::READY},
};

use crate::{child::Child, engine::Options};

/// This very program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";

/// The script every interpreter runs.
static SCRIPT: LazyLock<String> = LazyLock::new(|| [host::PYTHON, include_str!("python/host.py")].join("\n\n"));

/// Takes the script from the control socket, which is standard input: on the command line it would fill every list of processes.
fn bootstrap() -> String {
    let length = SCRIPT.len();
    format!(
        "import os\ntext = b''\nwhile len(text) < {length}:\n    part = os.read(0, {length} - len(text))\n    if not part: raise SystemExit\n    \
         text += part\nexec(compile(text, 'remuda task host', 'exec'))"
    )
}

pub(crate) fn host(options: &Options, worker: &Arc<str>) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(SELF);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(host::args()?).envs(&options.env).env(HOST_ENV, std::process::id().to_string());
    Child::spawn(&mut command, worker, Some(READY))
}

pub(crate) fn python(options: &Options, worker: &Arc<str>) -> Result<Child> {
    let python = interpreter(options);
    let mut command = Command::new(&python);
    command.args(["-u", "-c", &bootstrap()]).envs(&options.env).env_remove(HOST_ENV);
    let mut child = Child::spawn(&mut command, worker, None).map_err(|e| {
        Error::new(ErrorKind::Unavailable, e.message().to_owned())
            .with_context("worker", worker)
            .with_hint("Python tasks need an interpreter: install python3, or name one with `python: ..` or REMUDA_PYTHON")
    })?;
    child.send(SCRIPT.as_bytes().into());
    Ok(child)
}

fn interpreter(options: &Options) -> String {
    let named = options.python.clone().or_else(|| std::env::var("REMUDA_PYTHON").ok().filter(|name| !name.is_empty()));
    named.unwrap_or_else(|| "python3".to_owned())
}
