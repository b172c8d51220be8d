//! The processes of one slot. (to be written)
use std::sync::Arc;

use remuda_core::{
    error::{Error, ErrorKind, Result},
    task::TaskError,
};

use crate::{
    mailbox::Mailbox,
    runner::{Message, Runner},
    scheduler::{Ended, Start},
};

pub(crate) struct Processes {
    mailbox: Arc<Mailbox<Message>>,
}

impl Processes {
    pub(crate) fn new(runner: &Runner) -> Self {
        Self { mailbox: runner.mailbox.clone() }
    }
    pub(crate) fn start_host(&mut self) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "process workers are not built in yet"))
    }
    pub(crate) fn idle(&mut self) -> Option<Message> {
        Some(self.mailbox.wait())
    }
    pub(crate) fn execute(&mut self, _start: &Start) -> Ended {
        Ended::Outcome(Err(TaskError::Refused(Error::new(ErrorKind::Unsupported, "process workers are not built in yet"))))
    }
    pub(crate) fn close(&mut self) {}
}
