use serde_json::json;

use super::{
    super::{Document, Format, KeyPath, Layer, Loader},
    *,
};

/// The rules people can rely on; the same as those of `serde_yaml` 0.9 where that has any.
#[test]
fn scalars_mean_what_serde_yaml_says() {
    let cases = [
        ("no", json!("no")),
        ("on", json!("on")),
        ("yes", json!("yes")),
        ("True", json!(true)),
        ("~", json!(null)),
        ("NULL", json!(null)),
        ("0o17", json!(15)),
        ("017", json!("017")),
        ("0x1f", json!(31)),
        ("0b11", json!(3)),
        ("1_000", json!("1_000")),
        ("+1", json!(1)),
        ("1e3", json!(1000.0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("2001-01-01", json!("2001-01-01")),
        ("12:30:45", json!("12:30:45")),
        ("!!str 1", json!("1")),
        ("[1, {a: b}]", json!([1, {"a": "b"}])),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&format!("a: {text}")).unwrap()["a"], expected, "{text}");
        assert_eq!(scalar(text), expected, "--param a={text}");
    }
    assert_eq!(scalar(""), json!(""));
    assert_eq!(scalar("a: b: c"), json!("a: b: c"));
    assert_eq!(scalar("[1"), json!("[1"));
}

#[test]
fn merge_keys_are_carried_out() {
    let text = "base: &b {k: 1, z: 0}\nother: &o {k: 2, q: 3}\none: {<<: *b, z: 2}\ntwo:\n  <<: [*b, *o]\n";
    let tree = parse(text).unwrap();
    assert_eq!(tree["one"], json!({"z": 2, "k": 1}));
    assert_eq!(tree["two"], json!({"k": 1, "z": 0, "q": 3}));
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_place() {
    let cases = [
        ("a: 1\nb: 2\na: 3", "3:1: the key `a` stands here twice"),
        ("a:\n  - !foo 1", "2:5: a[0]: a tag means nothing here: quote a text that begins with `!`"),
        ("a: 18446744073709551616", "1:4: a: the number is too large: quote it"),
        ("a: .nan", "1:4: a: the number is not finite"),
        ("a: .inf", "1:4: a: the number is not finite (no bound is null, or the key left out)"),
        ("a: [1,\n  2", "3:1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4"),
        ("a: *nope", "1:4: unknown anchor"),
    ];
    for (text, expected) in cases {
        let fault = parse(text).unwrap_err();
        let l = fault.location.unwrap();
        assert_eq!(format!("{}:{}: {}", l.line, l.column, fault.message), expected, "{text}");
    }
    assert!(parse("--- 1\n--- 2").is_err());
    assert_eq!(parse("# only a comment\n\n").unwrap(), Value::Null);
}

#[test]
fn every_entry_can_be_found() {
    let text = "a:\n  b: [x, {c: 1}]\n  d: |\n    text\n1: &q\n  e: 2\nf: *q\n";
    let key = |k: &str| Step::Key(k.into());
    let at = |path: &[Step], at| locate(text, path, at).map(|l| (l.line, l.column));
    assert_eq!(at(&[key("a")], At::Key), Some((1, 1)));
    assert_eq!(at(&[key("a"), key("b")], At::Key), Some((2, 3)));
    assert_eq!(at(&[key("a"), key("b")], At::Value), Some((2, 6)));
    assert_eq!(at(&[key("a"), key("b"), Step::Index(0)], At::Value), Some((2, 7)));
    assert_eq!(at(&[key("a"), key("b"), Step::Index(1), key("c")], At::Key), Some((2, 11)));
    assert_eq!(at(&[key("a"), key("b"), Step::Index(1), key("c")], At::Value), Some((2, 14)));
    assert_eq!(at(&[key("a"), key("d")], At::Value), Some((3, 6)));
    assert_eq!(at(&[key("1")], At::Key), Some((5, 1)));
    assert_eq!(at(&[key("f"), key("e")], At::Key), Some((6, 3)));
    assert_eq!(at(&[key("nope")], At::Key), None);
    assert_eq!(at(&[key("a"), Step::Index(0)], At::Value), None);
}

#[test]
fn json_follows_the_same_rules() {
    assert_eq!(json(r#"{"a": [1, 2.5, null]}"#).unwrap(), json!({"a": [1, 2.5, null]}));
    assert!(json(r#"{"a": 1, "a": 2}"#).unwrap_err().contains("twice"));
    assert!(json("{} x").is_err());
}

#[test]
fn a_bad_number_hides_no_other() {
    let (tree, bad) = parse_most("a: .nan\nb: {c: [1, .inf], d: 2}\ne: 18446744073709551616\n").unwrap();
    assert_eq!(tree, json!({"a": null, "b": {"c": [1, null], "d": 2}, "e": null}));
    let told: Vec<_> = bad.into_iter().map(|bad| (bad.path.clone(), bad.fault.location.unwrap(), bad.into_fault().message)).collect();
    let at = |line, column| Location { line, column };
    assert_eq!(told[0], ("a".to_owned(), at(1, 4), "a: the number is not finite".to_owned()));
    assert_eq!((&*told[1].0, told[1].1), ("b.c[1]", at(2, 12)));
    assert_eq!((&*told[2].0, told[2].1), ("e", at(3, 4)));
    assert_eq!(told.len(), 3);
    // Nor what follows it, and there is an end to it.
    let faults = parse_most("a: .nan\nb: [1\n").unwrap_err();
    assert!(faults.len() == 2 && faults[1].message.contains("did not find expected"), "{faults:?}");
    assert_eq!(parse_most(&"- .nan\n".repeat(1000)).unwrap_err().len(), MOST_BAD + 1);
}

#[test]
fn a_bad_number_below_a_merge_key_has_the_place_where_it_comes_to() {
    let text = "x: {<<: {y: .nan}, z: 1}\nl: [{<<: [{a: 1}, {b: [.inf]}]}]\n<<: {c: {<<: {d: .nan}}}\n";
    let (tree, bad) = parse_most(text).unwrap();
    assert_eq!(tree, json!({"x": {"z": 1, "y": null}, "l": [{"a": 1, "b": [null]}], "c": {"d": null}}));
    assert_eq!(bad.iter().map(|bad| &*bad.path).collect::<Vec<_>>(), ["x.y", "l[0].b[0]", "c.d"]);
    // So the null that stands there meanwhile is nobody's mistake.
    for (text, place) in [
        ("cluster_kwargs: {<<: {processes: .nan}}", "c.yaml:1:34: cluster_kwargs.processes"),
        ("<<: {cluster_class: .nan}\ncluster_kwargs: {processes: true}", "c.yaml:1:21: cluster_class"),
        ("<<: [{}, {adapt_kwargs: {maximum: .nan}}]", "c.yaml:1:35: adapt_kwargs.maximum"),
    ] {
        let document = Document::read("c.yaml", text, Format::Yaml).unwrap();
        let layer = Layer::from_document(&document, &KeyPath::default());
        let told = crate::TaskRunner::builder().load(Loader::new().flow(layer)).unwrap_err().to_string();
        assert_eq!(told, format!("{place}: the number is not finite"));
    }
}

#[test]
fn a_bad_number_behind_many_aliases_is_one() {
    let text = |uses: usize| format!("k: &k {{x: .nan}}\n{}z: .inf\n", (0..uses).map(|at| format!("u{at}: *k\n")).collect::<String>());
    let (tree, bad) = parse_most(&text(24)).unwrap();
    assert!(tree["u23"]["x"].is_null() && bad.len() == 26, "{bad:?}");
    let document = Document::read("c.yaml", text(24), Format::Yaml).unwrap();
    let told: Vec<_> = document.bad().list().iter().map(ToString::to_string).collect();
    assert_eq!(told[0], "c.yaml:1:11: k.x: the number is not finite");
    assert_eq!(told[1], "c.yaml:26:4: z: the number is not finite (no bound is null, or the key left out)");
    assert_eq!(told.len(), 2);
    // There is an end to it.
    assert_eq!(parse_most(&text(MOST_PASSES + 1)).unwrap_err().len(), 1);
}
