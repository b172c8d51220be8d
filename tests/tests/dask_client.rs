//! Dask's own client beside our driver. Inside its tasks: `dask_nested.rs`.
#![allow(clippy::unwrap_used, reason = "tests, and helpers that may panic like a test")]

mod dask_site;

use dask_site::{FAULTS, runner};
use remuda::python;
use remuda_tests::{
    dask::{self, Dask, Site},
    gate::Gate,
};

fn site() -> Site {
    Site::default().module("faults.py", FAULTS)
}

fn noop(x: i64) -> remuda::Call<i64> {
    python("faults:noop").arg(x).call()
}

#[remuda::test]
async fn a_python_client_shares_the_cluster() {
    if !dask::available("a_python_client_shares_the_cluster").await {
        return;
    }
    let cluster = Dask::start(site(), 2).await.unwrap();
    let (mut gate, runner) = (Gate::new().await.unwrap(), runner(&cluster));
    let label = gate.address().to_owned();
    // Theirs has results before, while and after our run is there.
    let script = format!(
        "import faults
kept = client.submit(faults.noop, 41, pure=False)
kept.result()
assert faults.knock('{label}', 'theirs') == 'theirs'
assert client.gather(client.map(faults.noop, range(100), pure=False)) == list(range(100))
assert faults.knock('{label}', 'theirs') == 'theirs'
print(client.submit(faults.noop, kept, pure=False).result() + 1)"
    );
    let theirs = cluster.python(&script);
    let ours = async {
        let theirs = gate.arrived("theirs").await;
        runner
            .run(|flow| async move {
                let mine = flow.submit_all((0..100).map(noop));
                theirs.open().await;
                anyhow::ensure!(flow.gather(mine).await?.into_iter().eq(0..100), "wrong results");
                Ok(())
            })
            .await
            .unwrap();
        // Our keys go, theirs stay.
        gate.arrived("theirs").await.open().await;
    };
    let (theirs, ()) = tokio::join!(theirs, ours);
    assert_eq!(theirs.unwrap(), "42");
    cluster.forgets().await.unwrap();
}
