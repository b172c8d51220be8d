//! Graphs that keep coming: which fleet, held for how long, would have been best for the recent ones.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{durations::Estimate, load::Load};

/// The graphs that came lately, and what follows from them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recurrence {
    batches: VecDeque<Batch>,
    /// Whether work was present when a graph came, for the last ones.
    overlaps: VecDeque<bool>,
    /// The groups of the last load.
    seen: BTreeSet<u64>,
    busy: bool,
    /// When the last work was over.
    over: f64,
    replayed: Option<f64>,
    /// How long a worker may idle. `None` before the first replay.
    timer: Option<f64>,
    /// Workers worth having for graphs like these; 0: none in particular.
    pub(super) base: u32,
}

/// What came at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Batch {
    at: f64,
    /// How long there had been nothing to do. `None`: there was work.
    pause: Option<f64>,
    /// (prefix, tasks) of each level of the graph.
    levels: Vec<Vec<(usize, f64)>>,
}

/// What a replay is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay<'a> {
    pub(super) now: f64,
    /// Start-up time and its billed part.
    pub(super) startup: f64,
    pub(super) billed: f64,
    pub(super) time_weight: f64,
    pub(super) target: f64,
    /// The longest idle timer, in break-evens.
    pub(super) idle_max: f64,
    /// Slots per worker, and most workers.
    pub(super) slots: f64,
    pub(super) maximum: u32,
    /// Workers that the present stream needs, and whether there is a stream.
    pub(super) streaming: u32,
    pub(super) durations: &'a [Estimate],
}

impl Replay<'_> {
    /// What a worker costs that is let go and wanted again: the billed part of a start-up, and the delay at the exchange rate of
    /// the objective.
    pub(super) fn break_even(&self) -> f64 {
        self.billed + self.time_weight * self.startup
    }
}

/// A fleet of a size, let go after idling for so long, under the recorded batches.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    workers: u32,
    idle: f64,
    cost: f64,
    score: f64,
    /// Share of the gaps it would have survived.
    kept: f64,
}

/// A batch with its durations looked up.
#[derive(Debug, Clone)]
struct Weighed {
    at: f64,
    pause: Option<f64>,
    levels: Vec<Level>,
}

/// A batch on a fleet of some size: how long it takes there, and the seconds of work in it.
#[derive(Debug, Clone, Copy)]
struct Served {
    at: f64,
    pause: Option<f64>,
    takes: f64,
    work: f64,
}

impl Served {
    /// Once for all idle timers: this is most of what a replay costs.
    fn by(batches: &[Weighed], workers: u32, slots: f64) -> Vec<Self> {
        let slots = f64::from(workers) * slots;
        let takes = |level: &Level| (level.work / slots.min(level.tasks)).max(level.longest);
        let served = |batch: &Weighed| Self {
            at: batch.at,
            pause: batch.pause,
            takes: batch.levels.iter().map(takes).sum(),
            work: batch.levels.iter().map(|level| level.work).sum(),
        };
        batches.iter().map(served).collect()
    }
}

/// A level of a graph: seconds of work, tasks, and the longest of them.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    work: f64,
    tasks: f64,
    longest: f64,
}

/// The shortest idle timer in break-evens, before many gaps were seen and after. Karlin's rule (wait one break-even) is the best
/// against an adversary; users are none, and the short timer is cheaper on average (at most 1 + 1/0.15 of the optimum).
const TRUST: f64 = 0.15;
const TRUST_LEAST: f64 = 0.1;
/// Candidates this near to the best (in ln of the objective) count as good.
const TIE: f64 = 0.05;
const BATCHES: usize = 60;
const BATCH_AGE: f64 = 1800.0;
/// Seconds between replays when nothing came.
const EVERY: f64 = 10.0;

