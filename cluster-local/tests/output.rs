//! What tasks print goes to the log, with the worker and the task, and nowhere else.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests, and the functions they call

mod support;

use std::sync::{Arc, Mutex};

use remuda_core::{
    host::TaskDef,
    task::{Job, TaskScope},
    value::{Template, Value},
};
use remuda_local::{LocalConfig, MemoryLimit};
use serde_json::json;
use support::{Stage, args, command, python, rust};

#[test]
fn host_entry() {
    support::prepare();
}

fn prints(_: TaskScope, _: &[u8]) -> Job {
    println!("from rust");
    eprintln!("also from rust");
    Job::Ready(Ok(Value::plain(&1).unwrap()))
}
inventory::submit! { TaskDef { name: "prints", signature: "test", call: prints } }

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn output_is_logged_by_task() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let config = LocalConfig { n_workers: Some(1), threads_per_worker: Some(1), memory_limit: MemoryLimit::None, ..LocalConfig::default() };
    let mut stage = Stage::new(config).await;
    let works = [
        rust("prints", &[(); 0]),
        python("builtins:print", &args(&[Template::value("from python").unwrap()]), "/"),
        command(&json!({"argv": ["sh", "-c", "echo result; echo from a command >&2"]})),
    ];
    for work in works {
        let key = stage.run(work);
        stage.json(key).await;
    }
    stage.close().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (text, task) in [("from rust", "t#1"), ("also from rust", "t#1"), ("from python", "t#2"), ("from a command", "t#3")] {
        let line = log.lines().find(|line| line.contains(&format!(": {text} "))).unwrap_or_else(|| panic!("`{text}` is missing in\n{log}"));
        for part in ["remuda::task_output", "worker=\"0-0\"", &format!("task=\"{task}\"")] {
            assert!(line.contains(part), "{line}");
        }
    }
    assert!(!log.contains("running 1 test") && !log.contains("result"), "{log}");
}
