//! The modules of a run's own directories, on workers that outlive it.

use serde_json::{Value as Json, json};

use crate::support::{Cluster, fetch, plain};
use crate::{OTHER, SESSION, dask_key};

const THIRD: &str = "00112233445566778899aabbccddeeff";

async fn said(cluster: &Cluster, session: &str, directory: &str) -> Json {
    let mut stream = cluster.stream(session, 60.0).await;
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
