//! Kwargs against schemas: every mistake, each with its remedy.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like a test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use remuda_core::{
    error::{Error, ErrorKind, Mistake},
    kwargs::{self, Kwargs, schema_of},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-refused" = {"dashboard_address": "the embedded engine has no dashboard; use local::DaskCluster"}))]
struct Local {
    #[schemars(range(min = 1), extend("x-aliases" = ["workers"]))]
    n_workers: Option<u32>,
    memory_limit: Option<Memory>,
    env: Env,
    mode: Mode,
    spot: Spot,
    #[schemars(range(min = 0.0, max = 1.0))]
    share: f64,
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 10))]
    strictly: Option<f64>,
    resources: BTreeMap<String, f64>,
    ports: Vec<u16>,
    #[schemars(length(max = 3))]
    tags: Vec<Tag>,
    registry_password: Option<u32>,
    shape: Option<Shape>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// In this process.
    #[default]
    Threads,
    /// In others.
    Processes,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
struct Spot {
    fallback: bool,
    max_price: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct Tag {
    /// What it is called.
    key: String,
    #[serde(default)]
    text: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Shape {
    Round { radius: f64 },
    Square { side: f64 },
}

/// number (bytes, or a fraction up to 1) | "4GiB"
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "NumberOrText")]
#[schemars(with = "NumberOrText")]
struct Memory(f64);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl TryFrom<NumberOrText> for Memory {
    type Error = String;
    fn try_from(value: NumberOrText) -> Result<Self, String> {
        match value {
            NumberOrText::Number(n) => Ok(Self(n)),
            NumberOrText::Text(text) => match text.strip_suffix("GiB").map(str::parse::<f64>) {
                Some(Ok(n)) => Ok(Self(n * f64::from(1 << 30))),
                _ => Err(format!("\"{text}\" is no amount of memory; write 4GiB, 0.5 or a number of bytes")),
            },
        }
    }
}

/// a map, or a list of "KEY=value"
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "MapOrList")]
#[schemars(with = "MapOrList")]
struct Env(BTreeMap<String, String>);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum MapOrList {
    Map(BTreeMap<String, String>),
    List(Vec<String>),
}

impl TryFrom<MapOrList> for Env {
    type Error = String;
    fn try_from(value: MapOrList) -> Result<Self, String> {
        Ok(Self(match value {
            MapOrList::Map(map) => map,
            MapOrList::List(lines) => lines
                .iter()
                .map(|line| line.split_once('=').map(|(k, v)| (k.into(), v.into())).ok_or(format!("\"{line}\" is not KEY=value")))
                .collect::<Result<_, _>>()?,
        }))
    }
}

/// A gateway takes whatever its site defined.
#[derive(Debug, Deserialize, JsonSchema)]
struct Gateway {
    /// Where it is.
    address: String,
    #[serde(flatten)]
    options: Map<String, Value>,
}

fn mistakes(tree: Value) -> Vec<Mistake> {
    let error = Kwargs::try_from(tree).unwrap().parse::<Local>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    error.mistakes().to_vec()
}

