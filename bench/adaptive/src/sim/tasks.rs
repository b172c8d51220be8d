//! What happens to tasks.

use super::{Event, OVERHEAD, Phase, Sim, TaskState};
use crate::work::Arrival;

impl Sim {
    pub(super) fn arrive(&mut self, job: u32) {
        self.jobs[job as usize].arrived = Some(self.now);
        self.active.push(job);
        self.arrived.push(job);
        for group in self.work.jobs[job as usize].groups.clone() {
            let def = self.group_def(group);
            let (prefix, count) = (def.prefix, def.count);
            self.prefixes[prefix as usize].arrived += u64::from(count);
            if self.groups[group as usize].barriers == 0 {
                self.open(group);
            }
        }
    }

    /// The group's tasks that wait for nothing else may run.
    fn open(&mut self, group: u32) {
        for task in self.group_def(group).tasks() {
            if self.needs[task as usize] == 0 {
                self.make_ready(task);
            }
        }
    }

    fn make_ready(&mut self, task: u32) {
        self.states[task as usize] = TaskState::Ready;
        let group = &mut self.groups[self.work.tasks[task as usize].group as usize];
        group.waiting -= 1;
        group.ready += 1;
        self.ready_tasks += 1;
        self.queue.push_back(task);
    }

    pub(super) fn dispatch(&mut self) {
        while !self.queue.is_empty() && !self.free.is_empty() {
            let slot = self.random.below(self.free.len());
            let worker = self.free.swap_remove(slot);
            let Some(task) = self.queue.pop_front() else { return };
            let start = self.now.max(self.scheduler_free) + OVERHEAD;
            self.scheduler_free = start;
            self.states[task as usize] = TaskState::Running;
            let group = &mut self.groups[self.work.tasks[task as usize].group as usize];
            group.ready -= 1;
            group.running += 1;
            self.ready_tasks -= 1;
            self.running_tasks += 1;
            let beast = &mut self.workers[worker as usize];
            beast.idle_since = f64::INFINITY;
            beast.running.push((task, start));
            beast.tasks_run += 1;
            let run = self.runs[task as usize];
            self.push(start + self.work.tasks[task as usize].seconds, Event::Finish { task, worker, run });
        }
    }

    /// A task whose worker is taken away goes to the front of the queue.
    pub(super) fn interrupt(&mut self, task: u32) {
        self.outcome.killed += 1;
        self.runs[task as usize] += 1;
        self.states[task as usize] = TaskState::Ready;
        let group = &mut self.groups[self.work.tasks[task as usize].group as usize];
        group.running -= 1;
        group.ready += 1;
        self.running_tasks -= 1;
        self.ready_tasks += 1;
        self.queue.push_front(task);
    }

    pub(super) fn finish(&mut self, task: u32, worker: u32, run: u32) {
        if self.runs[task as usize] != run || self.states[task as usize] != TaskState::Running {
            return;
        }
        self.states[task as usize] = TaskState::Done;
        let def = self.work.tasks[task as usize].clone();
        self.groups[def.group as usize].running -= 1;
        self.groups[def.group as usize].done += 1;
        self.running_tasks -= 1;
        self.note_duration(task, def.seconds);
        let beast = &mut self.workers[worker as usize];
        beast.running.retain(|running| running.0 != task);
        if beast.running.is_empty() {
            beast.idle_since = self.now;
        }
        self.free.push(worker);
        self.store(worker, def.group, self.group_def(def.group).bytes);
        for after in def.feeds {
            self.needs[after as usize] -= 1;
            let barriers = self.groups[self.work.tasks[after as usize].group as usize].barriers;
            if self.needs[after as usize] == 0 && barriers == 0 {
                self.make_ready(after);
            }
        }
        if self.groups[def.group as usize].done == self.group_def(def.group).count {
            self.group_done(def.group);
        }
        self.job_progress(self.group_def(def.group).job);
    }

    fn note_duration(&mut self, task: u32, seconds: f64) {
        let at = self.prefix_of(task);
        let prefix = &mut self.prefixes[at];
        prefix.average = Some(prefix.average.map_or(seconds, |average| 0.5 * seconds + 0.5 * average));
        prefix.completions += 1;
        prefix.total += seconds;
        prefix.longest = prefix.longest.max(seconds);
    }

    fn group_done(&mut self, group: u32) {
        for after in self.groups[group as usize].blocks.clone() {
            self.groups[after as usize].barriers -= 1;
            if self.groups[after as usize].barriers == 0 {
                self.open(after);
            }
        }
        for before in self.group_def(group).dependencies.clone() {
            self.groups[before as usize].consumers -= 1;
            if self.groups[before as usize].consumers == 0 {
                self.release(before);
            }
        }
    }

    fn job_progress(&mut self, job: u32) {
        self.jobs[job as usize].left -= 1;
        if self.jobs[job as usize].left > 0 {
            return;
        }
        self.jobs[job as usize].done = Some(self.now);
        self.jobs_left -= 1;
        self.active.retain(|&active| active != job);
        for group in self.work.jobs[job as usize].groups.clone() {
            self.release(group);
        }
        if let Some(Arrival::After(pause)) = self.work.jobs.get(job as usize + 1).map(|next| next.arrival) {
            self.push(self.now + pause, Event::Arrive(job + 1));
        }
    }

    pub(super) fn store(&mut self, worker: u32, group: u32, bytes: f64) {
        let worker = &mut self.workers[worker as usize];
        worker.bytes += bytes;
        match worker.by_group.iter_mut().find(|entry| entry.0 == group) {
            Some(entry) => entry.1 += bytes,
            None => worker.by_group.push((group, bytes)),
        }
    }

    fn release(&mut self, group: u32) {
        if self.group_def(group).persist {
            return;
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.phase != Phase::Gone) {
            if let Some(at) = worker.by_group.iter().position(|entry| entry.0 == group) {
                let (_, bytes) = worker.by_group.swap_remove(at);
                worker.bytes = if worker.by_group.is_empty() { 0.0 } else { (worker.bytes - bytes).max(0.0) };
            }
        }
    }

    /// Workers report how long their tasks run: a second after they connect, then every 0.5 to 2 s by the size of the cluster.
    /// distributed forgets an average that a running task exceeds twice.
    pub(super) fn heartbeat(&mut self) {
        let every = match self.live.len() {
            ..=10 => 0.5,
            11..50 => 1.0,
            50..200 => 2.0,
            more => more as f64 / 200.0 + 1.0,
        };
        for at in 0..self.live.len() {
            let worker = &mut self.workers[self.live[at] as usize];
            let mut last = None;
            while worker.heartbeat <= self.now {
                last = Some(worker.heartbeat);
                worker.heartbeat += every;
            }
            let Some(last) = last else { continue };
            for (task, since) in worker.running.clone() {
                let prefix = self.prefix_of(task);
                let prefix = &mut self.prefixes[prefix];
                let elapsed = last - since;
                if elapsed > 0.0 {
                    prefix.longest_alive = prefix.longest_alive.max(elapsed);
                    if prefix.average.is_none_or(|average| elapsed > 2.0 * average) {
                        prefix.average = None;
                    }
                }
            }
        }
    }

    /// The duration of a task as distributed estimates it.
    pub(crate) fn dask_estimate(&self, prefix: usize) -> f64 {
        let prefix = &self.prefixes[prefix];
        match prefix.average {
            Some(average) => average,
            None if prefix.longest_alive > 0.0 => 2.0 * prefix.longest_alive,
            None => 0.5,
        }
    }
}
