//! A cluster that runs already: a scheduler and two workers, started here with the `dask` command as an administrator would.
//!
//! ```console
//! cargo run -p remuda-examples --bin existing_cluster    # needs `pip install distributed`
//! ```
//!
//! The run puts its tasks there and takes them away again; it starts, stops and changes nothing else.
#![allow(clippy::print_stdout)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use remuda::TaskRunner;
use remuda_examples::{inc_dec_add::inc_dec_add, no_arguments};
use tokio::time::{sleep, timeout};

/// What the administrator has started; ended by whoever holds it.
struct Running {
    processes: Vec<Child>,
    directory: PathBuf,
}

impl Running {
    fn start(&mut self, args: &[&str]) -> anyhow::Result<()> {
        let dask = env::var("REMUDA_DASK").unwrap_or_else(|_| "dask".to_owned());
        let mut command = Command::new(&dask);
        command.args(args).current_dir(&self.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("`{dask}` cannot be started: pip install distributed"))?;
        self.processes.push(process);
        Ok(())
    }

    /// The scheduler writes it when it listens.
    async fn address(&self) -> anyhow::Result<String> {
        let file = self.directory.join("scheduler.json");
        let written = async {
            loop {
                if let Some(address) = address_in(&file) {
                    return address;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), written).await.context("the scheduler did not start within a minute")
    }
}

/// `None` as long as the file is not whole.
fn address_in(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let tree: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(tree.get("address")?.as_str()?.to_owned())
}

impl Drop for Running {
    fn drop(&mut self) {
        // The workers first: they would look for their scheduler.
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    no_arguments()?;
    let directory = env::temp_dir().join(format!("remuda-existing-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let mut cluster = Running { processes: Vec::new(), directory };
    cluster.start(&[
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        "scheduler.json",
    ])?;
    for name in ["alice", "bob"] {
        cluster.start(&["worker", "--scheduler-file", "scheduler.json", "--no-nanny", "--nthreads", "2", "--name", name])?;
    }

    let runner = TaskRunner::builder().address(cluster.address().await?).build()?;
    println!("{}", runner.run(inc_dec_add).await?);

    // It is still there, for the next run.
    println!("{}", runner.run(inc_dec_add).await?);
    Ok(())
}
