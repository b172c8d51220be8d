//! The processes of one slot, and the one thing it waits for at a time: its mailbox, its children, a deadline.

mod birth;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use remuda_core::{
    host::wire::{Reply, Request, frame},
    task::{Outcome, TaskError, Work},
    value::decode,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process_group},
};

use crate::{
    calls,
    child::Child,
    engine::{RunnerId, Shared},
    mailbox::Mailbox,
    nested::{self, Nested},
    python,
    runner::{Message, Runner},
    scheduler::{Ended, RunId, Start},
};

/// Which of a slot's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Host,
    Python,
}

pub(crate) struct Processes {
    shared: Arc<Shared>,
    runner: RunnerId,
    worker: remuda_core::manager::WorkerId,
    worker_name: Arc<str>,
    mailbox: Arc<Mailbox<Message>>,
    /// Came while something else was waited for.
    postponed: VecDeque<Message>,
    host: Option<Child>,
    python: Option<Child>,
    /// Of the command that runs.
    group: Option<Pid>,
    /// The worker lives as long as one of its slots' hosts does, and this is one.
    counted: bool,
    stopped: bool,
}

enum Event {
    Message(Message),
    /// `None`: it is dead.
    Said(Who, Option<Bytes>),
    Timeout,
}

impl Processes {
    pub(crate) fn new(runner: &Runner) -> Self {
        Self {
            shared: runner.shared.clone(),
            runner: runner.id,
            worker: runner.worker,
            worker_name: runner.worker_name.clone(),
            mailbox: runner.mailbox.clone(),
            postponed: VecDeque::new(),
            host: None,
            python: None,
            group: None,
            counted: runner.founding && runner.shared.options.processes,
            stopped: false,
        }
    }

    /// The next message. Looks after the children meanwhile. `None`: the worker is lost.
    pub(crate) fn idle(&mut self) -> Option<Message> {
        loop {
            if self.stopped {
                return Some(Message::Stop);
            }
            if let Some(message) = self.postponed.pop_front() {
                return Some(message);
            }
            match self.next(None) {
                Event::Message(message) => return Some(message),
                Event::Said(who, None) => {
                    let cause = self.bury(who);
                    tracing::warn!(worker = &*self.worker_name, cause, process = ?who, "an idle worker process ended");
                    if who == Who::Host && self.counted && !self.replace_host(&cause) {
                        return None;
                    }
                }
                Event::Said(..) | Event::Timeout => {}
            }
        }
    }

    pub(crate) fn execute(&mut self, start: &Start) -> Ended {
        let call = match calls::prepare(start, &self.shared) {
            Ok(call) => call,
            Err(error) => return Ended::Outcome(Err(error)),
        };
        let who = call.who;
        let started = match (who, self.child(who).is_some()) {
            (_, true) => Ok(()),
            (Who::Host, false) => self.start_host(),
            (Who::Python, false) => self.start_python(),
        };
        if let Err(error) = started {
            return match self.stopped {
                true => Ended::Lost("its worker was stopped".to_owned()),
                false => Ended::Outcome(Err(TaskError::Refused(error))),
            };
        }
        if let Some(child) = self.child(who) {
            child.task = Some(start.spec.name.clone());
            child.send(call.frame);
        }
        let ended = self.attend(who, start.run, &start.spec.work);
        self.group = None;
        if let Some(child) = self.child(who) {
            child.log();
            child.task = None;
        }
        ended
    }

    /// Until the attempt is over.
    fn attend(&mut self, who: Who, run: RunId, work: &Work) -> Ended {
        let mut nested = Nested::new(self.shared.clone(), run, self.mailbox.clone());
        let (mut deadline, mut killed) = (None, None::<String>);
        let mut interrupted = false;
        loop {
            let event = self.postponed.pop_front().map(Event::Message);
            match event.unwrap_or_else(|| self.next(deadline)) {
                Event::Message(Message::Interrupt(wanted)) if wanted == run && !interrupted => {
                    interrupted = true;
                    deadline = Some(Instant::now() + self.shared.options.grace);
                    self.cancel(who);
                }
                Event::Message(Message::Stop) => {
                    self.stopped = true;
                    // Not killed yet: a command that the host is just starting is known to the host alone.
                    if let Some(child) = self.child(who) {
                        child.hang_up();
                    }
                    deadline = Some(Instant::now() + self.shared.options.grace);
                }
                Event::Message(Message::Kill { pid, cause }) => {
                    if self.child(who).as_ref().is_some_and(|child| child.id() == pid) {
                        killed = Some(cause);
                    }
                    self.kill_pid(pid);
                }
                Event::Message(Message::News(about, news)) if about == run => {
                    if let (Some(host), Some(frame)) = (&mut self.host, nested::frame_of(*news)) {
                        host.send(frame);
                    }
                }
                Event::Message(_) => {}
                Event::Timeout => {
                    self.kill(who);
                    deadline = None;
                }
                Event::Said(from, Some(message)) if from == who => {
                    if let Some(outcome) = self.understand(who, &message, work, &mut nested) {
                        return Ended::Outcome(outcome);
                    }
                }
                Event::Said(from, None) if from == who => {
                    let cause = self.bury(who);
                    let cause = killed.unwrap_or(cause);
                    self.after_death(who, &cause, interrupted);
                    return Ended::Lost(cause);
                }
                Event::Said(from, None) => {
                    let cause = self.bury(from);
                    self.after_death(from, &cause, false);
                }
                Event::Said(..) => {}
            }
        }
    }

