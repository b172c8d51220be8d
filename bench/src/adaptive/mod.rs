//! Adaptive scaling on real schedulers, beside Dask's own `Adaptive`, in the same run. Workers take long to start on both sides alike.
//! `cargo run -p remuda-bench --release -- adaptive [STARTUP|all|arrival [WORKLOAD|all [ROUNDS [FACTOR [unknown] [processes]]]]]`.
//!
//! Where a start takes a minute, durations, start-ups, intervals and targets are all divided by a factor. A process that imports Dask takes its
//! second of a processor nevertheless, in which the workers of the peer are there: what is scaled is measured against us. In time as it is
//! (factor 1) that second is part of the start-up, and nobody needs the processors: so all sides go at once then.
//!
//! `unknown`: no task runs before, and what the tasks take is known to nobody. `processes`: the peer's workers are processes, too. With
//! `BENCH_DECISIONS=DIR` every decision of ours goes to a file there, for `remuda explain-scaling`.

mod slow;

use std::{
    env,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use remuda::{
    Flow, TaskRunner,
    local::{DaskCluster, DaskConfig, LocalCluster, LocalConfig, MemoryLimit},
    python,
};
use remuda_core::{
    adaptive::{AdaptConfig, Entry},
    class::{ClassRef, ClusterClass as _},
    cluster::{Cluster, ClusterOptions},
    duration::Seconds,
    manager::ClusterManager,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{JoinSet, spawn_blocking},
    time::{sleep, sleep_until},
};

use self::slow::{Shared, Slow, Tally};
use crate::nap;

/// Most workers, on both sides: processes of a small machine.
const MAXIMUM: u32 = 8;

/// When a job comes, in seconds of the real thing: at a time, or so long after all before it are over; so many tasks of so many seconds.
type Job = (Option<f64>, f64, usize, f64);

/// A start-up in seconds of the real thing, by how much all goes faster, and the goal for cost times time against Dask.
#[derive(Debug, Clone, Copy)]
struct Platform {
    startup: f64,
    factor: f64,
    goal: f64,
    /// One task of the kind runs before: both sides know how long they take.
    known: bool,
    /// The workers of the peer are processes.
    processes: bool,
}

const PLATFORMS: [Platform; 2] = [
    Platform { startup: 60.0, factor: 10.0, goal: 0.6, known: true, processes: false },
    Platform { startup: 10.0, factor: 1.0, goal: 0.9, known: true, processes: false },
];

const WORKLOADS: [&str; 2] = ["bursty", "trickle"];

fn workload(name: &str) -> anyhow::Result<Vec<Job>> {
    Ok(match name {
        // Somebody looks at each result for half a minute.
        "bursty" => (0..6).map(|burst| (None, if burst == 0 { 0.0 } else { 30.0 }, 30, 1.0)).collect(),
        // Whether or not the one before is over.
        "trickle" => (0..60).map(|task| (Some(5.0 * f64::from(task)), 0.0, 1, 2.0)).collect(),
        other => anyhow::bail!("there is no workload `{other}`; there are {}", WORKLOADS.join(", ")),
    })
}

/// What a workload came to, in seconds as they were.
#[derive(Debug, Clone, Deserialize)]
struct Outcome {
    times: Vec<f64>,
    cost: f64,
    launches: usize,
}

impl Outcome {
    fn time(&self) -> f64 {
        self.times.iter().sum::<f64>() / self.times.len().max(1) as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Dask,
    Embedded,
}

/// The directory with the peer's sources, which has the tasks, too.
fn sources() -> PathBuf {
    crate::dask::sources()
}

fn manager(side: Side, startup: Duration) -> remuda_core::error::Result<Box<dyn ClusterManager>> {
    if side == Side::Embedded {
        let config = LocalConfig { n_workers: Some(0), threads_per_worker: Some(1), processes: false, ..LocalConfig::default() };
        return Ok(Box::new(LocalCluster::from_config(config)?));
    }
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let python = env::var_os("REMUDA_DASK").map(|dask| text(Path::new(&dask).with_file_name("python")));
    let config = DaskConfig {
        python,
        n_workers: Some(0),
        threads_per_worker: Some(1),
        memory_limit: MemoryLimit::Bytes(1 << 30),
        dashboard_address: None,
        preload: vec![text(sources().join("slow.py"))],
        env: [("BENCH_STARTUP".to_owned(), startup.as_secs_f64().to_string())].into(),
        ..DaskConfig::default()
    };
    Ok(Box::new(DaskCluster::from_config(config)?))
}

/// A class of its own for each run: what one learned of start-ups is for no other.
fn runner(side: Side, startup: Duration, factor: f64, tally: &Arc<Tally>) -> anyhow::Result<TaskRunner> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let name = format!("bench::Slow{}", RUNS.fetch_add(1, Relaxed));
    let tally = tally.clone();
    let class = ClassRef::from_fn(name.clone(), move |_| {
        // Dask's workers wait by themselves.
        let delay = if side == Side::Dask { Duration::ZERO } else { startup };
        let name = name.clone();
        manager(side, startup)
            .map(|inner| Shared(Arc::new(Slow { name, inner, delay, startup, tally: tally.clone(), pending: Arc::default() })))
    });
    let scaled = |seconds: f64| Seconds(Duration::from_secs_f64(seconds / factor));
    let adapt = AdaptConfig { maximum: Some(MAXIMUM), interval: scaled(1.0), target_duration: scaled(5.0), ..AdaptConfig::default() };
    Ok(TaskRunner::builder().cluster(class).options(ClusterOptions { adapt: Some(adapt), ..ClusterOptions::default() }).build()?)
}

/// `tasks` naps, all results read: how long it took.
async fn job(flow: Flow, side: Side, tasks: usize, seconds: f64) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let futures = match side {
        Side::Dask => {
            let call = |x: usize| python("bench_tasks:nap").arg(x).arg(seconds).path(sources()).call::<i64>();
            flow.submit_all((0..tasks).map(call))
        }
        Side::Embedded => flow.map(nap, (0..tasks as i64, remuda::unmapped((seconds * 1e3) as u64)))?,
    };
    let results = flow.gather(futures).await?;
    let offset = i64::from(side == Side::Embedded);
    ensure!(results.into_iter().eq(offset..tasks as i64 + offset), "wrong results");
    Ok(begin.elapsed().as_secs_f64())
}

