//! Real Dask for tests: a scheduler and workers by the `dask` program, on free ports of this machine, gone with the test.
//!
//! `REMUDA_DASK` names the program; else it is the `dask` on PATH. Without one a test is skipped by name, and with `dask` in
//! `REMUDA_REQUIRE` that is a failure.
#![allow(clippy::print_stdout, reason = "a helper of a test may say and panic like a test")]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Importing Dask on a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(120);

fn program() -> OsString {
    std::env::var_os("REMUDA_DASK").unwrap_or_else(|| "dask".into())
}

/// The interpreter beside the program that `REMUDA_DASK` names; `None` leaves it to who asks to find one.
#[must_use]
pub fn python() -> Option<String> {
    let python = PathBuf::from(std::env::var_os("REMUDA_DASK")?).parent()?.join("python");
    python.exists().then(|| python.to_string_lossy().into_owned())
}

/// Whether `word` stands in `REMUDA_REQUIRE`.
#[must_use]
pub fn required(word: &str) -> bool {
    std::env::var("REMUDA_REQUIRE").unwrap_or_default().split(',').any(|entry| entry.trim() == word)
}

/// Says that `test` is skipped.
///
/// # Panics
/// Where what is missing is required.
pub fn skip(test: &str, what: &str, missing: &str) {
    assert!(!required(what), "REMUDA_REQUIRE names {what}, and it is missing: {missing}");
    println!("skipped {test}: {missing}");
}

/// Whether there is a Dask for `test`; says so where not.
///
/// # Panics
/// Where there is none and `REMUDA_REQUIRE` names it.
pub async fn available(test: &str) -> bool {
    let asked = Command::new(program()).args(["scheduler", "--version"]).stdin(Stdio::null()).output().await;
    let missing = match asked {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("`dask scheduler --version` failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("`dask` cannot be started: {error}"),
    };
    skip(test, "dask", &missing);
    false
}

/// What a cluster is to be like.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Variables of the scheduler and the workers, and of scripts that are run there.
    pub env: Vec<(String, String)>,
    /// Further ones of the scheduler alone.
    pub scheduler_env: Vec<(String, String)>,
    /// Further ones of the workers alone.
    pub worker_env: Vec<(String, String)>,
    /// Modules that the workers find: file name and text.
    pub modules: Vec<(String, String)>,
    /// Further arguments of `dask scheduler`.
    pub scheduler: Vec<String>,
    /// A network namespace that all of it runs in, and the address to listen on there.
    pub namespace: Option<(String, String)>,
}

impl Site {
    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a module for the workers.
    #[must_use]
    pub fn module(mut self, file: &str, text: &str) -> Self {
        self.modules.push((file.to_owned(), text.to_owned()));
        self
    }
}

/// A process of Dask's; killed when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Kills it, at once, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.0.kill().await?)
    }

    /// Its number, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }
}

/// A cluster by the `dask` program.
#[derive(Debug)]
pub struct Dask {
    /// `tcp://host:port` of the scheduler.
    pub address: String,
    /// The scheduler.
    pub scheduler: Process,
    /// Its workers, called `0`, `1`..
    pub workers: Vec<Process>,
    site: Site,
    directory: TempDir,
}

