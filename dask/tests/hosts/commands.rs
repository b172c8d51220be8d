//! Programs.

use serde_json::json;

use crate::worker::{Worker, begun, bytes, command, gone, result, with};

#[tokio::test]
async fn commands_are_those_of_the_task_host() {
    let Some(mut worker) = Worker::start("commands_are_those_of_the_task_host", true).await else { return };
    let directory = worker.directory.path().to_str().unwrap().to_owned();
    let results = [
        (
            json!({"argv": ["echo", "a", 1, 1.5, 1e20, 1e-7, null, true, [1, {"b": "ü"}]]}),
            json!("a 1 1.5 1e20 1e-7 null true [1,{\"b\":\"ü\"}]"),
        ),
        (json!({"argv": ["sh", "-c", "echo $A $B"], "env": {"A": "x", "B": [1, 2]}}), json!("x [1,2]")),
        (json!({"argv": ["pwd"], "cwd": directory}), json!(directory)),
        (json!({"argv": ["cat"], "stdin": "text"}), json!("text")),
        (json!({"argv": ["cat"], "stdin": {"a": [1, null]}}), json!("{\"a\":[1,null]}")),
        (json!({"argv": ["cat"]}), json!("")),
        (json!({"argv": ["cat"], "stdin": null}), json!("")),
        (json!({"argv": ["true"], "stdin": "x".repeat(1 << 20)}), json!("")),
        (json!({"argv": ["printf", "a\\n\\r\\n\\n"]}), json!("a")),
        (json!({"argv": ["sh", "-c", "(sleep 0.1; echo late) & echo early"]}), json!("early\nlate")),
        (json!({"argv": ["sh", "-c", "echo $REMUDA_TASK_HOST"]}), json!("")),
    ];
    for (call, expected) in results {
        let answer = worker.command(call.clone()).await;
        assert!(answer["done"].is_string(), "{call}: {answer}");
        assert_eq!(result(&answer), expected, "{call}");
    }
    let binary = worker.command(json!({"argv": ["printf", "\\377\\n"], "binary": true})).await;
    assert_eq!(bytes(&binary), b"\xc4\x02\xff\n");
    let failures = [
        (json!({"argv": ["sh", "-c", "echo why >&2; exit 3"]}), "`sh -c echo why >&2; exit 3` exited with code 3", json!("why"), json!(3)),
        (json!({"argv": ["sh", "-c", "kill -9 $$"]}), "`sh -c kill -9 $$` was ended by signal 9 (SIGKILL)", json!(null), json!(null)),
        (json!({"argv": ["no-such-program"]}), "there is no program `no-such-program` on PATH", json!(null), json!(null)),
        (json!({"argv": ["/no/such"]}), "there is no program `/no/such`", json!(null), json!(null)),
        (json!({"argv": []}), "a command needs at least a program", json!(null), json!(null)),
        (
            json!({"argv": ["true"], "cwd": "/no/such"}),
            "`true` cannot be run in `/no/such`: there is no such directory",
            json!(null),
            json!(null),
        ),
        (json!({"argv": ["printf", "\\377"]}), "its output is not UTF-8 text; use `binary: true`", json!(null), json!(null)),
    ];
    for (call, message, traceback, code) in failures {
        let answer = worker.command(call.clone()).await;
        let failed = &answer["failed"];
        assert_eq!(
            (&failed["message"], &failed["traceback"], &failed["exit_code"]),
            (&json!(message), &traceback, &code),
            "{call}: {answer}"
        );
    }
    let tail =
        worker.command(json!({"argv": ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"]})).await;
    let tail = tail["failed"]["traceback"].as_str().unwrap();
    assert!(tail.starts_with("...") && tail.ends_with("line 2999") && tail.len() <= 4096 + 3, "{} bytes", tail.len());
    worker.logged("command-0123-1 | line 0").await;
    let wrong = worker.command(json!({"args": ["true"]})).await;
    assert!(wrong["failed"]["message"].as_str().unwrap().starts_with("this is not a command"), "{wrong}");
}

#[tokio::test]
async fn commands_end_when_they_are_cancelled_or_late() {
    let Some(mut worker) = Worker::start("commands_end_when_they_are_cancelled_or_late", true).await else { return };
    // The second one does not care for SIGTERM.
    let bodies = [
        "sleep 3600 & echo $$ $! > $F.new; mv $F.new $F; wait",
        "trap '' TERM; sleep 3600 & echo $$ $! > $F.new; mv $F.new $F; wait; sleep 3600",
    ];
    for (n, body) in bodies.iter().enumerate() {
        // Long enough that it has begun by then.
        for timeout in [json!(null), json!(3)] {
            let file = worker.directory.path().join(format!("command-{n}-{timeout}"));
            let call = with(command(&json!({"argv": ["sh", "-c", body], "env": {"F": file}})), "timeout", timeout.clone());
            let id = worker.begin(call).await;
            let pids = begun(&file).await;
            if timeout.is_null() {
                worker.perform(json!({"op": "kill", "key": "command-0123-1"})).await;
                assert_eq!(worker.end(id).await["cancelled"], true);
            } else {
                let late = worker.end(id).await;
                assert!(late["failed"]["kind"] == "TimeoutError" && late["failed"]["message"].as_str().unwrap().contains("3s"), "{late}");
            }
            gone(&pids).await;
        }
    }
    // It tells of itself once it has left.
    let body = "setsid sh -c 'echo $$ > $F.new; mv $F.new $F; exec sleep 3600' & wait";
    let escapes = json!({"argv": ["sh", "-c", body], "env": {"F": worker.directory.path().join("escaped")}});
    let id = worker.begin(command(&escapes)).await;
    let pids = begun(&worker.directory.path().join("escaped")).await;
    worker.perform(json!({"op": "kill", "key": "command-0123-1"})).await;
    assert_eq!(worker.end(id).await["cancelled"], true, "a slot is not lost to what has left the group");
    // It is nobody's but ours now.
    assert!(std::process::Command::new("kill").args(["-9", &pids[0].to_string()]).status().unwrap().success());
}
