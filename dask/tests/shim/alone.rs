//! The shim's own parts without a scheduler: told in Python, see `alone/`.

use super::*;

async fn holds(file: &str) {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut alone = real::python();
    alone.arg(here.join("tests/shim/alone").join(file)).arg(here.join("src/shim"));
    let ended = timeout(PATIENCE, alone.output()).await.expect("it ends").unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test]
async fn connections_that_cross_each_other_lose_and_double_nothing() {
    needs_dask!("connections_that_cross_each_other_lose_and_double_nothing");
    holds("sessions.py").await;
}

#[tokio::test]
async fn it_is_known_what_no_worker_will_run() {
    needs_dask!("it_is_known_what_no_worker_will_run");
    holds("waits.py").await;
}

#[tokio::test]
async fn workers_are_asked_emptied_and_counted() {
    needs_dask!("workers_are_asked_emptied_and_counted");
    holds("workers.py").await;
}

#[tokio::test]
async fn full_collections_do_not_go_over_the_tasks_of_a_submission() {
    needs_dask!("full_collections_do_not_go_over_the_tasks_of_a_submission");
    holds("heap.py").await;
}
