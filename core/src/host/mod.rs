//! The task host: a resident process that executes tasks by name, one per slot.
//!
//! It is the user's own binary, started again: [`init`] is the first thing its `main` calls (`#[remuda::main]`, `#[remuda::test]` and
//! `remuda::init()` do). In the driver that sets a flag and returns; in a task host it serves until the control socket ends, and exits.

mod command;
mod direct;
pub mod nested;
mod serve;
pub mod wire;

use std::sync::{Arc, OnceLock};

use crate::{
    engine::Connect,
    error::{Error, ErrorKind, Result},
    task::{Job, TaskScope},
};

/// Python source, part of what runs Python tasks wherever they run: which values have a form without Python, how functions are found and
/// called. What it is joined to defines `pack(value)`, which makes MessagePack.
pub const PYTHON: &str = include_str!("plain.py");

/// A Rust function that can be called by name. Made by `#[remuda::task]`.
#[derive(Debug, Clone, Copy)]
pub struct TaskDef {
    /// `module::path::function`.
    pub name: &'static str,
    /// The function's parameters and result as written; a task host whose signature differs is another build.
    pub signature: &'static str,
    /// Decodes a MessagePack array of the arguments and calls the body.
    pub call: fn(TaskScope, &[u8]) -> Job,
}

inventory::collect!(TaskDef);

/// Every task of this binary.
pub fn tasks() -> impl Iterator<Item = &'static TaskDef> {
    inventory::iter::<TaskDef>.into_iter()
}

/// Set in the environment of a task host to the process id of its parent, so that a child of a task host, which inherits it,
/// does not take itself for one.
pub const HOST_ENV: &str = "REMUDA_TASK_HOST";

static ARGS: OnceLock<Vec<String>> = OnceLock::new();

/// In a task host: serves, and exits the process. In the driver: allows this binary to be started again as a task host, with `args`
/// on its command line (a test binary needs the name of a test that calls `init`).
pub fn init(args: Vec<String>) {
    // In a host, too: what a task submits may want to know.
    let _ = ARGS.set(args);
    if is_host() {
        serve::serve();
    }
}

static CONNECT: OnceLock<Arc<dyn Connect>> = OnceLock::new();

/// How tasks in a host beside a worker of another engine than the embedded one reach their scheduler, to submit further tasks. To be
/// called before [`init`]; the first call counts. Core names no protocol.
pub fn set_connect(connect: Arc<dyn Connect>) {
    let _ = CONNECT.set(connect);
}

/// Whether this process was started as a task host.
#[must_use]
pub fn is_host() -> bool {
    let Ok(driver) = std::env::var(HOST_ENV) else { return false };
    // A driver that was killed at once is not our parent any more; taking ourselves for a driver then would run the user's `main`.
    let orphan = || !std::path::Path::new("/proc").join(&driver).exists() && stdin_is_socket();
    driver == std::os::unix::process::parent_id().to_string() || orphan()
}

fn stdin_is_socket() -> bool {
    rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket())
}

/// The command line arguments that make this binary a task host.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] when nobody called [`init`]: the child would run the user's `main` again, and start children itself.
pub fn args() -> Result<&'static [String]> {
    ARGS.get().map(Vec::as_slice).ok_or_else(|| {
        Error::new(ErrorKind::ConfigInvalid, "worker processes are this program started again, and it is not prepared for that")
            .with_hint("put `#[remuda::main]` on `main`, `#[remuda::test]` on tests, or call `remuda::init()` first thing in `main`; or use `processes: false`")
    })
}

/// `signal 9 (SIGKILL)`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
        (31, "SIGSYS"),
    ];
    match NAMES.iter().find(|(number, _)| *number == signal) {
        Some((_, name)) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}
