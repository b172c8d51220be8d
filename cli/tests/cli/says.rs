//! What the program says without running anything.

use crate::harness::Place;

const FLOW: &str = r#"
runner: {cluster_class: local::LocalCluster, cluster_kwargs: {n_workers: 4}}
params: {n: 3}
tasks:
  incs: {python: "mod:inc", map: {x: {range: "{{ n }}"}}}
  each: {python: "mod:inc", map: {x: $incs}}
result: $each
"#;

#[test]
fn validate_creates_nothing_and_shows_the_plan() {
    let place = Place::new(&[("flow.yaml", FLOW)]);
    let ended = place.remuda(&["validate", "flow.yaml", "--plan", "--param", "n=5"]);
    insta::assert_snapshot!(ended.code(0).out);
    assert_eq!(ended.err, "");
    assert_eq!(place.remuda(&["validate", "flow.yaml"]).code(0).out, "flow.yaml: ok: 2 tasks, 6 calls, on local::LocalCluster\n");
}

#[test]
fn config_show_tells_where_each_value_comes_from() {
    let place = Place::new(&[("flow.yaml", FLOW), ("remuda.yaml", "address: tcp://h:8786\nclient_kwargs: {timeout: 5s}\n")])
        .env("REMUDA_CLUSTER_KWARGS", r#"{"threads_per_worker": 2, "api_token": "secret"}"#)
        .env("PREFECT__ENGINE__EXECUTOR__DEFAULT_CLASS", "prefect.executors.LocalExecutor");
    let ended = place.remuda(&["config", "show", "--origin", "flow.yaml", "--kwarg", "resources.GPU=1"]);
    insta::assert_snapshot!(format!("{}---\n{}", ended.code(0).out, ended.err));
    let plain = Place::new(&[]).remuda(&["config", "show"]);
    assert_eq!(plain.code(0).out, "cluster_class: local::LocalCluster\n");
}

#[test]
fn classes_are_listed_and_described() {
    let place = Place::new(&[]);
    let list = place.remuda(&["classes"]);
    assert!(list.code(0).out.contains("local::LocalCluster  ") && list.out.contains("also: "), "{}", list.out);
    let about = place.remuda(&["classes", "describe", "local::LocalCluster"]);
    for words in ["\nn_workers: integer", "\nthreads_per_worker: ", "\nprocesses: "] {
        assert!(about.code(0).out.contains(words), "{words:?}: {}", about.out);
    }
    let json: serde_json::Value = serde_json::from_str(&place.remuda(&["classes", "--json"]).code(0).out).unwrap();
    assert!(json[0]["kwargs"]["properties"]["n_workers"].is_object());
    place.remuda(&["classes", "describe", "local::Nope"]).code(2).says(&["local::Nope"]);
}

#[test]
fn schema_completions_help_and_version() {
    let place = Place::new(&[]);
    let schema: serde_json::Value = serde_json::from_str(&place.remuda(&["schema"]).code(0).out).unwrap();
    assert!(schema["properties"]["tasks"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.remuda(&["completions", shell]).code(0).out.contains("cluster-class"), "{shell}");
    }
    let help = place.remuda(&["run", "--help"]);
    for words in ["Exit codes:", "130  interrupted", "REMUDA_CLUSTER_KWARGS", "--param"] {
        assert!(help.code(0).out.contains(words), "{words:?}: {}", help.out);
    }
    assert!(place.remuda(&["--version"]).code(0).out.starts_with("remuda "));
}
