//! Flows on a real Dask scheduler, beside Dask's own client on the same scheduler, in the same run. Needs a `dask` program: the one on the
//! PATH, or the one that `REMUDA_DASK` names. `cargo run -p remuda-bench --release -- dask [ROUNDS]`.

mod cluster;
mod memory;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use remuda::{Flow, TaskRunner, python};
use serde_bytes::ByteBuf;

use self::cluster::Cluster;
pub(crate) use self::{cluster::sources, memory::child};
use crate::{Row, inc};

/// What the peer is asked for where its time is certain to be proportional and long.
const PEER_SAMPLE: i64 = 20_000;

/// Bytes of the large result.
const LARGE: usize = 200_000_000;

/// How the calls of a map are submitted.
#[derive(Debug, Clone, Copy)]
enum Calls {
    /// One Python call is one Dask task.
    Single,
    /// As by default: many calls in one Dask task.
    Batched,
    /// A Rust function in a task host, one call one Dask task.
    Rust,
}

fn runner(address: &str, calls: Calls) -> anyhow::Result<TaskRunner> {
    let builder = TaskRunner::builder().address(address);
    Ok(match calls {
        Calls::Batched => builder.build()?,
        Calls::Single | Calls::Rust => builder.client_kwargs([("batch", 1)]).build()?,
    })
}

fn noop(x: i64) -> remuda::Call<i64> {
    python("bench_tasks:noop").arg(x).call()
}

fn submit(flow: &Flow, calls: Calls, n: i64) -> anyhow::Result<Vec<remuda::TaskFuture<i64>>> {
    Ok(match calls {
        Calls::Single | Calls::Batched => flow.submit_all((0..n).map(noop)),
        Calls::Rust => flow.map(inc, -1..n - 1)?,
    })
}

/// `n` no-op tasks and their results, in a session that is open, as the peer's client is; and the scheduler's processor time.
async fn map(cluster: &mut Cluster, calls: Calls, n: i64) -> anyhow::Result<(Duration, Duration)> {
    let runner = runner(&cluster.address, calls)?;
    let measured = runner.run(|flow| async move {
        ensure!(flow.gather(submit(&flow, calls, 2)?).await? == [0, 1], "wrong result");
        let before = tokio::task::block_in_place(|| cluster.rest())?;
        let begin = Instant::now();
        let results = flow.gather(submit(&flow, calls, n)?).await?;
        let elapsed = begin.elapsed();
        ensure!(results.into_iter().eq(0..n), "wrong results");
        Ok((elapsed, tokio::task::block_in_place(|| cluster.rest())?.saturating_sub(before)))
    });
    Ok(measured.await?)
}

/// A future on the runtime that this thread belongs to.
fn wait<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// `n` tasks by us and by the peer, `rounds` times in turns: seconds, and the scheduler's processor time.
fn maps(cluster: &mut Cluster, what: &str, calls: Calls, n: i64, rounds: usize) -> anyhow::Result<()> {
    let peer = if n > PEER_SAMPLE { PEER_SAMPLE } else { n };
    let scale = |duration: Duration| duration.mul_f64(n as f64 / peer as f64);
    let floor = if peer == n { "Client.map" } else { "Client.map, from 20000" };
    let (mut wall, mut cpu) = (Row::new(what, floor, n), Row::new(format!("{what}: scheduler's processor time"), floor, n));
    for _ in 0..rounds {
        let (ours, our_time) = wait(map(cluster, calls, n))?;
        let before = cluster.rest()?;
        let theirs = cluster.map(peer)?;
        let their_time = cluster.rest()?.saturating_sub(before);
        wall.pairs.push((ours, scale(theirs)));
        cpu.pairs.push((our_time, scale(their_time)));
    }
    wall.print();
    cpu.print();
    Ok(())
}

