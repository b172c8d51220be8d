//! Turns Python objects into plain values, in an interpreter of its own that exists from the first such object on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use remuda_core::{
    engine::{Form, Shown},
    error::{Error, ErrorKind, Result},
    task::{Outcome, TaskError, TaskSpec, Work},
    value::{PythonValue, Value},
};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::{child::Child, engine::Options, launch, mailbox::Mailbox, python};

pub(crate) struct Converter {
    options: Options,
    mailbox: Arc<Mailbox<Request>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    thread: Option<JoinHandle<()>>,
    stopped: bool,
    /// Every directory that a Python task of this cluster has named: the object's class may be there.
    paths: Vec<Arc<[String]>>,
}

type Answer = std::result::Result<Shown, TaskError>;

enum Request {
    Convert { object: Arc<PythonValue>, path: Vec<String>, forms: Vec<Form>, answer: oneshot::Sender<Answer> },
    Stop,
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Converter").field("started", &self.state().thread.is_some()).finish_non_exhaustive()
    }
}

impl Converter {
    pub(crate) fn new(options: &Options) -> Self {
        Self { options: options.clone(), mailbox: Arc::default(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where the classes of these tasks' results are.
    pub(crate) fn note_paths(&self, tasks: &[TaskSpec]) {
        let mut last: Option<&Arc<[String]>> = None;
        for task in tasks {
            if let Work::Python(work) = &task.work
                && !work.path.is_empty()
                && !last.is_some_and(|last| Arc::ptr_eq(last, &work.path))
            {
                last = Some(&work.path);
                let mut state = self.state();
                if !state.paths.contains(&work.path) {
                    state.paths.push(work.path.clone());
                }
            }
        }
    }

    /// Asks at once; the future waits for the answer.
    pub(crate) fn plain(&self, value: Value) -> impl Future<Output = Outcome> + Send + use<> {
        let asked = self.ask_plain(value);
        async move {
            match asked {
                Ok(asked) => plain(asked?.await),
                Err(value) => Ok(value),
            }
        }
    }

    /// A Python object in the first of these forms that it has.
    pub(crate) async fn show(&self, object: Arc<PythonValue>, forms: &[Form]) -> Answer {
        self.ask(object, forms)?.await.unwrap_or_else(|_| Err(closed()))
    }

    /// For threads that may wait.
    pub(crate) fn plain_blocking(&self, value: Value) -> Outcome {
        match self.ask_plain(value) {
            Ok(asked) => plain(asked?.blocking_recv()),
            Err(value) => Ok(value),
        }
    }

    /// Only Python objects need the interpreter.
    fn ask_plain(&self, value: Value) -> Result<Result<oneshot::Receiver<Answer>, TaskError>, Value> {
        match value {
            Value::Python(object) => Ok(self.ask(object, &[Form::Plain])),
            other => Err(other),
        }
    }

    fn ask(&self, object: Arc<PythonValue>, forms: &[Form]) -> Result<oneshot::Receiver<Answer>, TaskError> {
        let (answer, asked) = oneshot::channel();
        let mut state = self.state();
        if state.stopped {
            return Err(closed());
        }
        if state.thread.is_none() {
            let (options, mailbox) = (self.options.clone(), self.mailbox.clone());
            let thread = std::thread::Builder::new().name("remuda converter".into()).spawn(move || run(&options, &mailbox));
            state.thread = Some(thread.map_err(|e| {
                let error = Error::new(ErrorKind::Unavailable, "the thread that converts Python objects could not be started");
                TaskError::Refused(error.with_source(e))
            })?);
        }
        let path = state.paths.iter().flat_map(|path| path.iter().cloned()).collect();
        self.mailbox.send(Request::Convert { object, path, forms: forms.to_vec(), answer });
        Ok(asked)
    }

    /// Waits for nothing.
    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.mailbox.send(Request::Stop);
    }

    /// The thread, to be joined after [`stop`](Self::stop): its interpreter ends with it.
    pub(crate) fn thread(&self) -> Option<JoinHandle<()>> {
        self.state().thread.take()
    }
}

fn closed() -> TaskError {
    TaskError::Refused(Error::new(ErrorKind::Closed, "the cluster was closed before a Python object was converted"))
}

fn plain(answer: Result<Answer, oneshot::error::RecvError>) -> Outcome {
    match answer.unwrap_or_else(|_| Err(closed()))? {
        Shown::Plain(bytes) => Ok(Value::Plain(bytes)),
        other => Err(Error::new(ErrorKind::Unexpected, format!("a plain value was asked for, and {other:?} came")).into()),
    }
}

type Waiting = VecDeque<(Arc<PythonValue>, oneshot::Sender<Answer>)>;

fn run(options: &Options, mailbox: &Mailbox<Request>) {
    let mut interpreter: Option<Child> = None;
    let mut waiting = Waiting::new();
    loop {
        let request = match waiting.is_empty() {
            true => Some(mailbox.wait()),
            false => mailbox.take(),
        };
        match request {
            Some(Request::Stop) => break,
            Some(Request::Convert { object, path, forms, answer }) => {
                if let Err(error) = send(options, &mut interpreter, &object, &path, &forms) {
                    let _ = answer.send(Err(TaskError::Refused(error)));
                } else {
                    waiting.push_back((object, answer));
                }
                continue; // all that are asked for go out before the first answer is read
            }
            None => {}
        }
        let Some(child) = &mut interpreter else { continue };
        wait(mailbox, child);
        receive(&mut interpreter, &mut waiting);
    }
    if let Some(child) = interpreter {
        child.end();
    }
}

fn send(options: &Options, interpreter: &mut Option<Child>, object: &PythonValue, path: &[String], forms: &[Form]) -> Result<()> {
    let frame = python::convert(object, path, forms)?;
    // One that died between two requests has nothing to say.
    if let Some(child) = interpreter {
        child.pump();
        if child.is_dead() {
            interpreter.take().map(Child::end);
        }
    }
    let child = match interpreter {
        Some(child) => child,
        None => interpreter.insert(launch::python(options, &Arc::from("converter"))?),
    };
    child.send(frame);
    Ok(())
}

fn receive(interpreter: &mut Option<Child>, waiting: &mut Waiting) {
    let Some(child) = interpreter else { return };
    while let Some(message) = child.message() {
        if python::is_hello(&message) {
            continue;
        }
        let Some((object, answer)) = waiting.pop_front() else { continue };
        let _ = answer.send(python::shown(&message).map_err(|error| describe(error, &object)));
    }
    if child.is_dead() {
        let cause = interpreter.take().map(Child::end).unwrap_or_default();
        for (object, answer) in waiting.drain(..) {
            let text = format!("the interpreter that was to convert a Python object of type `{}` ended: {cause}", object.type_name);
            let _ = answer.send(Err(TaskError::Refused(Error::new(ErrorKind::Unavailable, text))));
        }
    }
}

fn describe(error: TaskError, object: &PythonValue) -> TaskError {
    match error {
        TaskError::Refused(error) => TaskError::Refused(error.with_context("type", &object.type_name)),
        // Unpickling runs code of the user's, which may raise anything.
        other => {
            let text = format!("a Python object of type `{}` could not be converted: {other}", object.type_name);
            TaskError::Refused(Error::new(ErrorKind::Unserializable, text))
        }
    }
}

fn wait(mailbox: &Mailbox<Request>, child: &mut Child) {
    if let Ok(signal) = mailbox.signal() {
        let (socket, flags, output) = child.interest();
        let mut fds = vec![PollFd::from_borrowed_fd(signal, PollFlags::IN), PollFd::from_borrowed_fd(socket, flags)];
        fds.extend(output.map(|output| PollFd::from_borrowed_fd(output, PollFlags::IN)));
        let _ = poll(&mut fds, None);
    }
    mailbox.rearm();
    child.pump();
}
