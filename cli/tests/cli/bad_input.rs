//! Mistakes: all of them at once, where they stand, and nothing created.

use crate::harness::Place;

const FLOW: &str = "tasks:\n  a: {command: [touch, made]}\n";

#[track_caller]
fn refused(place: &Place, args: &[&str]) -> String {
    let ended = place.remuda(args);
    ended.code(2);
    assert_eq!(ended.out, "");
    assert!(!place.path().join("made").exists(), "a task was run");
    ended.err
}

#[test]
fn flags_and_files_are_checked_together() {
    let place = Place::new(&[
        ("flow.yaml", "runner: {cluster_class: local::LocalCluster}\ntasks:\n  a: {comand: [touch, made]}\n  b: {command: [echo, $c]}\n"),
        ("remuda.toml", "cluster_clas = \"x\"\n"),
    ]);
    for command in [&["run"][..], &["validate"], &["config", "show"]] {
        let flags = ["flow.yaml", "--kwarg", "n_workers", "--address", "http://h:8787"];
        insta::assert_snapshot!("flags_and_files_are_checked_together", refused(&place, &[command, &flags].concat()));
    }
}

#[test]
fn files_that_cannot_be_read_hide_nothing() {
    let place =
        Place::new(&[("flow.yaml", "params: {n: null, m: null}\ntasks:\n  a: {comand: ['{{ n }}']}\n"), ("remuda.yaml", "a: [1\n")]);
    let flags = ["--param", "n", "--adapt", "9..3"];
    for (command, flow, more) in [
        (&["run"][..], "flow.yaml", &["flow.yaml:3:7: tasks.a.comand: ", "flow.yaml:1:19: params.m: has no value"][..]),
        (&["config", "show"], "flow.yaml", &["flow.yaml:3:7: tasks.a.comand: "]),
        (&["validate"], "nope.yaml", &["nope.yaml: no such file"]),
    ] {
        let text = refused(&place, &[command, &[flow], &flags].concat());
        for words in [&["remuda.yaml:2:1: did not find", "--param: expected key=value, found \"n\"", "--adapt: "], more].concat() {
            assert!(text.contains(words), "{words:?} is missing in\n{text}");
        }
        assert!(text.matches("error:").count() == 1 && !text.contains("params.n"), "{text}");
    }
}

#[test]
fn the_mistakes_of_a_file_that_cannot_be_read_are_counted_one_by_one() {
    let broken = "b: .nan\na: 1\na: 2\n";
    let place = Place::new(&[("flow.yaml", FLOW), ("c.yaml", broken), ("broken.yaml", broken)]);
    for (flow, config) in [("flow.yaml", "c.yaml"), ("broken.yaml", "/dev/null")] {
        let text = refused(&place, &["validate", flow, "--config", config, "--adapt", "4..2"]);
        let file = if flow == "flow.yaml" { config } else { flow };
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "error: 3 mistakes:", "{text}");
        assert!(lines[1].starts_with(&format!("  {file}:1:4: b: ")) && lines[2].starts_with(&format!("  {file}:3:1: ")), "{text}");
        assert!(lines[3].starts_with("  --adapt: ") && lines.len() == 4, "{text}");
    }
}

#[test]
fn two_files_are_told_with_the_flag_that_names_one() {
    let place = Place::new(&[("flow.yaml", FLOW), ("remuda.yaml", ""), ("remuda.toml", "")]);
    for (command, flag) in [(&["run", "flow.yaml"][..], "--config"), (&["cluster", "start"], "--file")] {
        let text = refused(&place, command);
        assert!(text.contains(&format!("keep one, or name one with {flag}")), "{text}");
        // Which is taken.
        let named = place.remuda(&[command, &[flag, "remuda.yaml", "--kwarg", "n_wrokers=1"]].concat());
        assert!(named.err.contains("did you mean `n_workers`?"), "{}", named.err);
    }
}