impl Dask {
    /// A scheduler and `workers` workers with one thread each, all of them there.
    ///
    /// # Errors
    /// What Dask says when it does not start.
    pub async fn start(site: Site, workers: usize) -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        for (file, text) in &site.modules {
            std::fs::write(directory.path().join(file), text)?;
        }
        let host = site.namespace.as_ref().map_or("127.0.0.1", |(_, host)| host);
        let mut args = ["scheduler", "--host", host, "--port", "0", "--dashboard-address", "127.0.0.1:0"].map(str::to_owned).to_vec();
        args.extend(site.scheduler.iter().cloned());
        let (scheduler, address) = process(&site, directory.path(), &args, "Scheduler at:").await?;
        let mut cluster = Self { address, scheduler, workers: Vec::new(), site, directory };
        for _ in 0..workers {
            cluster.worker().await?;
        }
        Ok(cluster)
    }

    /// One more worker; returns when the scheduler has it.
    ///
    /// # Errors
    /// What Dask says when it does not start.
    pub async fn worker(&mut self) -> anyhow::Result<()> {
        let (name, local) = (self.workers.len().to_string(), self.directory.path().to_string_lossy().into_owned());
        let mut args = vec!["worker", &self.address, "--name", &name, "--local-directory", &local];
        args.extend(["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--dashboard-address", "127.0.0.1:0"]);
        if let Some((_, host)) = &self.site.namespace {
            args.extend(["--host", host]);
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let (worker, _) = process(&self.site, self.directory.path(), &args, "Registered to:").await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Where the modules are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `script` in the interpreter that Dask runs in, with `client` (Dask's own) and `address` defined; answers with what it printed.
    ///
    /// # Errors
    /// The traceback, when it fails.
    pub async fn python(&self, script: &str) -> anyhow::Result<String> {
        let text = format!(
            "import sys, time\nfrom distributed import Client\naddress = sys.argv[1]\nwith Client(address) as client:\n{}",
            indent(script)
        );
        let mut command = inside(&self.site, interpreter()?);
        command.arg("-c").arg(text).arg(&self.address).current_dir(self.directory.path());
        prepare(&mut command, &self.site, self.directory.path());
        let output = timeout(PATIENCE, command.output()).await.context("the script does not end")??;
        ensure!(output.status.success(), "the script failed:\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Waits until the scheduler knows no task and no client of ours.
    ///
    /// # Errors
    /// What is still there, when [`PATIENCE`] is over.
    pub async fn forgets(&self) -> anyhow::Result<()> {
        let script = "def seen(dask_scheduler):
    ours = [name for name in dask_scheduler.clients if name.startswith('remuda-')]
    return sorted(map(str, dask_scheduler.tasks))[:10] + ours
for _ in range(900):
    left = client.run_on_scheduler(seen)
    if not left:
        break
    time.sleep(0.1)
print(*left)";
        let left = self.python(script).await?;
        ensure!(left.is_empty(), "the scheduler still knows {left}");
        Ok(())
    }
}

fn indent(script: &str) -> String {
    script.lines().map(|line| format!("    {line}\n")).collect()
}

/// The `python` beside `dask`; else the one on PATH.
///
/// # Errors
/// There is no `dask`.
pub fn interpreter() -> anyhow::Result<PathBuf> {
    let dask = PathBuf::from(program());
    let found = if dask.components().count() > 1 {
        Some(dask)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join(&dask)).find(|program| program.is_file())
    };
    let python = found.context("no dask")?.with_file_name("python");
    Ok(if python.is_file() { python } else { "python3".into() })
}

fn inside(site: &Site, program: impl Into<OsString>) -> Command {
    match &site.namespace {
        Some((namespace, _)) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(program.into());
            command
        }
        None => Command::new(program.into()),
    }
}

fn prepare(command: &mut Command, site: &Site, directory: &Path) {
    command.stdin(Stdio::null()).kill_on_drop(true).current_dir(directory);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1").env("PYTHONPATH", directory);
    command.envs(site.env.iter().map(|(name, value)| (name, value)));
}

/// Starts `dask ARGS` and waits for a line of its log with `sign`; answers with what follows it there.
async fn process(site: &Site, directory: &Path, args: &[String], sign: &str) -> anyhow::Result<(Process, String)> {
    let mut command = inside(site, program());
    command.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    prepare(&mut command, site, directory);
    let is_scheduler = args.first().is_some_and(|what| what == "scheduler");
    let own = if is_scheduler { &site.scheduler_env } else { &site.worker_env };
    command.envs(own.iter().map(|(name, value)| (name, value)));
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
    let mut log = Vec::new();
    let said = timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, said)) = line.split_once(sign) {
                return Ok(said.trim().to_owned());
            }
            log.push(line);
        }
        anyhow::bail!("dask {args:?} ended before {sign:?}:\n{}", log.join("\n"))
    });
    let said = said.await.with_context(|| format!("dask {args:?} is not ready after {PATIENCE:?}"))??;
    // A full pipe would stop it. With `REMUDA_DASK_LOG` set, its log is shown.
    let (show, what) = (std::env::var_os("REMUDA_DASK_LOG").is_some(), args.first().cloned().unwrap_or_default());
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if show {
                println!("{what}: {line}");
            }
        }
    });
    Ok((Process(child), said))
}
