use serde_json::{Map, Value, json};

use super::*;
use crate::config::{Document, Format};

fn parse_with(text: &str, params: Value) -> Result<FlowPlan, Error> {
    let document = Document::parse("flow.yaml", text, Format::Yaml)?;
    let params: Map<String, Value> = serde_json::from_value(params).unwrap();
    FlowPlan::parse(&document, params)
}

fn parse(text: &str) -> Result<FlowPlan, Error> {
    parse_with(text, json!({}))
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const EXAMPLE: &str = r#"
runner: {cluster_class: local::LocalCluster, cluster_kwargs: {n_workers: "{{ n // 25 }}"}}
params: {n: 100}
tasks:
  total: {python: "arith:total", args: [$adds]}
  incs:  {python: "arith:inc", map: {x: {range: "{{ n }}"}}}
  decs:  {python: "arith:dec", map: {x: {range: "{{ n }}"}}}
  adds:  {python: "arith:add", map: {x: $incs, y: $decs}, annotations: {priority: 10}}
result: $total
"#;

#[test]
fn the_settled_example() {
    let plan = parse(EXAMPLE).unwrap();
    insta::assert_snapshot!(plan);
    let config = crate::config::resolve(vec![plan.runner]).unwrap();
    assert!(config.show(true).contains("cluster_kwargs.n_workers: 4         # flow.yaml:2:63"), "{}", config.show(true));
    assert_eq!(parse_with(EXAMPLE, json!({"n": 50})).unwrap().tasks[0].calls, Some(50));
}

#[test]
fn every_form_of_a_task() {
    let plan = parse(
        r#"
x-base: &base {retries: 2, timeout: 5s}
params: {port: 8080, names: [a, b], deep: {k: "{{ port }}"}}
tasks:
  list: {command: [ls, -1], cwd: data, env: {LANG: C, PORT: "{{ port }}"}, binary: true}
  lines: {python: "text:split", args: [$list, {sep: "$$x", at: [1, $list]}], kwargs: {keep: true}}
  fetch:
    command: [curl, -s, "http://127.0.0.1:{{ port }}/{{ name }}.png", -o, "{{ i }}"]
    map: {name: "{{ names }}", i: {range: [4, 0, -2]}}
    annotations: {<<: *base, resources: {net: 0.5}, workers: [w0], allow_other_workers: true}
    name: download
  each: {command: [wc, -c], map: {line: $lines, k: [1, 2, $list]}, stdin: $line}
  scale: {python: "m:f", map: {x: $fetch}, args: [$x, {n: "{{ deep }}"}], after: [each, $lines]}
result: {lines: $lines, all: [$scale, "{{ port + 1 }}"]}
"#,
    )
    .unwrap();
    insta::assert_snapshot!(plan);
    assert_eq!(plan.tasks[2].label, "download");
}

#[test]
fn workers_are_names_or_numbers_one_or_several() {
    let workers = |written: &str| {
        let text = format!("params: {{n: 7, all: [8, bob]}}\ntasks:\n  a: {{command: [x], annotations: {{workers: {written}}}}}\n");
        parse(&text).map(|plan| plan.tasks[0].annotations.workers.clone().unwrap_or_default())
    };
    for (written, names) in [
        ("7", &["7"][..]),
        ("alice", &["alice"]),
        ("[7]", &["7"]),
        ("[alice, 7, '8']", &["alice", "7", "8"]),
        ("'{{ n }}'", &["7"]),
        ("['{{ n }}']", &["7"]),
        ("'{{ all }}'", &["8", "bob"]),
        ("null", &[]),
    ] {
        assert_eq!(workers(written).unwrap(), names, "{written}");
    }
    for (written, words) in [
        ("1.5", "found number 1.5"),
        ("true", "found boolean true"),
        ("[alice, {a: 1}]", "annotations.workers[1]: expected string or integer, found object"),
    ] {
        let error = workers(written).unwrap_err().to_string();
        assert!(error.contains(words), "{written}: {error}");
    }
}

#[test]
fn mistakes_are_told_together_with_their_places() {
    insta::assert_snapshot!(error(
        r#"
runner: {cluster_clas: x, cluster_kwargs: 3}
params: {n: 1, m: , bad name: 2}
task: {}
tasks:
  a: {pyton: "m:f"}
  b: {python: "m.f", args: $a, annotations: {prioritty: 1, retries: -1, timeout: soon, resources: {GPU: x}}}
  c: {python: "m:f", command: [x], env: {A: 1}}
  bin: {python: "m:f", binary: yes please}
  d: {command: "wc -l", kwargs: {x: 1}}
  e: {command: []}
  f: {python: "m:f", args: [$aa, $HOME/x, $a.result, "{{ k }}", "{{ m }}"], after: [zz]}
  g: {python: "m:f", map: {x: 3, y: {rnge: 3}, z: {range: -1}, w: {range: [1, 5, 0]}, v: text}}
  h: {python: "m:f", map: {x: [1]}, kwargs: {x: 2}, unmapped: 1}
  i: 3
  j: {python: "m:f", map: {x: $a}, args: ["{{ x }}", "{{ (1 }}"]}
  9x: {command: [a], env: [1]}
result: [$nope]
"#
    ));
}

#[test]
fn cycles_are_named() {
    insta::assert_snapshot!(error(
        "tasks:\n  a: {python: 'm:f', args: [$c]}\n  b: {python: 'm:f', after: [a]}\n  c: {python: 'm:f', map: {x: $b}}\n  d: {python: 'm:f', args: [$a]}\n"
    ));
    insta::assert_snapshot!(error("tasks:\n  a: {python: 'm:f', args: [{x: [$a]}]}\n"));
}

#[test]
fn lengths_must_be_equal_where_they_are_known() {
    let text = |y: &str| {
        format!(
            "tasks:\n  p: {{python: 'm:f', map: {{x: {{range: 3}}}}}}\n  q: {{python: 'm:f'}}\n  r: {{python: 'm:g', map: {{x: $p, y: {y}, z: $q}}}}\n"
        )
    };
    insta::assert_snapshot!(error(&text("[1, 2]")));
    assert_eq!(parse(&text("[1, 2, 3]")).unwrap().tasks[2].calls, Some(3));
    let unknown = parse("tasks:\n  q: {python: 'm:f'}\n  r: {python: 'm:g', map: {x: $q}}\n  s: {python: 'm:g', map: {x: $r}}\n").unwrap();
    assert_eq!((unknown.tasks[1].calls, unknown.tasks[2].calls), (None, None));
}

#[test]
fn params_are_given_missing_or_unknown() {
    let text = "params: {n: , name: x}\ntasks:\n  a: {command: [echo, '{{ n }}', '{{ name }}']}\n";
    insta::assert_snapshot!(error(text));
    let plan = parse_with(text, json!({"n": 1, "name": "$a {{ n }}"})).unwrap();
    insta::assert_snapshot!(plan);
    let unknown = parse_with(text, json!({"n": 1, "nam": 2})).unwrap_err();
    insta::assert_snapshot!(unknown);
}

#[test]
fn a_file_that_is_no_flow() {
    insta::assert_snapshot!(error("- 1"));
    insta::assert_snapshot!(error(""));
    insta::assert_snapshot!(error("tasks: {}"));
    insta::assert_snapshot!(error("tasks:\n  a: {python: 'm:f'\n"));
    insta::assert_snapshot!(error("tasks:\n  a: {python: 'm:f'}\n  a: {python: 'm:g'}\n"));
}

#[test]
fn toml_flows_are_flows() {
    let text =
        "result = \"$a\"\n[params]\nn = 2\n[tasks.a]\npython = \"m:f\"\nmap = {x = {range = \"{{ n }}\"}}\n[tasks.b]\npyton = \"m:f\"\n";
    let document = Document::parse("flow.toml", text, Format::Toml).unwrap();
    insta::assert_snapshot!(FlowPlan::parse(&document, Map::new()).unwrap_err());
}

#[test]
fn ranges_are_python_s() {
    let len = |range: &str| parse(&format!("tasks: {{a: {{python: 'm:f', map: {{x: {{range: {range}}}}}}}}}")).unwrap().tasks[0].calls;
    for (range, expected) in [("0", 0), ("3", 3), ("[2, 5]", 3), ("[5, 2]", 0), ("[0, 7, 3]", 3), ("[7, 0, -3]", 3), ("[0, 6, 3]", 2)] {
        assert_eq!(len(range), Some(expected), "{range}");
    }
    let error = parse("tasks: {a: {python: 'm:f', map: {x: {range: 1000000000000}}}}").unwrap_err().to_string();
    assert!(error.contains("range: 1000000000000 calls are more than the 10000000"), "{error}");
}

/// What the schema says must be what the parser does, so the examples of this file go through both.
#[test]
fn the_schema_for_editors() {
    let schema = schema();
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).unwrap());
    assert!(schema["$defs"]["Task"]["properties"]["python"].is_object());
}

