//! The names that people have in their Dask and Prefect configurations.

/// What Dask's own `LocalCluster` means here: the real Dask. The embedded engine is `local::LocalCluster`.
const DASK_LOCAL: &str = "local::DaskCluster";

/// Python's dotted path, and our class.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("distributed.LocalCluster", DASK_LOCAL),
    ("dask.distributed.LocalCluster", DASK_LOCAL),
    ("dask_cloudprovider.aws.FargateCluster", "fargate::FargateCluster"),
    ("dask_kubernetes.KubeCluster", "k8s::KubeCluster"),
    ("dask_kubernetes.operator.KubeCluster", "k8s::KubeCluster"),
    ("dask_gateway.GatewayCluster", "gateway::GatewayCluster"),
];

/// Whether a path is of the form `package.module.Class`.
pub(crate) fn is_dotted(path: &str) -> bool {
    let word =
        |part: &str| part.chars().all(|c| c.is_alphanumeric() || c == '_') && part.chars().next().is_some_and(|c| !c.is_ascii_digit());
    path.contains('.') && path.split('.').all(word)
}
