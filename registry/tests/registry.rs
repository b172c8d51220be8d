//! What a registry answers, with classes that never run.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::sync::Arc;

use async_trait::async_trait;
use remuda_core::{
    class::{ClassRef, ClusterClass, ClusterConfig},
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
    manager::{CloseReport, ClusterInfo, ClusterManager, Context, Endpoint, WorkerInfo},
};
use remuda_registry::Registry;
use schemars::JsonSchema;
use serde::Deserialize;

/// Horses behind the house.
///
/// More about them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct BarnConfig {
    /// How many.
    #[schemars(range(min = 1))]
    n_workers: Option<u32>,
}

#[derive(Debug)]
struct BarnCluster;

impl ClusterConfig for BarnConfig {
    type Class = BarnCluster;
}

impl ClusterClass for BarnCluster {
    const PATH: &'static str = "barn::BarnCluster";
    type Config = BarnConfig;
    fn from_config(config: BarnConfig) -> Result<Self> {
        match config.n_workers {
            Some(13) => Err(Error::new(ErrorKind::ConfigInvalid, "not thirteen")),
            _ => Ok(Self),
        }
    }
}

#[async_trait]
impl ClusterManager for BarnCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo::new(Self::PATH)
    }
    async fn start(&self, _cx: &Context) -> Result<Endpoint> {
        Err(Error::new(ErrorKind::Unavailable, "locked"))
    }
    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        Ok(vec![])
    }
    async fn close(&self, _cx: &Context) -> Result<CloseReport> {
        Ok(CloseReport::default())
    }
}

fn barn() -> Registry {
    let mut registry = Registry::new();
    registry.register::<BarnCluster>().unwrap();
    registry
}

fn hint(registry: &Registry, path: &str) -> String {
    let error = registry.resolve(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownClass, "{error:?}");
    error.hint().unwrap_or_default().to_owned()
}

#[test]
fn a_class_is_found_by_path_type_configuration_alias_and_closure() {
    let mut registry = barn();
    let captured = String::from("state");
    registry.alias("stable.BarnCluster", "barn::BarnCluster").unwrap();
    let other = captured.clone();
    registry.register_fn("my::Sync", move |_: Kwargs| if captured.is_empty() { Err("no") } else { Ok(BarnCluster) }).unwrap();
    registry.register_fn("my::Async", async move |_: Kwargs| if other.is_empty() { Err("no") } else { Ok(BarnCluster) }).unwrap();
    let all: [(ClassRef, &str); 6] = [
        ("barn::BarnCluster".into(), "barn::BarnCluster"),
        ("stable.BarnCluster".into(), "barn::BarnCluster"),
        (ClassRef::of::<BarnCluster>(), "barn::BarnCluster"),
        (BarnConfig { n_workers: Some(4) }.into(), "barn::BarnCluster"),
        ("my::Sync".into(), "my::Sync"),
        ("my::Async".into(), "my::Async"),
    ];
    for (class, path) in all {
        assert_eq!(registry.prepare(&class, Kwargs::new()).unwrap().path(), path);
    }
}

#[test]
fn a_path_is_given_once() {
    let mut registry = barn();
    let twice = registry.register::<BarnCluster>().unwrap_err();
    assert_eq!(twice.to_string(), "the cluster class `barn::BarnCluster` is registered twice");
    assert!(registry.register_fn("barn::BarnCluster", |_: Kwargs| Ok::<_, Error>(BarnCluster)).is_err());
    registry.alias("b", "barn::BarnCluster").unwrap().alias("b", "barn::BarnCluster").unwrap();
    assert!(registry.alias("b", "other::Cluster").is_err());
    assert!(registry.alias("barn::BarnCluster", "other::Cluster").is_err());
    assert!(registry.register_fn("b", |_: Kwargs| Ok::<_, Error>(BarnCluster)).is_err());
}

#[test]
fn a_name_nobody_knows_is_answered_with_the_right_one() {
    let registry = barn();
    for near in ["BarnCluster", "barn.BarnCluster", "barn:BarnCluster", "barn/BarnCluster", "barncluster", "barn::barn_cluster"] {
        assert_eq!(hint(&registry, near), "write `barn::BarnCluster`", "{near}");
    }
    let slip = hint(&registry, "barn::BarnClutser");
    assert_eq!(slip, "did you mean `barn::BarnCluster`? known are `barn::BarnCluster`");
    assert_eq!(hint(&registry, "zzz"), "known are `barn::BarnCluster`");
    assert_eq!(hint(&Registry::new(), "zzz"), "no class is registered");
    assert!(registry.resolve(" ").unwrap_err().to_string().contains("is empty"));
    let python = registry.resolve("dask_jobqueue.SLURMCluster").unwrap_err();
    assert!(python.to_string().contains("looks like a Python class"), "{python}");
}

