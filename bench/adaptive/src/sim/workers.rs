//! What happens to workers.

use super::{Actions, Event, Phase, Sim, Worker};
use crate::random::Random;

/// A retirement takes so long, and the time to move what is stored.
const RETIRE: f64 = 0.3;
const BYTES_PER_SECOND: f64 = 100e6;
/// A worker that lived shorter than this is churn.
const SHORT_LIFE: f64 = 60.0;

impl Sim {
    pub(super) fn launch(&mut self) {
        let id = self.workers.len() as u32;
        let launched = self.launch_time();
        // Common random numbers: the k-th launch has the same start-up time under every policy.
        let mut random = Random::new(self.seed.wrapping_mul(1_000_003) ^ u64::from(id).wrapping_mul(0x9E37));
        let provision = random.range(self.platform.provision);
        let boot = random.range(self.platform.boot);
        let billed = if self.platform.billed_from_launch { launched } else { launched + provision };
        let ready = launched + provision + boot;
        self.workers.push(Worker {
            phase: Phase::Pending,
            launched,
            billed,
            ready,
            ended: f64::INFINITY,
            idle_since: f64::INFINITY,
            running: vec![],
            bytes: 0.0,
            by_group: vec![],
            tasks_run: 0,
            heartbeat: ready + 0.5,
        });
        self.pending.push(id);
        self.outcome.launches += 1;
        if random.unit() >= self.platform.lost {
            self.push(ready, Event::Ready(id));
        }
    }

    /// Requests queue behind the platform's token bucket.
    fn launch_time(&mut self) -> f64 {
        let (burst, refill) = (self.platform.burst, self.platform.refill);
        self.tokens = (self.tokens + (self.now - self.tokens_at) * refill).min(burst);
        self.tokens_at = self.now;
        let at = if self.tokens >= 1.0 { self.now } else { self.now + (1.0 - self.tokens) / refill };
        self.tokens -= 1.0;
        self.launch_free = at.max(self.launch_free);
        self.launch_free
    }

    pub(super) fn connect(&mut self, id: u32) {
        let worker = &mut self.workers[id as usize];
        if worker.phase != Phase::Pending {
            return;
        }
        worker.phase = Phase::Live;
        worker.idle_since = self.now;
        self.pending.retain(|&pending| pending != id);
        self.live.push(id);
        self.free.extend(std::iter::repeat_n(id, self.setup.threads as usize));
    }

    fn cancel(&mut self, id: u32) {
        let worker = &mut self.workers[id as usize];
        if worker.phase != Phase::Pending {
            return;
        }
        worker.phase = Phase::Gone;
        worker.ended = self.now;
        if self.now <= worker.billed {
            self.outcome.launches -= 1;
        }
        self.pending.retain(|&pending| pending != id);
    }

    fn retire(&mut self, id: u32) {
        let worker = &mut self.workers[id as usize];
        if worker.phase != Phase::Live {
            return;
        }
        if self.live.len() == 1 && worker.bytes > 0.0 {
            // distributed abandons a retirement without recipients.
            self.outcome.refused += 1;
            return;
        }
        worker.phase = Phase::Draining;
        let running = std::mem::take(&mut worker.running);
        let moved = worker.bytes / BYTES_PER_SECOND;
        self.live.retain(|&live| live != id);
        self.free.retain(|&free| free != id);
        running.into_iter().for_each(|(task, _)| self.interrupt(task));
        self.draining.push(id);
        self.push(self.now + RETIRE + moved, Event::Drained(id));
    }

    /// What it stored goes to the worker that stores the least.
    pub(super) fn drained(&mut self, id: u32) {
        self.draining.retain(|&draining| draining != id);
        let worker = &mut self.workers[id as usize];
        worker.phase = Phase::Gone;
        worker.ended = self.now;
        let stored = std::mem::take(&mut worker.by_group);
        if self.now - worker.ready < SHORT_LIFE {
            self.outcome.churn += 1;
        }
        for (group, bytes) in stored {
            let emptiest = self.live.iter().copied().min_by(|&a, &b| self.worker(a).bytes.total_cmp(&self.worker(b).bytes));
            if let Some(emptiest) = emptiest {
                self.store(emptiest, group, bytes);
            }
        }
    }

    pub(super) fn obey(&mut self, actions: Actions) {
        actions.cancel.into_iter().for_each(|id| self.cancel(id));
        actions.retire.into_iter().for_each(|id| self.retire(id));
        (0..actions.launch).for_each(|_| self.launch());
        let fleet = self.fleet() as u32;
        if fleet > self.setup.maximum {
            self.outcome.violations += 1;
        }
        self.outcome.peak = self.outcome.peak.max(fleet);
    }

    fn bill(&self, worker: &Worker, end: f64) -> f64 {
        let end = worker.ended.min(end);
        if end <= worker.billed { 0.0 } else { (end - worker.billed).ceil().max(self.platform.minimum_charge) }
    }

    /// Worker-seconds billed if all ends then.
    pub(super) fn cost(&self, end: f64) -> f64 {
        self.workers.iter().map(|worker| self.bill(worker, end)).sum()
    }

    /// Workers paid for that never ran a task.
    pub(super) fn useless(&self, end: f64) -> u32 {
        self.workers.iter().filter(|worker| worker.tasks_run == 0 && self.bill(worker, end) > 0.0).count() as u32
    }
}