    /// A slot of a process worker goes on with a new host; whether it may is the engine's to say.
    fn after_death(&mut self, who: Who, cause: &str, on_purpose: bool) {
        if who != Who::Host || !self.counted || self.stopped {
            return;
        }
        if !on_purpose {
            self.replace_host(cause);
        } else if let Err(error) = self.start_host() {
            self.lose_worker(&error.report());
        }
    }

    fn replace_host(&mut self, cause: &str) -> bool {
        if !self.shared.host_died(self.worker, cause) {
            self.stopped = true;
            return false;
        }
        match self.start_host() {
            Ok(()) => true,
            Err(error) => {
                self.lose_worker(&error.report());
                false
            }
        }
    }

    fn lose_worker(&mut self, cause: &str) {
        let worker = self.worker;
        if !self.stopped {
            self.shared.update(|state, now| state.lost(worker, cause, now));
        }
        self.stopped = true;
    }

    fn understand(&mut self, who: Who, message: &[u8], work: &Work, nested: &mut Nested) -> Option<Outcome> {
        match who {
            Who::Python => Some(python::outcome(message)),
            Who::Host => match decode::<Reply>(message) {
                Ok(Reply::Group(pid)) => {
                    self.group = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    None
                }
                Ok(Reply::Ask(ask)) => {
                    nested.ask(ask);
                    None
                }
                reply => Some(calls::outcome(reply, work)),
            },
        }
    }

    fn cancel(&mut self, who: Who) {
        match (who, frame(&Request::Cancel)) {
            (Who::Host, Ok(frame)) => {
                if let Some(host) = &mut self.host {
                    host.send(frame);
                }
            }
            _ => {
                if let Some(child) = self.child(who) {
                    child.interrupt();
                }
            }
        }
    }

    /// If it is still one of ours.
    pub(crate) fn kill_pid(&self, pid: u32) {
        for child in [&self.host, &self.python].into_iter().flatten() {
            if child.id() == pid {
                child.kill();
            }
        }
    }

    fn kill(&mut self, who: Who) {
        if let Some(child) = self.child(who) {
            child.kill();
        }
    }

    fn child(&mut self, who: Who) -> &mut Option<Child> {
        match who {
            Who::Host => &mut self.host,
            Who::Python => &mut self.python,
        }
    }

    /// It is dead: with everything it had started. How it ended.
    fn bury(&mut self, who: Who) -> String {
        if let (Who::Host, Some(group)) = (who, self.group.take()) {
            // Its leader was the host's child and is not reaped by us, but the group is empty or ours.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.end(who)
    }

    fn end(&mut self, who: Who) -> String {
        let ended = self.child(who).take().map(Child::end);
        self.note_children();
        ended.unwrap_or_else(|| "it ended".to_owned())
    }

    fn note_children(&self) {
        let children = [&self.host, &self.python].into_iter().flatten().map(Child::id).collect();
        self.shared.note_children(self.runner, children);
    }

    pub(crate) fn close(&mut self) {
        for who in [Who::Host, Who::Python] {
            self.bury(who);
        }
    }

    fn next(&mut self, deadline: Option<Instant>) -> Event {
        loop {
            if let Some(message) = self.mailbox.take() {
                return Event::Message(message);
            }
            for who in [Who::Host, Who::Python] {
                if let Some(child) = self.child(who) {
                    if let Some(message) = child.message() {
                        return Event::Said(who, Some(message));
                    }
                    if child.is_dead() {
                        return Event::Said(who, None);
                    }
                }
            }
            if self.host.is_none() && self.python.is_none() && deadline.is_none() {
                return Event::Message(self.mailbox.wait());
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Event::Timeout;
            }
            self.wait(deadline);
        }
    }

    /// Until there may be news.
    fn wait(&mut self, deadline: Option<Instant>) {
        let Ok(signal) = self.mailbox.signal() else {
            // Without a descriptor left: look again soon.
            std::thread::sleep(Duration::from_millis(10));
            return self.pump();
        };
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::from_borrowed_fd(signal, PollFlags::IN));
        for child in [&self.host, &self.python].into_iter().flatten() {
            let (socket, flags, output) = child.interest();
            fds.push(PollFd::from_borrowed_fd(socket, flags));
            fds.extend(output.map(|output| PollFd::from_borrowed_fd(output, PollFlags::IN)));
        }
        let timeout = deadline.and_then(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())).ok());
        let _ = poll(&mut fds, timeout.as_ref());
        self.mailbox.rearm();
        self.pump();
    }

    fn pump(&mut self) {
        for child in [&mut self.host, &mut self.python].into_iter().flatten() {
            child.pump();
        }
    }
}