impl Recurrence {
    /// Takes in the load; replays when something came, else now and then.
    pub(super) fn note(&mut self, load: &Load, replay: Replay<'_>) {
        let fresh = self.record(load, replay.now);
        let busy = load.groups.iter().any(|group| group.ready > 0 || group.processing > 0);
        if !busy && (self.busy || fresh) {
            self.over = replay.now;
        }
        self.busy = busy;
        if fresh || self.replayed.is_none_or(|at| replay.now - at > EVERY) {
            self.replayed = Some(replay.now);
            self.look_back(replay);
        }
    }

    /// How long a worker may idle.
    pub(super) fn timer(&self) -> f64 {
        self.timer.unwrap_or(0.0)
    }

    /// Graphs come while others run: idle gaps are per slot then, not per cluster.
    pub(super) fn overlapping(&self) -> bool {
        let overlapped = self.overlaps.iter().filter(|overlap| **overlap).count();
        overlapped >= 2 && overlapped * 3 >= self.overlaps.len()
    }

    fn record(&mut self, load: &Load, now: f64) -> bool {
        let pause = (!self.busy).then_some(now - self.over);
        let mut batch = Batch { at: now, pause, levels: vec![] };
        if load.groups.iter().any(|group| !self.seen.contains(&group.id)) {
            for (group, place) in load.groups.iter().zip(load.places()).filter(|(group, _)| !self.seen.contains(&group.id)) {
                if batch.levels.len() <= place.depth {
                    batch.levels.resize(place.depth + 1, vec![]);
                }
                batch.levels[place.depth].push((group.prefix, group.size() as f64));
            }
        }
        self.seen = load.groups.iter().map(|group| group.id).collect();
        batch.levels.retain(|level| level.iter().any(|(_, tasks)| *tasks > 0.0));
        if batch.levels.is_empty() {
            return false;
        }
        self.batches.push_back(batch);
        self.overlaps.push_back(self.busy);
        if self.overlaps.len() > 20 {
            self.overlaps.pop_front();
        }
        while self.batches.len() > BATCHES || self.batches.front().is_some_and(|first| now - first.at > BATCH_AGE) {
            self.batches.pop_front();
        }
        true
    }

    /// In hindsight over the recorded batches: the fleet size and idle timer that make the objective small.
    fn look_back(&mut self, replay: Replay<'_>) {
        let break_even = replay.break_even();
        self.base = 0;
        self.timer = Some(TRUST.min(replay.idle_max) * break_even);
        if self.batches.len() < 3 {
            return;
        }
        let candidates = self.candidates(replay);
        let best = candidates.iter().map(|candidate| candidate.score).fold(f64::INFINITY, f64::min);
        let good = candidates.iter().filter(|candidate| candidate.score <= best + TIE);
        if let Some(pick) = good.min_by(|a, b| a.cost.total_cmp(&b.cost)) {
            // Worth having only if it is still there when the next graph comes.
            self.base = if pick.kept >= 0.5 { pick.workers } else { 0 };
            self.timer = Some(pick.idle);
        }
        if self.overlapping() || replay.streaming > 0 {
            self.timer = Some(break_even);
        }
    }

    fn candidates(&self, replay: Replay<'_>) -> Vec<Candidate> {
        let tasks = |level: &Vec<(usize, f64)>| level.iter().map(|(_, tasks)| tasks).sum::<f64>();
        let width = self.batches.iter().flat_map(|batch| batch.levels.iter().map(tasks)).fold(0.0, f64::max);
        let top = ((width / replay.slots).ceil() as u32).max(replay.streaming).min(replay.maximum).max(1);
        // The range of timers widens as gaps are seen.
        let gaps = self.batches.len() as f64 - 1.0;
        let shortest = (TRUST * (3.0 / gaps).min(1.0)).max(TRUST_LEAST).min(replay.idle_max) * replay.break_even();
        let longest = replay.idle_max * replay.break_even();
        let ratio = if shortest > 0.0 { longest / shortest } else { 1.0 };
        let timers: Vec<f64> = (0..7).map(|step| shortest * ratio.powf(f64::from(step) / 6.0)).collect();
        let batches = self.weighed(replay.durations);
        let of_size = |workers| {
            let served = Served::by(&batches, workers, replay.slots);
            timers.iter().map(move |&idle| either_way(&served, workers, idle, replay)).collect::<Vec<_>>()
        };
        sizes(top).flat_map(of_size).collect()
    }

