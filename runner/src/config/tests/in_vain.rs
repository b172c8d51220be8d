//! What is written, but cannot be read, is not missed as if it were not there.

use remuda_core::error::Mistake;

use super::super::document::NoDocument;
use super::*;

#[test]
fn what_client_kwargs_say_in_vain_is_not_missed() {
    let tls = "address: tls://h:1\n";
    let read = |text: &str, format| Layer::from_document(&Document::read("remuda", text, format).unwrap(), &KeyPath::default());
    let yaml = |text: String| (read(&text, Format::Yaml), Layer::new());
    let kwargs = "cluster_kwargs: {n_wrokers: 4}\n";
    let said = |client: &str| environment(&[("REMUDA_CLIENT_KWARGS", client)]);
    let mut wrong = Vec::new();
    for (below, above) in [
        yaml(format!("{tls}client_kwargs: {{security: {{tls_ca_file: .nan}}}}")),
        (read("address = 'tls://h:1'\nclient_kwargs.security.tls_ca_file = nan", Format::Toml), Layer::new()),
        yaml(format!("{tls}client_kwargs: [a]")),
        yaml(format!("{tls}client_kwargs: .nan")),
        yaml(format!("{tls}client_kwarg: {{security: {{ca: a, cert: b, key: c}}}}")),
        (read(tls, Format::Yaml), said("{\"security\": ")),
        (Layer::unread(NoDocument::from(Error::invalid(vec![Mistake::new("x", "broken")])).mistakes), flags(None, &[], Some("tls://h:1"))),
        yaml(format!("{kwargs}client_kwargs: {{scheduler_file: .nan}}")),
        yaml(format!("{kwargs}client_kwarg: {{scheduler_file: s.json}}")),
        (read(&format!("{kwargs}client_kwargs: {{scheduler_file: s.json}}"), Format::Yaml), said("[")),
        yaml("client_kwargs: {lease: .inf, heartbeat_interval: 20s}".to_owned()),
        yaml("client_kwarg: {lease: 1m}\nclient_kwargs: {heartbeat_interval: 20s}".to_owned()),
    ] {
        let text = refused(below, above);
        if text.contains("mistakes:") {
            wrong.push(text);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is missing or does not fit all the same is told, and what a higher layer says is read.
    let nan = "client_kwargs: {name: .nan, lease: .nan, heartbeat_interval: 20s}";
    for (below, above, words) in [
        (read(&format!("{tls}{nan}"), Format::Yaml), Layer::new(), "needs certificates"),
        (read(&format!("{kwargs}{nan}"), Format::Yaml), Layer::new(), "n_wrokers"),
        (read(nan, Format::Yaml), said(r#"{"lease": "30s"}"#), "at most 15s"),
        (read("client_kwargs: {lease: .nan, heartbeat_interval: 0}", Format::Yaml), Layer::new(), "no time; expected more"),
        (
            read("client_kwargs: {scheduler_file: .nan}", Format::Yaml),
            file("client_kwargs: null\ncluster_kwargs: {n_wrokers: 4}"),
            "n_wrokers",
        ),
    ] {
        let text = refused(below, above);
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_named_class_is_asked_whatever_the_layers_below_say_in_vain() {
    let named = || flags(Some("local::LocalCluster"), &["n_wrokers=4"], None);
    let broken = Layer::unread(NoDocument::from(Error::invalid(vec![Mistake::new("x", "broken")])).mistakes);
    for below in [file("cluster_clas: x"), file("cluster_class: [x]"), broken] {
        let text = refused(below, named());
        assert!(text.starts_with("2 mistakes:") && text.contains("n_wrokers"), "{text}");
    }
    // Kwargs alone go to whatever is meant below.
    let text = refused(file("cluster_clas: x"), flags(None, &["n_wrokers=4"], None));
    assert!(!text.contains("n_wrokers"), "{text}");
}
