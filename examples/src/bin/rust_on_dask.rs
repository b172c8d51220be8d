//! Rust tasks on real Dask: a scheduler and two workers of this machine, started for this run and ended with it.
//!
//! ```console
//! cargo run -p remuda-examples --bin rust_on_dask        # needs `pip install distributed`
//! ```
//!
//! Beside each thread of a Dask worker stands a task host, which is this program started again. Python tasks may stand in the same flow;
//! what they give to Rust is converted on the way.
#![allow(clippy::print_stdout)]

use remuda::{Kwargs, TaskRunner, Tree, python, unmapped};
use remuda_examples::no_arguments;

/// How many primes there are from `begin` on, in `length` numbers.
#[remuda::task]
fn primes(begin: u32, length: u32) -> usize {
    let is_prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (begin..begin + length).filter(is_prime).count()
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    no_arguments()?;
    let cluster = Kwargs::new().with("n_workers", 2).with("threads_per_worker", 1);
    let runner = TaskRunner::builder().cluster("local::DaskCluster").cluster_kwargs(cluster).build()?;
    let (count, version) = runner
        .run(|flow| async move {
            let parts = flow.map(primes, ((0..1_000_000).step_by(50_000), unmapped(50_000)))?;
            let total = flow.submit(python("builtins:sum").arg(Tree::list(&parts)).call::<usize>());
            let version = flow.submit(python("importlib.metadata:version").arg("distributed").call::<String>());
            Ok((total.await?, version.await?))
        })
        .await?;
    anyhow::ensure!(!version.is_empty(), "which Dask was that?");
    println!("{count} primes below a million");
    Ok(())
}
