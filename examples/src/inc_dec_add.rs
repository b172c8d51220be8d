//! A hundred increments, a hundred decrements, a hundred sums of one of each, and their total.

use std::{
    hash::{BuildHasher, RandomState},
    thread,
    time::Duration,
};

use remuda::Flow;

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

/// Futures are arguments: nothing here waits for anything but the total, and data goes from task to task.
///
/// # Errors
/// None of its own: those of the cluster it runs on.
pub async fn inc_dec_add(flow: Flow) -> anyhow::Result<i64> {
    let incs = flow.map(inc, 0..100)?;
    let decs = flow.map(dec, 0..100)?;
    let adds = flow.map(add, (incs, decs))?;
    Ok(flow.submit(total(adds)).await?)
}
