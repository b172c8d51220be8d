//! Tasks that submit tasks, for programs of tests on real Dask.

use remuda::TaskContext;

/// A module of a user's.
pub(crate) const MODULE: &str = "
from distributed import get_client, get_worker, rejoin, secede, worker_client

def inc(x):
    return x + 1

def by_client(n):
    client = get_client()
    futures = client.map(inc, range(n))
    secede()
    total = sum(client.gather(futures))
    rejoin()
    return total

def by_worker_client(n):
    with worker_client() as client:
        return sum(client.gather(client.map(inc, range(n))))

def where():
    return str(get_worker().name)
";

#[remuda::task]
pub(crate) fn inc(x: i64) -> i64 {
    x + 1
}

#[remuda::task]
pub(crate) async fn many(cx: &TaskContext, n: i64) -> anyhow::Result<i64> {
    let flow = cx.flow()?;
    let parts = flow.map(inc, 0..n)?;
    Ok(flow.gather(parts).await?.into_iter().sum())
}
