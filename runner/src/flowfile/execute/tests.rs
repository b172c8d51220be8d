//! What the executor tells the engine, with the test as the engine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Session, TaskEvents},
    task::{Key, TaskError, TaskEvent, TaskSpec, TaskState},
    value::{self, encode},
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::{
    Flow,
    config::{Document, Format},
    flowfile::FlowPlan,
    run::{Run, lock},
};

#[derive(Debug, PartialEq)]
enum Said {
    Submit(Vec<String>),
    Release(String),
}

#[derive(Debug)]
struct Scripted {
    tell: mpsc::UnboundedSender<Said>,
    names: Mutex<HashMap<Key, Arc<str>>>,
    events: Mutex<Option<TaskEvents>>,
}

#[async_trait]
impl Session for Scripted {
    fn shares_memory(&self) -> bool {
        false
    }

    fn submit(&self, tasks: Vec<TaskSpec>) {
        lock(&self.names).extend(tasks.iter().map(|task| (task.key, task.name.clone())));
        let _ = self.tell.send(Said::Submit(tasks.iter().map(|task| task.name.to_string()).collect()));
    }

    fn cancel(&self, _: &[Key]) {}

    fn release(&self, keys: &[Key]) {
        for key in keys {
            let _ = self.tell.send(Said::Release(lock(&self.names)[key].to_string()));
        }
    }

    fn events(&self) -> TaskEvents {
        lock(&self.events).take().unwrap()
    }

    async fn gather(&self, _: &[Key]) -> Result<Vec<value::Value>, TaskError> {
        Err(TaskError::Cancelled)
    }

    async fn close(&self) -> remuda_core::error::Result<()> {
        Ok(())
    }
}

/// So that silence is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// The engine's side of a run.
struct Engine {
    session: Arc<Scripted>,
    said: mpsc::UnboundedReceiver<Said>,
    events: mpsc::UnboundedSender<TaskEvent>,
}

impl Engine {
    fn new() -> Self {
        let (tell, said) = mpsc::unbounded_channel();
        let (events, listen) = mpsc::unbounded_channel();
        let session = Scripted { tell, names: Mutex::default(), events: Mutex::new(Some(listen)) };
        Self { session: Arc::new(session), said, events }
    }

    fn done(&self, task: &str, result: &Value) {
        self.ends(task, TaskState::Done(value::Value::Plain(encode(result).unwrap().into())));
    }

    fn ends(&self, task: &str, state: TaskState) {
        let names = lock(&self.session.names);
        let (key, name) = names.iter().find(|(_, name)| ***name == *task).unwrap();
        self.events.send(TaskEvent { key: *key, name: name.clone(), state }).unwrap();
    }

    async fn hears(&mut self) -> Option<Said> {
        tokio::time::timeout(PATIENCE, self.said.recv()).await.expect("the executor says something")
    }

    async fn submits(&mut self, names: &[&str]) {
        for name in names {
            assert_eq!(self.hears().await, Some(Said::Submit(vec![(*name).to_owned()])));
        }
    }

    async fn releases(&mut self, names: &[&str]) {
        for name in names {
            assert_eq!(self.hears().await, Some(Said::Release((*name).to_owned())));
        }
    }
}

fn plan(text: &str) -> FlowPlan {
    FlowPlan::parse(&Document::parse("flow.yaml", text, Format::Yaml).unwrap(), Map::new()).unwrap()
}

#[tokio::test]
async fn results_are_released_when_nothing_to_come_refers_to_them() {
    let text = r#"
tasks:
  early: {command: [a]}
  wanted: {command: [b]}
  kept: {command: [c]}
  list: {command: [d]}
  reader: {command: [e, $early]}
  late: {command: [f, $x, $kept], map: {x: $list}}
result: [$wanted, $late]
"#;
    let plan = plan(text);
    let mut engine = Engine::new();
    let flow = Flow::of(Run::new(engine.session.clone()));
    let play = async {
        engine.submits(&["early", "wanted", "kept", "list", "reader"]).await;
        for task in ["kept", "wanted", "early"] {
            engine.done(task, &json!(task));
        }
        // `late` is still to come: it needs `kept` and `list`. The result needs `wanted`.
        engine.releases(&["early"]).await;
        engine.done("reader", &json!("r"));
        engine.releases(&["reader"]).await;
        engine.done("list", &json!(["x"]));
        engine.submits(&["late"]).await;
        engine.releases(&["kept", "list"]).await;
        engine.done("late", &json!("l"));
    };
    let (result, ()) = tokio::join!(flow.drive(plan.run(&flow)), play);
    assert_eq!(result.unwrap().into_json().0, json!(["wanted", ["l"]]));
}

#[tokio::test]
async fn a_failure_while_a_list_is_waited_for_is_told() {
    let plan = plan("tasks:\n  bad: {command: [a]}\n  list: {command: [b]}\n  late: {command: [c, $x], map: {x: $list}}\nresult: $late\n");
    let mut engine = Engine::new();
    let flow = Flow::of(Run::new(engine.session.clone()));
    let play = async {
        engine.submits(&["bad", "list"]).await;
        engine.ends("bad", TaskState::Ended(TaskError::Cancelled));
        engine.releases(&["bad"]).await;
        engine.done("list", &json!(["x"]));
        engine.submits(&["late"]).await;
        engine.done("late", &json!("l"));
    };
    let (result, ()) = tokio::join!(flow.drive(plan.run(&flow)), play);
    let error = result.unwrap_err();
    assert!(error.to_string().starts_with("flow.yaml:2:3: bad"), "{error:#}");
}
