//! The engine as the keeper and the runs see it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use remuda_core::{
    engine::{Drain, Drains, Engine, Observation, Outlook, Session, WorkerChange, WorkerChanges},
    error::Result,
    manager::WorkerId,
};
use tokio::sync::{mpsc, watch};

use crate::engine::Shared;

/// A handle on what is shared.
#[derive(Debug, Clone)]
pub(crate) struct LocalEngine(pub(crate) Arc<Shared>);

#[async_trait]
impl Engine for LocalEngine {
    async fn open(&self) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(self.0.open_session(None)?))
    }

    async fn drain(&self, workers: &[String], deadline: Duration) -> Result<Drains> {
        let ids: Vec<WorkerId> = workers.iter().filter_map(|name| WorkerId::from_name(name)).collect();
        self.0.update(|state, now| {
            for id in &ids {
                state.scheduler.drain_worker(*id, now);
            }
        });
        self.0.wait_until(deadline, |state| ids.iter().all(|id| state.scheduler.is_empty(*id))).await;
        let state = self.0.state();
        let drain = |id: &WorkerId| if state.scheduler.is_empty(*id) { Drain::Done } else { Drain::Busy };
        Ok(ids.iter().map(|id| (id.to_string(), drain(id))).collect())
    }

    async fn load(&self) -> Result<Observation> {
        Ok(self.0.state().scheduler.look(Instant::now()))
    }

    fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        Some(self.0.arrivals.subscribe())
    }

    fn expect(&self, outlook: Outlook) {
        self.0.update(|state, now| state.scheduler.expect(outlook, now));
    }

    fn changes(&self) -> WorkerChanges {
        let (tell, changes) = mpsc::unbounded_channel();
        let mut state = self.0.state();
        for (name, host, slots) in state.scheduler.live_workers() {
            let _ = tell.send(WorkerChange::Joined { name: name.to_string(), host: host.to_owned(), slots });
        }
        if !state.closed {
            state.watchers.push(tell);
        }
        changes
    }
}
