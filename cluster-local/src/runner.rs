//! The thread behind a slot.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use remuda_core::{
    error::{Error, ErrorKind, panic_message},
    host::nested::News,
    manager::WorkerId,
    task::{Job, Outcome, RustWork, SlotLease, TaskError, TaskScope, Work},
    value::Value,
};
use tokio::runtime::Runtime;

use crate::{
    engine::{RunnerId, Shared},
    mailbox::Mailbox,
    processes::Processes,
    scheduler::{Ended, RunId, Start},
};

/// What a runner is told.
#[derive(Debug)]
pub(crate) enum Message {
    Run(Box<Start>),
    /// Nobody waits for this attempt any more.
    Interrupt(RunId),
    /// For the task host, about what the attempt's task has submitted.
    News(RunId, Box<News>),
    /// This child is to end at once, and why.
    Kill {
        pid: u32,
        cause: String,
    },
    /// The worker is gone.
    Stop,
}

#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: RunnerId,
    pub(crate) worker: WorkerId,
    pub(crate) worker_name: Arc<str>,
    pub(crate) mailbox: Arc<Mailbox<Message>>,
    /// The worker is being launched, and has joined when all of these are ready.
    pub(crate) founding: bool,
}

/// The body of a runner's thread.
pub(crate) fn run(runner: Runner) {
    let mut processes = Processes::new(&runner);
    let mut runtime = None;
    let mut stays = true;
    if runner.founding {
        let ready = if runner.shared.options.processes { processes.start_host() } else { Ok(()) };
        stays = runner.shared.runner_ready(runner.id, ready);
    }
    while stays {
        match processes.idle() {
            Some(Message::Run(start)) => {
                let run = start.run;
                // Also what is not the body is the user's code here: `Serialize` of an argument.
                let ended = catch_unwind(AssertUnwindSafe(|| execute(&runner, &mut processes, &mut runtime, *start)))
                    .unwrap_or_else(|panic| Ended::Outcome(Err(TaskError::failed(format!("panicked: {}", panic_message(&*panic))))));
                stays = runner.shared.finished(runner.id, run, ended);
            }
            Some(Message::Kill { pid, .. }) => processes.kill_pid(pid),
            // Too late.
            Some(Message::Interrupt(_) | Message::News(..)) => {}
            Some(Message::Stop) | None => stays = false,
        }
    }
    processes.close();
    let (shared, id) = (runner.shared.clone(), runner.id);
    drop((runner, runtime));
    shared.runner_ended(id);
}

fn execute(runner: &Runner, processes: &mut Processes, runtime: &mut Option<Runtime>, mut start: Start) -> Ended {
    let spec = start.spec.clone();
    match &spec.work {
        Work::Rust(work) if !runner.shared.options.processes => Ended::Outcome(here(runner, runtime, work, &mut start)),
        _ => processes.execute(&start),
    }
}

/// A Rust body in this thread.
fn here(runner: &Runner, runtime: &mut Option<Runtime>, work: &RustWork, start: &mut Start) -> Outcome {
    let Some(body) = &work.here else {
        let text = format!("`{}` cannot run in a thread of this process", work.function);
        return Err(TaskError::Refused(Error::new(ErrorKind::Unsupported, text)));
    };
    for input in &mut start.inputs {
        if let Ok(value @ Value::Python(_)) = input {
            *value = runner.shared.converter.plain_blocking(value.clone())?;
        }
    }
    let scope = TaskScope {
        key: start.spec.key,
        attempt: start.attempt,
        worker: start.worker_name.clone(),
        cancel: start.cancel.clone(),
        slot: Some(Arc::new(Lease { shared: Arc::downgrade(&runner.shared), run: start.run })),
        session: None,
    };
    let inputs = std::mem::take(&mut start.inputs);
    let cancel = start.cancel.clone();
    let result = catch_unwind(AssertUnwindSafe(|| match body(scope, inputs) {
        Job::Ready(outcome) => outcome,
        Job::Future(future) => drive(runtime, async { cancel.run_until_cancelled(future).await.unwrap_or(Err(TaskError::Cancelled)) })?,
    }));
    result.unwrap_or_else(|panic| Err(TaskError::failed(format!("panicked: {}", panic_message(&*panic)))))
}

fn drive(runtime: &mut Option<Runtime>, future: impl Future<Output = Outcome>) -> Result<Outcome, TaskError> {
    if runtime.is_none() {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        *runtime = Some(built.map_err(|e| {
            TaskError::Refused(Error::new(ErrorKind::Unavailable, "the runtime for async tasks could not be started").with_source(e))
        })?);
    }
    Ok(runtime.as_ref().map_or(Err(TaskError::Cancelled), |runtime| runtime.block_on(future)))
}

/// A running body's hold on its slot.
struct Lease {
    shared: Weak<Shared>,
    run: RunId,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.run).finish()
    }
}

impl SlotLease for Lease {
    fn pause(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.update(|state, now| state.scheduler.pause(self.run, now));
        }
    }

    fn resume(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.update(|state, now| state.scheduler.resume(self.run, now));
        }
    }
}
