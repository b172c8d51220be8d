//! One child process of a slot: its control socket, its output, its end. Never waits, except for its death.

use std::{
    io::{self, PipeReader, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use remuda_core::{
    error::{Error, ErrorKind, Result},
    host::{
        signal_name,
        wire::{HEADER, length_of},
    },
};
use rustix::{
    event::PollFlags,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    net::{SendFlags, send},
    process::{Pid, Signal, kill_process_group},
};

#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    socket: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
    output: Option<PipeReader>,
    line: Vec<u8>,
    /// Output before this line is not a task's.
    marker: Option<&'static str>,
    worker: Arc<str>,
    /// What runs, for the log.
    pub(crate) task: Option<Arc<str>>,
    dead: bool,
    /// It said something that is no message.
    garbled: bool,
}

/// Bytes of output that are passed on in one go.
const LOG_BUDGET: usize = 64 * 1024;

/// Longest piece of output that is logged as one line.
const LINE: usize = 16 * 1024;

impl Child {
    /// Starts `command` with our socket as its standard input, in a process group of its own, so that a Ctrl-C is ours to handle.
    pub(crate) fn spawn(command: &mut Command, worker: &Arc<str>, marker: Option<&'static str>) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut start = || -> io::Result<Self> {
            let (socket, theirs) = UnixStream::pair()?;
            let (output, writer) = io::pipe()?;
            unblock(&socket)?;
            unblock(&output)?;
            command.process_group(0).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(writer.try_clone()?).stderr(writer);
            let process = command.spawn();
            // The command still holds the child's ends, which would hide its death from us.
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = Self {
                process: process?,
                socket,
                received: Vec::new(),
                unsent: Vec::new(),
                sent: 0,
                output: Some(output),
                line: Vec::new(),
                marker,
                worker: worker.clone(),
                task: None,
                dead: false,
                garbled: false,
            };
            Ok(child)
        };
        start().map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("`{program}` could not be started: {e}")).with_context("worker", worker)
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        if self.unsent.is_empty() {
            self.unsent = frame;
        } else {
            self.unsent.extend_from_slice(&frame);
        }
        self.write();
    }

    fn write(&mut self) {
        while self.sent < self.unsent.len() {
            match send(&self.socket, &self.unsent[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                // It is dead, or about to be: reading says so.
                Err(_) => break,
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
    }

    /// The next whole message.
    pub(crate) fn message(&mut self) -> Option<Bytes> {
        let end = self.frame()?;
        if self.received.len() < end {
            return None;
        }
        let rest = self.received.split_off(end);
        Some(Bytes::from(std::mem::replace(&mut self.received, rest)).slice(HEADER..))
    }

    /// How long the frame is that is being received.
    fn frame(&mut self) -> Option<usize> {
        let header = self.received.first_chunk::<HEADER>()?;
        match length_of(*header) {
            Some(length) => Some(HEADER + length as usize),
            None => {
                (self.dead, self.garbled) = (true, true);
                self.received.clear();
                None
            }
        }
    }

    /// Whether the process is gone, as far as its socket tells; what it still said has been received.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags, Option<BorrowedFd<'_>>) {
        let flags = if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        (self.socket.as_fd(), flags, self.output.as_ref().map(AsFd::as_fd))
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn pump(&mut self) {
        self.write();
        self.read();
        self.log();
    }

    fn read(&mut self) {
        // Room for what the message still lacks, so that a large one is not copied again and again.
        let mut buffer = [0; 64 * 1024];
        if let Some(end) = self.frame() {
            self.received.reserve(end.saturating_sub(self.received.len()).min(1 << 30));
        }
        while !self.dead {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => self.dead = true,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.dead = true,
            }
        }
    }

    /// Passes on what was printed, so much at a time that a task that prints without end does not keep its slot's thread from all else:
    /// what is left makes the next poll return at once.
    pub(crate) fn log(&mut self) {
        let mut buffer = [0; 8192];
        let mut budget = LOG_BUDGET;
        while let Some(output) = &mut self.output {
            if budget == 0 {
                return;
            }
            match output.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    budget = budget.saturating_sub(n);
                    self.lines(&buffer[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.output = None,
            }
        }
        if !self.line.is_empty() {
            self.lines(b"\n");
        }
    }

    fn lines(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                match self.marker {
                    Some(marker) if line == marker => self.marker = None,
                    Some(_) => {}
                    None => {
                        let task = self.task.as_deref().unwrap_or_default();
                        if !tracing::dispatcher::has_been_set() {
                            // Nobody listens: a program without a subscriber still shows what its tasks print.
                            let _ = writeln!(io::stderr(), "{task} | {line}");
                            continue;
                        }
                        tracing::info!(target: "remuda::task_output", worker = &*self.worker, task, "{line}");
                    }
                }
            }
        }
    }

    /// A request to end what runs, as a signal.
    pub(crate) fn interrupt(&self) {
        // To the leader alone: what it has started is its own to end.
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
    }

    /// Says that nobody listens any more. The process ends itself then, with everything it has started, also what it has not told of yet.
    pub(crate) fn hang_up(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// At once, with everything in its group. Its socket then ends.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Not reaped before `self` is consumed, so that the number is ours.
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
    }

    /// Ends it, with everything in its group, and says how it ended. A process that is about to exit by itself keeps its own status:
    /// a signal that comes after the exit has begun does not change it.
    pub(crate) fn end(mut self) -> String {
        self.kill();
        let status = self.process.wait();
        self.log();
        if self.garbled {
            return "its task wrote into Remuda's control socket, a file descriptor that is not its own".to_owned();
        }
        status.map_or_else(|e| format!("it could not be waited for: {e}"), ending)
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => signal_name(signal),
        (None, None) => "it ended".to_owned(),
    }
}

fn unblock(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
