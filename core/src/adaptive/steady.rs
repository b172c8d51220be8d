//! Tasks that come at even times, further apart than the bins of a stream: what load they are.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The last arrivals, as long as they come evenly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Steady {
    arrivals: VecDeque<Arrival>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Arrival {
    at: f64,
    tasks: f64,
    /// Seconds, with the durations as they are known now.
    work: f64,
    /// So many of each kind.
    #[serde(default)]
    kinds: Vec<(usize, f64)>,
}

impl Steady {
    /// Fewer say nothing; more than the most would be slow to see a change.
    const ENOUGH: usize = 6;
    /// Fewer are no sign of more. Two are: who is let go between the second and the third task is missed for the second time.
    const BEGUN: usize = 2;
    /// The rate of so few may be so much more than it looks: the first decision may have seen half of what came before the next.
    const ROUGHLY: f64 = 1.5;
    const MOST: usize = 24;
    /// Of the bins of a stream, seconds.
    pub(super) const NARROW: f64 = 2.0;
    /// A gap so many times as long as the usual one, or as short (give or take a decision), is the end of it.
    const UNEVEN: f64 = 1.5;
    /// Tasks further apart, in seconds, are single ones.
    const APART: f64 = 60.0;
    /// So much longer where it does already: at the limit it would do by turns.
    const SLACK: f64 = 1.2;

    /// So many tasks of each of these kinds have arrived; `means`: how long those of each take, as is known now.
    pub(super) fn note(&mut self, now: f64, interval: f64, kinds: Vec<(usize, f64)>, means: &[f64]) {
        let tasks: f64 = kinds.iter().map(|kind| kind.1).sum();
        if self.late(now, interval) {
            self.arrivals.clear();
        }
        if tasks > 0.0 {
            if self.early(now, interval) {
                self.arrivals.drain(..self.arrivals.len() - 1);
            }
            self.arrivals.push_back(Arrival { at: now, tasks, work: 0.0, kinds });
            if self.arrivals.len() > Self::MOST {
                self.arrivals.pop_front();
            }
        }
        for arrival in &mut self.arrivals {
            arrival.work = arrival.kinds.iter().map(|(kind, tasks)| tasks * means.get(*kind).copied().unwrap_or_default()).sum();
        }
    }

    /// Seconds of work per second; 0 where too few came, or too many at a time to be one stream and not graphs, or in too short a time,
    /// which for single tasks is that of the narrowest bins, for others of bins of `width`: a large graph comes in even pieces, too,
    /// while it is submitted.
    ///
    /// `longest`: how long the only worker waits for the next task at most; else it is no load that keeps one.
    pub(super) fn rate(&self, holding: bool, width: f64, longest: f64) -> f64 {
        let rate = self.so_far().0;
        let longest = if holding { longest * Self::SLACK } else { longest };
        let is_load = self.known(width) && self.widest() <= rate.max(1.0) && self.pause(rate) <= longest;
        if is_load { rate } else { 0.0 }
    }

    /// The same while too few came, in too short a time: what it will be if it goes on as it began. 0 after one, and where the second
    /// or a later one comes at another time than those before. Whatever comes about as often as decisions are made may be one, however
    /// many at a time: if it is not, it is over two decisions later.
    pub(super) fn begun(&self, interval: f64, width: f64, longest: f64) -> f64 {
        let rate = self.so_far().0;
        let often = self.gap().is_some_and(|gap| gap <= Self::UNEVEN * interval);
        let single = !self.known(width) && self.widest() <= (Self::ROUGHLY * rate).max(1.0);
        let may_be = (often || single) && self.pause(rate) <= longest;
        if may_be && self.arrivals.len() >= Self::BEGUN { rate } else { 0.0 }
    }

    /// Whether enough came, in enough time.
    fn known(&self, width: f64) -> bool {
        let least = if self.widest() > 1.0 { width } else { Self::NARROW };
        self.arrivals.len() >= Self::ENOUGH && self.so_far().1 >= least * (Self::ENOUGH - 1) as f64
    }

    /// Seconds of work per second, and in how many seconds they came.
    fn so_far(&self) -> (f64, f64) {
        let time = self.gap().unwrap_or(0.0) * (self.arrivals.len() as f64 - 1.0);
        let work = self.arrivals.iter().rev().skip(1).map(|arrival| arrival.work).sum::<f64>();
        (if time > 0.0 { work / time } else { 0.0 }, time)
    }

    /// How long one worker would wait for the next.
    fn pause(&self, rate: f64) -> f64 {
        self.gap().map_or(f64::INFINITY, |gap| gap * (1.0 - rate))
    }

    /// Tasks at a time, at most.
    fn widest(&self) -> f64 {
        self.arrivals.iter().map(|arrival| arrival.tasks).fold(0.0, f64::max)
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
        steady(times, tasks, now).rate(false, 2.0, 15.0)
    }

    fn steady(times: &[u32], tasks: u32, now: u32) -> Steady {
        seen(times, (tasks, 6.0), now)
    }

    fn seen(times: &[u32], (tasks, each): (u32, f64), now: u32) -> Steady {
        let mut steady = Steady::default();
        for second in 0..=now {
            let tasks = if times.contains(&second) { f64::from(tasks) } else { 0.0 };
            steady.note(f64::from(second), 1.0, if tasks > 0.0 { vec![(0, tasks)] } else { vec![] }, &[each]);
        }
        steady
    }

    #[test]
    fn what_has_begun_to_come_evenly_may_be_a_load() {
        let begun = |times: &[u32], tasks, now| steady(times, tasks, now).begun(1.0, 2.0, 15.0);
        assert_eq!([begun(&[0], 1, 6), begun(&[0, 5], 1, 6), begun(&[0, 5, 10], 1, 11)], [0.0, 1.2, 1.2], "one, two, three");
        assert_eq!([begun(&[0, 5], 1, 14), begun(&[0, 5, 10], 1, 19), begun(&[0, 22], 1, 22)], [0.0; 3], "over, single ones");
        assert_eq!([begun(&[0, 2, 9], 1, 9), begun(&[0, 5, 10], 2, 11), begun(&[0, 19, 38], 2, 38)], [0.0, 2.4, 0.0], "uneven, graphs");
        assert_eq!(begun(&[0, 5, 10, 15, 20, 25], 1, 26), 0.0, "it is one");
        let short = |times: &[u32], now| seen(times, (2, 0.25), now).begun(1.0, 2.0, 15.0);
        assert_eq!([short(&[0, 1, 2], 2), short(&[0, 1, 2], 5), short(&[0, 2, 4], 4)], [0.5, 0.0, 0.0], "often, over, graphs");
    }

    /// The first come before anybody knows how long they take, or while that looks longer than it is.
    #[test]
    fn what_came_is_worth_what_is_known_now() {
        let mut steady = Steady::default();
        for second in 0..=10 {
            steady.note(f64::from(second), 1.0, vec![(0, 1.0)], &[if second < 10 { f64::from(second) } else { 2.5 }]);
        }
        assert_eq!(steady.rate(false, 2.0, 15.0), 2.5);
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
