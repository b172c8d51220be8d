//! The events of a run, one after the other.

use std::cmp::Reverse;

use super::{Event, Outcome, Policy, Sim, Timed};
use crate::work::Arrival;

/// A run that takes longer hangs.
const LONGEST: f64 = 100_000.0;
const MOST_EVENTS: u64 = 50_000_000;

impl Sim {
    /// Runs all jobs under `policy`, and on for `open` seconds after the last.
    pub(crate) fn run(mut self, policy: &mut dyn Policy, open: f64) -> Outcome {
        for (job, def) in (0..).zip(self.work.jobs.clone()) {
            if let Arrival::At(at) = def.arrival {
                self.push(at, Event::Arrive(job));
            }
        }
        (0..policy.head_start()).for_each(|_| self.launch());
        // Where in the polling interval the first job comes is chance.
        let first = self.random.unit() * policy.interval();
        self.push(first, Event::Decide);
        let mut end = f64::INFINITY;
        let mut events = 0;
        while let Some(Reverse(Timed { at, event, .. })) = self.events.pop() {
            events += 1;
            if at > end + open || at > LONGEST || events > MOST_EVENTS {
                break;
            }
            self.now = at;
            if !self.handle(event, policy) {
                break;
            }
            self.dispatch();
            if self.jobs_left == 0 && end.is_infinite() {
                end = self.now;
                self.outcome.cost = self.cost(end);
            }
        }
        self.outcome(end, open)
    }

    /// Whether the run goes on.
    fn handle(&mut self, event: Event, policy: &mut dyn Policy) -> bool {
        match event {
            Event::Arrive(job) => self.arrive(job),
            Event::Finish { task, worker, run } => self.finish(task, worker, run),
            Event::Ready(worker) => self.connect(worker),
            Event::Drained(worker) => self.drained(worker),
            Event::Decide => {
                self.heartbeat();
                let actions = policy.decide(self);
                self.obey(actions);
                if self.tracing {
                    self.outcome.trace.push((self.now, self.live.len() as u32, self.pending.len() as u32, self.tasks()));
                }
                self.push(self.now + policy.interval(), Event::Decide);
                return self.jobs_left > 0 || !(self.fleet() == 0 && self.draining.is_empty());
            }
        }
        true
    }

    fn outcome(mut self, end: f64, open: f64) -> Outcome {
        let mut outcome = std::mem::take(&mut self.outcome);
        outcome.finished = end.is_finite();
        outcome.makespan = end;
        let last = match (outcome.finished, self.fleet()) {
            (true, 1..) => end + open,
            (true, 0) => self.now.clamp(end, end + open),
            (false, _) => self.now,
        };
        outcome.cost_open = self.cost(last);
        let took = self.jobs.iter().map(|job| job.done.unwrap_or(f64::INFINITY) - job.arrived.unwrap_or(0.0));
        outcome.latency = took.sum::<f64>() / self.jobs.len() as f64;
        outcome.useless = self.useless(end);
        outcome
    }
}
