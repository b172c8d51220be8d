//! A platform in memory: what it was told, what exists, and how it misbehaves.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Drain, Drains, Engine, Session, WorkerChange, WorkerChanges},
    error::{Error, ErrorKind, Result},
    manager::*,
};
use tokio::sync::{mpsc, watch};

/// How a platform misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// `start` never returns; `true`: and does not even listen to its cancellation.
    pub start_hangs: Option<bool>,
    pub start_fails: Option<Error>,
    /// How long each worker lives.
    pub lifetime: Option<Duration>,
    pub panics_on: Option<&'static str>,
    /// `launch` never returns, and does nothing.
    pub launch_hangs: bool,
    /// So many stops are refused first.
    pub stops_refused: Arc<Mutex<u32>>,
    /// Nobody joins.
    pub silent: bool,
    /// `drain` never returns.
    pub drain_hangs: bool,
    pub close_fails: Option<Error>,
    pub close_hangs: bool,
    pub remaining: Vec<String>,
    /// Written to at close, for tests that look from another process.
    pub log: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Fake {
    pub fault: Fault,
    pub info: ClusterInfo,
    pub said: Arc<watch::Sender<Vec<String>>>,
    pub alive: Arc<Mutex<BTreeSet<WorkerId>>>,
    pub engine: Arc<FakeEngine>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::with(Fault::default())
    }
}

impl Fake {
    pub fn with(fault: Fault) -> Self {
        let engine = Arc::new(FakeEngine { drain_hangs: fault.drain_hangs, ..FakeEngine::default() });
        let said = Arc::new(watch::Sender::new(Vec::new()));
        Self { fault, info: ClusterInfo::new("fake::Fake"), said, alive: Arc::default(), engine }
    }

    pub fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    /// Returns when it has been told that.
    pub async fn hears(&self, what: &str) {
        self.said.subscribe().wait_for(|said| said.iter().any(|line| line == what)).await.unwrap();
    }

    fn say(&self, what: impl Into<String>) {
        self.said.send_modify(|said| said.push(what.into()));
    }

    fn call(&self, name: &'static str) {
        assert!(self.fault.panics_on != Some(name), "bad day");
    }
}

#[async_trait]
impl ClusterManager for Fake {
    fn info(&self) -> ClusterInfo {
        self.call("info");
        self.info.clone()
    }

    async fn start(&self, cx: &Context) -> Result<Endpoint> {
        self.say("start");
        self.call("start");
        if let Some(error) = &self.fault.start_fails {
            return Err(error.clone());
        }
        match self.fault.start_hangs {
            Some(true) => std::future::pending().await,
            Some(false) => {
                cx.cancelled().await;
                Err(Error::new(ErrorKind::Cancelled, "given up"))
            }
            None => Ok(Endpoint::Embedded(self.engine.clone())),
        }
    }

    async fn launch(&self, cx: &Context, workers: &[WorkerId]) -> Result<()> {
        self.call("launch");
        for id in workers {
            self.say(format!("launch {id}"));
        }
        if self.fault.launch_hangs {
            std::future::pending::<()>().await;
        }
        for id in workers {
            self.alive.lock().unwrap().insert(*id);
            if !self.fault.silent {
                self.engine.tell(WorkerChange::Joined { name: id.to_string(), host: "here".into(), slots: 2 });
            }
            if let Some(lifetime) = self.fault.lifetime {
                // A watch task: needs 'static, so it takes clones. The keeper ends it with the cluster.
                let (me, id, watch) = (self.clone(), *id, cx.clone());
                cx.spawn(async move {
                    tokio::time::sleep(lifetime).await;
                    me.alive.lock().unwrap().remove(&id);
                    watch.report(ClusterEvent::Progress(format!("{id} exited")));
                    me.engine.tell(WorkerChange::Left { name: id.to_string(), reason: "exit 1".into(), busy: false });
                });
            }
        }
        Ok(())
    }

    async fn stop(&self, _cx: &Context, workers: &[WorkerId]) -> Result<()> {
        self.call("stop");
        let mut refused = self.fault.stops_refused.lock().unwrap();
        for id in workers {
            self.say(format!("stop {id}"));
        }
        if *refused > 0 {
            *refused -= 1;
            return Err(Error::new(ErrorKind::Unavailable, "try later"));
        }
        self.alive.lock().unwrap().retain(|id| !workers.contains(id));
        Ok(())
    }

    async fn scale(&self, _cx: &Context, target: Target) -> Result<()> {
        self.say(format!("scale {target:?}"));
        Ok(())
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<WorkerInfo>> {
        self.call("list");
        let alive = self.alive.lock().unwrap();
        let info = |id: &WorkerId| WorkerInfo { id: Some(*id), platform_id: id.to_string(), host: None, state: WorkerState::Running };
        Ok(alive.iter().map(info).collect())
    }

    async fn close(&self, cx: &Context) -> Result<CloseReport> {
        self.say("close");
        self.call("close");
        if self.fault.close_hangs {
            std::future::pending::<()>().await;
        }
        // A context that was cancelled with the flow would end this at once.
        tokio::select! { () = cx.cancelled() => panic!("close was cancelled"), () = tokio::time::sleep(Duration::from_millis(200)) => {} }
        if let Some(error) = &self.fault.close_fails {
            return Err(error.clone());
        }
        self.alive.lock().unwrap().clear();
        if let Some(log) = &self.fault.log {
            std::fs::write(log, "closed").unwrap();
        }
        self.say("closed");
        Ok(CloseReport { remaining: self.fault.remaining.clone() })
    }
}

#[derive(Debug, Default)]
pub struct FakeEngine {
    listeners: Mutex<Vec<mpsc::UnboundedSender<WorkerChange>>>,
    pub drained: Mutex<Vec<String>>,
    drain_hangs: bool,
}

impl FakeEngine {
    pub fn tell(&self, change: WorkerChange) {
        self.listeners.lock().unwrap().retain(|l| l.send(change.clone()).is_ok());
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "no tasks here"))
    }

    async fn drain(&self, workers: &[String], _deadline: Duration) -> Result<Drains> {
        self.drained.lock().unwrap().extend_from_slice(workers);
        if self.drain_hangs {
            std::future::pending::<()>().await;
        }
        Ok(workers.iter().map(|name| (name.clone(), Drain::Done)).collect())
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, listen) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().push(tell);
        listen
    }

    fn dashboard(&self) -> Option<String> {
        Some("http://fake/status".into())
    }
}
