//! Work that keeps coming, in small pieces: how much of it per second.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{durations::Estimate, load::Load};

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
}

impl Stream {
    const BINS: usize = 12;
    /// Fewer bins say nothing.
    const ENOUGH: usize = 6;

    fn width(startup: f64) -> f64 {
        (startup / 6.0).clamp(2.0, 10.0)
    }

    /// Takes in what arrived since the last decision.
    pub(super) fn note(&mut self, load: &Load, durations: &[Estimate], now: f64, startup: f64) {
        self.arrived.resize(self.arrived.len().max(load.prefixes.len()), 0);
        for ((prefix, estimate), before) in load.prefixes.iter().zip(durations).zip(&mut self.arrived) {
            self.work += prefix.arrived.saturating_sub(*before) as f64 * estimate.mean;
            *before = prefix.arrived;
        }
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
    /// Level: the median of the last five bins. Slope: the median of the slopes between all pairs (Theil-Sen), where three
    /// quarters of them rise. At most twice the fullest bin.
    pub(super) fn rate(&self, startup: f64) -> f64 {
        let count = self.bins.len();
        if count < Self::ENOUGH {
            return 0.0;
        }
        let bins: Vec<f64> = self.bins.iter().copied().collect();
        let sorted = sorted(bins.clone());
        if sorted[count / 4] <= 0.0 {
            return 0.0;
        }
        let level = median(bins[count - 5..].to_vec());
        let ahead = 2.0 + startup / Self::width(startup);
        (level + rise(&bins) * ahead).min(2.0 * sorted[count - 1])
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
        assert_eq!(stream(&[5.0; 5]).rate(12.0), 0.0);
        assert_eq!(stream(&[0.0, 9.0, 0.0, 9.0, 0.0, 9.0, 0.0, 9.0]).rate(12.0), 0.0);
        assert_eq!(stream(&[5.0; 6]).rate(12.0), 5.0);
    }

    #[test]
    fn a_rise_is_followed_one_startup_ahead() {
        // 2 s bins; the median of the last five is 6, one more per bin, 2 + 6 bins ahead.
        assert_eq!(stream(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).rate(12.0), 14.0);
        assert_eq!(stream(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0]).rate(12.0), 5.0);
    }
}
