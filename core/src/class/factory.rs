//! Classes that are closures.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc};

use serde_json::Value;
use tokio::{runtime::Handle, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{BoxFuture, ClusterEntry, Made, Recipe};
use crate::{
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
    manager::ClusterManager,
};

/// A closure that makes managers: `Fn(Kwargs) -> Result<M, E>` or `AsyncFn(Kwargs) -> Result<M, E>`, where `M` is a manager or a
/// boxed one and `E` any error. `Marker` only tells the sync form from the async one.
///
/// It runs on a blocking thread of the keeper's runtime: it may block, its future need not be `Send`, and may borrow what the
/// closure captured (`async move |kwargs| ..` implements `AsyncFn`, not `Fn`, as soon as it captures). When the start is given up an
/// async one is dropped at its next await; one that blocks goes on, and a manager it returns is closed at once.
pub trait Factory<Marker>: Send + Sync + 'static {
    /// Calls it and waits for the answer, or until `abandoned`.
    ///
    /// # Errors
    /// The closure's own: an [`Error`] as it is, any other as the source of one.
    fn build(&self, kwargs: Kwargs, runtime: &Handle, abandoned: &CancellationToken) -> Result<Box<dyn ClusterManager>>;
}

impl<F, M, E> Factory<fn(M, E)> for F
where
    F: Fn(Kwargs) -> Result<M, E> + Send + Sync + 'static,
    M: Into<Box<dyn ClusterManager>>,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    fn build(&self, kwargs: Kwargs, _runtime: &Handle, _abandoned: &CancellationToken) -> Result<Box<dyn ClusterManager>> {
        self(kwargs).map(Into::into).map_err(foreign)
    }
}

impl<F, M, E> Factory<(M, E)> for F
where
    F: AsyncFn(Kwargs) -> Result<M, E> + Send + Sync + 'static,
    M: Into<Box<dyn ClusterManager>>,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    fn build(&self, kwargs: Kwargs, runtime: &Handle, abandoned: &CancellationToken) -> Result<Box<dyn ClusterManager>> {
        let made = runtime.block_on(abandoned.run_until_cancelled(self(kwargs)));
        made.ok_or_else(self::abandoned)?.map(Into::into).map_err(foreign)
    }
}

pub(super) fn abandoned() -> Error {
    Error::new(ErrorKind::Cancelled, "the cluster was given up before its manager was made")
}

/// A factory's own `Error` stays as it is, also inside an `anyhow::Error`; anything else becomes the source of one.
fn foreign<E: Into<Box<dyn StdError + Send + Sync>> + 'static>(error: E) -> Error {
    let error: Box<dyn Any> = Box::new(error);
    let source = match error.downcast::<anyhow::Error>().map(|error| error.downcast::<Error>()) {
        Ok(Ok(ours)) => return ours,
        Ok(Err(other)) => other.into(),
        Err(error) => (*error.downcast::<E>().expect("it was one")).into(),
    };
    match source.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => Error::new(ErrorKind::Unexpected, "the cluster factory failed").with_source(other),
    }
}

type Build = dyn Fn(Kwargs, &Handle, &CancellationToken) -> Made + Send + Sync;

struct FnEntry {
    path: String,
    build: Arc<Build>,
}

pub(super) fn entry<Marker>(path: String, build: impl Factory<Marker>) -> Arc<dyn ClusterEntry> {
    let build = move |kwargs, runtime: &Handle, abandoned: &CancellationToken| build.build(kwargs, runtime, abandoned);
    Arc::new(FnEntry { path, build: Arc::new(build) })
}

impl fmt::Debug for FnEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FnEntry").field(&self.path).finish()
    }
}

impl ClusterEntry for FnEntry {
    fn path(&self) -> &str {
        &self.path
    }

    fn schema(&self) -> Option<Value> {
        None
    }

    fn prepare(&self, kwargs: Kwargs) -> Result<Recipe> {
        let (build, path) = (self.build.clone(), self.path.clone());
        let make = move |abandoned: CancellationToken| -> BoxFuture<Made> {
            Box::pin(async move {
                let runtime = Handle::current();
                let made = spawn_blocking(move || build(kwargs, &runtime, &abandoned)).await;
                made.unwrap_or_else(|error| Err(Error::from_join("the cluster factory", error))).map_err(|e| e.with_context("class", path))
            })
        };
        Ok(Recipe { path: self.path.clone(), make: Box::new(make) })
    }
}