#[test]
fn a_class_checks_its_kwargs_and_says_where_they_were_set() {
    let place = Place::new(&[("flow.yaml", FLOW), ("remuda.yaml", "cluster_kwargs:\n  n_worker: 4\n  dashboard_address: ':8787'\n")])
        .env("REMUDA_CLUSTER_KWARGS", r#"{"threads_per_worker": -1}"#);
    let text = refused(&place, &["run", "flow.yaml", "--kwarg", "memory_limit=lots"]);
    for words in [
        "remuda.yaml:2:3: cluster_kwargs.n_worker: unknown key; did you mean `n_workers`?",
        "remuda.yaml:3:3: cluster_kwargs.dashboard_address: ",
        "environment REMUDA_CLUSTER_KWARGS: cluster_kwargs.threads_per_worker: ",
        "--kwarg: cluster_kwargs.memory_limit: ",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn bounds_that_are_wrong_hide_no_keyword_that_is() {
    let place = Place::new(&[("flow.yaml", FLOW), ("remuda.yaml", "cluster_kwargs: {n_wrokers: 4}\nclient_kwargs: {tmeout: 1}\n")]);
    for command in [&["run", "flow.yaml"][..], &["validate", "flow.yaml"], &["cluster", "start"]] {
        let text = refused(&place, &[command, &["--adapt", "9..3", "--kwarg", "processes=maybe"]].concat());
        for words in [
            "error: 4 mistakes:",
            "--adapt: adapt_kwargs.minimum: `minimum` (9) is more than `maximum` (3)",
            "remuda.yaml:2:17: client_kwargs.tmeout: unknown key; did you mean `timeout`?",
            "remuda.yaml:1:18: cluster_kwargs.n_wrokers: unknown key; did you mean `n_workers`?",
            "--kwarg: cluster_kwargs.processes: expected boolean, found string \"maybe\"",
        ] {
            assert!(text.contains(words), "{words:?} is missing in\n{text}");
        }
    }
}

#[test]
fn classes_that_are_not_there() {
    let place = Place::new(&[("flow.yaml", FLOW)]);
    for (class, words) in [
        ("LocalCluster", "write `local::LocalCluster`"),
        ("local::LocalClustre", "local::LocalClustre"),
        ("dask_kubernetes.operator.KubeCluster", "k8s::KubeCluster"),
    ] {
        let text = refused(&place, &["run", "flow.yaml", "--cluster-class", class]);
        assert!(text.contains(class) && text.contains(words) && text.contains("--cluster-class"), "{text}");
    }
}

#[test]
fn what_this_build_cannot_do_is_refused_before_anything_is_created() {
    let place = Place::new(&[("flow.yaml", FLOW)]);
    let tls = refused(&place, &["run", "flow.yaml", "--address", "tls://10.0.0.1:8786"]);
    assert!(tls.contains("tls://10.0.0.1:8786 needs certificates") && tls.contains("tls_ca_file"), "{tls}");
    let wrong = Place::new(&[("flow.yaml", FLOW)]).env("REMUDA_ADAPT_KWARGS", r#"{"minimum": 2, "maximum": 1}"#);
    let adapt = refused(&wrong, &["run", "flow.yaml"]);
    assert!(adapt.contains("environment REMUDA_ADAPT_KWARGS") && adapt.contains("`minimum` (2) is more than `maximum` (1)"), "{adapt}");
    let both = refused(&place, &["run", "flow.yaml", "--address", "tcp://h:1", "--cluster-class", "local::LocalCluster"]);
    assert!(both.contains("`address` (--address)") && both.contains("`cluster_class` (--cluster-class)"), "{both}");
}

#[test]
fn an_empty_flag_does_not_choose_another_cluster() {
    let place = Place::new(&[("flow.yaml", FLOW)]).env("REMUDA_CLUSTER_CLASS", "local::LocalCluster");
    for (flag, example) in [("--address", "tcp://host:8786"), ("--cluster-class", "local::LocalCluster")] {
        let text = refused(&place, &["run", "flow.yaml", flag, ""]);
        assert!(text.contains("is empty") && text.contains(&format!("write {flag} {example}, or leave the flag out")), "{text}");
    }
    refused(&place, &["cluster", "status", ""]);
    let unset = Place::new(&[("flow.yaml", FLOW)]).env("REMUDA_ADDRESS", "");
    unset.remuda(&["validate", "flow.yaml"]).code(0);
}

#[test]
fn files_and_usage() {
    let place = Place::new(&[("flow.yaml", FLOW), ("broken.yaml", "tasks: [1\n")]);
    insta::assert_snapshot!(refused(&place, &["run", "nope.yaml"]));
    insta::assert_snapshot!(refused(&place, &["validate", "broken.yaml"]));
    insta::assert_snapshot!(refused(&place, &["run", "flow.yaml", "--config", "nope.toml"]));
    insta::assert_snapshot!(refused(&place, &["run", "flow.yaml", "--param", "n=1"]));
    assert!(refused(&place, &["rum", "flow.yaml"]).contains("similar"));
    let log = refused(&Place::new(&[("flow.yaml", FLOW)]).env("REMUDA_LOG", "remuda=loud"), &["run", "flow.yaml"]);
    assert!(log.contains("REMUDA_LOG=remuda=loud"), "{log}");
}

#[test]
fn the_cluster_s_mistakes_are_told_with_those_of_the_tasks() {
    let flow =
        "runner: {cluster_class: CLASS, cluster_kwargs: {n_worker: 1, memory_limit: '{{ lots }}'}}\ntasks:\n  a: {comand: [touch, made]}\n";
    for (class, words) in [
        ("local::LocalCluster", "flow.yaml:1:63: cluster_kwargs.n_worker: unknown key; did you mean `n_workers`?"),
        ("local::LocalClustre", "local::LocalClustre"),
    ] {
        let place = Place::new(&[("flow.yaml", &flow.replace("CLASS", class))]);
        for command in ["run", "validate"] {
            let text = refused(&place, &[command, "flow.yaml"]);
            for words in [words, "unknown key; did you mean `command`?", "`lots` is not defined"] {
                assert!(text.contains(words), "{words:?} is missing in\n{text}");
            }
            assert!(!text.contains("null"), "what could not be filled in is not told twice:\n{text}");
        }
    }
}

#[test]
fn a_number_that_is_none_hides_nothing() {
    let place = Place::new(&[
        ("flow.yaml", "tasks:\n  a: {comand: [touch, made], annotations: {priority: .nan}}\n"),
        ("remuda.yaml", "adapt_kwargs: {maximum: .inf}\ncluster_kwargs: {n_wrokers: 4}\nother: 1\n"),
    ]);
    insta::assert_snapshot!(refused(&place, &["run", "flow.yaml", "--adapt", "0..-1"]));
}
