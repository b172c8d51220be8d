//! The bounds that the policy must reach against Dask's defaults.

use std::io::Write;

use anyhow::Result;

use crate::{
    suite::{Cell, cell, mean, platform, run},
    work,
};

/// Per platform: most that cost times time may be of Dask's, on the named workloads and on random sessions.
const COST_TIMES_TIME: [(&str, f64, f64); 3] = [("local", 1.02, 0.95), ("k8s", 0.92, 0.90), ("fargate", 0.45, 0.65)];
/// The same for time, on random sessions.
const TIME: f64 = 0.95;
/// Most of the launches on Fargate that never run a task.
const USELESS: f64 = 0.08;

/// Sizes of a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Seeds per named workload.
    pub(crate) seeds: u64,
    /// Random sessions, and the seed of the first.
    pub(crate) sessions: u64,
    pub(crate) first: u64,
}

/// The cells of ours and of Dask's on one set of sessions.
#[derive(Debug, Default)]
struct Pairs(Vec<(Cell, Cell)>);

impl Pairs {
    fn ratio(&self, of: impl Fn(&Cell) -> f64) -> f64 {
        mean(self.0.iter().map(|(ours, dask)| of(ours) / of(dask)))
    }

    /// Share of our launches that were paid for and never ran a task.
    fn useless(&self) -> f64 {
        let sum = |of: fn(&Cell) -> f64| self.0.iter().map(|(ours, _)| of(ours)).sum::<f64>();
        sum(|cell| cell.useless) / sum(|cell| cell.launches).max(1.0)
    }

    fn broken(&self) -> u32 {
        self.0.iter().map(|(ours, _)| ours.broken).sum()
    }
}

/// Prints each figure next to its bound; whether all are met.
pub(crate) fn check(out: &mut dyn Write, ours: &str, size: Size) -> Result<bool> {
    let mut met = true;
    let mut judge = |out: &mut dyn Write, what: String, is: f64, most: f64| -> Result<()> {
        let verdict = if is <= most { "ok" } else { "MISSED" };
        met &= is <= most;
        Ok(writeln!(out, "{what:<58} {is:>7.3}  at most {most:<5} {verdict}")?)
    };
    for (name, named_most, random_most) in COST_TIMES_TIME {
        let named = named(name, ours, size)?;
        let random = random(name, ours, size)?;
        judge(out, format!("{name}: cost x time of Dask's, named workloads"), named.ratio(Cell::cost_times_time), named_most)?;
        judge(
            out,
            format!("{name}: cost x time of Dask's, {} random sessions", size.sessions),
            random.ratio(Cell::cost_times_time),
            random_most,
        )?;
        judge(out, format!("{name}: time of Dask's, {} random sessions", size.sessions), random.ratio(|cell| cell.latency), TIME)?;
        if name == "fargate" {
            judge(out, format!("{name}: launches never used, named workloads"), named.useless(), USELESS)?;
            judge(out, format!("{name}: launches never used, random sessions"), random.useless(), USELESS)?;
        }
        judge(out, format!("{name}: promises broken"), f64::from(named.broken() + random.broken()), 0.0)?;
        judge(out, format!("{name}: turns in an hour of constant load"), f64::from(turns(name, ours)?), 0.0)?;
    }
    Ok(met)
}

fn named(name: &str, ours: &str, size: Size) -> Result<Pairs> {
    let platform = platform(name)?;
    let pair = |work: &&str| Ok((cell(work, &platform, ours, 1..size.seeds + 1)?, cell(work, &platform, "dask", 1..size.seeds + 1)?));
    Ok(Pairs(work::NAMES.iter().map(pair).collect::<Result<_>>()?))
}

fn random(name: &str, ours: &str, size: Size) -> Result<Pairs> {
    let platform = platform(name)?;
    let pair = |seed: u64| Ok((cell("rand", &platform, ours, seed..seed + 1)?, cell("rand", &platform, "dask", seed..seed + 1)?));
    Ok(Pairs((size.first..size.first + size.sessions).map(pair).collect::<Result<_>>()?))
}

/// How often the size of the fleet turns, up after down or down after up, under constant load, after five minutes.
fn turns(name: &str, ours: &str) -> Result<u32> {
    let (outcome, _) = run("const", &platform(name)?, ours, 1, true)?;
    let settled = outcome.trace.iter().filter(|point| (300.0..3590.0).contains(&point.0)).map(|point| point.1 + point.2);
    let sizes: Vec<u32> = settled.collect();
    let steps = sizes.windows(2).map(|pair| pair[1].cmp(&pair[0])).filter(|step| step.is_ne()).collect::<Vec<_>>();
    Ok(steps.windows(2).filter(|pair| pair[0] != pair[1]).count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::NAMES;

    /// A small check, for every build; the full one is the program's.
    #[test]
    fn a_few_sessions_come_out_better_than_dask() {
        let size = Size { seeds: 1, sessions: 10, first: 90_000 };
        for name in NAMES {
            let random = random(name, "ours", size).unwrap();
            assert!(random.ratio(Cell::cost_times_time) < 1.05, "{name}: {}", random.ratio(Cell::cost_times_time));
            assert_eq!(random.broken(), 0, "{name}");
        }
    }
}
