//! How a runner is woken: by a condition variable, or through a file descriptor while it also listens to processes.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    arrived: Condvar,
    signal: OnceLock<OwnedFd>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { queue: Mutex::default(), arrived: Condvar::new(), signal: OnceLock::new() }
    }
}

impl<T> Mailbox<T> {
    /// Never waits.
    pub(crate) fn send(&self, message: T) {
        self.queue().push_back(message);
        self.arrived.notify_one();
        if let Some(signal) = self.signal.get() {
            // Full only after 2^64 messages, and then the reader is awake anyway.
            let _ = rustix::io::write(signal, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn wait(&self) -> T {
        let mut queue = self.queue();
        loop {
            match queue.pop_front() {
                Some(message) => return message,
                None => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.queue().pop_front()
    }

    /// Readable when there may be a message, from now on.
    pub(crate) fn signal(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.signal.get().is_none() {
            let fd = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let _ = self.signal.set(fd);
        }
        self.signal.get().map(AsFd::as_fd).ok_or(rustix::io::Errno::BADF)
    }

    /// Makes the signal unreadable until the next message; the queue is to be emptied afterwards.
    pub(crate) fn rearm(&self) {
        if let Some(signal) = self.signal.get() {
            let _ = rustix::io::read(signal, &mut [0u8; 8]);
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
