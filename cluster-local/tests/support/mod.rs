//! A cluster, a session on it, and its events.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{collections::HashMap, sync::Arc, time::Duration};

use remuda_core::{
    class::ClusterClass,
    cluster::{Cluster, ClusterOptions},
    engine::{Session, TaskEvents},
    task::{Annotations, CommandWork, Input, Job, Key, Outcome, PythonWork, RustWork, TaskScope, TaskSpec, TaskState, Work},
    value::{Codec, Template, Value},
};
use remuda_local::{LocalCluster, LocalConfig};

/// Longer than anything here takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub cluster: Cluster,
    pub session: Arc<dyn Session>,
    events: TaskEvents,
    pub seen: HashMap<Key, Vec<TaskState>>,
    next: u64,
}

impl Stage {
    pub async fn new(config: LocalConfig) -> Self {
        prepare();
        let workers = config.n_workers.unwrap_or(1);
        let options = ClusterOptions { workers: Some(workers), ..ClusterOptions::default() };
        let cluster = Cluster::start(LocalCluster::from_config(config).unwrap(), options).await.unwrap();
        let session = cluster.engine().unwrap().open().await.unwrap();
        let events = session.events();
        Self { cluster, session, events, seen: HashMap::new(), next: 0 }
    }

    pub fn submit(&mut self, work: Work, inputs: &[Key], annotations: Annotations) -> Key {
        let inputs = inputs.iter().map(|key| Input::from(*key)).collect();
        self.submit_with(work, inputs, annotations)
    }

    pub fn submit_with(&mut self, work: Work, inputs: Vec<Input>, annotations: Annotations) -> Key {
        self.next += 1;
        let key = Key(self.next);
        let spec = TaskSpec { key, name: format!("t{key}").into(), inputs, after: vec![], work, annotations: Arc::new(annotations) };
        self.session.submit(vec![spec]);
        key
    }

    pub fn run(&mut self, work: Work) -> Key {
        self.submit(work, &[], Annotations::default())
    }

    /// Reads events until one of `key` fits.
    pub async fn until(&mut self, key: Key, fits: impl Fn(&TaskState) -> bool) -> TaskState {
        if let Some(state) = self.seen.get(&key).and_then(|states| states.iter().find(|state| fits(state))) {
            return state.clone();
        }
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("more events");
            self.seen.entry(event.key).or_default().push(event.state.clone());
            if event.key == key && fits(&event.state) {
                return event.state;
            }
        }
    }

    pub async fn end(&mut self, key: Key) -> TaskState {
        self.until(key, TaskState::is_final).await
    }

    pub async fn running(&mut self, key: Key) -> TaskState {
        self.until(key, |state| matches!(state, TaskState::Running { .. })).await
    }

    /// The value of a task that ends well, as JSON.
    pub async fn json(&mut self, key: Key) -> serde_json::Value {
        match self.end(key).await {
            TaskState::Done(value) => remuda_core::value::decode(&value.to_plain().unwrap()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn error(&mut self, key: Key) -> remuda_core::task::TaskError {
        match self.end(key).await {
            TaskState::Ended(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub async fn close(self) {
        self.session.close().await.unwrap();
        let report = self.cluster.close().await.unwrap();
        assert!(report.remaining.is_empty(), "{report:?}");
    }
}

/// Lets this test binary be started again as a task host; each test file has a test of that name.
pub fn prepare() {
    remuda_core::host::init(vec!["host_entry".into(), "--exact".into(), "--nocapture".into()]);
}

/// Process ids of our children that are not zombies, and of all they have started.
pub fn descendants() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((head, rest)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            if fields[1] == parent.to_string() {
                found.push((pid, format!("{head}) {}", fields[0])));
                parents.push(pid);
            }
        }
    }
    found
}

/// A closure over the inputs, for threads.
pub fn here(body: impl Fn(TaskScope, Vec<Outcome>) -> Job + Send + Sync + 'static) -> Work {
    let args = None;
    Work::Rust(RustWork { function: "closure".into(), here: Some(Arc::new(body)), args })
}

pub fn sync<T: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(
    body: impl Fn(TaskScope, Vec<Outcome>) -> T + Send + Sync + 'static,
) -> Work {
    here(move |scope, inputs| Job::Ready(Ok(Codec::<T>::serde().wrap(Arc::new(body(scope, inputs))))))
}

pub fn int(value: &Value) -> i64 {
    *Codec::<i64>::serde().unwrap(value).unwrap()
}

/// A registered Rust function, for processes.
pub fn rust(function: &'static str, args: &impl serde::Serialize) -> Work {
    Work::Rust(RustWork { function: function.into(), here: None, args: Some(Template::value(args).unwrap()) })
}

pub fn python(target: &str, args: &Template, path: &str) -> Work {
    Work::Python(PythonWork { target: target.into(), args: args.clone(), path: [path.to_owned()].into() })
}

/// `[[args...], {}]`
pub fn args(values: &[Template]) -> Template {
    let mut template = Template::new();
    template.array(2).array(values.len());
    for value in values {
        template.append(value);
    }
    template.map(0);
    template
}

pub fn command(call: &serde_json::Value) -> Work {
    Work::Command(CommandWork { call: Template::value(call).unwrap() })
}
