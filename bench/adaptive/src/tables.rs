//! The tables of the documentation, in Markdown.

use std::io::Write;

use anyhow::Result;

use crate::{
    peers,
    platform::{NAMES, Platform},
    suite::{Cell, Reference, cell, mean, platform, reference},
    work,
};

const HEAD: &str = "\
# Adaptive scaling, simulated

Made by `cargo run -p remuda-bench-adaptive --release`; the same on every machine. What the policy is: [adaptive scaling](../adaptive.md).

At most 100 workers of one thread; the k-th launch takes equally long under every policy. A start takes 0.8 to 1.2 s (local), 5 to 15 s
(k8s), 35 to 90 s of which the last 25 to 70 are paid, one minute at least (fargate). The model of Dask's policy was compared with
`distributed` 2026.8 itself: time within 7 %, cost within 8 %. The other policies are written from reading their sources:
`dask` (distributed's Adaptive, default settings), `dask-op` (the Kubernetes operator's), `dask2018` (before August 2019), `hq`
(HyperQueue; `hq-tuned`: as many allocations at once as allowed), `spark`, `ray`, `keda`, `parsl`, `fixed100` (no scaling).

- *time*: mean seconds from a graph's arrival to its end. *Bound*: what no policy can beat; not both at once.
- *cost*: worker-seconds paid, until the last graph is done; *left open*: with ten minutes more, as in a notebook that is forgotten.
- *reference*: the best fleet that knows durations and arrivals beforehand. *Worst*: the worst workload's cost x time over it.
- *died < 60 s*: workers that ended within a minute. *Never ran a task*: were paid for all the same.
- *better : worse*: sessions in which cost x time differs from Dask's by more than 2 %.

Means are geometric.
";

/// Ours over Dask's beyond this is worth a line.
const LOSS: f64 = 1.03;

/// A workload on a platform: the reference, and a cell per policy, in the order of [`peers::NAMES`].
#[derive(Debug)]
struct Line {
    reference: Reference,
    cells: Vec<Cell>,
}

impl Line {
    fn of(&self, policy: &str) -> &Cell {
        &self.cells[peers::NAMES.iter().position(|name| *name == policy).unwrap_or(0)]
    }

    /// Cost times time, ours over Dask's.
    fn against_dask(&self) -> f64 {
        self.of("ours").cost_times_time() / self.of("dask").cost_times_time()
    }
}

/// All tables: the named workloads with so many seeds, and so many random sessions from a seed on.
pub(crate) fn tables(out: &mut dyn Write, seeds: u64, sessions: u64, first: u64) -> Result<()> {
    writeln!(out, "{HEAD}")?;
    let mut losses = vec![];
    writeln!(out, "## {} named workloads, {seeds} seeds each: geometric means\n", work::NAMES.len())?;
    for name in NAMES {
        let lines = named(&platform(name)?, seeds)?;
        means(out, name, &lines)?;
        losses.extend(lines.into_iter().filter(|line| line.against_dask() > LOSS));
    }
    writeln!(out, "## Where Dask is better by more than 3 %\n")?;
    writeln!(
        out,
        "| workload | platform | cost x time of Dask's | time, s (ours, Dask's) | worker-seconds (ours, Dask's) |\n|---|---|---|---|---|"
    )?;
    losses.sort_by(|a, b| b.against_dask().total_cmp(&a.against_dask()));
    for line in &losses {
        let (ours, dask) = (line.of("ours"), line.of("dask"));
        let ratio = line.against_dask();
        let figures = format!("{:.1}, {:.1} | {:.0}, {:.0}", ours.latency, dask.latency, ours.cost, dask.cost);
        writeln!(out, "| {} | {} | {ratio:.2} | {figures} |", ours.session, ours.platform)?;
    }
    writeln!(out, "\n## {sessions} random sessions, seeds from {first}\n")?;
    for name in NAMES {
        random(out, &platform(name)?, sessions, first)?;
    }
    Ok(())
}

fn named(platform: &Platform, seeds: u64) -> Result<Vec<Line>> {
    let line = |work: &&str| {
        let cells = peers::NAMES.iter().map(|policy| cell(work, platform, policy, 1..seeds + 1)).collect::<Result<_>>()?;
        Ok(Line { reference: reference(work, platform)?, cells })
    };
    work::NAMES.iter().map(line).collect()
}

fn means(out: &mut dyn Write, platform: &str, lines: &[Line]) -> Result<()> {
    writeln!(out, "**{platform}**\n")?;
    writeln!(
        out,
        "| policy | time / bound | cost / bound | cost, left open | cost x time / reference | worst | launches | died < 60 s | never ran a task | peak / reference |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for policy in peers::NAMES {
        let cells = || lines.iter().map(|line| (line.of(policy), line.reference));
        let of = |value: fn(&Cell, Reference) -> f64| mean(cells().map(|(cell, reference)| value(cell, reference)));
        let sum = |value: fn(&Cell) -> f64| cells().map(|(cell, _)| value(cell)).sum::<f64>();
        let score = |cell: &Cell, reference: Reference| cell.cost_times_time() / reference.cost_times_time;
        let worst = cells().map(|(cell, reference)| score(cell, reference)).fold(0.0, f64::max);
        writeln!(
            out,
            "| {policy} | {:.2} | {:.2} | {:.2} | {:.2} | {worst:.1} | {:.0} | {:.0} | {:.0} | {:.2} |",
            of(|cell, _| cell.latency / cell.bound.latency),
            of(|cell, _| cell.cost / cell.bound.cost),
            of(|cell, _| cell.cost_open / cell.bound.cost),
            of(|cell, reference| cell.cost_times_time() / reference.cost_times_time),
            sum(|cell| cell.launches),
            sum(|cell| cell.churn),
            sum(|cell| cell.useless),
            of(|cell, reference| cell.peak.max(1.0) / f64::from(reference.workers)),
        )?;
    }
    Ok(writeln!(out)?)
}

fn random(out: &mut dyn Write, platform: &Platform, sessions: u64, first: u64) -> Result<()> {
    writeln!(out, "**{}**\n", platform.name)?;
    writeln!(
        out,
        "| policy | time / bound | cost / bound | cost, left open | cost x time of Dask's | better : worse | launches | died < 60 s | never ran a task |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    let mut dask: Vec<Cell> = vec![];
    for policy in peers::NAMES {
        let cells = (first..first + sessions).map(|seed| cell("rand", platform, policy, seed..seed + 1)).collect::<Result<Vec<_>>>()?;
        if dask.is_empty() {
            dask.clone_from(&cells);
        }
        let ratios: Vec<f64> = cells.iter().zip(&dask).map(|(cell, dask)| cell.cost_times_time() / dask.cost_times_time()).collect();
        let of = |value: fn(&Cell) -> f64| mean(cells.iter().map(value));
        let sum = |value: fn(&Cell) -> f64| cells.iter().map(value).sum::<f64>();
        writeln!(
            out,
            "| {policy} | {:.2} | {:.2} | {:.2} | {:.2} | {} : {} | {:.0} | {:.0} | {:.0} |",
            of(|cell| cell.latency / cell.bound.latency),
            of(|cell| cell.cost / cell.bound.cost),
            of(|cell| cell.cost_open / cell.bound.cost),
            mean(ratios.iter().copied()),
            ratios.iter().filter(|ratio| **ratio < 0.98).count(),
            ratios.iter().filter(|ratio| **ratio > 1.02).count(),
            sum(|cell| cell.launches),
            sum(|cell| cell.churn),
            sum(|cell| cell.useless),
        )?;
    }
    Ok(writeln!(out)?)
}
