//! Simulates clusters under adaptive scaling, ours against the policies of other tools, on the same workloads and the same start-up
//! times.
//!
//! - `cargo run -p remuda-bench-adaptive --release`: all tables, Markdown on standard output (a minute): `docs/reports/adaptive.md`.
//! - `.. -- plot`: workers over time beside Dask's, as SVG: `docs/adaptive.svg`.
//! - `.. -- timing`: how long a decision takes: the table in `docs/performance.md`.
//! - `.. -- check [--policy NAME] [--seeds N] [--sessions N] [--first SEED]`: the bounds against Dask; exit status 1 if one is missed.
//! - `.. -- cells NAME.. [--platform P] [--seeds N]`: each named workload under these policies.
//! - `.. -- trace WORKLOAD PLATFORM POLICY [SEED]`: live and pending workers and tasks at every decision.

mod check;
mod ours;
mod peers;
mod platform;
mod plot;
mod random;
mod sim;
mod suite;
mod tables;
mod timing;
mod work;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};

/// Seed of the first random session, unless told otherwise. The design has not seen 50000 and above.
const FIRST: u64 = 50_000;

fn main() -> Result<ExitCode> {
    let mut args = Args(std::env::args().skip(1).collect());
    let mut out = io::stdout().lock();
    let (seeds, sessions, first) = (args.number("--seeds", 10)?, args.number("--sessions", 200)?, args.number("--first", FIRST)?);
    let only = args.option("--platform");
    let policy = args.option("--policy").unwrap_or_else(|| "ours".to_owned());
    let words: Vec<&str> = args.0.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            tables::tables(&mut out, seeds, sessions, first)?;
            writeln!(out, "## The bounds that every change must keep\n\n```text")?;
            let met = check::check(&mut out, "ours", check::Size { seeds, sessions, first })?;
            writeln!(out, "```")?;
            return Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        ["check"] => {
            let met = check::check(&mut out, &policy, check::Size { seeds, sessions, first })?;
            return Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        ["cells", policies @ ..] => cells(&mut out, policies, only.as_deref(), seeds)?,
        ["plot"] => plot::plot(&mut out)?,
        ["timing"] => timing::timing(&mut out)?,
        ["trace", work, platform, policy] => trace(&mut out, work, platform, policy, 1)?,
        ["trace", work, platform, policy, seed] => trace(&mut out, work, platform, policy, seed.parse()?)?,
        other => anyhow::bail!("not understood: {other:?}; give nothing, or `check`, `cells`, `plot`, `timing` or `trace`"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands on the command line.
struct Args(Vec<String>);

impl Args {
    /// Takes out `name` and its value.
    fn option(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|arg| arg == name)?;
        self.0.drain(at..(at + 2).min(self.0.len())).nth(1)
    }

    fn number(&mut self, name: &str, default: u64) -> Result<u64> {
        self.option(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}: expected a number, found `{text}`")))
    }
}

fn cells(out: &mut dyn Write, policies: &[&str], only: Option<&str>, seeds: u64) -> Result<()> {
    for name in platform::NAMES.iter().filter(|name| only.is_none_or(|only| only == **name)) {
        let platform = suite::platform(name)?;
        for work in work::NAMES {
            for policy in policies {
                let cell = suite::cell(work, &platform, policy, 1..seeds + 1)?;
                writeln!(out, "{work},{name},{policy},{:.2},{:.0},{:.1},{:.1}", cell.latency, cell.cost, cell.launches, cell.useless)?;
            }
        }
    }
    Ok(())
}

fn trace(out: &mut dyn Write, work: &str, platform: &str, policy: &str, seed: u64) -> Result<()> {
    let (outcome, bound) = suite::run(work, &suite::platform(platform)?, policy, seed, true)?;
    for (at, live, pending, tasks) in &outcome.trace {
        writeln!(out, "{at:.1},{live},{pending},{tasks}")?;
    }
    let mut rest = outcome;
    rest.trace.clear();
    Ok(writeln!(out, "{rest:?} {bound:?}")?)
}
