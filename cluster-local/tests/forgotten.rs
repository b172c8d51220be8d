//! A program that did not call `init`: refused before anything is started. In a binary of its own, because `init` is for good.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

use remuda_core::{
    class::ClusterClass,
    cluster::{Cluster, ClusterOptions},
    error::ErrorKind,
};
use remuda_local::{LocalCluster, LocalConfig};

#[tokio::test]
async fn worker_processes_without_init_are_refused() {
    let manager = LocalCluster::from_config(LocalConfig { n_workers: Some(1), ..LocalConfig::default() }).unwrap();
    let error = Cluster::start(manager, ClusterOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    assert!(error.hint().unwrap().contains("remuda::main"), "{error:?}");
}
