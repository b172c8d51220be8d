//! A process of Dask's: its end, its output, and that it does not outlive us.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    host::{HOST_ENV, signal_name},
    ledger::MARKER,
};
use remuda_dask::launch::DaskCommand;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::unix::pipe,
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

use super::{marks, output::Lines};

/// So many bytes at the end of a log are looked at.
const TAIL: u64 = 32 * 1024;

/// Lines of a log in an error.
pub(super) const LOG: usize = 15;

/// For what it said last, where something else holds its output open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A handle. Dropped, the process is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: Arc<str>,
    pid: u32,
    log: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    ended: watch::Receiver<Option<Arc<str>>>,
}

#[derive(Debug)]
enum Order {
    Terminate,
    Kill(Option<String>),
}

impl Process {
    /// Starts it in a process group of its own, so that a Ctrl-C is ours to handle. Must be called on a runtime.
    /// `mark`: put into its environment, and that of all it starts.
    pub(crate) fn spawn(command: &DaskCommand, name: &str, mark: &str, log: PathBuf) -> Result<Self> {
        let started = Running::start(command, name, mark, &log);
        let running = started.map_err(|e| {
            let error = Error::new(ErrorKind::Unavailable, format!("`{}` could not be started: {e}", command.program));
            error.with_context("process", name)
        })?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(None);
        let (name, pid) = (running.name.clone(), running.child.id());
        tracing::debug!(process = &*name, pid, args = ?command.args, "started");
        tokio::spawn(running.attend(inbox, end));
        Ok(Self { name, pid, log, orders, ended })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let _ = self.orders.send(Order::Terminate);
    }

    /// Ends it, with everything in its group. `cause`: told as the reason of its end.
    pub(crate) fn kill(&self, cause: Option<String>) {
        let _ = self.orders.send(Order::Kill(cause));
    }

    /// How it ended, with all it had started. `None`: it runs.
    pub(crate) fn end(&self) -> Option<Arc<str>> {
        self.ended.borrow().clone()
    }

    /// Returns when it has ended, with all it had started.
    pub(crate) async fn ended(&self) -> Arc<str> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or_else(|| "the runtime it was watched on is gone".into())
    }

    /// The last lines of its log. Blocks for a moment.
    pub(crate) fn tail(&self, lines: usize) -> Vec<String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        // Nothing, or the marks below a line of a traceback.
        let is_empty = |line: &&str| line.chars().all(|c| c.is_whitespace() || matches!(c, '^' | '~'));
        let all: Vec<_> = text.lines().filter(|line| !is_empty(line)).collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// What its log says of its end: its complaints, else its last lines. `None`: it has logged nothing. Blocks for a moment.
    pub(crate) fn last_lines(&self) -> Option<LastLines> {
        let complaints = self.complaints();
        let lines = if complaints.is_empty() { self.tail(LOG) } else { complaints };
        (!lines.is_empty()).then_some(LastLines(lines))
    }

    /// What it complained of at the end of its log: the last lines of tracebacks, the newest last.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.tail(TRACEBACKS).into_iter().filter(|line| is_complaint(line)).collect()
    }
}

/// The end of a log, as the cause of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastLines(pub(crate) Vec<String>);

impl std::error::Error for LastLines {}

impl std::fmt::Display for LastLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its log says")?;
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Lines at the end of a log that may hold the reason of an end: one traceback that follows another.
const TRACEBACKS: usize = 120;

fn is_complaint(line: &str) -> bool {
    let word = line.split([':', ' ']).next().unwrap_or_default();
    let named = word.starts_with(|c: char| c.is_ascii_alphabetic()) && (word.ends_with("Error") || word.ends_with("Exception"));
    // Dask's wrapping of the one before.
    named && !line.ends_with("failed to start.")
}

struct Running {
    name: Arc<str>,
    mark: String,
    child: Child,
    /// Its standard input; what it is for is to end with us.
    _leash: Option<ChildStdin>,
    death: AsyncFd<OwnedFd>,
    output: pipe::Receiver,
    log: File,
}

