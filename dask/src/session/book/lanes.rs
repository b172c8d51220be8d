//! Small tasks of one kind wait here to share a unit: one trip through the scheduler for many calls.
//!
//! How many depends on how long they take, which is measured: a few go alone, then units grow by [`GROWTH`] until one takes [`TARGET`].
//! A unit never has more than its share of what waits, so that no slot idles while another has many calls left. So few units are in
//! flight that what waits here can still be cancelled, and what comes later with a higher priority goes first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use remuda_core::task::Key;

use crate::session::wire::Def;

/// How long one unit is to take, in seconds: far above what Dask spends on it, short enough to wait for.
const TARGET: f64 = 0.1;
/// How many times as many calls as any unit before.
const GROWTH: usize = 4;
/// Whatever the calls take.
const LARGEST: usize = 8192;
/// Bytes of arguments of one unit.
const HEAVIEST: usize = 1 << 20;
/// Units for each slot: one that runs, others that are on their way or whose end is.
const AHEAD: u32 = 4;
/// The same while nothing is known of the calls.
const PROBES: u32 = 2;
/// Maps smaller than so many calls for each slot go as they are.
const WORTH: usize = 4;

#[derive(Debug)]
pub(super) struct Lanes {
    /// How many calls a unit may have at most.
    most: usize,
    slots: u32,
    lanes: Vec<Lane>,
    /// Those with something in them, the most urgent first.
    waiting: BTreeSet<(Reverse<i64>, u32)>,
}

#[derive(Debug)]
struct Lane {
    /// Of its calls alone.
    def: u32,
    /// Of its batches.
    batch: Arc<Def>,
    priority: i64,
    /// Some may have left.
    queue: VecDeque<Key>,
    /// How many have not.
    len: usize,
    /// Units that Dask has.
    in_flight: u32,
    pace: Pace,
}

/// Calls of one kind that wait for others of theirs to come back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Backlog {
    pub(crate) name: String,
    pub(crate) calls: u64,
    /// Seconds that one takes. `None`: not known yet.
    pub(crate) seconds: Option<f64>,
}

/// How fast a lane's calls are.
#[derive(Debug, Default)]
struct Pace {
    /// Seconds for each call.
    per_call: Option<f64>,
    samples: u32,
    /// Calls of the largest unit that ended.
    largest: usize,
}

impl Pace {
    fn learn(&mut self, seconds: f64, calls: usize, slots: u32) {
        let sample = seconds.max(0.0) / calls.max(1) as f64;
        self.samples = self.samples.saturating_add(1);
        self.largest = self.largest.max(calls);
        self.per_call = Some(match self.per_call {
            None => sample,
            // The first call in each worker starts things and imports modules: it says nothing about those that follow.
            Some(known) if self.samples <= PROBES * slots => known.min(sample),
            Some(known) => f64::midpoint(known, sample),
        });
    }

    /// How many calls take [`TARGET`]. `None`: not known yet.
    fn calls(&self, slots: u32) -> Option<usize> {
        let fit = (TARGET / self.per_call?.max(1e-7)) as usize;
        // A slow one may have been slow because it was the first.
        (fit > 1 || self.samples > PROBES * slots).then(|| fit.min(self.largest.saturating_mul(GROWTH)).clamp(1, LARGEST))
    }
}

impl Lanes {
    pub(super) fn new(most: Option<u32>) -> Self {
        let most = most.map_or(LARGEST, |most| most.max(1) as usize);
        Self { most, slots: 1, lanes: Vec::new(), waiting: BTreeSet::new() }
    }

    pub(super) fn set_slots(&mut self, slots: u32) {
        self.slots = slots.max(1);
    }

    /// How many calls a map must have to come here.
    pub(super) fn worth_it(&self) -> usize {
        if self.most == 1 { usize::MAX } else { (self.slots as usize).saturating_mul(WORTH) }
    }