#[test]
fn a_file_is_read_with_its_params_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flow.yaml");
    std::fs::write(&path, EXAMPLE).unwrap();
    let plan = FlowPlan::read(&path, &["n=7".into()]).unwrap();
    assert_eq!((plan.params["n"].clone(), plan.dir.as_deref()), (json!(7), Some(dir.path())));
    let wrong = FlowPlan::read(&path, &["n".into(), "=3".into()]).unwrap_err();
    insta::assert_snapshot!(wrong);
    assert!(FlowPlan::read(&dir.path().join("no.yaml"), &[]).unwrap_err().to_string().ends_with("no.yaml: no such file"));
}

/// The flow files of the documentation are flow files.
#[test]
fn documented_flows_are_flows() {
    let text = include_str!("../../../docs/flow-files.md");
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let plan = parse(block).unwrap();
        assert!(plan.result.is_some(), "{block}");
    }
}

#[test]
fn a_layer_carries_the_mistakes_of_its_whole_file() {
    let text =
        "runner: {cluster_class: '{{ class }}', cluster_kwargs: {cpu: 256}, adapt_kwargs: {maxmum: 2}}\ntasks: {a: {comand: [ls]}}\n";
    let document = Document::parse("flow.yaml", text, Format::Yaml).unwrap();
    let (layer, plan) = FlowPlan::parse_parts(&document, Given::default());
    assert!(plan.is_err());
    let told = crate::TaskRunner::builder().load(config::Loader::new().flow(layer)).unwrap_err().to_string();
    insta::assert_snapshot!(told);
}