fn only(tree: Value) -> Mistake {
    let all = mistakes(tree);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn every_mistake_at_once_with_the_remedy() {
    let all = mistakes(json!({
        "n_worker": 4,
        "workers": 0,
        "memory_limit": "lots",
        "env": ["A=1", "B"],
        "mode": "thread",
        "spot": {"fallbak": true, "max_price": "cheap"},
        "share": 1.5,
        "resources": {"GPU": "two"},
        "ports": [80, "http", -1],
        "tags": [{"key": "a"}, {"text": "b"}],
        "shape": {"kind": "round", "side": 2},
        "dashboard_address": ":0",
    }));
    let told: Vec<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "`n_worker`: unknown key; did you mean `n_workers`?",
            "`workers`: expected at least 1, found number 0",
            "`mode`: expected one of threads, processes, found string \"thread\"; did you mean `threads`?",
            "`spot.fallbak`: unknown key; did you mean `fallback`?",
            "`spot.max_price`: expected number, found string \"cheap\"",
            "`share`: expected at least 0 and at most 1, found number 1.5",
            "`resources.GPU`: expected number, found string \"two\"",
            "`ports[1]`: expected integer, found string \"http\"",
            "`ports[2]`: expected at least 0 and at most 65535, found number -1",
            "`tags[1].key`: is required: string (What it is called)",
            "`shape.side`: unknown key; known are `kind`, `radius`",
            "`shape.radius`: is required: number",
            "`dashboard_address`: the embedded engine has no dashboard; use local::DaskCluster",
            "`memory_limit`: \"lots\" is no amount of memory; write 4GiB, 0.5 or a number of bytes",
            "`env`: \"B\" is not KEY=value",
        ]
    );
    assert_eq!(all[4].value, Some(json!("cheap")));
    assert_eq!(all[4].expected.as_deref(), Some("number"));
}

#[test]
fn what_a_class_finds_joins_the_list() {
    let class = |config: Local| match config.ports.len() {
        0 => Err(Error::invalid(vec![Mistake::new("ports", "none"), Mistake::new("mode", "x")])),
        _ => Ok(7),
    };
    let told = |tree: Value| -> Vec<String> {
        let error = Kwargs::try_from(tree).unwrap().parse_into(class).unwrap_err();
        error.mistakes().iter().map(|mistake| mistake.path.clone()).collect()
    };
    assert_eq!(told(json!({})), ["ports", "mode"]);
    assert_eq!(told(json!({"n_worker": 4, "memory_limit": "lots"})), ["n_worker", "memory_limit", "ports", "mode"]);
    assert_eq!(told(json!({"ports": "many"})), ["ports", "mode"], "taken out, so that the class cannot know better");
    assert_eq!(told(json!({"ports": [1], "n_worker": 4})), ["n_worker"]);
    assert_eq!(Kwargs::new().with("ports", json!([1])).parse_into(class).unwrap(), 7);
}

#[test]
fn what_is_right_is_accepted_in_every_form() {
    for (limit, env) in
        [(json!(0.5), json!({"A": "1"})), (json!("4GiB"), json!(["A=1"])), (json!(4096), json!({})), (json!(null), json!([]))]
    {
        let config: Local = Kwargs::new().with("memory_limit", limit).with("env", env).with("workers", 2).parse().unwrap();
        assert_eq!(config.n_workers, Some(2));
    }
    assert_eq!(Kwargs::new().parse::<Local>().unwrap(), Local::default());
    let square = Kwargs::from([("shape", json!({"kind": "square", "side": 2}))]).parse::<Local>().unwrap();
    assert_eq!(square.shape, Some(Shape::Square { side: 2.0 }));
    let gateway: Gateway = Kwargs::new().with("address", "http://g").with("worker_cores", 2).with("image", "x:1").parse().unwrap();
    assert_eq!((gateway.address.as_str(), gateway.options.len()), ("http://g", 2));
    let error = Kwargs::from([("adress", 1)]).parse::<Gateway>().unwrap_err();
    assert_eq!(error.to_string(), "`address`: is required: string (Where it is)");
}

#[test]
fn bounds_may_exclude_themselves_and_sizes_are_checked() {
    for (value, fits) in [(json!(0), false), (json!(0.1), true), (json!(9.9), true), (json!(10), false), (json!(11), false)] {
        let parsed = Kwargs::new().with("strictly", value.clone()).parse::<Local>();
        assert_eq!(parsed.is_ok(), fits, "{value}: {parsed:?}");
    }
    assert_eq!(only(json!({"strictly": 0})).to_string(), "`strictly`: expected more than 0 and less than 10, found number 0");
    let tags = json!({"tags": [{"key": "a"}, {"key": "b"}, {"key": "c"}, {"key": "d"}]});
    assert_eq!(only(tags).to_string(), "`tags`: expected at most 3 items, found 4");
    assert_eq!(only(json!({"n_workers": 2.5})).to_string(), "`n_workers`: expected integer, found number 2.5");
    assert_eq!(only(json!({"n_workers": 5_000_000_000_u64})).path, "n_workers", "out of the type's own range");
    assert_eq!(only(json!({"shape": 3})).path, "shape");
}

