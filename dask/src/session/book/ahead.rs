//! Who awaits one result after the other makes one trip for each: so others that are likely to be wanted next come along.
//!
//! Those with the next keys, as far as they lie small at the same worker. Few at first, more with each trip that a single result takes.

use std::sync::Arc;

use bytes::Bytes;
use remuda_core::task::Key;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Book, Phase, Place, Unit};

/// Bytes of a result that may come along.
const SMALL: u64 = 64 << 10;
/// Of all that come with one.
const TOGETHER: u64 = 1 << 20;
const MANY: usize = 256;
/// Keys that are looked at: results are spread over the workers.
const LOOKED_AT: u64 = 1024;
/// Bytes that one session keeps here.
const ROOM: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Ahead {
    many: usize,
    room: Arc<Semaphore>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { many: 0, room: Arc::new(Semaphore::new(ROOM)) }
    }
}

impl Ahead {
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.room.available_permits()
    }
}

/// A result that is here, until it is released or lost.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A result that may come along.
pub(crate) type Along = (Key, Unit, String, bool);

impl Book {
    /// This result is asked for alone: what else there is to bring from its worker.
    pub(crate) fn along(&mut self, key: Key, worker: &str) -> Vec<Along> {
        let many = self.ahead.many;
        self.ahead.many = (2 * many + 1).min(MANY);
        let mut left = TOGETHER.min(self.ahead.room.available_permits() as u64);
        let next = (1..=LOOKED_AT).filter_map(|step| {
            let key = Key(key.0.checked_add(step)?);
            let task = self.tasks.get(&key).filter(|task| task.held)?;
            let Phase::Done(Place::At { address, size, copy: None }) = &task.phase else { return None };
            (&**address == worker && *size <= SMALL.min(left)).then_some(())?;
            left -= *size;
            let is_python = self.defs.get(task.def).is_some_and(|def| def.kind == "python");
            Some((key, task.unit?, self.prefix(task.def), is_python))
        });
        next.take(many).collect()
    }

    /// It came along.
    pub(crate) fn keep(&mut self, key: Key, worker: &str, bytes: Bytes) {
        let room = u32::try_from(bytes.len()).ok().filter(|size| u64::from(*size) <= SMALL);
        let room = room.and_then(|size| self.ahead.room.clone().try_acquire_many_owned(size).ok());
        if let Some(room) = room
            && let Some(task) = self.tasks.get_mut(&key)
            && let Phase::Done(Place::At { address, copy, .. }) = &mut task.phase
            && &**address == worker
        {
            *copy = Some(Arc::new(Copied { bytes, _room: room }));
        }
    }
}
