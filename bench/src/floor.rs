//! What no design can beat on this machine, at this moment: the same work without us.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

/// Two threads made, each doing one thing, and gone.
pub(crate) fn threads_from_nothing() -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let threads: Vec<_> = (0..2).map(|n| thread::spawn(move || n + 1)).collect();
    let sum: i64 = threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum();
    ensure!(sum == 3, "a floor that computes wrongly: {sum}");
    Ok(begin.elapsed())
}

/// Two processes made, which do nothing, and gone.
pub(crate) fn processes_from_nothing() -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let children = [Command::new("true").spawn()?, Command::new("true").spawn()?];
    for mut child in children {
        ensure!(child.wait()?.success(), "`true` failed");
    }
    Ok(begin.elapsed())
}

/// `n` numbers to two threads and back, over channels.
pub(crate) fn channel_tasks(n: i64) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let (done, results) = mpsc::channel();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (give, take) = mpsc::channel::<i64>();
            let done = done.clone();
            thread::spawn(move || take.into_iter().for_each(|x| done.send(x + 1).unwrap_or(())));
            give
        })
        .collect();
    (0..n).for_each(|x| workers[usize::from(x % 2 == 1)].send(x).unwrap_or(()));
    drop((workers, done));
    ensure!(results.into_iter().sum::<i64>() == n * (n + 1) / 2, "a floor that computes wrongly");
    Ok(begin.elapsed())
}

/// `n` tokio tasks, spawned and awaited.
pub(crate) async fn tokio_tasks(n: i64) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..n).map(|x| tokio::spawn(async move { x + 1 })).collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await?;
    }
    ensure!(sum == n * (n + 1) / 2, "a floor that computes wrongly");
    Ok(begin.elapsed())
}

/// `n` round trips of 64 bytes over a unix socket to a thread of ours: one task at a time in another process costs at least this.
pub(crate) fn socket_round_trips(n: usize) -> anyhow::Result<Duration> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let echo = thread::spawn(move || {
        let mut bytes = [0; 64];
        while theirs.read_exact(&mut bytes).is_ok() && theirs.write_all(&bytes).is_ok() {}
    });
    let begin = Instant::now();
    let mut bytes = [7; 64];
    for _ in 0..n {
        ours.write_all(&bytes)?;
        ours.read_exact(&mut bytes)?;
    }
    let elapsed = begin.elapsed();
    ensure!(bytes == [7; 64], "a floor that computes wrongly");
    drop(ours);
    drop(echo.join());
    Ok(elapsed)
}

/// `n` round trips to a thread that sleeps in between.
pub(crate) fn thread_round_trips(n: usize) -> anyhow::Result<Duration> {
    let (give, take) = mpsc::channel::<i64>();
    let (done, results) = mpsc::channel();
    let thread = thread::spawn(move || take.into_iter().for_each(|x| done.send(x + 1).unwrap_or(())));
    let begin = Instant::now();
    for _ in 0..n {
        give.send(1)?;
        ensure!(results.recv()? == 2, "a floor that computes wrongly");
    }
    let elapsed = begin.elapsed();
    drop(give);
    drop(thread.join());
    Ok(elapsed)
}

/// `count` sleeps of `each` on `wide` threads: the ideal makespan, as this machine can do it.
pub(crate) fn sleeps(count: usize, each: Duration, wide: usize) -> Duration {
    let (next, start) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(wide + 1)));
    let threads: Vec<_> = (0..wide)
        .map(|_| {
            let (next, start) = (next.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                while next.fetch_add(1, Relaxed) < count {
                    thread::sleep(each);
                }
            })
        })
        .collect();
    start.wait();
    let begin = Instant::now();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    begin.elapsed()
}
