//! What `#[remuda::task]` makes of a function.

use std::{fmt, sync::Arc};

use remuda::{Arg, Call, TaskContext, TaskError, TaskFuture, allow_failure};

/// Adds.
#[remuda::task]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

struct Big(Vec<u8>);

#[remuda::task(priority = 3, retries = 1, slots = 0, timeout = 2.5, name = "the norm", resources(GPU = 1))]
async fn norm(cx: &TaskContext, data: &Big, weights: Arc<Vec<u8>>, text: &str, items: &[u8]) -> Result<usize, fmt::Error> {
    tokio::task::yield_now().await;
    Ok(data.0.len() + weights.len() + text.len() + items.len() + cx.attempt() as usize)
}

#[remuda::task]
fn nothing() {}

#[remuda::task]
fn describe(part: Result<i64, TaskError>) -> String {
    format!("{part:?}")
}

#[remuda::task]
fn pair(mut both: (i64, String), rest: Option<i64>) -> anyhow::Result<i64> {
    both.0 += rest.unwrap_or_default();
    anyhow::ensure!(both.0 > 0, "not positive");
    Ok(both.0)
}

#[allow(dead_code)]
fn takes_all_kinds(f: TaskFuture<i64>, s: TaskFuture<String>, big: TaskFuture<Big>, list: Vec<TaskFuture<i64>>) {
    #[remuda::task]
    fn sum(values: Vec<i64>) -> i64 {
        values.iter().sum()
    }
    let _: Call<i64> = add(&f, 3);
    let _: Call<usize> = norm(&big, vec![1], "x", vec![1_u8]);
    let _: Call<()> = nothing();
    let _ = describe(allow_failure(&f));
    let _ = pair((f.clone(), s), Some(f.clone()));
    let _ = sum(&list);
    let _ = sum(Arg::list([Arg::from(1), f.into()]));
    let _ = sum(vec![1, 2]);
}

#[test]
fn bodies_stay_reachable_and_tasks_are_registered_by_path() {
    assert_eq!(add::call(1, 2), 3);
    assert!(pair::call((0, String::new()), None).is_err());
    let names: Vec<_> = remuda::__private::inventory::iter::<remuda::__private::TaskDef>.into_iter().map(|t| t.name).collect();
    for name in ["tasks::add", "tasks::norm", "tasks::nothing", "tasks::sum", "tasks::pair"] {
        assert!(names.iter().any(|known| known.split('@').next() == Some(name)), "{name} in {names:?}");
    }
}

/// Names that the macro might use itself.
#[remuda::task]
async fn unlucky(cx: &TaskContext, args: i64, inputs: i64, call: i64, bytes: i64, scope: i64) -> i64 {
    args + inputs + call + bytes + scope + i64::from(cx.attempt())
}

#[remuda::task]
fn unlucky_too(cx: i64, body: i64, taken: i64) -> i64 {
    cx + body + taken
}

#[test]
fn parameters_may_have_any_name() {
    let _ = unlucky(1, 2, 3, 4, 5);
    let _ = unlucky_too(1, 2, 3);
}
