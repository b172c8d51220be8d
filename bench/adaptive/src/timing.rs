//! How long a decision takes: the processor time of its thread, which others on the machine do not add to, and by the clock.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;
use remuda_core::adaptive::{AdaptConfig, Adaptive, Backend, Fleet, Group, Load, Phase, Prefix, State, Worker};
use rustix::time::{ClockId, clock_gettime};

/// Decisions of a case; the state goes from one to the next.
const DECISIONS: u64 = 2000;

/// A moment that is asked about over and over, with time passing.
struct Case {
    what: &'static str,
    /// Groups, each depending on the one before in chains of this length.
    groups: u64,
    chain: u64,
    tasks: u64,
    workers: u64,
    starting: u64,
    /// A new graph every so many decisions.
    every: u64,
}

const CASES: [Case; 5] = [
    Case { what: "nobody there, one graph", groups: 1, chain: 1, tasks: 100_000, workers: 0, starting: 0, every: 0 },
    Case { what: "one graph", groups: 1, chain: 1, tasks: 100_000, workers: 100, starting: 20, every: 0 },
    Case { what: "200 groups in chains of 10", groups: 200, chain: 10, tasks: 100_000, workers: 100, starting: 20, every: 0 },
    Case { what: "the same, 1,000 workers", groups: 200, chain: 10, tasks: 100_000, workers: 1000, starting: 200, every: 0 },
    Case {
        what: "the same, a graph at every tenth decision",
        groups: 200,
        chain: 10,
        tasks: 100_000,
        workers: 1000,
        starting: 200,
        every: 10,
    },
];

/// Prints how long decisions take, as a table.
pub(crate) fn timing(out: &mut dyn Write) -> Result<()> {
    writeln!(out, "| pending tasks | groups | workers (starting) | median | 99 % below | longest | longest by the clock |")?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for case in &CASES {
        let took = case.run();
        let sorted = |time: fn(&Took) -> Duration| {
            let mut times: Vec<f64> = took.iter().map(|took| time(took).as_secs_f64() * 1e6).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let (thread, clock) = (sorted(|took| took.thread), sorted(|took| took.clock));
        let share = |times: &[f64], share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|at| share(&thread, at));
        let by_clock = share(&clock, 1.0);
        let Case { what, tasks, workers, starting, .. } = case;
        writeln!(
            out,
            "| {tasks} | {what} | {workers} ({starting}) | {median:.0} us | {most:.0} us | {longest:.0} us | {by_clock:.0} us |"
        )?;
    }
    Ok(())
}

/// How long one decision took.
#[derive(Debug, Clone, Copy)]
struct Took {
    thread: Duration,
    clock: Duration,
}

/// The processor time that this thread has used so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

impl Case {
    fn run(&self) -> Vec<Took> {
        let adaptive = Adaptive::new(AdaptConfig { maximum: Some(2000), ..AdaptConfig::default() }, Backend::new(Duration::from_secs(30)));
        let (mut state, mut took) = (State::default(), vec![]);
        for number in 1..=DECISIONS {
            // A little after the last, so that requests stay under way.
            let now = Duration::from_secs(1000) + Duration::from_millis(10 * number);
            let (load, fleet) = (self.load(number), self.fleet());
            let (began, used) = (Instant::now(), thread_time());
            let (next, decision) = adaptive.decide(state, now, &load, &fleet);
            took.push(Took { thread: thread_time().saturating_sub(used), clock: began.elapsed() });
            std::hint::black_box(&decision);
            state = next;
        }
        took
    }

    fn load(&self, number: u64) -> Load {
        // New graphs have ids of their own; the old ones are over.
        let graph = number.checked_div(self.every).unwrap_or(0);
        let each = self.tasks / self.groups;
        let running = self.workers.min(self.tasks);
        let group = |at: u64| {
            let first = at.is_multiple_of(self.chain);
            Group {
                id: graph * self.groups + at,
                prefix: (at % self.prefixes()) as usize,
                waiting: if first { 0 } else { each },
                ready: if first { each } else { 0 },
                processing: if first { running * self.chain / self.groups } else { 0 },
                done: number,
                dependencies: if first { vec![] } else { vec![graph * self.groups + at - 1] },
            }
        };
        let prefix = |at: u64| Prefix {
            // Every fifth kind is unknown.
            completions: if at % 5 == 4 { 0 } else { 1000 },
            total: Duration::from_millis(700 * (at + 1)) * 1000,
            longest: Duration::from_secs(3 * (at + 1)),
            running: vec![Duration::from_millis(300); (running / self.prefixes()) as usize],
            arrived: self.tasks * (graph + 1),
        };
        Load { prefixes: (0..self.prefixes()).map(prefix).collect(), groups: (0..self.groups).map(group).collect() }
    }

    fn prefixes(&self) -> u64 {
        self.groups.min(20)
    }

    fn fleet(&self) -> Fleet {
        let worker = |id: u64| Worker {
            id,
            phase: if id < self.workers { Phase::Live(Duration::from_secs(900)) } else { Phase::Starting },
            launched: Some(Duration::from_secs(if id < self.workers { 870 } else { 995 })),
            billed: Some(Duration::from_secs(870)),
            slots: 1,
            processing: 1,
            bytes: 1 << 20,
            memory_limit: 4 << 30,
            pinned: false,
        };
        Fleet { workers: (0..self.workers + self.starting).map(worker).collect(), slots: 1, memory_limit: 4 << 30, ..Fleet::default() }
    }
}
