//! Measures flows on the embedded cluster. Every figure stands next to a floor measured in the same run, interleaved with it; every result is
//! verified. `cargo run -p remuda-bench --release [ROUNDS]` prints a report in Markdown, `.. dask [ROUNDS [GROUP]]` one of flows on a real
//! Dask scheduler, `.. adaptive [..]` one of adaptive scaling beside Dask's own.
//!
//! Seconds do not carry over to another machine; ratios from one run do.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adaptive;
mod dask;
mod floor;

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::ensure;
use remuda::{Annotate, TaskRunner, local::LocalConfig};

#[remuda::task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[remuda::task]
fn nap(x: i64, millis: u64) -> i64 {
    std::thread::sleep(Duration::from_millis(millis));
    x + 1
}

#[remuda::task]
fn nap_both(x: i64, y: i64, millis: u64) -> i64 {
    std::thread::sleep(Duration::from_millis(millis));
    x + y
}

#[remuda::task(slots = 0)]
async fn download(x: i64) -> i64 {
    tokio::time::sleep(IMAGE).await;
    x
}

/// One image's time in the flow that the documents of this field open with.
const IMAGE: Duration = Duration::from_millis(1270);

/// Each task of the DAG.
const NAP: u64 = 10;

fn runner(processes: bool) -> anyhow::Result<TaskRunner> {
    let config = LocalConfig { n_workers: Some(2), threads_per_worker: Some(1), processes, ..LocalConfig::default() };
    Ok(TaskRunner::builder().cluster(config).build()?)
}

/// From the call to the first result; and to the end of the cluster.
async fn from_nothing(processes: bool) -> anyhow::Result<(Duration, Duration)> {
    let runner = runner(processes)?;
    let begin = Instant::now();
    let finished = runner
        .run_until(pending(), |flow| async move {
            ensure!(flow.submit(inc(1)).await? == 2, "wrong result");
            Ok(begin.elapsed())
        })
        .await;
    Ok((finished.result?, begin.elapsed()))
}

/// `n` tasks that do nothing, submitted as one map, all results read; on a cluster that is up.
async fn map(processes: bool, n: i64) -> anyhow::Result<Duration> {
    let runner = runner(processes)?;
    let elapsed = runner.run(move |flow| async move {
        ensure!(flow.submit(inc(1)).await? == 2, "wrong result");
        let begin = Instant::now();
        let sum: i64 = flow.gather(flow.map(inc, 0..n)?).await?.into_iter().sum();
        ensure!(sum == n * (n + 1) / 2, "wrong result");
        Ok(begin.elapsed())
    });
    Ok(elapsed.await?)
}

/// `n` tasks, each submitted when the last one's result is there.
async fn one_by_one(processes: bool, n: usize) -> anyhow::Result<Duration> {
    let runner = runner(processes)?;
    let elapsed = runner.run(move |flow| async move {
        ensure!(flow.submit(inc(1)).await? == 2, "wrong result");
        let begin = Instant::now();
        for _ in 0..n {
            ensure!(flow.submit(inc(1)).await? == 2, "wrong result");
        }
        Ok(begin.elapsed())
    });
    Ok(elapsed.await?)
}

/// 100 inc, 100 dec, 100 add of 10 ms each, and nothing else, on two workers that are up.
async fn dag(processes: bool) -> anyhow::Result<Duration> {
    let runner = runner(processes)?;
    let elapsed = runner.run(|flow| async move {
        ensure!(flow.submit(inc(1)).await? == 2, "wrong result");
        let begin = Instant::now();
        let incs = flow.map(nap, (0..100_i64, remuda::unmapped(NAP)))?;
        let decs = flow.map(nap, (0..100_i64, remuda::unmapped(NAP)))?;
        let adds = flow.annotate(Annotate::new().priority(10)).map(nap_both, (incs, decs, remuda::unmapped(NAP)))?;
        let sum: i64 = flow.gather(adds).await?.into_iter().sum();
        ensure!(sum == 10_100, "wrong result: {sum}");
        Ok(begin.elapsed())
    });
    Ok(elapsed.await?)
}