/// What is left to a client that costs nothing: `n` tasks that the scheduler puts in by itself, beside the peer's.
fn floor(cluster: &mut Cluster, what: &str, n: i64, rounds: usize) -> anyhow::Result<()> {
    let row = |of| Row::new(format!("{what}, put in by the scheduler itself{of}, each"), "Client.map", n);
    let (mut wall, mut cpu) = (row(""), row(": scheduler's processor time"));
    wait(map(cluster, Calls::Single, 2))?;
    for _ in 0..rounds {
        let before = cluster.rest()?;
        let none = Duration::from_secs_f64(cluster.ask(&format!("floor {n}"))?[0]);
        let between = cluster.rest()?;
        let theirs = cluster.map(n)?;
        cpu.pairs.push((between.saturating_sub(before), cluster.rest()?.saturating_sub(between)));
        wall.pairs.push((none, theirs));
    }
    wall.print();
    cpu.print();
    Ok(())
}

/// One task on an idle cluster, again and again, in turns.
fn one_task(cluster: &mut Cluster, what: &str, task: fn(i64) -> remuda::Call<i64>, rounds: usize) -> anyhow::Result<()> {
    let mut row = Row::new(what, "Client.submit", 1);
    let address = cluster.address.clone();
    wait(async {
        runner(&address, Calls::Batched)?
            .run(|flow| async move {
                for round in 0..rounds + 5 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let begin = Instant::now();
                    ensure!(flow.submit(task(7)).await? == 7, "wrong result");
                    let ours = begin.elapsed();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let theirs = tokio::task::block_in_place(|| cluster.one())?;
                    if round >= 5 {
                        row.pairs.push((ours, theirs));
                    }
                }
                row.print();
                Ok(())
            })
            .await
            .map_err(Into::into)
    })
}

/// How long the scheduler's loop stood still while `n` tasks were submitted and run: by the clock, which counts what other processes
/// took meanwhile, and in its own processor time; all that it did, and what it did to take in a submission.
fn blocks(cluster: &mut Cluster, what: &str, calls: Calls, n: i64, rounds: usize) -> anyhow::Result<()> {
    let row = |how| Row::new(format!("{what}, {how}"), "Client.map of 20000", 1);
    let hows = ["by the clock", "processor time", "of the submission, by the clock", "of the submission, processor time"];
    let mut rows = hows.map(row);
    for _ in 0..rounds {
        cluster.settle()?;
        cluster.ask("probe 1")?;
        wait(map(cluster, calls, n))?;
        let ours = cluster.ask("probe 0")?;
        cluster.settle()?;
        cluster.ask("probe 1")?;
        cluster.map(PEER_SAMPLE)?;
        let theirs = cluster.ask("probe 0")?;
        for (row, (ours, theirs)) in rows.iter_mut().zip(ours.into_iter().zip(theirs)) {
            row.pairs.push((Duration::from_secs_f64(ours), Duration::from_secs_f64(theirs)));
        }
    }
    rows.iter().for_each(Row::print);
    Ok(())
}

/// The large result over a plain connection: one writer, one reader, one buffer.
fn plain_socket() -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let data = vec![0x5a; LARGE];
    let writer = thread::spawn(move || listener.accept().and_then(|(mut stream, _)| stream.write_all(&data)));
    let mut stream = TcpStream::connect(address)?;
    let begin = Instant::now();
    let mut bytes = Vec::with_capacity(LARGE);
    stream.read_to_end(&mut bytes)?;
    let elapsed = begin.elapsed();
    ensure!(bytes.len() == LARGE && writer.join().is_ok(), "a floor that computes wrongly");
    Ok(elapsed)
}