impl Running {
    fn start(what: &DaskCommand, name: &str, mark: &str, log: &PathBuf) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&what.program);
        command.args(&what.args).env_remove(HOST_ENV).env_remove("REMUDA_LEASE").env_remove("REMUDA_LEASE_GRACE");
        command.env("PYTHONUNBUFFERED", "1").envs(&what.env).env(MARKER, mark);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = Killed(Some(command.spawn()?));
        let inner = child.0.as_mut().ok_or_else(|| io::Error::other("no child"))?;
        let pid = pid_of(inner).ok_or_else(|| io::Error::other("no process id"))?;
        let death = death(pid)?;
        let output = inner.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let output = pipe::Receiver::from_owned_fd(output.into())?;
        let leash = inner.stdin.take();
        let child = child.0.take().ok_or_else(|| io::Error::other("no child"))?;
        Ok(Self { name: name.into(), mark: mark.to_owned(), child, _leash: leash, death, output, log })
    }

    async fn attend(mut self, mut orders: mpsc::UnboundedReceiver<Order>, end: watch::Sender<Option<Arc<str>>>) {
        let mut cause = None;
        let mut lines = Lines::new(self.name.clone());
        let mut buffer = vec![0; 16 * 1024];
        let mut silent = false;
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Terminate) => self.signal(|pid| kill_process(pid, Signal::TERM)),
                    Some(Order::Kill(why)) => { cause = cause.or(why); self.signal(|pid| kill_process_group(pid, Signal::KILL)) }
                    None => { self.signal(|pid| kill_process_group(pid, Signal::KILL)); break }
                },
                _ = self.death.readable() => break,
                read = self.output.read(&mut buffer), if !silent => silent = !self.said(&mut lines, &buffer, read),
            }
        }
        // It is dead or dying and not reaped: its group cannot be anybody else's.
        let _ = self.death.readable().await;
        self.signal(|pid| kill_process_group(pid, Signal::KILL));
        let status = self.child.wait();
        let mark = std::mem::take(&mut self.mark);
        let left = spawn_blocking(move || marks::kill(&mark)).await.unwrap_or_default();
        let rest = async {
            while !silent {
                let read = self.output.read(&mut buffer).await;
                silent = !self.said(&mut lines, &buffer, read);
            }
        };
        let _ = timeout(LAST_WORDS, rest).await;
        lines.finish();
        let ending = status.map_or_else(|e| format!("it could not be waited for: {e}"), ending);
        let mut text = cause.map_or_else(|| ending.clone(), |cause| format!("{cause}; it was killed"));
        if !left.is_empty() {
            text += &format!("; processes it has started do not end: {left:?}");
        }
        tracing::debug!(process = &*self.name, end = text, "ended");
        end.send_replace(Some(text.into()));
    }

    /// Whether there may be more.
    fn said(&mut self, lines: &mut Lines, buffer: &[u8], read: io::Result<usize>) -> bool {
        match read {
            Ok(0) => false,
            Ok(n) => {
                // The log is for people who look for a reason: a full disk must not end the worker.
                let _ = self.log.write_all(&buffer[..n]);
                lines.push(&buffer[..n]);
                true
            }
            Err(e) => e.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn signal(&self, send: impl FnOnce(Pid) -> rustix::io::Result<()>) {
        if let Some(pid) = pid_of(&self.child) {
            let _ = send(pid);
        }
    }
}

/// The runtime ended: nobody watches any more.
impl Drop for Running {
    fn drop(&mut self) {
        // Not reaped by anybody else, and `try_wait` says whether by us.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(|pid| kill_process_group(pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

/// A child that something went wrong with before it was ours.
struct Killed(Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Readable once the process is dead, reaped or not.
pub(super) fn death(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // Deprecated for types that may close or change their descriptor while it is registered; an `OwnedFd` does not. Its successor is unsafe.
    #[allow(deprecated)]
    AsyncFd::with_interest(handle, Interest::READABLE)
}

pub(super) fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => signal_name(signal),
        (None, None) => "it ended".to_owned(),
    }
}
