//! Tasks that come at even times, further apart than the bins of a stream: what load they are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The last arrivals, as long as they come evenly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Steady {
    arrivals: VecDeque<Arrival>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Arrival {
    at: f64,
    tasks: f64,
    /// Seconds.
    work: f64,
}

impl Steady {
    /// Fewer say nothing; more than the most would be slow to see a change.
    const ENOUGH: usize = 6;
    const MOST: usize = 24;
    /// Of the bins of a stream, seconds.
    pub(super) const NARROW: f64 = 2.0;
    /// A gap so many times as long as the usual one, or as short (give or take a decision), is the end of it.
    const UNEVEN: f64 = 1.5;
    /// Tasks further apart, in seconds, are single ones.
    const APART: f64 = 60.0;
    /// So much longer where it does already: at the limit it would do by turns.
    const SLACK: f64 = 1.2;

    /// `tasks` of `work` seconds in all have arrived.
    pub(super) fn note(&mut self, now: f64, interval: f64, tasks: f64, work: f64) {
        if self.late(now, interval) {
            self.arrivals.clear();
        }
        if tasks > 0.0 {
            if self.early(now, interval) {
                self.arrivals.drain(..self.arrivals.len() - 1);
            }
            self.arrivals.push_back(Arrival { at: now, tasks, work });
            if self.arrivals.len() > Self::MOST {
                self.arrivals.pop_front();
            }
        }
    }

    /// Seconds of work per second; 0 where too few came, or too many at a time to be one stream and not graphs, or in too short a time,
    /// which for single tasks is that of the narrowest bins, for others of bins of `width`: a large graph comes in even pieces, too,
    /// while it is submitted.
    ///
    /// `longest`: how long the only worker waits for the next task at most; else it is no load that keeps one.
    pub(super) fn rate(&self, holding: bool, width: f64, longest: f64) -> f64 {
        let Some(gap) = self.gap().filter(|_| self.arrivals.len() >= Self::ENOUGH) else { return 0.0 };
        let gaps = (self.arrivals.len() - 1) as f64;
        let widest = self.arrivals.iter().map(|arrival| arrival.tasks).fold(0.0, f64::max);
        let least = if widest > 1.0 { width } else { Self::NARROW };
        if gap * gaps < least * (Self::ENOUGH - 1) as f64 {
            return 0.0;
        }
        let rate = self.arrivals.iter().take(self.arrivals.len() - 1).map(|arrival| arrival.work).sum::<f64>() / (gap * gaps);
        let pause = gap * (1.0 - rate);
        let longest = if holding { longest * Self::SLACK } else { longest };
        if widest > rate.max(1.0) || pause > longest { 0.0 } else { rate }
    }

    /// The mean.
    fn gap(&self) -> Option<f64> {
        let (first, last) = (self.arrivals.front()?, self.arrivals.back()?);
        (self.arrivals.len() > 1).then(|| (last.at - first.at) / (self.arrivals.len() - 1) as f64)
    }

    /// Whether the next is later than they were, ...
    fn late(&self, now: f64, interval: f64) -> bool {
        let longest = self.gap().map_or(Self::APART, |gap| Self::UNEVEN * gap + interval).min(Self::APART);
        self.arrivals.back().is_some_and(|last| now - last.at > longest)
    }

    /// ... or would be earlier if it came now.
    fn early(&self, now: f64, interval: f64) -> bool {
        let shortest = self.gap().map_or(0.0, |gap| gap / Self::UNEVEN - interval);
        self.arrivals.back().is_some_and(|last| now - last.at < shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes at these times, `tasks` of 6 s each; looked at once a second until `now`.
    fn rate(times: &[u32], tasks: u32, now: u32) -> f64 {
        let mut steady = Steady::default();
        for second in 0..=now {
            let tasks = if times.contains(&second) { f64::from(tasks) } else { 0.0 };
            steady.note(f64::from(second), 1.0, tasks, tasks * 6.0);
        }
        steady.rate(false, 2.0, 15.0)
    }

    #[test]
    fn tasks_at_even_times_are_a_load() {
        assert_eq!(rate(&[0, 5, 10, 15, 20, 25], 1, 30), 1.2);
        assert_eq!(rate(&[0, 5, 10, 15, 20], 1, 22), 0.0, "too few");
        assert_eq!(rate(&[0, 5, 10, 15, 20, 25], 1, 34), 0.0, "over");
        assert_eq!(rate(&[0, 2, 4, 20, 22, 24], 1, 25), 0.0, "uneven");
        assert_eq!(rate(&[0, 50, 53, 56, 59, 62, 65], 1, 66), 2.0, "even since 50");
        assert_eq!(rate(&[0, 10, 20, 30, 40, 50], 2, 51), 0.0, "graphs of two");
        assert_eq!(rate(&[0, 1, 2, 3, 4, 5, 6, 7], 9, 7), 0.0, "a graph in pieces");
        assert_eq!(rate(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 1, 11), 6.0);
        assert_eq!(rate(&[0, 25, 50, 75, 100, 125], 1, 126), 0.0, "single ones");
    }
}
