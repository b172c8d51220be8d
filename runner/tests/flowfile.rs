//! Flow files on a cluster of threads: what the plan's executor does.
#![allow(clippy::unwrap_used)]

use remuda::{
    RunError, RunReport, TaskRunner,
    config::{Document, Format},
    flowfile::{FlowFailed, FlowPlan},
    local::LocalConfig,
};
use serde_json::{Map, Value, json};

async fn run(text: &str) -> (Result<Value, RunError>, RunReport) {
    let plan = FlowPlan::parse(&Document::parse("flow.yaml", text, Format::Yaml).unwrap(), Map::new()).unwrap();
    let cluster = LocalConfig { processes: false, n_workers: Some(1), threads_per_worker: Some(4), ..LocalConfig::default() };
    let runner = TaskRunner::builder().cluster(cluster).build().unwrap();
    let finished = runner.run_until(std::future::pending(), |flow| async move { plan.run(&flow).await }).await;
    assert_eq!(finished.report.problems(), Vec::<String>::new());
    (finished.result.map(|result| result.into_json().0), finished.report)
}

#[remuda::test]
async fn commands_maps_and_references() {
    let (result, report) = run(r#"
params: {names: [a, b]}
tasks:
  one: {command: [echo, hello]}
  each: {command: [echo, "{{ name }}-{{ i }}", $i], map: {name: "{{ names }}", i: {range: [1, 3]}}}
  both: {command: [cat], map: {x: $each}, stdin: $x}
  json: {command: [cat], stdin: {all: $both, one: [$one]}}
  env: {command: [sh, -c, "echo $X $Y"], env: {X: $one, Y: "$$2"}, after: [json]}
result: {each: $each, json: $json, env: $env, plain: [1, {x: $one}]}
"#)
    .await;
    let expected = json!({
        "each": ["a-1 1", "b-2 2"],
        "json": r#"{"all":["a-1 1","b-2 2"],"one":["hello"]}"#,
        "env": "hello $2",
        "plain": [1, {"x": "hello"}],
    });
    assert_eq!(result.unwrap(), expected);
    assert_eq!(report.tasks.done, 7);
}

#[remuda::test]
async fn bytes_pass_from_task_to_task() {
    let (result, _) = run(r#"
params: {raw: true}
tasks:
  raw: {command: [printf, '\377\n'], binary: "{{ raw }}"}
  same: {command: [cat], stdin: $raw, binary: true}
  hex: {command: [od, -An, -tx1], stdin: $same}
result: {raw: $raw, hex: $hex}
"#)
    .await;
    assert_eq!(result.unwrap(), json!({"raw": "/wo=", "hex": " ff 0a"}));
}

#[remuda::test]
async fn a_failure_ends_what_depends_on_it_and_nothing_else() {
    let (result, report) = run(r#"
tasks:
  bad: {command: [sh, -c, "echo oh no >&2; exit $0", $n], map: {n: [0, 3, 4]}}
  needs: {command: [echo, $bad]}
  last: {command: [echo, ok]}
result: $last
"#)
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.starts_with("flow.yaml:3:3: bad[1]: task `bad`"), "{text}");
    let RunError::Flow(error) = error else { panic!("{error:?}") };
    let others: Vec<_> = error.downcast_ref::<FlowFailed>().unwrap().others.iter().map(ToString::to_string).collect();
    let [other] = others.as_slice() else { panic!("{others:?}") };
    assert!(other.starts_with("flow.yaml:3:3: bad[2]: failed: ") && other.ends_with("exited with code 4"), "{other}");
    assert_eq!((report.tasks.done, report.tasks.failed, report.tasks.upstream_failed), (2, 2, 1));
}

#[remuda::test]
async fn a_map_over_something_that_is_no_list_is_said_at_run_time() {
    let (result, report) = run("tasks:\n  text: {command: [echo, x]}\n  each: {command: [echo, $x], map: {x: $text}}\n  after: {command: [echo, y], after: [each]}\n").await;
    assert_eq!(result.unwrap_err().to_string(), "flow.yaml:3:3: each: maps `x` over $text, whose result is a string, not a list");
    assert_eq!(report.tasks.total(), 1);
}

#[remuda::test]
async fn a_map_over_nothing_is_an_empty_list() {
    let (result, _) =
        run("tasks:\n  none: {command: [echo, $x], map: {x: []}}\n  count: {command: [cat], stdin: $none}\n  list: {command: [cat], stdin: [1, 2]}\nresult: [$none, $count, $list]\n")
            .await;
    assert_eq!(result.unwrap(), json!([[], "[]", "[1,2]"]));
}
