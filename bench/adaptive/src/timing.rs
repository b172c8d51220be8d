//! How long a decision takes.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;
use remuda_core::adaptive::{AdaptConfig, Adaptive, Backend, Fleet, Group, Load, Phase, Prefix, State, Worker};

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
    writeln!(out, "| pending tasks | groups | workers (starting) | median | 99 % below | longest |\n|---|---|---|---|---|---|")?;
    for case in &CASES {
        let mut took = case.run();
        took.sort();
        let micros = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        let Case { what, tasks, workers, starting, .. } = case;
        writeln!(
            out,
            "| {tasks} | {what} | {workers} ({starting}) | {:.0} us | {:.0} us | {:.0} us |",
            micros(0.5),
            micros(0.99),
            micros(1.0)
        )?;
    }
    Ok(())
}

impl Case {
    fn run(&self) -> Vec<Duration> {
        let adaptive = Adaptive::new(AdaptConfig { maximum: Some(2000), ..AdaptConfig::default() }, Backend::new(Duration::from_secs(30)));
        let (mut state, mut took) = (State::default(), vec![]);
        for number in 1..=DECISIONS {
            // A little after the last, so that requests stay under way.
            let now = Duration::from_secs(1000) + Duration::from_millis(10 * number);
            let (load, fleet) = (self.load(number), self.fleet());
            let began = Instant::now();
            let (next, decision) = adaptive.decide(state, now, &load, &fleet);
            took.push(began.elapsed());
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
