//! Why workers fail, how long to wait after it, and when to give up.

use std::{collections::BTreeMap, time::Duration};

use super::Time;
use crate::{
    error::{Error, ErrorKind},
    keeper::limits::{Limits, backoff},
};

/// Reasons that have their own delays and their own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The launch call failed.
    Refused,
    /// The platform has nothing left. Never counts as a crash loop: it passes by itself.
    Capacity,
    /// Launched, and never seen at the scheduler.
    NeverJoined,
    /// It joined and ended soon after, with nothing to do.
    Died,
}

impl Cause {
    pub(super) fn of(error: &Error) -> Self {
        if error.kind() == ErrorKind::Capacity { Self::Capacity } else { Self::Refused }
    }
}

#[derive(Debug, Default)]
struct Streak {
    count: u32,
    last: Time,
    first_reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    streaks: BTreeMap<Cause, Streak>,
    /// The cut-off: why nothing is launched any more.
    broken: Option<Error>,
}

impl Failures {
    /// Returns how long to wait. Workers launched before the last failure fail with it: ten that end together are one failure.
    pub(super) fn note(&mut self, limits: &Limits, now: Time, cause: Cause, launched: Time, reason: &str) -> Duration {
        let streak = self.streaks.entry(cause).or_default();
        if streak.count == 0 || launched > streak.last {
            streak.count += 1;
            streak.last = now;
        }
        if streak.count == 1 {
            reason.clone_into(&mut streak.first_reason);
        }
        let count = streak.count;
        if cause != Cause::Capacity && count >= limits.crash_loop && self.broken.is_none() {
            let first = &streak.first_reason;
            let text = match first == reason {
                true => format!("no more workers are launched: {count} failures in a row: {reason}"),
                false => format!("no more workers are launched: {count} failures in a row, the first: {first}; the last: {reason}"),
            };
            self.broken = Some(Error::new(ErrorKind::CrashLoop, text).with_hint("mend what ends the workers, then scale or start again"));
        }
        backoff(if cause == Cause::Capacity { limits.capacity_backoff } else { limits.backoff }, count)
    }

    /// The longest streak.
    pub(super) fn in_a_row(&self) -> u32 {
        self.streaks.values().map(|streak| streak.count).max().unwrap_or(0)
    }

    /// An error that cannot pass: nothing is launched any more.
    pub(super) fn cut_off(&mut self, error: &Error) {
        self.broken.get_or_insert_with(|| error.clone());
    }

    pub(super) fn well(&mut self, causes: &[Cause]) {
        causes.iter().for_each(|cause| drop(self.streaks.remove(cause)));
    }

    /// The user scaled: a new chance.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }

    pub(super) fn broken(&self) -> Option<&Error> {
        self.broken.as_ref()
    }
}
