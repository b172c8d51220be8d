//! The manager, from the moment it exists, so that it can always be closed, also when it comes too late.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Limits, roll::Listed};
use crate::{
    class::Recipe,
    error::{Error, ErrorKind, Result},
    manager::{CloseReport, ClusterManager, Context},
};

type Pair = (Arc<dyn ClusterManager>, Context);

#[derive(Debug, Default)]
pub(super) struct Made {
    state: Mutex<State>,
    abandoned: CancellationToken,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Ready(Pair),
    Abandoned,
}

impl Made {
    pub(super) fn get(&self) -> Option<Pair> {
        match &*self.lock() {
            State::Ready(pair) => Some(pair.clone()),
            _ => None,
        }
    }

    pub(super) fn manager(&self) -> Option<Arc<dyn ClusterManager>> {
        self.get().map(|(manager, _)| manager)
    }

    pub(super) fn context(&self) -> Option<Context> {
        self.get().map(|(_, cx)| cx)
    }

    /// For the close: the manager, if there is one yet. One that comes later is closed by whoever makes it.
    pub(super) fn abandon(&self) -> Option<Pair> {
        self.abandoned.cancel();
        let mut state = self.lock();
        if let State::Waiting = *state {
            *state = State::Abandoned;
        }
        match &*state {
            State::Ready(pair) => Some(pair.clone()),
            _ => None,
        }
    }

    /// Whether somebody still wants it.
    fn put(&self, pair: Pair) -> bool {
        let mut state = self.lock();
        let wanted = matches!(*state, State::Waiting);
        if wanted {
            *state = State::Ready(pair);
        }
        wanted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first part of a start: from the recipe to the manager.
pub(crate) struct Making {
    pub(super) made: Arc<Made>,
    pub(super) recipe: Recipe,
    /// Before the name is known.
    pub(super) cx: Context,
    /// The name the user gave, else the manager's, else a random one.
    pub(super) name: Option<String>,
    pub(super) limits: Limits,
    /// The process is not done with this cluster as long as its factory runs.
    pub(super) listed: Arc<Listed>,
}

impl Making {
    pub(crate) fn new(recipe: Recipe, cx: Context, name: Option<String>, limits: Limits, listed: Arc<Listed>) -> Self {
        Self { made: Arc::default(), recipe, cx, name, limits, listed }
    }

    pub(super) async fn run(self) -> Result<Pair> {
        let Self { made, recipe, cx, name, limits, listed } = self;
        let path = recipe.path().to_owned();
        let manager = recipe.make(made.abandoned.clone()).await?;
        let cx = match name.or_else(|| manager.info().name) {
            Some(name) => cx.with_name(&name),
            None => cx,
        };
        listed.rename(&path, cx.name());
        if made.put((manager.clone(), cx.clone())) {
            return Ok((manager, cx));
        }
        tracing::warn!(class = path, cluster = cx.name(), "a manager came after its cluster was given up; closing it");
        let closed = close(&*manager, &cx, limits.close).await;
        cx.end_tasks().await;
        cx.ledger().end(&closed).await;
        match closed {
            Ok(report) if report.remaining.is_empty() => {}
            Ok(report) => tracing::error!(class = path, remaining = ?report.remaining, "not everything was removed"),
            Err(error) => tracing::error!(class = path, %error, "it may not be closed"),
        }
        drop(listed);
        Err(Error::new(ErrorKind::Cancelled, "the cluster was given up before its manager was made"))
    }
}

pub(super) async fn close(manager: &dyn ClusterManager, cx: &Context, limit: std::time::Duration) -> Result<CloseReport> {
    let cx = cx.with_cancel(CancellationToken::new());
    let late = || Error::new(ErrorKind::Timeout, format!("the cluster did not close within {limit:?}"));
    timeout(limit, manager.close(&cx)).await.unwrap_or_else(|_| Err(late())).map_err(|error| error.with_operation("close"))
}
