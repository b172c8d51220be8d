//! Starting a slot's processes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_core::{
    error::{Error, ErrorKind, Result},
    host::wire::{Reply, VERSION},
    value::decode,
};

use super::{Event, Processes, Who};
use crate::{calls, launch, runner::Message};

/// For a new process to say hello: an overloaded machine, a large interpreter environment on a slow disk.
const HELLO: Duration = Duration::from_secs(60);

impl Processes {
    /// Starts the task host. Returns when it has said hello.
    pub(crate) fn start_host(&mut self) -> Result<()> {
        let mut child = launch::host(&self.shared.options, &self.worker_name)?;
        child.task = None;
        self.host = Some(child);
        self.note_children();
        let hello = self.hello(Who::Host)?;
        let fits = match decode::<Reply>(&hello) {
            Ok(Reply::Hello { version: VERSION, tasks, .. }) => calls::check_tasks(&tasks),
            Ok(Reply::Hello { version, .. }) => Err(format!("it speaks version {version} of the protocol, this driver version {VERSION}")),
            _ => Err("it did not say hello".to_owned()),
        };
        fits.map_err(|why| {
            self.end(Who::Host);
            Error::new(ErrorKind::Unexpected, format!("the task host does not belong to this driver: {why}"))
                .with_context("worker", &self.worker_name)
                .with_hint("both must be the same build; was the program replaced while it runs?")
        })
    }

    pub(super) fn start_python(&mut self) -> Result<()> {
        let child = launch::python(&self.shared.options, &self.worker_name)?;
        self.python = Some(child);
        self.note_children();
        self.hello(Who::Python).map(drop)
    }

    fn hello(&mut self, from: Who) -> Result<Bytes> {
        let until = Instant::now() + HELLO;
        loop {
            let problem = match self.next(Some(until)) {
                Event::Said(who, Some(hello)) if who == from => return Ok(hello),
                Event::Said(who, None) if who == from => format!("ended at once: {}", self.end(from)),
                Event::Timeout => {
                    self.end(from);
                    format!("did not answer within {HELLO:?}")
                }
                Event::Message(Message::Stop) => {
                    self.stopped = true;
                    self.end(from);
                    "was stopped".to_owned()
                }
                Event::Message(message) => {
                    self.postponed.push_back(message);
                    continue;
                }
                Event::Said(..) => continue,
            };
            let name = if from == Who::Host { "the task host" } else { "the Python interpreter" };
            return Err(Error::new(ErrorKind::Unavailable, format!("{name} {problem}")).with_context("worker", &self.worker_name));
        }
    }
}
