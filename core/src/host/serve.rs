//! The life of a task host.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};
use tokio_util::sync::CancellationToken;

use super::{
    TaskDef, command,
    direct::{DirectSession, Link},
    nested::{HostLease, HostSession, Speaker},
    tasks,
    wire::{self, READY, Reply, Request, VERSION},
};
use crate::{
    engine::Session,
    error::{Error, ErrorKind, panic_message},
    task::{Failure, Job, Outcome, SlotLease, TaskError, TaskScope},
};

/// What is running, as the thread that reads the socket sees it.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    /// The running command's process group.
    pub(super) group: Option<Pid>,
    /// What the running task has submitted.
    session: Option<Arc<HostSession>>,
    /// How tasks reach the scheduler, where nobody relays.
    link: Option<Arc<Link>>,
    busy: bool,
}

pub(super) type Shared = Arc<Mutex<Running>>;

pub(super) fn lock(running: &Shared) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the socket on standard input until it ends, then ends the process.
pub(super) fn serve() -> ! {
    let code = match open().and_then(Host::new) {
        Ok(host) => host.run(),
        Err(error) => {
            tracing::error!(error = %error, "the task host could not take its control socket");
            1
        }
    };
    process::exit(code)
}

/// Takes the socket away from standard input, where the user's code would find it.
fn open() -> std::io::Result<UnixStream> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut out = std::io::stdout();
    writeln!(out, "\n{READY}")?;
    out.flush()?;
    Ok(socket)
}

struct Host {
    speaker: Arc<Speaker>,
    listener: UnixStream,
    functions: HashMap<&'static str, &'static TaskDef>,
    running: Shared,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Host {
    fn new(socket: UnixStream) -> std::io::Result<Self> {
        Ok(Self {
            listener: socket.try_clone()?,
            speaker: Arc::new(Speaker::new(socket)),
            functions: tasks().map(|def| (def.name, def)).collect(),
            running: Shared::default(),
            runtime: None,
        })
    }

    fn run(mut self) -> i32 {
        let known = tasks().map(|def| (def.name.to_owned(), def.signature.to_owned())).collect();
        if !self.say(&Reply::Hello { version: VERSION, pid: process::id(), tasks: known }) {
            return 0;
        }
        let Ok(reader) = self.listener.try_clone() else { return 1 };
        let (requests, inbox) = mpsc::channel();
        let running = self.running.clone();
        let thread = std::thread::Builder::new().name("remuda host".into()).spawn(move || listen(reader, &requests, &running));
        if thread.is_err() {
            return 1;
        }
        while let Ok(request) = inbox.recv() {
            let reply = self.answer(request);
            let _ = std::io::stdout().flush();
            lock(&self.running).busy = false;
            if !self.say(&reply) {
                break;
            }
        }
        0
    }

    fn say(&self, reply: &Reply) -> bool {
        match self.speaker.say(reply) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let reply = Reply::Refused { unserializable: true, message: error.to_string(), hint: None };
                self.speaker.say(&reply).is_ok()
            }
            Err(_) => false,
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        let cancel = lock(&self.running).cancel.clone();
        match request {
            Request::Call { function, args, key, attempt, worker } => {
                let Some(def) = self.functions.get(&*function).copied() else {
                    let message = format!("this program's task host has no task `{function}`");
                    let hint = "a task that a host runs needs `#[remuda::task]` in this very program".to_owned();
                    return Reply::Refused { unserializable: false, message, hint: Some(hint) };
                };
                let relayed = HostSession::new(self.speaker.clone());
                let link = {
                    let mut running = lock(&self.running);
                    running.session = Some(relayed.clone());
                    running.link.clone()
                };
                let direct = link.map(|link| DirectSession::new(link, &cancel));
                let session: Arc<dyn Session> = direct.clone().map_or_else(|| relayed.clone() as _, |direct| direct as _);
                let slot: Arc<dyn SlotLease> = Arc::new(HostLease(relayed.clone()));
                let (worker, cancelled) = (worker.into(), cancel.clone());
                let scope = TaskScope { key, attempt, worker, cancel: cancelled, slot: Some(slot), session: Some(session) };
                let outcome = self.call(def, scope, &args, &cancel);
                lock(&self.running).session = None;
                relayed.end();
                if let Some(direct) = direct {
                    direct.end();
                }
                reply(outcome)
            }
            Request::Command { call } => {
                let group = |pid: u32| {
                    // The same socket: the final reply has not been written yet.
                    let _ = self.speaker.say(&Reply::Group(pid));
                };
                command::run(&call, &self.running, group)
            }
            Request::Cancel | Request::News(_) | Request::Access(_) => Reply::Cancelled,
        }
    }