    /// The batches with their durations looked up.
    fn weighed(&self, durations: &[Estimate]) -> Vec<Weighed> {
        let mean = |prefix: usize| durations.get(prefix).map_or(super::durations::UNKNOWN, |estimate| estimate.mean);
        let level = |level: &Vec<(usize, f64)>| {
            level.iter().fold(Level::default(), |level, &(prefix, count)| Level {
                work: level.work + count * mean(prefix),
                tasks: level.tasks + count,
                longest: level.longest.max(mean(prefix)),
            })
        };
        self.batches
            .iter()
            .map(|batch| Weighed { at: batch.at, pause: batch.pause, levels: batch.levels.iter().map(level).collect() })
            .collect()
    }
}

/// 1 to 6, then in steps of 1.3, to `top`.
fn sizes(top: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(1), move |&n: &u32| {
        let next = if n < 6 { n + 1 } else { (f64::from(n) * 1.3) as u32 };
        (n < top).then_some(next.min(top))
    })
}

/// The mean, on the logarithmic scale of the objective, of what comes out if graphs came when they did, and if somebody looked at
/// each result before the next graph, and would have got it sooner from a faster fleet. Nobody can tell which it is. With the
/// arrivals as they were alone, a fast fleet idles where in truth it gets the next graph, and the policy stays with whatever small
/// fleet it had; with the other alone it buys large fleets for sessions that soon end.
fn either_way(batches: &[Served], workers: u32, idle: f64, replay: Replay<'_>) -> Candidate {
    let (fixed, waiting) = (held(batches, workers, idle, replay, false), held(batches, workers, idle, replay, true));
    Candidate {
        cost: (fixed.cost * waiting.cost).sqrt(),
        score: 0.5 * (fixed.score + waiting.score),
        kept: 0.5 * (fixed.kept + waiting.kept),
        ..fixed
    }
}

/// Cost and mean latency of the batches under a fleet that is let go after `idle` seconds without work, and started cold after.
///
/// With `waiting`, a graph that came when there was nothing to do comes as long after the end of the one before as it did.
fn held(batches: &[Served], workers: u32, idle: f64, replay: Replay<'_>, waiting: bool) -> Candidate {
    let n = f64::from(workers);
    let slots = n * replay.slots;
    let start = batches.first().map_or(0.0, |batch| batch.at);
    let (mut backlog, mut last, mut free, mut heard) = (0.0, start, start, start);
    let (mut cost, mut latency, mut gaps, mut kept) = (n * replay.billed, 0.0, 0.0, 0.0);
    for (number, Served { at: recorded, pause, takes, work }) in batches.iter().enumerate() {
        let at = match pause {
            Some(pause) if number > 0 && waiting => free + pause,
            _ => last + (recorded - heard),
        };
        heard = *recorded;
        let mut delay = 0.0;
        if at > free {
            let gap = at - free;
            cost += n * gap.min(idle);
            gaps += 1.0;
            if gap > idle {
                cost += n * replay.billed;
                delay = replay.startup;
            } else {
                kept += 1.0;
            }
            free = at;
        }
        backlog = f64::max(backlog - slots * (at - last), 0.0);
        last = at;
        let wait = backlog / slots;
        backlog += work;
        let end = delay + wait + takes;
        latency += end.max(replay.target);
        if at + end > free {
            cost += n * (at + end - free);
            free = at + end;
        }
    }
    let since = replay.now - heard;
    if last + since > free {
        cost += n * (last + since - free).min(idle);
    }
    let latency = latency / batches.len().max(1) as f64;
    let score = cost.max(1e-6).ln() + replay.time_weight * latency.max(1e-3).ln();
    Candidate { workers, idle, cost, score, kept: if gaps > 0.0 { kept / gaps } else { 1.0 } }
}