/// A large result from its worker to the driver; how long it takes to make is not counted.
fn fetch(cluster: &mut Cluster, rounds: usize) -> anyhow::Result<()> {
    let (mut socket, mut peer) = (Row::new("200 MB result", "plain socket", 1), Row::new("200 MB result", "Future.result", 1));
    for _ in 0..rounds {
        let address = cluster.address.clone();
        let ours = wait(async {
            let runner = runner(&address, Calls::Single)?;
            let elapsed = runner.run(|flow| async move {
                let future = flow.submit(python("bench_tasks:big").arg(LARGE).call::<ByteBuf>());
                future.done().await;
                let begin = Instant::now();
                let bytes = future.shared().await?;
                let elapsed = begin.elapsed();
                ensure!(bytes.len() == LARGE && bytes[LARGE - 1] == 0x5a, "wrong result");
                Ok(elapsed)
            });
            Ok(elapsed.await?)
        })?;
        cluster.settle()?;
        socket.pairs.push((ours, plain_socket()?));
        let theirs = cluster.ask(&format!("fetch {LARGE}"))?[0];
        peer.pairs.push((ours, Duration::from_secs_f64(theirs)));
        cluster.settle()?;
    }
    socket.print();
    peer.print();
    Ok(())
}

/// All rows, in Markdown. `only`: those whose group has this word in its name.
pub(crate) fn report(rounds: usize, only: Option<&str>) -> anyhow::Result<()> {
    let directory = std::env::temp_dir().join(format!("remuda-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
    let cpus = thread::available_parallelism()?;
    println!(
        "{rounds} rounds in turns, medians, 2 workers with one thread each, {cpus} processors; the ratio's least and most over the rounds.\n"
    );
    println!("| what | ours | peer | peer | ratio | least to most |\n|---|---|---|---|---|---|");
    let outcome = rows(rounds, only, &directory);
    drop(std::fs::remove_dir_all(&directory));
    outcome
}

fn rows(rounds: usize, only: Option<&str>, directory: &std::path::Path) -> anyhow::Result<()> {
    let wanted = |group: &str| only.is_none_or(|only| group.contains(only));
    if wanted("default") {
        let mut cluster = Cluster::start(None, directory)?;
        one_task(&mut cluster, "one Python task, idle", noop, 20 * rounds)?;
        one_task(&mut cluster, "one Rust task, idle", |x| inc(x - 1), 20 * rounds)?;
        maps(&mut cluster, "10000 Python no-ops, `batch: 1`, each", Calls::Single, 10_000, rounds)?;
        maps(&mut cluster, "100000 Python no-ops, batched, each", Calls::Batched, 100_000, rounds)?;
    }
    if wanted("inf") {
        let mut cluster = Cluster::start(Some("inf"), directory)?;
        maps(&mut cluster, "`inf`: 10000 Python no-ops, `batch: 1`, each", Calls::Single, 10_000, rounds)?;
        floor(&mut cluster, "`inf`: 10000 no-ops", 10_000, rounds)?;
        maps(&mut cluster, "`inf`: 10000 Rust no-ops, `batch: 1`, each", Calls::Rust, 10_000, rounds)?;
        maps(&mut cluster, "`inf`: 100000 Python no-ops, batched, each", Calls::Batched, 100_000, rounds)?;
    }
    if wanted("blocks") {
        let mut cluster = Cluster::start(Some("inf"), directory)?;
        blocks(
            &mut cluster,
            "`inf`: longest block of the scheduler's loop, 50000 tasks, `batch: 1`",
            Calls::Single,
            50_000,
            rounds.min(3),
        )?;
        blocks(&mut cluster, "`inf`: the same, 100000 tasks, batched", Calls::Batched, 100_000, rounds.min(3))?;
    }
    if wanted("large") {
        fetch(&mut Cluster::start(None, directory)?, rounds)?;
    }
    if wanted("memory") {
        let mut cluster = Cluster::start(Some("inf"), directory)?;
        let mut lines = Vec::new();
        for batched in [false, true] {
            let (idle, submitted, most) = memory::measure(&cluster.address, batched, 100_000)?;
            let (how, end) = if batched { ("batched", "all results are read") } else { ("`batch: 1`", "the run was ended there") };
            lines.push(format!(
                "- driver memory, 100000 Python tasks in one map, {how}: {idle} MB before, {submitted} MB at most until all are submitted, \
                 {most} MB at most until {end}"
            ));
            cluster.settle()?;
        }
        println!("\n{}", lines.join("\n"));
    }
    Ok(())
}
