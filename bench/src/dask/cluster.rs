//! A scheduler and two workers by the `dask` program, and Dask's own client beside them.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

/// A scheduler that uses less than a twentieth of so long is at rest.
const REST: Duration = Duration::from_millis(50);

/// `ESRCH`: what reading a file of a thread says that has ended since the file was opened.
const NO_SUCH_PROCESS: i32 = 3;

/// A child that is killed when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A cluster of two workers with one thread each.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) address: String,
    peer: Option<(ChildStdin, BufReader<ChildStdout>)>,
    /// The peer first, the scheduler last: what ends first complains to nobody.
    processes: Vec<Process>,
}

/// `REMUDA_DASK`, or the `dask` on the PATH.
fn dask() -> anyhow::Result<PathBuf> {
    if let Some(program) = env::var_os("REMUDA_DASK") {
        return Ok(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join("dask")).find(|program| program.is_file());
    found.context("no `dask` on PATH: pip install distributed, or say where it is with REMUDA_DASK")
}

/// The interpreter that `dask` runs in.
fn python(dask: &Path) -> PathBuf {
    let beside = dask.with_file_name("python");
    if beside.is_file() { beside } else { "python3".into() }
}

/// Where the peer's sources are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peer")
}

fn command(program: &Path, saturation: Option<&str>) -> Command {
    let mut command = Command::new(program);
    command.env("PYTHONPATH", sources()).env("PYTHONDONTWRITEBYTECODE", "1").env("DASK_LOGGING__DISTRIBUTED", "error");
    command.env_remove("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION").stdin(Stdio::null());
    if let Some(saturation) = saturation {
        command.env("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", saturation);
    }
    command
}

impl Cluster {
    /// Starts it; with Dask's default settings, or with `worker-saturation` as given.
    pub(super) fn start(saturation: Option<&str>, directory: &Path) -> anyhow::Result<Self> {
        let dask = dask()?;
        let file = directory.join(format!("scheduler-{}.json", saturation.unwrap_or("default")));
        // That of the cluster before would be taken for this one's.
        drop(fs::remove_file(&file));
        let mut scheduler = command(&dask, saturation);
        scheduler.args(["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]);
        scheduler.arg("--scheduler-file").arg(&file).arg("--preload").arg(sources().join("probe.py"));
        let mut processes = vec![Process(scheduler.current_dir(directory).spawn().with_context(|| format!("{}", dask.display()))?)];
        let address = address(&file)?;
        for name in ["a", "b"] {
            let mut worker = command(&dask, saturation);
            worker.args(["worker", &address, "--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]);
            worker.args(["--dashboard-address", "127.0.0.1:0", "--name", name, "--local-directory"]).arg(directory);
            processes.insert(0, Process(worker.current_dir(directory).spawn()?));
        }
        let mut peer = command(&python(&dask), saturation);
        peer.arg(sources().join("client.py")).arg(&address).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut peer = peer.current_dir(directory).spawn()?;
        let pipes = peer.stdin.take().zip(peer.stdout.take().map(BufReader::new));
        processes.insert(0, Process(peer));
        let mut cluster = Self { address, peer: pipes, processes };
        ensure!(cluster.line()? == "ready", "the peer did not start");
        // Both workers have their first task, and whatever is imported late is imported.
        cluster.ask("map 200")?;
        Ok(cluster)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let Some((_, stdout)) = &mut self.peer else { bail!("the peer is gone") };
        let mut line = String::new();
        ensure!(stdout.read_line(&mut line)? > 0, "the peer ended");
        Ok(line.trim().to_owned())
    }

    /// Has the peer do something: see `peer/client.py`.
    pub(super) fn ask(&mut self, what: &str) -> anyhow::Result<Vec<f64>> {
        let Some((stdin, _)) = &mut self.peer else { bail!("the peer is gone") };
        writeln!(stdin, "{what}")?;
        stdin.flush()?;
        let line = self.line()?;
        line.split_whitespace().map(|number| number.parse().with_context(|| format!("the peer said {line:?}"))).collect()
    }

    pub(super) fn map(&mut self, n: i64) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs_f64(self.ask(&format!("map {n}"))?[0]))
    }

    pub(super) fn one(&mut self) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs_f64(self.ask("one")?[0]))
    }

    /// Waits until the scheduler has forgotten every task and is at rest: workers still tell it of each result that they have let go of, and
    /// what one client leaves behind is not to be counted as the other's.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.ask("tasks")?[0] > 0.0 {
            ensure!(begin.elapsed() < Duration::from_secs(60), "the scheduler still knows tasks");
            thread::sleep(Duration::from_millis(20));
        }
        loop {
            let before = self.scheduler_time()?;
            thread::sleep(REST);
            if self.scheduler_time()?.saturating_sub(before) < REST / 20 {
                return Ok(());
            }
            ensure!(begin.elapsed() < Duration::from_secs(60), "the scheduler does not come to rest");
        }
    }

    /// Processor time of the scheduler, once it is at rest.
    pub(super) fn rest(&mut self) -> anyhow::Result<Duration> {
        self.settle()?;
        self.scheduler_time()
    }

    fn scheduler_time(&self) -> anyhow::Result<Duration> {
        let scheduler = self.processes.last().context("no scheduler")?.0.id();
        time_of(Path::new(&format!("/proc/{scheduler}/task")))
    }
}

/// Processor time so far of all threads of a process. One that ends takes its time with it, so a later figure may be the smaller one.
fn time_of(threads: &Path) -> anyhow::Result<Duration> {
    let mut total = 0;
    for thread in fs::read_dir(threads).with_context(|| format!("{}", threads.display()))? {
        let path = thread?.path().join("schedstat");
        let stat = match fs::read_to_string(&path) {
            Ok(stat) => stat,
            // It has ended since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS) => continue,
            Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
        };
        total += stat.split_whitespace().next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Reads the scheduler's address from its file, as soon as it is whole.
fn address(file: &Path) -> anyhow::Result<String> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.trim_end().ends_with('}')
            && let Some((_, rest)) = text.split_once("\"address\": \"")
            && let Some((address, _)) = rest.split_once('"')
        {
            return Ok(address.to_owned());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("the scheduler did not start in a minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_while_it_is_counted_is_left_out() -> anyhow::Result<()> {
        let threads = tempfile::tempdir()?;
        for (thread, time) in [("1", Some("1500 20 3")), ("2", None), ("3", Some("500 20 3"))] {
            fs::create_dir(threads.path().join(thread))?;
            if let Some(time) = time {
                fs::write(threads.path().join(thread).join("schedstat"), time)?;
            }
        }
        assert_eq!(time_of(threads.path())?, Duration::from_nanos(2000));
        assert!(time_of(&threads.path().join("gone")).is_err());
        Ok(())
    }
}
