//! Workers that were let go and missed soon after: under a load that goes up and down by a worker or two for ever, it is better to keep
//! them than to start one after the other.

use serde::{Deserialize, Serialize};

/// What was regretted lately.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Regret {
    /// When workers were let go last, and how many there were before.
    let_go: Option<(f64, u32)>,
    /// When one was missed last.
    missed: Option<f64>,
    /// How long a surplus lasts, at most, that was regretted; ...
    hold: f64,
    /// ... and until when that counts.
    until: f64,
    /// When there was a surplus last.
    surplus: Option<f64>,
}

impl Regret {
    /// A worker that is missed later than that, in seconds, is not regretted.
    const SOON: f64 = 10.0;
    /// How long it is remembered when the need goes up and down no more.
    const MEMORY: f64 = 300.0;
    /// Once is chance: it counts when it comes again within so many seconds.
    const AGAIN: f64 = 60.0;
    /// Of so many workers one may be regretted: larger steps are graphs that come and go, not a load that varies a little.
    const SHARE: u32 = 8;

    /// How long workers are kept at least that were needed not long ago.
    pub(super) fn hold(&self, now: f64) -> f64 {
        if now < self.until { self.hold } else { 0.0 }
    }

    /// `need`: of the workers there are, `current`.
    pub(super) fn note(&mut self, now: f64, need: u32, current: u32) {
        if now >= self.until {
            self.hold = 0.0;
        }
        if need < current {
            self.surplus = Some(now);
        } else if self.hold > 0.0 && self.surplus.is_some_and(|at| now - at <= self.hold) {
            self.until = now + Self::MEMORY; // it varies still
        }
    }

    pub(super) fn lets_go(&mut self, now: f64, current: u32) {
        self.let_go = Some((now, current));
    }

    /// `waited`: how long a surplus lasted before it was let go; `longest`: how long workers are kept for it at most.
    pub(super) fn launches(&mut self, now: f64, (want, launch): (u32, u32), waited: f64, longest: f64) {
        let Some((at, before)) = self.let_go.take() else { return };
        let missed = now - at;
        if missed <= Self::SOON && want <= before && launch <= (before / Self::SHARE).max(1) {
            if self.missed.is_some_and(|before| now - before <= Self::AGAIN) {
                self.hold = self.hold.max(1.25 * (missed + waited)).min(longest);
                self.until = now + Self::MEMORY;
            }
            self.missed = Some(now);
        }
    }
}
