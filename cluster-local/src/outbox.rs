//! Events on their way to the listeners. To send one wakes a thread, which is not done under the engine's lock; their order is kept
//! all the same: they are queued under that lock, and one thread at a time delivers.

use std::sync::{Mutex, PoisonError, TryLockError};

use crate::scheduler::{Letter, drop_safely};

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Vec<Letter>>,
    /// Held by who delivers; a second one leaves it to the first.
    delivering: Mutex<()>,
}

impl Outbox {
    /// Under the lock that gives the order.
    pub(crate) fn push(&self, letters: &mut Vec<Letter>) {
        if !letters.is_empty() {
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).append(letters);
        }
    }

    /// Returns when everything that was pushed before is delivered, by whomever.
    pub(crate) fn flush(&self) {
        loop {
            self.deliver();
            let _nobody_delivers = self.delivering.lock().unwrap_or_else(PoisonError::into_inner);
            if self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }

    /// After it. When this returns, everything pushed before is delivered, or another thread is about to.
    pub(crate) fn deliver(&self) {
        while !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            let _one = match self.delivering.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // It looks again after it has let go.
                Err(TryLockError::WouldBlock) => return,
            };
            let letters = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
            for (listener, event) in letters {
                // Nobody listens: the event may be the last to hold a value, whose `Drop` is the user's.
                drop_safely(listener.send(event));
            }
        }
    }
}