#[test]
fn kwargs_are_checked_before_anything_is_made() {
    let registry = barn();
    let prepare = |kwargs| registry.prepare(&"barn::BarnCluster".into(), kwargs).unwrap_err();
    let error = prepare(Kwargs::from([("n_worker", 3), ("n_workers", 0)]));
    assert_eq!(error.mistakes().len(), 2, "{error}");
    assert!(error.to_string().contains("class=barn::BarnCluster"), "{error}");
    assert_eq!(prepare(Kwargs::from([("n_workers", 13)])).to_string(), "not thirteen · class=barn::BarnCluster");
    let typed = registry.prepare(&BarnConfig::default().into(), Kwargs::from([("n_workers", 3)])).unwrap_err();
    assert!(typed.hint().unwrap().contains("fields of the configuration"));
}

#[test]
fn resolvers_are_asked_in_order_for_what_nobody_registered() {
    let mut registry = barn();
    registry
        .add_resolver(|path| path.starts_with("./").then(|| Err(Error::new(ErrorKind::ConfigInvalid, "no such library"))))
        .add_resolver(|path| {
            let ClassRef::Entry(entry) = ClassRef::from_fn(path, |_: Kwargs| Ok::<_, Error>(BarnCluster)) else { unreachable!() };
            path.starts_with("py:").then(|| Ok(Arc::clone(&entry)))
        });
    assert_eq!(registry.resolve("./lib.so::X").unwrap_err().to_string(), "no such library");
    assert_eq!(registry.resolve("py:x").unwrap().path(), "py:x");
    assert_eq!(registry.resolve("barn::BarnCluster").unwrap().path(), "barn::BarnCluster");
    assert_eq!(hint(&registry, "zzz"), "known are `barn::BarnCluster`");
}

#[test]
fn a_class_is_described_by_its_configuration() {
    let mut registry = barn();
    registry.register_fn("my::Fn", |_: Kwargs| Ok::<_, Error>(BarnCluster)).unwrap();
    registry.alias("stable.BarnCluster", "barn::BarnCluster").unwrap();
    let barn = registry.describe("stable.BarnCluster").unwrap();
    assert_eq!((barn.path.as_str(), barn.summary.as_deref()), ("barn::BarnCluster", Some("Horses behind the house.")));
    assert_eq!(barn.aliases, ["stable.BarnCluster"]);
    assert_eq!(barn.schema.unwrap()["properties"]["n_workers"]["description"], "How many.");
    assert_eq!(registry.classes().iter().map(|class| class.path.as_str()).collect::<Vec<_>>(), ["barn::BarnCluster", "my::Fn"]);
    assert_eq!(registry.describe("my::Fn").unwrap().schema, None);
}

#[test]
fn pythons_names_mean_our_classes_here_or_not() {
    let registry = Registry::with_builtins();
    for (name, path) in [
        ("dask_cloudprovider.aws.FargateCluster", "fargate::FargateCluster"),
        ("dask_kubernetes.KubeCluster", "k8s::KubeCluster"),
        ("dask_kubernetes.operator.KubeCluster", "k8s::KubeCluster"),
        ("dask_gateway.GatewayCluster", "gateway::GatewayCluster"),
    ] {
        let error = registry.resolve(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownClass);
        assert_eq!(error.to_string(), format!("`{name}` is the class `{path}`, which this build does not have"));
        let error = registry.resolve(path).unwrap_err();
        assert_eq!(error.to_string(), format!("this build does not have the cluster class `{path}`"));
    }
}

#[cfg(feature = "local")]
#[test]
fn the_local_clusters_are_built_in_and_dasks_names_mean_dask() {
    let registry = Registry::with_builtins();
    assert_eq!(registry.resolve("local::LocalCluster").unwrap().path(), "local::LocalCluster");
    for name in ["local::DaskCluster", "distributed.LocalCluster", "dask.distributed.LocalCluster"] {
        assert_eq!(registry.resolve(name).unwrap().path(), "local::DaskCluster");
    }
    for near in ["LocalCluster", "local.LocalCluster", "local:LocalCluster", "distributed.deploy.local.LocalCluster"] {
        assert_eq!(hint(&registry, near), "write `local::LocalCluster`", "{near}");
    }
    let slip = hint(&registry, "distributed.LocalClustr");
    assert!(slip.contains("did you mean `distributed.LocalCluster`?"), "{slip}");
    let local = registry.describe("local::LocalCluster").unwrap();
    assert!(local.summary.is_some() && local.schema.is_some_and(|schema| schema["properties"]["n_workers"].is_object()));
}