    fn call(&mut self, def: &TaskDef, scope: TaskScope, args: &[u8], cancel: &CancellationToken) -> Outcome {
        let runtime = &mut self.runtime;
        let result = catch_unwind(AssertUnwindSafe(|| match (def.call)(scope, args) {
            Job::Ready(outcome) => outcome,
            Job::Future(future) => {
                if runtime.is_none() {
                    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    *runtime = Some(built.map_err(|e| Error::new(ErrorKind::Unavailable, "no runtime for async tasks").with_source(e))?);
                }
                let driven = async { cancel.run_until_cancelled(future).await.unwrap_or(Err(TaskError::Cancelled)) };
                runtime.as_ref().map_or(Err(TaskError::Cancelled), |runtime| runtime.block_on(driven))
            }
        }));
        result.unwrap_or_else(|panic| Err(TaskError::failed(format!("panicked: {}", panic_message(&*panic)))))
    }
}

fn reply(outcome: Outcome) -> Reply {
    let plain = outcome.and_then(|value| value.to_plain().map_err(TaskError::Refused));
    match plain {
        Ok(bytes) => Reply::Done(bytes),
        Err(TaskError::Failed(failure)) => Reply::Failed(Arc::try_unwrap(failure).unwrap_or_else(|shared| (*shared).clone())),
        Err(TaskError::Cancelled) => Reply::Cancelled,
        Err(TaskError::Refused(error)) => Reply::Refused {
            unserializable: error.kind() == ErrorKind::Unserializable,
            message: error.report(),
            hint: error.hint().map(str::to_owned),
        },
        Err(other) => Reply::Failed(Failure { message: other.to_string(), ..Failure::default() }),
    }
}

/// Reads until the driver is gone, and takes everything along then.
fn listen(mut socket: UnixStream, requests: &mpsc::Sender<Request>, running: &Shared) {
    loop {
        match wire::read(&mut socket) {
            Ok(Some(Request::Cancel)) => {
                let current = lock(running);
                current.cancel.cancel();
                if let Some(group) = current.group {
                    let _ = kill_process_group(group, Signal::TERM);
                }
            }
            Ok(Some(Request::Access(access))) => lock(running).link = Some(Arc::new(Link::new(access))),
            Ok(Some(Request::News(news))) => {
                let session = lock(running).session.clone();
                if let Some(session) = session {
                    session.hear(news);
                }
            }
            Ok(Some(request)) => {
                let mut current = lock(running);
                current.busy = true;
                current.cancel = CancellationToken::new();
                drop(current);
                if requests.send(request).is_err() {
                    return;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    let current = lock(running);
    if let Some(group) = current.group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    if current.busy {
        // In the middle of a task: nobody waits for it, and `exit` would run the user's exit handlers beside it. The driver made us
        // the leader of a group, in which what the task has started is too.
        if getpgrp() == rustix::process::getpid() {
            let _ = kill_process_group(getpgrp(), Signal::KILL);
        }
        process::abort();
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// A result as MessagePack.
pub(super) fn done(value: &impl serde::Serialize) -> Reply {
    match crate::value::encode(value) {
        Ok(bytes) => Reply::Done(Bytes::from(bytes)),
        Err(error) => Reply::Refused { unserializable: true, message: error.to_string(), hint: None },
    }
}
