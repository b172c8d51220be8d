//! Kwargs and what becomes of them.

use remuda_core::kwargs::Kwargs;
use serde_json::{Value, json};

use super::*;

fn plan(value: Value) -> Result<Plan> {
    let kwargs: Kwargs = serde_json::from_value(value).unwrap();
    kwargs.parse_into(DaskConfig::resolve)
}

fn mistakes(value: Value) -> Vec<String> {
    plan(value).unwrap_err().mistakes().iter().map(|mistake| mistake.path.clone()).collect()
}

#[test]
fn nothing_given_is_dasks_defaults() {
    let nothing = plan(json!({})).unwrap();
    assert_eq!(nothing.config, DaskConfig::default());
    assert_eq!((nothing.n_workers, nothing.nthreads), machine::processes_and_threads(machine::cpu_count()));
    assert!(nothing.memory_limit.is_some() && !nothing.tls);
    assert_eq!(nothing.here(":0"), "127.0.0.1:0");
    let written = serde_json::to_value(&nothing.config).unwrap();
    assert_eq!(plan(written).unwrap().config, nothing.config);
}

#[test]
fn certificates_may_be_the_users_own() {
    let own = Material::temporary(1).unwrap().worker;
    let given = json!({"tls_ca_file": own.ca, "cert": own.cert, "tls_client_key": own.key});
    let with = plan(json!({ "security": given })).unwrap();
    assert!(with.tls && with.protocol() == "tls" && with.material == Some(Material::shared(own.clone())));
    let written = serde_json::to_value(&with.config).unwrap();
    assert_eq!(plan(written).unwrap().config, with.config);
    assert!(plan(json!({"security": true})).unwrap().material.is_none());
    assert!(!plan(json!({"security": false})).unwrap().tls);
    assert!(!format!("{with:?}").contains("BEGIN"), "nothing of it is shown");
    assert_eq!(mistakes(json!({"security": {"tls_ca": own.ca, "tls_worker_key": "x"}})), ["security.tls_ca", "security.tls_worker_key"]);
    assert_eq!(mistakes(json!({"security": {"tls_ca_file": own.ca}, "protocol": "tcp"})), ["protocol", "security.tls_cert"]);
}

#[test]
fn kwargs_of_dask_are_understood() {
    let given = plan(json!({
        "n_workers": 2, "threads_per_worker": 3, "memory_limit": "1GiB", "dashboard_address": null, "scheduler_port": 8786,
        "silence_logs": 30, "worker_class": "dask.distributed.Nanny", "worker_saturation": "inf", "security": true, "lease": "2m",
        "protocol": "tls://", "interface": "lo", "blocked_handlers": ["feed"], "preload": ["a.b"], "env": {"A": "1"},
    }))
    .unwrap();
    assert_eq!((given.n_workers, given.nthreads, given.memory_limit, given.tls), (2, 3, Some(1 << 30), true));
    assert_eq!((given.worker_class(), given.host.as_deref(), given.here(":0")), (None, None, ":0".to_owned()));
    assert_eq!((given.config.worker_saturation, given.config.lease), (Some(f64::INFINITY), Some(Duration::from_secs(120))));
    assert_eq!(given.config.silence_logs.name(), Some("warning".to_owned()));
    for quiet in [json!(false), json!(null)] {
        assert_eq!(plan(json!({ "silence_logs": quiet })).unwrap().config.silence_logs.name(), None);
    }
    assert_eq!(plan(json!({"worker_class": "my.Nanny"})).unwrap().worker_class().as_deref(), Some("my.Nanny"));
    assert_eq!(plan(json!({"host": "::1"})).unwrap().here(":8787"), "[::1]:8787");
}

#[test]
fn every_mistake_is_told_at_once() {
    let found = mistakes(json!({
        "n_workers": -1, "n_worker": 2, "processes": false, "nanny": true, "memory_limit": "lots", "threads_per_worker": 0,
        "worker_saturation": "much", "silence_logs": "loudly", "scheduler_port": 70000, "lease": "soon",
    }));
    for key in ["n_workers", "n_worker", "nanny", "memory_limit", "worker_saturation", "silence_logs", "scheduler_port", "lease"] {
        assert!(found.iter().any(|path| path == key), "{key} is missing in {found:?}");
    }
    let found = mistakes(json!({
        "resources": {"GPU": 0, "A B": 1}, "env": {"A=B": "1"}, "processes": false, "worker_saturation": 0, "death_timeout": 0,
        "host": "tcp://x", "interface": "lo", "tls": true, "protocol": "tcp", "python": "", "lease": 0.5,
    }));
    let all = ["resources.GPU", "env.A=B", "resources.A B", "worker_saturation", "death_timeout", "lease", "python", "processes"];
    assert_eq!(found, all.into_iter().chain(["protocol", "interface", "host"]).collect::<Vec<_>>());
    assert_eq!(mistakes(json!({"protocol": "ucx"})), ["protocol"]);
    // What the schema sees, and what only the class knows.
    assert_eq!(mistakes(json!({"n_worker": 2, "lease": 0.5, "python": "/no/such"})), ["n_worker", "lease", "python"]);
}

#[test]
fn a_python_that_is_not_there_is_a_mistake_and_a_venv_is_one() {
    let venv = tempfile::tempdir().unwrap();
    let mistake = |path: &str| plan(json!({ "python": path })).err().map(|error| error.mistakes()[0].to_string());
    let none = mistake(venv.path().to_str().unwrap()).unwrap();
    assert!(none.starts_with("`python`: there is no Python interpreter at") && none.contains("bin/python"), "{none}");
    std::fs::create_dir(venv.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", venv.path().join("bin/python")).unwrap();
    assert_eq!(mistake(venv.path().to_str().unwrap()), None);
    assert!(mistake("/no/such").is_some() && mistake("no-such-python").is_some());
}

#[test]
fn what_does_not_fit_says_why() {
    for (name, why) in refused::refused().as_object().unwrap() {
        let error = plan(json!({ name: 1 })).unwrap_err();
        assert_eq!((error.mistakes().len(), error.mistakes()[0].problem.as_str()), (1, why.as_str().unwrap()), "{name}");
    }
}
