//! The beginning and the end of a program that runs flows.

use std::{fmt, future::Future, io::Write, process::ExitCode, sync::Arc, time::Duration};

use remuda_core::{cluster, error::Error, host};
use remuda_dask::{DaskConnect, DaskOptions};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use crate::{interrupts::Interrupts, runner::RunError};

/// The first thing in `main`, where `#[remuda::main]` is not used: worker processes are this program started again, and this is where they
/// branch off. Returns at once in the driver; in a worker process it serves tasks and never returns.
///
/// ```no_run
/// remuda::init();
/// // ... the rest of `main`
/// ```
pub fn init() {
    be_reachable();
    host::init(Vec::new());
}

/// In a task host beside a worker of Dask's, tasks reach their scheduler by themselves. What they hold of the cluster is not theirs to keep.
fn be_reachable() {
    let options = DaskOptions { name: "remuda-task".to_owned(), owner: false, ..DaskOptions::default() };
    host::set_connect(Arc::new(DaskConnect::new(options)));
}

/// The same for a test, whose binary must be told which test to run again.
pub fn init_test(path: &str) {
    be_reachable();
    // libtest's names have no crate in front.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    host::init([name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"].map(str::to_owned).to_vec());
}

/// What `main` may return under `#[remuda::main]`.
pub trait MainResult {
    /// Says what went wrong on standard error, and answers with the exit code.
    fn exit(self) -> ExitCode;
}

impl MainResult for () {
    fn exit(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

impl MainResult for ExitCode {
    fn exit(self) -> ExitCode {
        self
    }
}

impl<R: MainResult, E: Into<anyhow::Error>> MainResult for Result<R, E> {
    fn exit(self) -> ExitCode {
        match self {
            Ok(result) => result.exit(),
            Err(error) => {
                let error = error.into();
                say(format_args!("Error: {}", describe(&error)));
                ExitCode::from(exit_code(&error))
            }
        }
    }
}

/// The exit code for an error of a flow program: see [`RunError::exit_code`].
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match (error.downcast_ref::<RunError>(), error.downcast_ref::<Error>()) {
        (Some(run), _) => run.exit_code(),
        (None, Some(error)) if error.is_user_error() => 2,
        (None, Some(_)) => 3,
        (None, None) => 1,
    }
}

fn describe(error: &anyhow::Error) -> String {
    // Errors of runs and tasks have their remedy in their text; only one that was passed on bare has not.
    match error.downcast_ref::<Error>().and_then(Error::hint) {
        Some(hint) => format!("{error:#} (hint: {hint})"),
        None => format!("{error:#}"),
    }
}

pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Nothing can be done about a closed standard error.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How long clusters may take to close after `main` has ended.
const CLOSE: Duration = Duration::from_secs(90);

/// Runs an async `main`: the first Ctrl-C or SIGTERM drops it, which closes its clusters; the second leaves at once, saying what may remain.
///
/// # Panics
/// Where the system has no threads or no signals to give.
#[allow(clippy::expect_used)]
pub fn block_on_main<R: MainResult>(main: impl Future<Output = R>) -> ExitCode {
    cluster::join_at_exit();
    let runtime = Builder::new_multi_thread().enable_all().build().expect("threads for the program's runtime");
    let (tell, stop) = oneshot::channel();
    let mut interrupts = runtime.block_on(async { Interrupts::new() }).expect("signals");
    runtime.spawn(async move {
        interrupts.next().await;
        let _ = tell.send(());
        interrupts.next().await;
        leave();
    });
    let result = runtime.block_on(async {
        tokio::select! { result = main => Some(result), _ = stop => None }
    });
    let interrupted = result.is_none();
    if interrupted {
        say(format_args!("interrupted: closing"));
    }
    let code = result.map_or(ExitCode::from(130), MainResult::exit);
    finish(runtime);
    code
}

/// Runs a `main` that is not async: it cannot be dropped, so at the first Ctrl-C or SIGTERM its clusters are closed under it, and the
/// program ends; at the second at once.
pub fn run_main<R: MainResult>(main: impl FnOnce() -> R) -> ExitCode {
    cluster::join_at_exit();
    let watch = || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut interrupts) = Interrupts::new() else { return };
            interrupts.next().await;
            say(format_args!("interrupted: closing"));
            std::thread::spawn(|| {
                join();
                std::process::exit(130)
            });
            interrupts.next().await;
            leave();
        });
    };
    // Without a thread for it the system's own handling stays.
    let _ = std::thread::Builder::new().name("remuda signals".to_owned()).spawn(watch);
    let code = main().exit();
    join();
    code
}

fn join() {
    for remaining in cluster::join_all(CLOSE) {
        say(format_args!("may still exist: {remaining}"));
    }
}

/// Waits for what the program's clusters still do, bounded.
fn finish(runtime: Runtime) {
    join();
    runtime.shutdown_background();
}

/// Gives up waiting: says what may remain, and ends the process.
pub fn leave() -> ! {
    let remaining = cluster::join_all(Duration::ZERO);
    for remaining in &remaining {
        say(format_args!("may still exist: {remaining}"));
    }
    if !remaining.is_empty() {
        say(format_args!("  hint: `remuda gc` removes what is left of it"));
    }
    std::process::exit(130)
}

/// Runs a test's body.
///
/// # Panics
/// Where the system has no threads to give.
#[allow(clippy::expect_used)]
pub fn block_on_test<R>(test: impl Future<Output = R>) -> R {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads for the test's runtime").block_on(test)
}