#[test]
fn a_bad_number_is_told_with_the_rest_and_once() {
    let text = "params: {big: 18446744073709551616, n: .nan, list: [1, .inf]}
runner:
  adapt_kwargs: {maximum: .inf, maxmum: 2}
  cluster_kwargs: {n_workers: .inf, n_wrokers: 4}
tasks:
  a: {comand: [ls, '{{ n }}']}
  b: {python: 'm:f', args: ['{{ big }}', .nan], kwargs: {x: '{{ list }}', y: .inf}, annotations: {priority: .inf, retries: .nan}}
  c: {python: 'm:f', map: {x: {range: .inf}, y: .nan, z: [.nan]}}
  d: {python: 'm:f', map: {x: $c}, after: .nan, name: .inf, annotations: .nan}
result: .nan
";
    let document = Document::read("flow.yaml", text, Format::Yaml).unwrap();
    let (layer, plan) = FlowPlan::parse_parts(&document, Given::default());
    assert!(plan.is_err());
    insta::assert_snapshot!(crate::TaskRunner::builder().load(config::Loader::new().flow(layer)).unwrap_err());
    // To those who only read it, it is no document.
    assert!(Document::parse("flow.yaml", text, Format::Yaml).unwrap_err().to_string().starts_with("16 mistakes"));
}

