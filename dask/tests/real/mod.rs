//! Real Dask processes: the `dask` on the PATH, or the one that `REMUDA_DASK` names.
//!
//! Where there is none a test is skipped by name; with `dask` in `REMUDA_REQUIRE` that is a failure.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    reason = "each test program uses some of it"
)]

use std::{collections::BTreeMap, ffi::OsStr, path::Path, process::Stdio, time::Duration};

use remuda_dask::Address;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Importing Dask on a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(120);

fn dask() -> Command {
    command(std::env::var_os("REMUDA_DASK").unwrap_or_else(|| "dask".into()))
}

/// The interpreter beside `dask`.
pub fn python() -> Command {
    let program = std::env::var_os("REMUDA_DASK").map(|dask| Path::new(&dask).with_file_name("python"));
    command(program.filter(|python| python.exists()).unwrap_or_else(|| "python3".into()))
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

/// Whether this test can be run here. Says so where not.
pub async fn can_run(test: &str) -> bool {
    let asked = dask().args(["scheduler", "--version"]).output().await;
    let missing = match asked {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("`dask scheduler --version` failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("`dask` cannot be started: {error}"),
    };
    let required = std::env::var("REMUDA_REQUIRE").unwrap_or_default();
    assert!(required.split(',').all(|word| word.trim() != "dask"), "REMUDA_REQUIRE names dask, and it is missing: {missing}");
    println!("skipped {test}: {missing}");
    false
}

/// A process of Dask's that is through with starting.
pub struct Running {
    pub child: Child,
    /// What followed the sign of life on its line.
    pub said: String,
}

impl Running {
    /// Starts `dask ARGS` and waits for a line of its log with `sign`.
    pub async fn start(args: &[&str], environment: &BTreeMap<String, String>, directory: &Path, sign: &str) -> Self {
        let mut command = dask();
        command.args(args).envs(environment).current_dir(directory);
        Self::spawn(command, sign).await
    }

    /// Starts a Python program that says `sign` to stderr.
    pub async fn python(code: &str, args: &[&str], sign: &str) -> Self {
        let mut command = python();
        command.args(["-c", code]).args(args);
        Self::spawn(command, sign).await
    }

    async fn spawn(mut command: Command, sign: &str) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let said = timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, said)) = line.split_once(sign) {
                    return said.trim().to_owned();
                }
                log.push(line);
            }
            panic!("{command:?} ended before {sign:?}:\n{}", log.join("\n"));
        });
        let said = said.await.unwrap_or_else(|_| panic!("no {sign:?} after {PATIENCE:?}"));
        // A full pipe would stop it; what it says is shown where a test fails.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("dask: {line}");
            }
        });
        Self { child, said }
    }

    /// By the name that `kill` has for it, as in `-TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub async fn scheduler(directory: &Path) -> (Self, Address) {
        Self::scheduler_with("tcp", &BTreeMap::new(), directory).await
    }

    pub async fn scheduler_with(protocol: &str, environment: &BTreeMap<String, String>, directory: &Path) -> (Self, Address) {
        let args = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--protocol", protocol];
        let scheduler = Self::start(&args, environment, directory, "Scheduler at:").await;
        let address = scheduler.said.parse().unwrap();
        (scheduler, address)
    }

    /// With two threads.
    pub async fn worker(scheduler: &Address, name: &str, environment: &BTreeMap<String, String>, directory: &Path) -> Self {
        let (to, protocol) = (scheduler.to_string(), scheduler.scheme().to_string());
        let args =
            ["worker", &to, "--host", "127.0.0.1", "--nthreads", "2", "--name", name, "--no-nanny", "--dashboard-address", "127.0.0.1:0"];
        Self::start(&[&args[..], &["--protocol", &protocol]].concat(), environment, directory, "Registered to:").await
    }

    pub async fn end(mut self) {
        self.child.kill().await.unwrap();
    }
}
