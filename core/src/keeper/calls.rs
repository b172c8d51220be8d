//! The calls of manager and engine: beside the loop, each with a deadline and an answer in every case.

use std::{future::Future, sync::Arc};

use tokio::{task::Id, time::timeout};

use super::{Keeper, fleet::Input, late, made};
use crate::{
    error::{Error, Result},
    manager::{CloseReport, ClusterManager, Context, WorkerId},
};

impl Keeper {
    pub(super) fn drain(&mut self, workers: Vec<(WorkerId, String)>) {
        let limit = self.limits.drain;
        let (ids, names): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let (all, engine, cancel) = (ids.clone(), self.engine.clone(), self.cancel.clone());
        // Drained or not by the deadline: the worker is stopped, and the engine tells its tasks why.
        self.spawn(move |_| Input::Drained(all), async move {
            let Some(engine) = engine else { return Input::Drained(ids) };
            let answer = tokio::select! {
                answer = timeout(limit, engine.drain(&names, limit)) => answer.unwrap_or_else(|_| Err(late("drain", limit))),
                () = cancel.cancelled() => return Input::Drained(ids),
            };
            if let Err(error) = answer {
                tracing::warn!(%error, workers = ?names, "stopped without having been drained");
            }
            Input::Drained(ids)
        });
    }

    /// One at a time, and nobody waits for it.
    pub(super) fn list(&mut self) {
        let (None, Some((manager, cx))) = (self.listing, self.made.get()) else { return };
        let limit = self.limits.call;
        self.listing = Some(self.spawn(|_| Input::Tick, async move {
            match timeout(limit, manager.list(&cx)).await.unwrap_or_else(|_| Err(late("list", limit))) {
                Ok(workers) => Input::Platform(workers),
                Err(error) => {
                    tracing::debug!(%error, "list failed");
                    Input::Tick
                }
            }
        }));
    }

    pub(super) fn close(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        self.fallbacks.clear();
        self.changes = None;
        let (made, limits) = (self.made.clone(), self.limits.clone());
        self.spawn(|error| Input::Closed(Err(error)), async move {
            // Drops the futures of the calls. One that blocks its thread is not waited for.
            let _ = timeout(limits.grace, calls.shutdown()).await;
            let Some((manager, cx)) = made.abandon() else { return Input::Closed(Ok(CloseReport::default())) };
            Input::Closed(made::close(&*manager, &cx, limits.close).await)
        });
    }

    pub(super) fn call<Fut>(
        &mut self,
        ids: Vec<WorkerId>,
        answer: fn(Vec<WorkerId>, Result<()>) -> Input,
        call: impl FnOnce(Arc<dyn ClusterManager>, Context, Vec<WorkerId>) -> Fut + Send + 'static,
    ) where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let (limit, made, panicked) = (self.limits.call, self.made.get(), ids.clone());
        self.spawn(move |error| answer(panicked, Err(error)), async move {
            let Some((manager, cx)) = made else { return answer(ids, Err(late("call", limit))) };
            let result = timeout(limit, call(manager, cx, ids.clone())).await.unwrap_or_else(|_| Err(late("call", limit)));
            answer(ids, result)
        });
    }

    pub(super) fn spawn(
        &mut self,
        fallback: impl FnOnce(Error) -> Input + Send + 'static,
        call: impl Future<Output = Input> + Send + 'static,
    ) -> Id {
        let id = self.calls.spawn(call).id();
        self.fallbacks.insert(id, Box::new(fallback));
        id
    }
}
