//! What is wrong is told without what nobody else should read.

use std::collections::BTreeMap;

use super::*;

fn file(text: &str, format: Format) -> Result<Layer, Error> {
    Document::read("remuda.x", text, format)
        .map_err(|unread| unread.error)
        .map(|document| Layer::from_document(&document, &KeyPath::default()))
}

fn refused(layers: Vec<Layer>) -> String {
    resolve(layers).unwrap_err().to_string()
}

fn variable(name: &str, text: &str) -> String {
    refused(Layer::from_environment(&BTreeMap::from([(name.to_owned(), text.to_owned())])).into())
}

#[test]
fn what_is_of_the_wrong_type_is_told_by_its_type() {
    for text in [
        "address: {password: S3CRET}",
        "address: [S3CRET]",
        "cluster_class: {password: S3CRET}",
        "cluster_kwargs: [{password: S3CRET}]",
        "cluster_kwargs: S3CRET",
        "client_kwargs: \"-----BEGIN PRIVATE KEY-----\\nS3CRET\"",
        "adapt_kwargs: [S3CRET]",
    ] {
        let told = refused(vec![file(text, Format::Yaml).unwrap()]);
        assert!(told.contains("expected ") && told.contains("found ") && !told.contains("S3CRET"), "{told}");
    }
    let key = variable("REMUDA_CLIENT_KWARGS", "\"-----BEGIN PRIVATE KEY-----\\nS3CRET\"");
    assert_eq!(key, "environment REMUDA_CLIENT_KWARGS: client_kwargs: expected a mapping, found string");
    let number = refused(vec![file("cluster_class: 5", Format::Yaml).unwrap()]);
    assert!(number.ends_with("found number 5"), "{number}");
}

#[test]
fn a_number_that_is_too_large_is_told_without_its_digits() {
    let digits = "98765432109876543210987";
    for (text, format) in [
        (format!("cluster_kwargs: {{env: {{API_TOKEN: {digits}}}}}"), Format::Yaml),
        (format!("cluster_kwargs: {{env: {{API_TOKEN: -{digits}}}}}"), Format::Yaml),
        (format!("cluster_kwargs = {{env = {{API_TOKEN = {digits}}}}}"), Format::Toml),
    ] {
        let told = refused(vec![file(&text, format).unwrap()]);
        assert!(told.contains("cluster_kwargs.env.API_TOKEN: the number is too large: quote it"), "{told}");
        assert!(!told.contains("98765"), "{told}");
    }
    let tag = file("cluster_kwargs: {env: {password: !S3CRET x}}", Format::Yaml).unwrap_err().to_string();
    assert!(tag.contains("cluster_kwargs.env.password: a tag means nothing here") && !tag.contains("S3CRET"), "{tag}");
}

#[test]
fn of_an_assignment_only_the_key_is_told() {
    for (text, expected) in [
        ("n", "--kwarg: expected key=value, found \"n\""),
        ("password:S3CRET", "--kwarg: expected key=value, found \"password\" and no `=` after it"),
        ("env.token S3CRET", "--kwarg: expected key=value, found \"env.token\" and no `=` after it"),
        ("password:S3CRET==", "--kwarg: expected key=value, found \"password\" and no `=` after it"),
        ("{password: S3CRET}", "--kwarg: expected key=value, found a text without `=`"),
        ("a..b=S3CRET", "--kwarg: \"a..b\" is no key: expected key=value or key.sub=value"),
        ("pass word=S3CRET", "--kwarg: what begins with \"pass\" is no key: expected key=value or key.sub=value"),
        ("=S3CRET", "--kwarg: \"\" is no key: expected key=value or key.sub=value"),
    ] {
        assert_eq!(refused(vec![Layer::from_flags(&Flags { kwargs: vec![text.to_owned()], ..Flags::default() })]), expected);
    }
}

#[test]
fn the_example_for_a_variable_has_a_key_that_it_takes() {
    for (name, example) in [
        ("REMUDA_CLUSTER_KWARGS", r#"{"n_workers": 4}"#),
        ("REMUDA_CLIENT_KWARGS", r#"{"timeout": "10s"}"#),
        ("REMUDA_ADAPT_KWARGS", r#"{"maximum": 10}"#),
    ] {
        let told = variable(name, "nonsense");
        assert!(told.contains(&format!("expected a JSON object like {example}: ")), "{told}");
        assert!(resolve(Layer::from_environment(&BTreeMap::from([(name.to_owned(), example.to_owned())])).into()).is_ok(), "{name}");
    }
}

#[test]
fn what_is_right_is_not_shown_by_debug() {
    let text = "cluster_kwargs: {env: {API_TOKEN: S3CRET}, password: S3CRET}\nclient_kwargs: {security: {tls_key: S3CRET}}";
    let flags = Flags { kwargs: vec!["env.password=S3CRET".into()], ..Flags::default() };
    let layers = vec![file(text, Format::Yaml).unwrap(), Layer::from_flags(&flags)];
    assert!(!format!("{layers:?}").contains("S3CRET"), "{layers:?}");
    let document = Document::parse("c.yaml", text, Format::Yaml).unwrap();
    assert!(!format!("{document:?}").contains("S3CRET"), "{document:?}");
    let env = BTreeMap::from([("REMUDA_CLUSTER_KWARGS".to_owned(), r#"{"password": "S3CRET"}"#.to_owned())]);
    let loader = Loader::new().env(env);
    assert!(!format!("{loader:?}").contains("S3CRET"), "{loader:?}");
    let config = resolve(layers).unwrap();
    assert!(!format!("{config:?}").contains("S3CRET"), "{config:?}");
}
