use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::json;

use super::*;

mod in_vain;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn file(text: &str) -> Layer {
    Layer::from_document(&Document::parse("remuda.yaml", text, Format::Yaml).unwrap(), &KeyPath::default())
}

fn environment(pairs: &[(&str, &str)]) -> Layer {
    let [_, layer] = Layer::from_environment(&env(pairs));
    layer
}

fn flags(class: Option<&str>, kwargs: &[&str], address: Option<&str>) -> Layer {
    Layer::from_flags(&Flags {
        cluster_class: class.map(Into::into),
        kwargs: kwargs.iter().map(|k| (*k).to_owned()).collect(),
        address: address.map(Into::into),
        adapt: None,
    })
}

fn adapt(text: &str) -> Layer {
    Layer::from_flags(&Flags { adapt: Some(text.to_owned()), ..Flags::default() })
}

fn error(layers: Vec<Layer>) -> String {
    resolve(layers).unwrap_err().to_string()
}

fn kwargs(config: &RunConfig) -> serde_json::Value {
    match &config.mode {
        Mode::Temporary { kwargs, .. } => serde_json::to_value(kwargs).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_said_is_the_local_cluster() {
    let config = resolve(vec![]).unwrap();
    assert_eq!(config.mode, Mode::Temporary { class: DEFAULT_CLASS.into(), kwargs: Kwargs::new(), adapt: None });
    insta::assert_snapshot!(config.show(true));
}

#[test]
fn kwargs_alone_merge_into_the_mode_in_force() {
    let config = resolve(vec![
        file("cluster_class: local::LocalCluster\ncluster_kwargs:\n  n_workers: 4\n  resources: {CPU: 2}\n"),
        environment(&[("REMUDA_CLUSTER_KWARGS", r#"{"threads_per_worker": 2}"#)]),
        flags(None, &["n_workers=2", "resources.GPU=1"], None),
    ])
    .unwrap();
    assert_eq!(kwargs(&config), json!({"resources": {"CPU": 2, "GPU": 1}, "threads_per_worker": 2, "n_workers": 2}));
    insta::assert_snapshot!(config.show(true));
    assert_eq!(config.origin("cluster_kwargs.n_workers"), Some(&Origin::Flag("--kwarg")));
}

#[test]
fn a_named_mode_replaces_the_lower_one_whole() {
    let below =
        "cluster_class: fargate::FargateCluster\ncluster_kwargs: {cpu: 256}\nadapt_kwargs: {minimum: 9}\nclient_kwargs: {timeout: 5s}";
    let config = resolve(vec![file(below), flags(Some("local::LocalCluster"), &["n_workers=2"], None)]).unwrap();
    assert_eq!(kwargs(&config), json!({"n_workers": 2}));
    insta::assert_snapshot!(config.show(true));
    let config = resolve(vec![file(below), flags(None, &[], Some("tcp://h:8786"))]).unwrap();
    assert_eq!(config.mode, Mode::Existing { address: Address::parse("tcp://h:8786").unwrap() });
    assert!(config.notices.is_empty(), "{config:?}");
    assert_eq!(config.client.timeout.unwrap().0, std::time::Duration::from_secs(5));
    let config = resolve(vec![file(below), flags(Some("local::LocalCluster"), &[], None)]).unwrap();
    assert_eq!(config.notices, ["client_kwargs.timeout (remuda.yaml:4:17) has no meaning on the embedded engine: there is no connection"]);
}

#[test]
fn every_keyword_of_dask_s_client_is_taken_or_refused_with_a_sentence() {
    let taken = r#"{"timeout": "3s", "set_as_default": false, "security": {"tls_ca_file": "ca.pem", "cert": "c.pem", "tls_client_key": "k.pem"},
        "name": "mine", "heartbeat_interval": 2, "direct_to_workers": false, "lease": "1m", "batch": 1, "task_host": {"path": "/app/flow"}}"#;
    let config = resolve(vec![environment(&[("REMUDA_ADDRESS", "tls://h:1"), ("REMUDA_CLIENT_KWARGS", taken)])]).unwrap();
    assert_eq!(config.client.security.as_ref().unwrap().tls_cert.as_deref(), Some("c.pem"));
    let refused = r#"{"address": "tcp://h:1", "loop": null, "asynchronous": true, "serializers": ["dask"], "deserializers": [], "extensions": {},
        "connection_limit": 1, "task_host": {"path": "", "arg": []}, "tmeout": 1, "security": {"require_encryption": true}, "batch": 0}"#;
    insta::assert_snapshot!(error(vec![environment(&[("REMUDA_CLIENT_KWARGS", refused)])]));
}

#[test]
fn signs_of_life_come_twice_in_a_lease() {
    let of = |client: serde_json::Value| resolve(vec![Layer::new().with("address", "tcp://h:1").with("client_kwargs", client)]);
    for (client, most) in [
        (json!({"heartbeat_interval": "20s"}), "15s"),
        (json!({"heartbeat_interval": 3, "lease": 5}), "2.5s"),
        (json!({"heartbeat_interval": 0}), "0ns"),
    ] {
        let error = of(client).unwrap_err().to_string();
        assert!(error.contains("client_kwargs.heartbeat_interval") && error.contains(most), "{error}");
    }
    assert!(of(json!({"heartbeat_interval": 3, "lease": 6})).is_ok());
}

#[test]
fn secrets_of_the_client_are_not_shown() {
    let security =
        json!({"tls_ca_file": "-----BEGIN CERTIFICATE-----\nMII", "tls_cert": "c.pem", "tls_key": "-----BEGIN PRIVATE KEY-----\nMII"});
    let layer = Layer::new().with("address", "tls://h:1").with("client_kwargs", json!({"security": security, "timeout": 3}));
    let shown = resolve(vec![layer]).unwrap().show(false);
    assert!(shown.contains(r#""tls_key":"***""#) && shown.contains("c.pem") && !shown.contains("MII"), "{shown}");
}

#[test]
fn a_scheduler_file_says_where_the_cluster_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scheduler.json");
    let client = |file: &std::path::Path| Layer::new().with("client_kwargs", json!({"scheduler_file": file.to_str().unwrap()}));
    let missing = error(vec![client(&path)]);
    assert!(missing.contains("client_kwargs.scheduler_file") && missing.contains("cannot be read"), "{missing}");
    std::fs::write(&path, r#"{"type": "Scheduler", "id": "Scheduler-1", "address": "tcp://10.0.0.1:8786", "workers": {}}"#).unwrap();
    let config = resolve(vec![client(&path)]).unwrap();
    assert_eq!(config.mode, Mode::Existing { address: Address::parse("tcp://10.0.0.1:8786").unwrap() });
    assert!(crate::TaskRunner::from_config(&config).is_ok());
    let both = error(vec![client(&path).with("cluster_class", "local::LocalCluster")]);
    assert!(both.contains("keep one or the other"), "{both}");
    for odd in ["{}", "[", r#"{"address": "http://h:1"}"#] {
        std::fs::write(&path, odd).unwrap();
        assert!(error(vec![client(&path)]).contains("client_kwargs.scheduler_file"), "{odd}");
    }
}

#[test]
fn tls_needs_certificates_before_anything_is_tried() {
    let build = |layer: Layer| crate::TaskRunner::from_config(&resolve(vec![layer]).unwrap()).unwrap_err();
    let none = build(Layer::new().with("address", "tls://h:1"));
    assert!(
        none.to_string().contains("needs certificates") && none.report().contains("write `client_kwargs: {security: {tls_ca_file"),
        "{none:?}"
    );
    let security = json!({"security": {"ca": "/no/such/ca.pem", "cert": "/no/such/cert.pem"}});
    let missing = build(Layer::new().with("address", "tls://h:1").with("client_kwargs", security)).report();
    assert!(missing.contains("client_kwargs.security.tls_ca_file") && missing.contains("code"), "with the place of each: {missing}");
}

#[test]
fn a_clash_inside_one_layer_names_the_keys() {
    insta::assert_snapshot!(error(vec![file("address: tcp://h:8786\ncluster_class: local::LocalCluster\nadapt_kwargs: {}")]));
    let kwarg_over_address = error(vec![file("address: tcp://h:8786"), flags(None, &["n_workers=2"], None)]);
    insta::assert_snapshot!(kwarg_over_address);
    // A class over an address is a new mode, not a clash.
    assert!(resolve(vec![file("address: tcp://h:8786"), flags(Some("local::LocalCluster"), &["n_workers=2"], None)]).is_ok());
}

#[test]
fn every_mistake_of_every_layer_is_told_at_once() {
    let text = error(vec![
        file("cluster_clas: x\ncluster_kwargs: [1]\nadapt_kwargs:\n  maxmum: 2\n  interval: soon\n"),
        environment(&[("REMUDA_CLUSTER_KWARGS", "n_workers=4"), ("REMUDA_CLIENT_KWARGS", r#"{"asynchronous": true}"#)]),
        flags(None, &["n_workers", "a..b=1"], Some("http://dash:8787")),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn adapt_kwargs_are_checked_and_null_takes_them_back() {
    let adapt = |config: RunConfig| if let Mode::Temporary { adapt, .. } = config.mode { adapt } else { None };
    assert_eq!(adapt(resolve(vec![file("adapt_kwargs: {}")]).unwrap()), Some(AdaptConfig::default()));
    let some = adapt(resolve(vec![file("adapt_kwargs: {minimum: 1, maximum: null, interval: 500ms}")]).unwrap()).unwrap();
    assert_eq!((some.minimum, some.maximum, some.interval.0), (Some(1), None, Duration::from_millis(500)));
    let off = resolve(vec![file("adapt_kwargs: {minimum: 1}"), environment(&[("REMUDA_ADAPT_KWARGS", "null")])]).unwrap();
    assert_eq!(adapt(off), None);
    insta::assert_snapshot!(error(vec![file("adapt_kwargs: {minimum: 5, maximum: 2}")]));
    insta::assert_snapshot!(error(vec![file("adapt_kwargs:\n  minimum: -1\n  maximum: 2.5")]));
}

#[test]
fn the_flag_of_bounds_sets_those_it_names() {
    let bounds = |layers: Vec<Layer>| match resolve(layers).unwrap().mode {
        Mode::Temporary { adapt: Some(adapt), .. } => (adapt.minimum, adapt.maximum, adapt.time_weight),
        other => panic!("{other:?}"),
    };
    assert_eq!(bounds(vec![adapt("0..10")]), (Some(0), Some(10), 1.0));
    assert_eq!(bounds(vec![adapt("..")]), (Some(0), None, 1.0));
    let lower = || file("adapt_kwargs: {minimum: 2, maximum: 5, time_weight: 2}");
    assert_eq!(bounds(vec![lower(), adapt("..20")]), (Some(2), Some(20), 2.0));
    assert_eq!(bounds(vec![lower(), adapt("1..")]), (Some(1), Some(5), 2.0));
    let shown = resolve(vec![lower(), adapt("3..30")]).unwrap().show(true);
    assert!(shown.contains("(dropped: overridden by --adapt)") && shown.contains("# --adapt"), "{shown}");
    for (text, hint) in
        [("10", "`--kwarg n_workers=10`"), ("0..=10", "without the `=`"), ("a..b", "expected MIN..MAX"), ("-1..5", "MIN..MAX")]
    {
        let error = error(vec![adapt(text)]);
        assert!(error.contains("--adapt") && error.contains(hint) && error.contains(&format!("found \"{text}\"")), "{error}");
    }
    let upside_down = error(vec![adapt("10..2")]);
    assert!(upside_down.contains("`minimum` (10) is more than `maximum` (2)") && upside_down.contains("--adapt"), "{upside_down}");
    let beside = Layer::from_flags(&Flags { adapt: Some("0..9".into()), address: Some("tcp://h:1".into()), ..Flags::default() });
    let text = error(vec![beside]);
    assert!(text.contains("--adapt") && text.contains("address"), "{text}");
}

#[test]
fn a_dotted_flag_needs_a_mapping() {
    insta::assert_snapshot!(error(vec![flags(None, &["resources=3", "resources.GPU=1"], None)]));
}

#[test]
fn empty_flags_are_mistakes() {
    for empty in ["", " "] {
        let text = error(vec![flags(Some(empty), &[], Some(empty))]);
        for words in
            ["--address: the address is empty: write --address tcp://host:8786", "--cluster-class: the class is empty", "2 mistakes"]
        {
            assert!(text.contains(words), "{text}");
        }
    }
}

#[test]
fn empty_variables_are_not_set_and_near_misses_are_said() {
    let layer =
        environment(&[("REMUDA_ADDRESS", ""), ("REMUDA_CLUSTER_CLAS", "x"), ("REMUDA_LOG", "debug"), ("REMUDA_DASK", "x"), ("OTHER", "1")]);
    let config = resolve(vec![layer]).unwrap();
    assert!(matches!(config.mode, Mode::Temporary { .. }));
    assert_eq!(config.notices, ["the variable REMUDA_CLUSTER_CLAS is not read, did you mean `REMUDA_CLUSTER_CLASS`?"]);
}

fn prefect(pairs: &[(&str, &str)]) -> Result<RunConfig, remuda_core::error::Error> {
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| (format!("PREFECT__ENGINE__EXECUTOR__{k}"), (*v).to_owned())).collect();
    resolve(Layer::from_environment(&pairs.into_iter().collect()).into())
}

#[test]
fn old_prefect_variables_are_read_and_said() {
    let serial = prefect(&[("DEFAULT_CLASS", "prefect.executors.LocalExecutor"), ("DASK__ADDRESS", "tcp://h:1")]).unwrap();
    assert_eq!(kwargs(&serial), json!({"n_workers": 1, "threads_per_worker": 1, "processes": false}));
    insta::assert_snapshot!(serial.notices.join("\n"));
    let threads = prefect(&[("DEFAULT_CLASS", "prefect.engine.executors.dask.LocalDaskExecutor")]).unwrap();
    assert_eq!(kwargs(&threads), json!({"processes": false}));
    let dask = prefect(&[("DEFAULT_CLASS", "prefect.executors.DaskExecutor"), ("DASK__ADDRESS", "tcp://h:8786")]).unwrap();
    assert!(matches!(dask.mode, Mode::Existing { .. }));
    let class = prefect(&[("DASK__CLUSTER_CLASS", "dask_cloudprovider.aws.FargateCluster"), ("DASK__ADDRESS", "local")]).unwrap();
    assert!(matches!(class.mode, Mode::Temporary { class, .. } if class == "dask_cloudprovider.aws.FargateCluster"));
    let both = prefect(&[("DASK__CLUSTER_CLASS", "x.Y"), ("DASK__ADDRESS", "tcp://h:1")]).unwrap_err();
    assert!(both.to_string().contains("PREFECT__ENGINE__EXECUTOR__DASK__ADDRESS"), "{both}");
    insta::assert_snapshot!(prefect(&[("DEFAULT_CLASS", "my.Executor")]).unwrap_err());
}

#[test]
fn remuda_variables_stand_above_the_old_ones() {
    let pairs = [("PREFECT__ENGINE__EXECUTOR__DASK__ADDRESS", "tcp://h:8786"), ("REMUDA_CLUSTER_CLASS", "local::LocalCluster")];
    let config = resolve(Layer::from_environment(&env(&pairs)).into()).unwrap();
    insta::assert_snapshot!(config.show(true));
}

#[test]
fn files_are_found_named_or_missing() {
    let dir = tempfile::tempdir().unwrap();
    let load = |loader: Loader| loader.dir(dir.path()).load();
    assert!(matches!(load(Loader::new()).unwrap().mode, Mode::Temporary { class, .. } if class == DEFAULT_CLASS));
    fs::write(dir.path().join("remuda.toml"), "cluster_class = \"a::B\"\n[cluster_kwargs]\nn_workers = 3\n").unwrap();
    let config = load(Loader::new()).unwrap();
    assert!(matches!(&config.mode, Mode::Temporary { class, .. } if class == "a::B"));
    assert!(config.show(true).contains("remuda.toml:3:1"), "{}", config.show(true));
    fs::write(dir.path().join("remuda.yaml"), "").unwrap();
    assert!(load(Loader::new()).unwrap_err().to_string().starts_with("several configuration files: "));
    assert!(load(Loader::new().file(dir.path().join("remuda.yaml"))).is_ok());
    let missing = load(Loader::new().file(dir.path().join("nope.yaml"))).unwrap_err();
    assert!(missing.to_string().ends_with("nope.yaml: no such file"), "{missing}");
    let order = Loader::new()
        .file(dir.path().join("remuda.toml"))
        .flow(Layer::new().with("cluster_kwargs", json!({"n_workers": 4})))
        .env(env(&[("REMUDA_CLUSTER_KWARGS", r#"{"n_workers": 5}"#)]))
        .flags(&Flags { kwargs: vec!["n_workers=6".into()], ..Flags::default() })
        .code(Layer::new().with("cluster_kwargs", json!({"n_workers": 7})));
    assert_eq!(kwargs(&order.load().unwrap()), json!({"n_workers": 7}));
}

#[test]
fn a_class_s_complaints_get_their_places() {
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[allow(dead_code)]
        n_workers: u32,
    }
    let config = resolve(vec![file("cluster_kwargs:\n  n_worker: 4\n"), flags(None, &["n_workers=four"], None)]).unwrap();
    let Mode::Temporary { kwargs, .. } = &config.mode else { panic!() };
    let error = config.explain(&[("cluster_kwargs", kwargs.clone().parse::<Config>().unwrap_err())]);
    insta::assert_snapshot!(error);
}

/// What a runner says, which asks the class, too.
fn refused(file: Layer, above: Layer) -> String {
    crate::TaskRunner::builder().load(Loader::new().flow(file).code(above)).unwrap_err().to_string()
}

#[test]
fn a_class_s_complaints_stand_beside_all_others() {
    let text = "client_kwargs: {tmeout: 1}\ncluster_kwargs: {n_wrokers: 4, processes: maybe}\nadapt_kwargs: {maxmum: 2}\nother: 1\n";
    insta::assert_snapshot!(refused(file(text), adapt("9..3")));
    let certificates = "cluster_class: local::DaskCluster\nclient_kwargs: {security: {ca: /no/ca.pem}}\ncluster_kwargs: {n_wrokers: 4}\n";
    insta::assert_snapshot!(refused(file(certificates), Layer::new()));
    let unknown = "cluster_class: local::LocalClustre\ncluster_kwargs: {n_wrokers: 4}\nadapt_kwargs: {maxmum: 2}\n";
    insta::assert_snapshot!(refused(file(unknown), Layer::new()));
    let clash = "address: h:1\ncluster_class: local::LocalCluster\ncluster_kwargs: {n_wrokers: 4}\n";
    insta::assert_snapshot!(refused(file(clash), Layer::new()));
}

#[test]
fn no_class_is_asked_about_keywords_that_may_be_another_s() {
    let kwargs = "adapt_kwargs: {maxmum: 2}\ncluster_kwargs: {cpu: 256}\n";
    for class in ["cluster_clas: fargate::FargateCluster", "cluster_class: [fargate::FargateCluster]", "adress: tcp://h:1"] {
        let text = refused(file(&format!("{class}\n{kwargs}")), Layer::new());
        assert!(text.starts_with("2 mistakes:") && !text.contains("cpu"), "{text}");
    }
    let text = refused(file(kwargs), flags(Some(""), &[], None));
    assert!(text.starts_with("2 mistakes:") && !text.contains("cpu"), "{text}");
    // Nor is a certificate missed where `client_kwargs` could not be read, nor a class asked in place of the scheduler's file.
    for elsewhere in ["address: tls://h:1\nclient_kwargs: {tmeout: 1}", "client_kwargs: {tmeout: 1, scheduler_file: s.json}"] {
        let text = refused(file(elsewhere), Layer::new());
        assert!(text.contains("did you mean `timeout`?") && !text.contains("mistakes:"), "{text}");
    }
}

#[test]
fn the_code_s_mistakes_are_told_together() {
    let builder = || crate::TaskRunner::builder().adapt_kwargs(Kwargs::new().with("maxmum", 2));
    let client = Kwargs::new().with("tmeout", 1);
    let all = builder().cluster_kwargs(Kwargs::new().with("n_wrokers", 4)).client_kwargs(client).build().unwrap_err();
    let paths: Vec<_> = all.mistakes().iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(paths, ["adapt_kwargs.maxmum", "client_kwargs.tmeout", "cluster_kwargs.n_wrokers"], "{all}");
    let unknown = builder().cluster("local::LocalClustre").build().unwrap_err().to_string();
    assert!(unknown.contains("adapt_kwargs.maxmum") && unknown.contains("`cluster_class`: no cluster class is called"), "{unknown}");
    let clash = builder().address("h:1").cluster("local::LocalCluster").cluster_kwargs(Kwargs::new().with("n_wrokers", 4)).build();
    let clash = clash.unwrap_err().to_string();
    for words in [
        "4 mistakes",
        "beside `address` (h:1)",
        "leave out the one or the other",
        "adapt_kwargs.maxmum",
        "\"h:1\" has no protocol",
        "cluster_kwargs.n_wrokers",
    ] {
        assert!(clash.contains(words), "{words} is missing in {clash}");
    }
    let one = builder().build().unwrap_err();
    assert_eq!(one.mistakes()[0].path, "adapt_kwargs.maxmum");
}

#[test]
fn a_lease_is_longer_than_a_sign_of_life() {
    for short in [json!(0), json!("200ms")] {
        let error = ClientConfig::parse(Kwargs::new().with("lease", short)).unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("lease"), "{error}");
    }
    assert!(ClientConfig::parse(Kwargs::new().with("lease", "1s")).is_ok());
    assert_eq!(ClientConfig::parse(Kwargs::new().with("lease", json!(null))).unwrap().lease, None);
    // Beside others it is told with them.
    let wrong = Kwargs::new().with("timeout", "x").with("asynchronous", true).with("lease", "1ms").with("batch", 0);
    let error = ClientConfig::parse(wrong).unwrap_err();
    let mut paths: Vec<_> = error.mistakes().iter().map(|mistake| mistake.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["asynchronous", "batch", "lease", "timeout"], "{error}");
    assert!(error.to_string().contains("expected at least 1s, found 1ms"), "{error}");
}