/// Twelve waits of 1.27 s, from nothing to closed.
async fn images(processes: bool) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let sum: i64 =
        runner(processes)?.run(|flow| async move { Ok(flow.gather(flow.map(download, 0..12)?).await?.into_iter().sum()) }).await?;
    ensure!(sum == 66, "wrong result: {sum}");
    Ok(begin.elapsed())
}

/// A figure and its floor, round by round.
struct Row {
    what: String,
    floor: &'static str,
    each: f64,
    pairs: Vec<(Duration, Duration)>,
}

impl Row {
    fn new(what: impl Into<String>, floor: &'static str, count: i64) -> Self {
        Self { what: what.into(), floor, each: count as f64, pairs: Vec::new() }
    }

    fn print(&self) {
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let ours = median(self.pairs.iter().map(|(ours, _)| ours.as_secs_f64()).collect());
        let floor = median(self.pairs.iter().map(|(_, floor)| floor.as_secs_f64()).collect());
        let ratios: Vec<f64> = self.pairs.iter().map(|(ours, floor)| ours.as_secs_f64() / floor.as_secs_f64()).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(*ratio), most.max(*ratio)));
        println!(
            "| {} | {} | {} | {} | {:.2} | {least:.2} to {most:.2} |",
            self.what,
            time(ours / self.each),
            self.floor,
            time(floor / self.each),
            median(ratios)
        );
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 0.1 => format!("{s:.3} s"),
        s if s >= 0.001 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.2} us", s * 1e6),
    }
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds = |at: usize| args.get(at).map_or(Ok(5), |text| text.parse::<usize>());
    match args.first().map(String::as_str) {
        Some("dask") => return dask::report(rounds(1)?, args.get(2).map(String::as_str)),
        Some("adaptive") => return adaptive::report(&args[1..]).await,
        Some("dask-memory") => return dask::child(&args[1..]).await,
        _ => {}
    }
    embedded(rounds(0)?).await
}

async fn embedded(rounds: usize) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism()?;
    println!("{rounds} rounds, medians, 2 workers with one slot each, {cpus} processors; the ratio's least and most over the rounds.\n");
    println!("| what | ours | floor | floor | ratio | least to most |\n|---|---|---|---|---|---|");
    for (name, processes) in [("threads", false), ("processes", true)] {
        let floor = if processes { "2 processes that do nothing" } else { "2 threads" };
        let mut first = Row::new(format!("{name}: from nothing to the first result"), floor, 1);
        let mut closed = Row::new(format!("{name}: from nothing to closed"), floor, 1);
        for _ in 0..rounds {
            let (result, end) = from_nothing(processes).await?;
            let floor = if processes { floor::processes_from_nothing()? } else { floor::threads_from_nothing()? };
            first.pairs.push((result, floor));
            closed.pairs.push((end, floor));
        }
        first.print();
        closed.print();
        for n in [1_000, 10_000, 100_000] {
            let mut channels = Row::new(format!("{name}: {n} tasks in one map, each"), "channels to 2 threads", n);
            let mut spawned = Row::new(format!("{name}: the same"), "tokio spawn", n);
            for _ in 0..rounds {
                let ours = map(processes, n).await?;
                channels.pairs.push((ours, floor::channel_tasks(n)?));
                spawned.pairs.push((ours, floor::tokio_tasks(n).await?));
            }
            channels.print();
            spawned.print();
        }
        let (n, floor) = (2_000, if processes { "unix socket round trip" } else { "thread round trip" });
        let mut latency = Row::new(format!("{name}: one task at a time"), floor, n as i64);
        for _ in 0..rounds {
            let ours = one_by_one(processes, n).await?;
            latency.pairs.push((ours, if processes { floor::socket_round_trips(n)? } else { floor::thread_round_trips(n)? }));
        }
        latency.print();
        let mut graph = Row::new(format!("{name}: inc, dec, add of 10 ms, 300 tasks"), "the same sleeps on 2 threads", 1);
        let mut waits = Row::new(format!("{name}: twelve waits of 1.27 s, from nothing to closed"), "12 threads", 1);
        for _ in 0..rounds.min(3) {
            graph.pairs.push((dag(processes).await?, floor::sleeps(300, Duration::from_millis(NAP), 2)));
            waits.pairs.push((images(processes).await?, floor::sleeps(12, IMAGE, 12)));
        }
        graph.print();
        waits.print();
    }
    Ok(())
}
