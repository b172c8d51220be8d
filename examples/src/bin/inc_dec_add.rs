//! A hundred increments, a hundred decrements, a hundred sums of one of each, and their total.
//!
//!     cargo run -p remuda-examples --bin inc_dec_add
//!     cargo run -p remuda-examples --bin inc_dec_add -- --cluster-class local::DaskCluster
//!     cargo run -p remuda-examples --bin inc_dec_add -- --address tcp://127.0.0.1:8786
//!
//! The flow itself does not know where it runs.
#![allow(clippy::print_stdout)]

use remuda::Kwargs;
use remuda_examples::{inc_dec_add::inc_dec_add, runner};

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    println!("{}", runner(Kwargs::new())?.run(inc_dec_add).await?);
    Ok(())
}