async fn ours(side: Side, jobs: Vec<Job>, platform: Platform, log: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let Platform { startup, factor, known, .. } = platform;
    let tally = Arc::new(Tally::default());
    let runner = runner(side, Duration::from_secs_f64(startup / factor), factor, &tally)?;
    let body = |flow: Flow, cluster: Cluster| async move {
        if let Some(path) = log {
            let kept = keep(cluster.decisions(), File::create(&path).with_context(|| path.display().to_string())?);
            tokio::spawn(async move { kept.await.inspect_err(|error| eprintln!("{}: decisions are missing: {error}", path.display())) });
        }
        if known {
            // As after an earlier run. The first guesses of neither side are made for scaled time.
            job(flow.clone(), side, 1, jobs[0].3 / factor).await?;
            while tally.present() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        }
        let (cost_before, launched_before) = tally.cost();
        let (begin, mut running, mut times) = (tokio::time::Instant::now(), JoinSet::new(), vec![]);
        for (at, pause, tasks, seconds) in jobs {
            match at {
                Some(at) => sleep_until(begin + Duration::from_secs_f64(at / factor)).await,
                None => {
                    while let Some(time) = running.join_next().await {
                        times.push(time??);
                    }
                    sleep(Duration::from_secs_f64(pause / factor)).await;
                }
            }
            running.spawn(job(flow.clone(), side, tasks, seconds / factor));
        }
        while let Some(time) = running.join_next().await {
            times.push(time??);
        }
        let (cost, launches) = tally.cost();
        Ok(Outcome { times, cost: cost - cost_before, launches: launches - launched_before })
    };
    Ok(runner.run_on_cluster(std::future::pending(), body).await.result?)
}

/// Writes decisions until the cluster ends.
async fn keep(mut decisions: UnboundedReceiver<Arc<Entry>>, mut file: File) -> anyhow::Result<()> {
    while let Some(entry) = decisions.recv().await {
        writeln!(file, "{}", entry.to_line()?)?;
    }
    Ok(())
}

