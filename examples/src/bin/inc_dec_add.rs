//! A hundred increments, a hundred decrements, a hundred sums of one of each, and their total.
//!
//!     cargo run -p remuda-examples --bin inc_dec_add
//!
//! Futures are arguments: nothing here waits for anything but the total, and data goes from task to task.
#![allow(clippy::print_stdout)]

use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::Duration,
};

use remuda::TaskRunner;

#[remuda::task]
fn inc(x: i64) -> i64 {
    sleep_a_little();
    x + 1
}

#[remuda::task]
fn dec(x: i64) -> i64 {
    sleep_a_little();
    x - 1
}

#[remuda::task(priority = 10)]
fn add(x: i64, y: i64) -> i64 {
    sleep_a_little();
    x + y
}

#[remuda::task]
fn total(values: Vec<i64>) -> i64 {
    values.iter().sum()
}

/// Up to a tenth of a second, so that results come in another order than the calls were made in.
fn sleep_a_little() {
    let random = RandomState::new().hash_one(());
    thread::sleep(Duration::from_millis(random % 100));
}

#[remuda::main]
async fn main() -> anyhow::Result<()> {
    let sum = TaskRunner::builder()
        .build()?
        .run(|flow| async move {
            let incs = flow.map(inc, 0..100)?;
            let decs = flow.map(dec, 0..100)?;
            let adds = flow.map(add, (incs, decs))?;
            Ok(flow.submit(total(adds)).await?)
        })
        .await?;
    println!("{sum}");
    Ok(())
}