    pub(super) fn of(&mut self, def: u32, alone: &Arc<Def>) -> u32 {
        let at = self.lanes.iter().rposition(|lane| lane.def == def).unwrap_or_else(|| {
            // Failures of calls are counted here; a lost worker ends the batch, and its calls go on alone.
            let batch = Def { batch: true, retries: 0, allowed: Some(0), ..Def::clone(alone) };
            let lane = Lane {
                def,
                batch: Arc::new(batch),
                priority: alone.priority,
                queue: VecDeque::new(),
                len: 0,
                in_flight: 0,
                pace: Pace::default(),
            };
            self.lanes.push(lane);
            self.lanes.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(super) fn batch_def(&self, lane: u32) -> Arc<Def> {
        self.lanes[lane as usize].batch.clone()
    }

    pub(super) fn push(&mut self, at: u32, key: Key) {
        let lane = &mut self.lanes[at as usize];
        lane.queue.push_back(key);
        lane.len += 1;
        self.waiting.insert((Reverse(lane.priority), at));
    }

    /// Those that wait; some may have left.
    pub(super) fn queued(&self, at: u32) -> Vec<Key> {
        self.lanes[at as usize].queue.iter().copied().collect()
    }

    /// One of those that wait ended.
    pub(super) fn leave(&mut self, at: u32) {
        let lane = &mut self.lanes[at as usize];
        lane.len -= 1;
        if lane.len == 0 {
            lane.queue = VecDeque::new();
            self.waiting.remove(&(Reverse(lane.priority), at));
        }
    }

    /// A unit is not in flight any more.
    pub(super) fn land(&mut self, at: u32) {
        let lane = &mut self.lanes[at as usize];
        lane.in_flight = lane.in_flight.saturating_sub(1);
    }

    /// A unit took so long.
    pub(super) fn learn(&mut self, at: u32, seconds: f64, calls: usize) {
        let slots = self.slots;
        self.lanes[at as usize].pace.learn(seconds, calls, slots);
    }

    /// What is held back here: the scheduler does not see it, and who scales the cluster should.
    pub(super) fn backlog(&self) -> Vec<Backlog> {
        let waiting = self.lanes.iter().filter(|lane| lane.len > 0);
        let told = |lane: &Lane| Backlog { name: lane.batch.name.clone(), calls: lane.len as u64, seconds: lane.pace.per_call };
        waiting.map(told).collect()
    }

    /// The calls of the next unit. `size`: bytes of the arguments of a call that still waits; `None`: it has left.
    pub(super) fn next(&mut self, size: impl Fn(Key) -> Option<usize>) -> Option<(u32, Vec<Key>)> {
        let (at, many) = self.waiting.iter().find_map(|(_, at)| Some((*at, self.lanes[*at as usize].room(self.slots, self.most)?)))?;
        let lane = &mut self.lanes[at as usize];
        let mut keys = Vec::with_capacity(many);
        let mut bytes = 0;
        while keys.len() < many
            && let Some(key) = lane.queue.front().copied()
        {
            let size = size(key);
            if !keys.is_empty() && size.is_some_and(|size| bytes + size > HEAVIEST) {
                break;
            }
            lane.queue.pop_front();
            bytes += size.unwrap_or_default();
            keys.extend(size.map(|_| key));
        }
        lane.len -= keys.len();
        if lane.len == 0 {
            lane.queue = VecDeque::new();
            self.waiting.remove(&(Reverse(lane.priority), at));
        }
        if keys.is_empty() {
            return None;
        }
        lane.in_flight += 1;
        Some((at, keys))
    }
}

impl Lane {
    /// How many calls the next unit may have. `None`: there are enough units in flight.
    fn room(&self, slots: u32, most: usize) -> Option<usize> {
        let Some(calls) = self.pace.calls(slots) else {
            return (self.in_flight < slots.saturating_mul(PROBES)).then_some(1);
        };
        // Calls that take long go as they are: Dask sees them all.
        if calls == 1 {
            return Some(1);
        }
        let share = self.len / (slots as usize).saturating_mul(AHEAD as usize);
        (self.in_flight < slots.saturating_mul(AHEAD)).then(|| calls.min(share).min(most).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a map of `calls`, each of `seconds`, goes through `slots` slots: the sizes of its units in order.
    fn run(calls: u64, seconds: f64, slots: u32, most: Option<u32>) -> Vec<usize> {
        let mut lanes = Lanes::new(most);
        lanes.set_slots(slots);
        let def = crate::session::wire::Def::annotated("rust", "f", Arc::default(), &remuda_core::task::Annotations::default());
        let lane = lanes.of(0, &Arc::new(def));
        (0..calls).for_each(|key| lanes.push(lane, Key(key)));
        let mut sizes = Vec::new();
        let mut running = VecDeque::new();
        let mut seen = BTreeSet::new();
        loop {
            while let Some((_, keys)) = lanes.next(|_| Some(8)) {
                assert!(keys.iter().all(|key| seen.insert(*key)), "a call is in two units");
                sizes.push(keys.len());
                running.push_back(keys.len());
            }
            let Some(size) = running.pop_front() else { break };
            lanes.land(lane);
            lanes.learn(lane, seconds * size as f64, size);
        }
        assert_eq!(seen.len() as u64, calls, "a call was left behind");
        sizes
    }

    #[test]
    fn short_calls_share_units_that_grow_and_shrink_again() {
        let sizes = run(100_000, 1e-5, 2, None);
        assert!(sizes.len() < 400, "{} units", sizes.len());
        assert_eq!(sizes[..4], [1, 1, 1, 1], "probes");
        assert!(*sizes.iter().max().unwrap() >= 1000);
        assert_eq!(*sizes.last().unwrap(), 1, "no slot idles at the end while another has many calls left");
    }

    #[test]
    fn long_calls_go_alone() {
        assert!(run(500, 0.2, 2, None).iter().all(|size| *size == 1));
    }

    #[test]
    fn a_unit_takes_about_the_target() {
        let sizes = run(10_000, 0.004, 2, None);
        assert_eq!(*sizes.iter().max().unwrap(), 25);
    }

    #[test]
    fn the_option_bounds_it() {
        assert_eq!(*run(10_000, 1e-5, 2, Some(10)).iter().max().unwrap(), 10);
    }
}
