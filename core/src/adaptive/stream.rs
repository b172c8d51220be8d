//! Work that keeps coming, in small pieces: how much of it per second.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{durations::Estimate, load::Load, steady::Steady};

/// How much work arrived, in bins of a sixth of a start-up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Seconds of work per second, oldest first.
    bins: VecDeque<f64>,
    /// Begin of the bin that is being filled, and what is in it.
    since: f64,
    work: f64,
    /// Tasks that had arrived at the last decision, per prefix.
    arrived: Vec<u64>,
    /// Workers for it, as long as they fit: see [`Stream::workers`].
    held: u32,
    #[serde(default)]
    steady: Steady,
}

impl Stream {
    const BINS: usize = 12;
    /// How busy the workers of a stream should be, and how little and how much they may be.
    const USUAL: f64 = 0.9;
    const FEW: f64 = 0.8;
    const MANY: f64 = 0.97;
    /// Fewer bins say nothing.
    const ENOUGH: usize = 6;

    fn width(startup: f64) -> f64 {
        (startup / 6.0).clamp(Steady::NARROW, 10.0)
    }

    /// Takes in what arrived since the last decision.
    pub(super) fn note(&mut self, load: &Load, durations: &[Estimate], now: f64, (startup, interval): (f64, f64)) {
        self.arrived.resize(self.arrived.len().max(load.prefixes.len()), 0);
        let (mut kinds, mut work) = (vec![], 0.0);
        for (kind, ((prefix, estimate), before)) in load.prefixes.iter().zip(durations).zip(&mut self.arrived).enumerate() {
            let arrived = prefix.arrived.saturating_sub(*before) as f64;
            if arrived > 0.0 {
                kinds.push((kind, arrived));
            }
            work += arrived * estimate.mean;
            *before = prefix.arrived;
        }
        let means: Vec<f64> = durations.iter().map(|estimate| estimate.mean).collect();
        self.steady.note(now, interval, kinds, &means);
        self.work += work;
        let passed = now - self.since;
        if passed >= Self::width(startup) {
            self.bins.push_back(std::mem::take(&mut self.work) / passed);
            self.since = now;
            if self.bins.len() > Self::BINS {
                self.bins.pop_front();
            }
        }
    }

    /// Seconds of work per second, forecast for one start-up ahead. 0 unless work arrives all the time: in at least three
    /// quarters of the bins.
    ///
    /// Level: the mean of the last five bins without the least and the fullest; a median jumps by a whole task. Slope: the median
    /// of the slopes between all pairs (Theil-Sen), where three quarters of them rise. At most twice the fullest bin.
    ///
    /// `calm`: see [`Adaptive::calm`](super::Adaptive::calm).
    pub(super) fn rate(&self, startup: f64, calm: f64) -> f64 {
        let steady = self.steady.rate(self.held > 0, Self::width(startup), calm);
        if steady > 0.0 {
            return steady;
        }
        let count = self.bins.len();
        if count < Self::ENOUGH {
            return 0.0;
        }
        let bins: Vec<f64> = self.bins.iter().copied().collect();
        let last = sorted(bins[count - 5..].to_vec());
        let level = last[1..4].iter().sum::<f64>() / 3.0;
        let sorted = sorted(bins.clone());
        if sorted[count / 4] <= 0.0 {
            return 0.0;
        }
        let ahead = 2.0 + startup / Self::width(startup);
        (level + rise(&bins) * ahead).min(2.0 * sorted[count - 1])
    }

    /// Workers that keep up with `rate`, a tenth to spare. The number stays while they are neither too few nor far too many: how many
    /// tasks come into a bin varies also where they come like clockwork, and a fleet that follows goes up and down for ever.
    pub(super) fn workers(&mut self, rate: f64, slots: f64) -> u32 {
        let busy = rate / (f64::from(self.held) * slots);
        if rate <= 0.0 {
            self.held = 0;
        } else if self.held == 0 || !(Self::FEW..=Self::MANY).contains(&busy) {
            self.held = (rate / Self::USUAL / slots).ceil() as u32;
        }
        self.held
    }

    /// The rate of tasks that have begun to come evenly, too few yet to say that they will go on so, and workers for it, rather one too
    /// many. Whoever of them is there stays until that is known: let go, they would be asked for again a few tasks later. Nobody is started.
    pub(super) fn likely(&self, (startup, interval): (f64, f64), slots: f64, calm: f64) -> (f64, u32) {
        let rate = if self.held == 0 { self.steady.begun(interval, Self::width(startup), calm) } else { 0.0 };
        (rate, (rate / Self::FEW / slots).ceil() as u32)
    }
}

/// By how much the bins rise from one to the next; 0 where they do not agree that they do.
fn rise(bins: &[f64]) -> f64 {
    let pairs = bins.iter().enumerate().flat_map(|(i, a)| bins.iter().enumerate().skip(i + 1).map(move |(j, b)| (b - a) / (j - i) as f64));
    let slopes: Vec<f64> = pairs.collect();
    let rising = slopes.iter().filter(|slope| **slope > 0.0).count();
    if rising * 4 > slopes.len() * 3 { median(slopes).max(0.0) } else { 0.0 }
}

/// The upper median.
fn median(values: Vec<f64>) -> f64 {
    let values = sorted(values);
    values[values.len() / 2]
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bins: &[f64]) -> Stream {
        Stream { bins: bins.iter().copied().collect(), ..Stream::default() }
    }

    #[test]
    fn graphs_now_and_then_are_no_stream() {
        assert_eq!(stream(&[5.0; 5]).rate(12.0, 15.0), 0.0);
        assert_eq!(stream(&[0.0, 9.0, 0.0, 9.0, 0.0, 9.0, 0.0, 9.0]).rate(12.0, 15.0), 0.0);
        assert_eq!(stream(&[5.0; 6]).rate(12.0, 15.0), 5.0);
    }

    /// Seven and eight tasks by turns: a fleet that is right for both stays.
    #[test]
    fn a_fleet_that_fits_stays() {
        let mut stream = Stream::default();
        assert_eq!([13.2, 14.4, 12.4, 13.0].map(|rate| stream.workers(rate, 1.0)), [15; 4]);
        assert_eq!([14.7, 14.0, 9.0, 0.0].map(|rate| stream.workers(rate, 1.0)), [17, 17, 10, 0]);
    }

    #[test]
    fn a_rise_is_followed_one_startup_ahead() {
        // 2 s bins; the middle of the last five is 6, one more per bin, 2 + 6 bins ahead.
        assert_eq!(stream(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).rate(12.0, 15.0), 14.0);
        assert_eq!(stream(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0]).rate(12.0, 15.0), 5.0);
    }
}
