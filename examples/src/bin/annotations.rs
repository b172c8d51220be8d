//! Who runs first, and who must not run beside whom.
//!
//!     cargo run -p remuda-examples --bin annotations
//!
//! Resources are names that the workers offer and tasks take while they run. Nothing knows what they mean: `GPU` may be a card, `process` a
//! licence of which there is one. A cluster that is there already (`--address`) must offer them: `dask worker --resources "GPU=1 process=1"`.
#![allow(clippy::print_stdout)]

use std::{
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use remuda::{Annotate, Kwargs, unmapped};
use remuda_examples::runner;
use serde_json::json;

/// How many of these run at this moment, by the files that they leave in a directory meanwhile.
#[remuda::task]
fn count_running(directory: PathBuf, number: u32) -> io::Result<usize> {
    let mine = directory.join(number.to_string());
    fs::write(&mine, "")?;
    thread::sleep(Duration::from_millis(5));
    let running = fs::read_dir(&directory)?.count();
    fs::remove_file(mine)?;
    Ok(running)
}

/// Holds its worker until a file is there.
#[remuda::task]
fn wait_for_file(file: PathBuf) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !file.exists() {
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(60), "nobody made {}", file.display());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[remuda::task]
fn begun_at() -> SystemTime {
    SystemTime::now()
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    // One worker with four slots, one GPU and one `process`.
    let cluster = Kwargs::new().with("n_workers", 1).with("threads_per_worker", 4);
    let runner = runner(cluster.with("resources", json!({"GPU": 1, "process": 1})))?;
    let directory = std::env::temp_dir().join(format!("remuda-annotations-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let result = runner.run(|flow| annotations(flow, directory.clone())).await;
    fs::remove_dir_all(&directory)?;
    Ok(result?)
}

async fn annotations(flow: remuda::Flow, directory: PathBuf) -> anyhow::Result<()> {
    // One at a time, whatever the number of slots.
    let alone = flow.annotate(Annotate::new().resource("process", 1.0));
    let counts = flow.gather(alone.map(count_running, (unmapped(directory.clone()), 0..8))?).await?;
    println!("with one `process`: at most {} at once", counts.iter().max().unwrap_or(&0));

    // The urgent first, among those that wait for the same GPU. The first holds it until all others are there.
    let gpu = flow.annotate(Annotate::new().resource("GPU", 1.0));
    let open = directory.join("open");
    let first = gpu.submit(wait_for_file(open.clone()).priority(100));
    let names = [("low", -1), ("usual", 0), ("high", 10)];
    let tasks = gpu.submit_all(names.map(|(_, priority)| begun_at().priority(priority)));
    fs::write(open, "")?;
    first.await?;
    let mut order: Vec<_> = flow.gather(tasks).await?.into_iter().zip(names.map(|(name, _)| name)).collect();
    order.sort();
    println!("on one GPU: {}", order.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", "));
    Ok(())
}
