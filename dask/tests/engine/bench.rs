//! A scheduler, its workers, and our engine before them.

use std::{collections::BTreeMap, sync::Arc};

use remuda_core::{
    engine::{Connect, Engine, Session, TaskEvents},
    manager::Endpoint,
    task::{Annotations, Key, PythonWork, TaskSpec, TaskState, Work},
    value::Template,
};
use remuda_dask::{Address, ConnectOptions, DaskConnect, DaskOptions, Rpc};
use serde::Serialize;
use tempfile::{NamedTempFile, TempDir};
use tokio::time::timeout;

use crate::{
    proxy::Proxy,
    real::{PATIENCE, Running, can_run},
};

pub struct Bench {
    directory: TempDir,
    scheduler: Option<Running>,
    address: Address,
    workers: BTreeMap<String, Running>,
    proxy: Option<Proxy>,
    engine: Option<Arc<dyn Engine>>,
}

impl Bench {
    pub async fn start(test: &str, workers: &[&str]) -> Option<Self> {
        Self::start_with(test, workers, DaskOptions::default()).await
    }

    pub async fn start_with(test: &str, workers: &[&str], options: DaskOptions) -> Option<Self> {
        Self::make(test, workers, options, false, &[]).await
    }

    /// With these variables in the scheduler's environment.
    pub async fn start_configured(test: &str, workers: &[&str], options: DaskOptions, environment: &[(&str, &str)]) -> Option<Self> {
        Self::make(test, workers, options, false, environment).await
    }

    pub async fn start_behind_a_proxy(test: &str, workers: &[&str], options: DaskOptions) -> Option<Self> {
        Self::make(test, workers, options, true, &[]).await
    }

    async fn make(test: &str, workers: &[&str], options: DaskOptions, is_behind: bool, environment: &[(&str, &str)]) -> Option<Self> {
        if !can_run(test).await {
            return None;
        }
        let directory = TempDir::new().unwrap();
        let (scheduler, address) = Running::scheduler_with("tcp", &variables(environment), directory.path()).await;
        let mut bench = Self { directory, scheduler: Some(scheduler), address, workers: BTreeMap::new(), proxy: None, engine: None };
        for name in workers {
            bench.add_worker(name).await;
        }
        let mut address = bench.address.to_string();
        if is_behind {
            let to = format!("{}:{}", bench.address.host(), bench.address.port()).parse().unwrap();
            let proxy = Proxy::start(to).await;
            address = format!("tcp://{}", proxy.address);
            bench.proxy = Some(proxy);
        }
        let endpoint = Endpoint::Dask { address, security: None, dashboard: None };
        let engine = timeout(PATIENCE, DaskConnect::new(options).connect(&endpoint)).await.unwrap().unwrap();
        bench.engine = Some(engine);
        Some(bench)
    }

    pub async fn add_worker(&mut self, name: &str) {
        let worker = Running::worker(&self.address, name, &BTreeMap::new(), self.directory.path()).await;
        self.workers.insert(name.to_owned(), worker);
    }

    pub async fn kill_worker(&mut self, name: &str) {
        self.workers.remove(name).unwrap().end().await;
    }

    /// Sends it a signal: `-STOP`, `-CONT`.
    pub fn signal_scheduler(&self, name: &str) {
        self.scheduler.as_ref().unwrap().signal(name);
    }

    pub async fn kill_scheduler(&mut self) {
        self.scheduler.take().unwrap().end().await;
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.as_ref().unwrap()
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    pub async fn session(&mut self) -> Arc<dyn Session> {
        timeout(PATIENCE, self.engine().open()).await.unwrap().unwrap()
    }

    /// How many tasks the scheduler knows, whoever's.
    pub async fn tasks_at_dask(&self) -> usize {
        let mut rpc = Rpc::connect(&self.address, &ConnectOptions::default()).await.unwrap();
        let states = rpc.call("get_task_prefix_states", []).await.unwrap();
        let prefixes = states.body().as_map().unwrap();
        let counts = prefixes.iter().filter_map(|(_, states)| states.as_map()).flatten();
        counts.filter_map(|(_, count)| count.as_u64()).sum::<u64>() as usize
    }

    pub async fn end_session(&self, session: Arc<dyn Session>) {
        timeout(PATIENCE, session.close()).await.expect("it closes in time").unwrap();
    }

    pub async fn end(mut self) {
        self.engine = None;
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.end().await;
        }
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.end().await;
        }
    }
}

fn variables(environment: &[(&str, &str)]) -> BTreeMap<String, String> {
    environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A call of a Python function with these arguments: `[[positional..], {keyword: ..}]`.
pub fn call(key: u64, target: &str, args: Template) -> TaskSpec {
    thread_local! {
        static SHARED: Arc<Annotations> = Arc::default();
    }
    TaskSpec {
        key: Key(key),
        name: target.split(':').next_back().unwrap().into(),
        inputs: Vec::new(),
        after: Vec::new(),
        work: Work::Python(PythonWork { target: target.into(), args, path: Arc::default() }),
        annotations: SHARED.with(Arc::clone),
    }
}

/// With one argument.
pub fn with<T: Serialize + ?Sized>(key: u64, target: &str, argument: &T) -> TaskSpec {
    let mut args = Template::new();
    let value = Template::value(argument).unwrap();
    args.array(2).array(1).append(&value).map(0);
    call(key, target, args)
}

/// A file, and what `builtins:exec` runs for as long as that is there: a test says when such a task may end, however slow the machine is.
pub fn gate() -> (NamedTempFile, String) {
    let gate = NamedTempFile::new().unwrap();
    let code = format!("import os, time\nwhile os.path.exists({:?}): time.sleep(0.01)", gate.path());
    (gate, code)
}

/// With the results of other tasks.
pub fn with_inputs(key: u64, target: &str, inputs: &[u64]) -> TaskSpec {
    let mut args = Template::new();
    args.array(2).array(inputs.len());
    inputs.iter().for_each(|_| _ = args.append(&Template::hole()));
    args.map(0);
    TaskSpec { inputs: inputs.iter().map(|key| Key(*key).into()).collect(), ..call(key, target, args) }
}

/// The ends of so many tasks; each once.
pub async fn finals(events: &mut TaskEvents, many: usize) -> BTreeMap<u64, TaskState> {
    let mut ended = BTreeMap::new();
    let all = timeout(PATIENCE, async {
        while ended.len() < many {
            let event = events.recv().await.expect("the events go on");
            if event.state.is_final() {
                assert!(ended.insert(event.key.0, event.state).is_none(), "{} ended twice", event.key);
            }
        }
    });
    all.await.unwrap_or_else(|_| panic!("not all of {many} tasks ended in {PATIENCE:?}"));
    ended
}
