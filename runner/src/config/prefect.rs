//! The variables of Prefect 0.x and 1.x, for those who come with them in their environment.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::layer::{Layer, Origin};

const CLASS: &str = "PREFECT__ENGINE__EXECUTOR__DEFAULT_CLASS";
const ADDRESS: &str = "PREFECT__ENGINE__EXECUTOR__DASK__ADDRESS";
const CLUSTER: &str = "PREFECT__ENGINE__EXECUTOR__DASK__CLUSTER_CLASS";

/// What they mean here. The last two count for `DaskExecutor` only, as they did there, and where no executor is named.
pub(crate) fn layer(env: &BTreeMap<String, String>) -> Layer {
    let mut layer = Layer::new();
    let value = |name: &str| env.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let executor = value(CLASS).map(|text| (text, text.rsplit(['.', ':']).next().unwrap_or(text)));
    match executor {
        Some((text, "LocalExecutor")) => {
            say(&mut layer, CLASS, text, "cluster_class local::LocalCluster with one thread");
            class(&mut layer, CLASS, "local::LocalCluster", Some(json!({"n_workers": 1, "threads_per_worker": 1, "processes": false})));
        }
        Some((text, "LocalDaskExecutor")) => {
            say(&mut layer, CLASS, text, "cluster_class local::LocalCluster with threads");
            class(&mut layer, CLASS, "local::LocalCluster", Some(json!({"processes": false})));
        }
        None | Some((_, "DaskExecutor")) => return dask(layer, executor.map(|(text, _)| text), value(ADDRESS), value(CLUSTER)),
        Some((text, _)) => {
            let text = format!(
                "unknown executor \"{text}\": expected a LocalExecutor, LocalDaskExecutor or DaskExecutor; or set REMUDA_CLUSTER_CLASS"
            );
            layer.mistakes.add(format!("environment {CLASS}"), "", text);
            layer.unclear = true;
        }
    }
    for unused in [ADDRESS, CLUSTER] {
        if let (Some(text), Some((executor, _))) = (value(unused), executor) {
            layer.notices.push(format!("{unused}={text} does not count: {executor} has no use for it"));
        }
    }
    layer
}

fn dask(mut layer: Layer, executor: Option<&str>, address: Option<&str>, cluster: Option<&str>) -> Layer {
    // "local" was how Prefect 0.x said: none.
    let address = address.filter(|a| *a != "local");
    if let Some(address) = address {
        say(&mut layer, ADDRESS, address, "address; set REMUDA_ADDRESS instead");
        layer.set("address", address.into(), &|_, _| Origin::Environment(ADDRESS.into()));
    }
    if let Some(cluster) = cluster {
        say(&mut layer, CLUSTER, cluster, "cluster_class; set REMUDA_CLUSTER_CLASS instead");
        class(&mut layer, CLUSTER, cluster, None);
    }
    if let (Some(executor), None, None) = (executor, address, cluster) {
        say(&mut layer, CLASS, executor, "cluster_class local::LocalCluster");
        class(&mut layer, CLASS, "local::LocalCluster", None);
    }
    layer
}

fn class(layer: &mut Layer, variable: &str, name: &str, kwargs: Option<Value>) {
    let origin = |_: &_, _| Origin::Environment(variable.to_owned());
    layer.set("cluster_class", name.into(), &origin);
    if let Some(kwargs) = kwargs {
        layer.set("cluster_kwargs", kwargs, &origin);
    }
}

fn say(layer: &mut Layer, variable: &str, text: &str, meaning: &str) {
    layer.notices.push(format!("the old Prefect variable {variable}={text} is read as {meaning}"));
}