#[test]
fn an_alias_beside_its_name_is_given_twice() {
    let twice = only(json!({"n_workers": 1, "workers": 2}));
    assert_eq!(twice.to_string(), "`workers`: given twice: `n_workers` and `workers` are the same; keep one of them");
    // A wrong one is no missing one.
    assert_eq!(only(json!({"tags": [{"key": 7}]})).to_string().matches("required").count(), 0);
}

#[test]
fn secrets_are_never_told() {
    let secret = only(json!({"registry_password": "hunter2"}));
    assert_eq!(secret.to_string(), "`registry_password`: expected integer, found string (not shown)");
    assert_eq!(secret.value, None);
    let ranged = only(json!({"registry_password": 98_765_432_100_u64}));
    assert!(!format!("{ranged:?}").contains("98765432100"), "{ranged:?}");
    let kwargs = Kwargs::from([("api_token", json!("hunter2")), ("n_workers", json!(1)), ("url", json!("http://me:hunter2@host/"))]);
    assert_eq!(kwargs.to_string(), r#"{"api_token":"***","n_workers":1,"url":"http://***@host/"}"#);
    assert!(!format!("{kwargs:?}").contains("hunter2"));
    let nested = only(json!({"mode": {"token": "hunter2"}}));
    assert!(!nested.to_string().contains("hunter2"), "{nested}");
    let long = only(json!({"n_workers": "x".repeat(500)}));
    assert!(long.to_string().len() < 150, "{long}");
}

#[test]
fn any_tree_can_be_checked_under_a_prefix() {
    let schema = schema_of::<Local>();
    let found = kwargs::check(&schema, &json!({"n_worker": 1, "ports": ["a"]}), "cluster_kwargs");
    assert_eq!(found.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["cluster_kwargs.n_worker", "cluster_kwargs.ports[0]"]);
    assert!(kwargs::check(&schema, &json!({"workers": 1}), "x").is_empty());
    assert_eq!(kwargs::check(&schema, &json!([1]), "x")[0].to_string(), "`x`: expected object, found array [1]");
    assert_eq!(kwargs::check(&schema, &json!([1]), "")[0].to_string(), "expected object, found array [1]");
    let error = kwargs::parse::<Local>(json!({"n_worker": 1})).unwrap_err().under("adapt_kwargs");
    assert_eq!(error.to_string(), "`adapt_kwargs.n_worker`: unknown key; did you mean `n_workers`?");
}

#[test]
fn kwargs_are_merged_key_by_key_and_keep_their_order() {
    let mut kwargs = Kwargs::try_from(json!({"b": 1, "a": {"x": 1, "y": [1]}, "c": 3})).unwrap();
    kwargs.merge(Kwargs::try_from(json!({"a": {"y": [2], "z": 3}, "b": {"new": 1}, "d": null})).unwrap());
    assert_eq!(kwargs.to_string(), r#"{"b":{"new":1},"a":{"x":1,"y":[2],"z":3},"c":3,"d":null}"#);
    assert_eq!(kwargs.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
    assert_eq!((kwargs.remove("d"), kwargs.len(), kwargs.get("c")), (Some(Value::Null), 3, Some(&json!(3))));
    assert!(Kwargs::try_from(Value::Null).unwrap().is_empty());
    assert!(Kwargs::try_from(json!([1])).unwrap_err().to_string().contains("found array [1]"));
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Plain {
    workers: Option<u32>,
    memory: Option<String>,
    image: String,
    spot_price: f64,
    environment: BTreeMap<String, String>,
    processes: bool,
    nested: Inner,
    list: Vec<Inner>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Inner {
    timeout: i64,
    annotations: BTreeMap<String, i64>,
}

fn inner() -> impl Strategy<Value = Inner> {
    (any::<i64>(), proptest::collection::btree_map("[a-z]{1,5}", any::<i64>(), 0..3))
        .prop_map(|(timeout, annotations)| Inner { timeout, annotations })
}

fn plain() -> impl Strategy<Value = Plain> {
    let memory = proptest::option::of("[0-9]{1,3}[MG]iB");
    let environment = proptest::collection::btree_map("[A-Z_]{1,8}", ".{0,8}", 0..4);
    let nested = (inner(), proptest::collection::vec(inner(), 0..3));
    (proptest::option::of(any::<u32>()), memory, ".{0,12}", -1e9..1e9_f64, environment, any::<bool>(), nested).prop_map(
        |(workers, memory, image, spot_price, environment, processes, (nested, list))| Plain {
            workers,
            memory,
            image,
            spot_price,
            environment,
            processes,
            nested,
            list,
        },
    )
}

/// One slip of the fingers: a letter left out, doubled, wrong, or swapped with its neighbour.
fn slip(name: &str, at: usize, how: u8) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = at % (letters.len() - 1);
    match how % 4 {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, letters[at]),
        2 => letters[at] = 'q',
        _ => letters.swap(at, at + 1),
    }
    letters.into_iter().collect()
}

#[test]
fn the_nearest_name_is_found_also_in_another_number() {
    let names = ["priority", "retries", "resources", "workers", "timeout"];
    for (word, name) in
        [("retry", "retries"), ("Resource", "resources"), ("worker", "workers"), ("time-out", "timeout"), ("priorities", "priority")]
    {
        assert_eq!(kwargs::nearest(word, names), Some(name), "{word}");
    }
    assert_eq!(kwargs::nearest("memory", names), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_configuration_comes_through_unchanged(config in plain()) {
        let tree = serde_json::to_value(&config).unwrap();
        prop_assert_eq!(kwargs::check(&schema_of::<Plain>(), &tree, ""), vec![]);
        prop_assert_eq!(Kwargs::try_from(tree).unwrap().parse::<Plain>().unwrap(), config);
    }

    #[test]
    fn a_slip_is_answered_with_the_right_name(config in plain(), which in any::<usize>(), at in any::<usize>(), how in any::<u8>()) {
        let mut tree = serde_json::to_value(&config).unwrap();
        let members = tree.as_object_mut().unwrap();
        let name = members.keys().nth(which % members.len()).unwrap().clone();
        let wrong = slip(&name, at, how);
        prop_assume!(wrong != name);
        let value = members.shift_remove(&name).unwrap();
        members.insert(wrong.clone(), value);
        let error = Kwargs::try_from(tree).unwrap().parse::<Plain>().unwrap_err();
        prop_assert_eq!(error.mistakes().len(), 1);
        prop_assert_eq!(error.mistakes()[0].path.as_str(), wrong.as_str());
        let hint = format!("did you mean `{name}`?");
        prop_assert_eq!(error.mistakes()[0].hint.as_deref(), Some(hint.as_str()));
    }

    #[test]
    fn no_tree_whatever_panics_and_none_with_mistakes_passes(text in "[a-z_]{1,9}", n in any::<i64>(), config in plain()) {
        let schema = schema_of::<Local>();
        for tree in [json!(n), json!(text), json!([n, text]), json!({&text: n}), json!({"spot": {&text: n}, "ports": [n]}), serde_json::to_value(config).unwrap()] {
            let found = kwargs::check(&schema, &tree, "");
            prop_assert!(found.is_empty() || kwargs::parse::<Local>(tree).is_err());
        }
    }
}