fn peer(jobs: &[Job], platform: Platform) -> anyhow::Result<Outcome> {
    let Platform { startup, factor, known, processes, .. } = platform;
    let asked = json!({"workload": jobs, "startup": startup, "factor": factor, "maximum": MAXIMUM, "known": known, "processes": processes});
    let python = env::var_os("REMUDA_DASK").map_or_else(|| "python3".into(), |dask| Path::new(&dask).with_file_name("python"));
    let mut command = Command::new(&python);
    command.arg(sources().join("adaptive.py")).arg(asked.to_string()).env("PYTHONPATH", sources()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("DASK_LOGGING__DISTRIBUTED", "error");
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| python.display().to_string())?;
    ensure!(output.status.success(), "the peer failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Ratios to the peer's: in turns, or all at once.
async fn compare(platform: Platform, name: &str, rounds: usize) -> anyhow::Result<()> {
    let (jobs, decisions) = (workload(name)?, env::var_os("BENCH_DECISIONS"));
    for round in 0..rounds {
        let asked = jobs.clone();
        let theirs = async move { spawn_blocking(move || peer(&asked, platform)).await? };
        let ours = |side: Side| {
            let log = |dir| Path::new(dir).join(format!("{name}-{}-{side:?}-{round}.jsonl", platform.startup));
            ours(side, jobs.clone(), platform, decisions.as_ref().map(log))
        };
        let (theirs, dask, embedded) = if platform.factor == 1.0 {
            tokio::try_join!(theirs, ours(Side::Dask), ours(Side::Embedded))?
        } else {
            (theirs.await?, ours(Side::Dask).await?, ours(Side::Embedded).await?)
        };
        for (class, ours) in [("local::DaskCluster", dask), ("local::LocalCluster", embedded)] {
            let (time, cost) = (ours.time() / theirs.time(), ours.cost / theirs.cost);
            println!(
                "| {name} | {} s | `{class}` | {round} | {:.1} / {:.1} s | {:.0} / {:.0} | {} / {} | {time:.2} | {cost:.2} | **{:.2}** | {} |",
                platform.startup,
                ours.time() * platform.factor,
                theirs.time() * platform.factor,
                ours.cost * platform.factor,
                theirs.cost * platform.factor,
                ours.launches,
                theirs.launches,
                time * cost,
                platform.goal,
            );
            if decisions.is_some() {
                eprintln!("{class}: each job took {:.1?}, with Dask {:.1?}", ours.times, theirs.times);
            }
        }
    }
    Ok(())
}

/// From a graph's arrival on a cluster without workers to the request for one, with the usual interval of a second.
async fn arrival(side: Side, class: &str, rounds: usize) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::default());
    let runner = runner(side, Duration::ZERO, 1.0, &tally)?;
    let mut waits = runner
        .run(move |flow| async move {
            let mut waits = vec![];
            for round in 0..rounds {
                while tally.present() > 0 {
                    sleep(Duration::from_millis(20)).await;
                }
                // Anywhere between two looks.
                sleep(Duration::from_millis(1000 + 370 * round as u64 % 1000)).await;
                let begin = Instant::now();
                job(flow.clone(), side, 1, 0.0).await?;
                let asked = tally.requested_after(begin).context("nobody was asked for")?;
                waits.push((asked - begin).as_secs_f64());
            }
            Ok(waits)
        })
        .await?;
    waits.sort_by(f64::total_cmp);
    println!("| `{class}` | {} | {:.3} s | {:.3} s |", waits.len(), waits[waits.len() / 2], waits[waits.len() - 1]);
    Ok(())
}

/// `only`: a start-up in seconds, and a workload, or `arrival`; rounds; another factor; `unknown`, `processes`.
pub(crate) async fn report(only: &[String]) -> anyhow::Result<()> {
    let rounds = only.get(2).map_or(Ok(1), |text| text.parse())?;
    let factor = only.get(3).map(|text| text.parse::<f64>()).transpose()?;
    let said = |word: &str| only.iter().skip(4).any(|said| said == word);
    let is = |at: usize, name: &str| only.get(at).is_none_or(|word| word == name || word == "all");
    let cpus = std::thread::available_parallelism()?;
    println!("At most {MAXIMUM} workers with one thread each, {cpus} processors; ours / Dask's, in seconds of the real thing.\n");
    println!("| workload | start-up | class | round | time of a job | worker-seconds | launches | time | cost | cost x time | goal |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for platform in PLATFORMS {
        for name in WORKLOADS {
            if is(0, &platform.startup.to_string()) && is(1, name) {
                let factor = factor.unwrap_or(platform.factor);
                let platform = Platform { factor, known: !said("unknown"), processes: said("processes"), ..platform };
                compare(platform, name, rounds).await?;
            }
        }
    }
    if is(0, "arrival") {
        println!("\n| from a graph's arrival to the request | rounds | median | longest |\n|---|---|---|---|");
        for (side, class) in [(Side::Dask, "local::DaskCluster"), (Side::Embedded, "local::LocalCluster")] {
            arrival(side, class, 10 * rounds).await?;
        }
    }
    Ok(())
}