#[test]
fn a_mistake_has_no_others_behind_it() {
    let tasks = "tasks: {a: {command: [ls, '{{ x }}']}}";
    let mut wrong = Vec::new();
    for (text, params, words) in [
        ("tasks: .nan\nresult: $a", vec![], "tasks: the number is not finite"),
        ("taks: {a: {command: [ls]}}\nresult: [$a]", vec![], "did you mean `tasks`?"),
        ("tasks: 3\nresult: $a", vec![], "found number 3"),
        (".nan", vec!["x=3"], "the number is not finite"),
        ("tasks: {a: .nan}\nresult: $a", vec![], "tasks.a: the number is not finite"),
        (&format!("params: .nan\n{tasks}"), vec!["x=3"], "params: the number is not finite"),
        (&format!("params: .nan\n{tasks}"), vec![], "params: the number is not finite"),
        (&format!("parms: {{x: 3}}\n{tasks}"), vec![], "did you mean `params`?"),
        ("params: .nan\ntasks: {a: {command: [ls, '{{ x }}{{ i }}'], map: {i: [1]}}}", vec![], "params: the number is not finite"),
        ("params: {n: {x: .nan}}\ntasks: {a: {python: 'm:f', map: {i: {range: '{{ n.x }}'}}}}", vec![], "params.n.x: the number"),
        ("params: {n: {x: '{{ zz }}'}}\ntasks: {a: {python: 'm:f', map: {i: {range: '{{ n.x }}'}}}}", vec![], "`zz` is not defined"),
        (&format!("params: {{x: }}\n{tasks}"), vec!["x:3"], "expected key=value, found \"x\""),
        (&format!("params: {{x: }}\n{tasks}"), vec!["y"], "params.x: has no value"),
    ] {
        let document = Document::read("flow.yaml", text, Format::Yaml).unwrap();
        let params: Vec<String> = params.iter().map(ToString::to_string).collect();
        let (_, plan) = FlowPlan::parse_parts(&document, Given::read(&params));
        let told = plan.unwrap_err().to_string();
        let expected = if params == ["y"] { "2 mistakes:" } else { words };
        if !told.contains(words) || !told.contains(expected) || params != ["y"] && told.contains("mistakes:") {
            wrong.push(format!("{text}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is known is still asked.
    let told = error("params: {n: 3}\ntasks: {a: {command: [ls, '{{ k }}']}}\nresult: $b\nrunner: 3\n");
    assert!(told.contains("`k` is not defined") && told.contains("no task `b`"), "{told}");
    let text = "params: {k: .nan}\nrunner: {address: 'tls://h:1', client_kwargs: {security: {ca: '{{ k }}'}}}\ntasks: {a: {command: [ls]}}";
    let (layer, _) = FlowPlan::parse_parts(&Document::read("flow.yaml", text, Format::Yaml).unwrap(), Given::default());
    let told = crate::TaskRunner::builder().load(config::Loader::new().flow(layer)).unwrap_err().to_string();
    assert!(!told.contains("mistakes:"), "{told}");
    for text in ["runer: {cluster_class: fargate::FargateCluster}\ntasks: {a: {command: [ls]}}", ".nan"] {
        let (layer, _) = FlowPlan::parse_parts(&Document::read("flow.yaml", text, Format::Yaml).unwrap(), Given::default());
        let flags = config::Flags { kwargs: vec!["cpu=256".into()], ..config::Flags::default() };
        let told = crate::TaskRunner::builder().load(config::Loader::new().flow(layer).flags(&flags)).unwrap_err().to_string();
        assert!(!told.contains("cpu"), "{told}");
    }
}
