//! The modules of a run's own directories, on workers that outlive it.

use remuda_dask::{protocol::Value, shim};
use serde_json::{Value as Json, json};

use crate::support::{Cluster, fetch, from_value, plain};
use crate::{LEASE, OTHER, SESSION, dask_key};

const THIRD: &str = "00112233445566778899aabbccddeeff";

async fn said(cluster: &Cluster, session: &str, directory: &str) -> Json {
    let mut stream = cluster.stream(session, LEASE).await;
    let definition = cluster.python("edited:say", json!({"path": [cluster.path(directory)]}));
    stream.submit(&[(1, definition)], vec![(1, 1, plain([]), vec![])]).await;
    let done = stream.until("done", 1).await;
    let answer = fetch(&mut cluster.rpc().await, &done, &dask_key("edited_say", session, 1), -1, &["plain"]).await;
    stream.close().await;
    answer
}

fn write(cluster: &Cluster, directory: &str, name: &str, text: &str) {
    std::fs::create_dir_all(cluster.path(directory)).unwrap();
    std::fs::write(cluster.path(&format!("{directory}/{name}.py")), text).unwrap();
}

#[tokio::test]
async fn what_was_edited_between_two_runs_runs_as_it_is() {
    needs_dask!("what_was_edited_between_two_runs_runs_as_it_is");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let _rpc = cluster.installed().await;
    write(&cluster, "one", "edited", "import edited_too\n\ndef say():\n    return edited_too.WORD\n");
    write(&cluster, "one", "edited_too", "WORD = 'old'\n");
    assert_eq!(said(&cluster, SESSION, "one").await, json!({"plain": "old"}));

    // In a module that only the task's own module imports.
    write(&cluster, "one", "edited_too", "WORD = 'edited'\n");
    assert_eq!(said(&cluster, OTHER, "one").await, json!({"plain": "edited"}));

    // Namesakes of another run.
    write(&cluster, "two", "edited", "import edited_too\n\ndef say():\n    return edited_too.WORD\n");
    write(&cluster, "two", "edited_too", "WORD = 'elsewhere'\n");
    assert_eq!(said(&cluster, THIRD, "two").await, json!({"plain": "elsewhere"}));
}

#[tokio::test]
async fn what_lies_in_another_runs_directory_only_is_not_there() {
    needs_dask!("what_lies_in_another_runs_directory_only_is_not_there");
    let cluster = Cluster::with_workers(&["alpha"]).await;
    let mut rpc = cluster.installed().await;
    write(&cluster, "one", "edited", "import helper\n\ndef say():\n    return helper.WORD\n");
    write(&cluster, "one", "helper", "WORD = 'of one'\n");
    write(&cluster, "one", "unused", "");
    assert_eq!(said(&cluster, SESSION, "one").await, json!({"plain": "of one"}));

    // Neither what is loaded nor what could be: asked before a run, and by a task.
    std::fs::create_dir_all(cluster.path("two")).unwrap();
    let strings = |texts: &[&str]| Value::Array(texts.iter().map(|text| (*text).into()).collect());
    let asked = [
        ("modules", strings(&["edited", "unused", "json", "dask.base"])),
        ("paths", strings(&[&cluster.path("two")])),
        ("workers", Value::Nil),
    ];
    let answer = from_value(rpc.call(&shim::op("prepare"), asked).await.unwrap().body());
    assert_eq!(answer["alpha"]["missing"], json!(["edited", "unused"]));
    let mut stream = cluster.stream(OTHER, LEASE).await;
    write(&cluster, "two", "imports", "def say():\n    return 1\nimport unused\n");
    // Loaded for the first run, and imported by a module of the second.
    write(&cluster, "two", "inside", "import json\nimport helper\n\ndef say():\n    return helper.WORD\n");
    let defs = [(1, "edited:say"), (2, "imports:say"), (3, "os:getpid"), (4, "inside:say")]
        .map(|(id, target)| (id, cluster.python(target, json!({"path": [cluster.path("two")]}))));
    stream.submit(&defs, (1..=4).map(|key| (key, key, plain([]), vec![])).collect()).await;
    let says = [(1, "there is no Python module `edited`"), (2, "No module named 'unused'"), (4, "No module named 'helper'")];
    for (key, says) in says {
        let failed = stream.until("failed", key).await;
        assert!(failed[4]["message"].as_str().unwrap().contains(says), "{failed}");
    }
    stream.until("done", 3).await;
    stream.close().await;

    // It stays for those that it is of.
    assert_eq!(said(&cluster, THIRD, "one").await, json!({"plain": "of one"}));
}
