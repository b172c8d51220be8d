//! Recipes for clusters: classes written in Rust, closures, and whatever a resolver knows (plugins, dotted paths).
//!
//! A [`ClassRef`] is what `.cluster(..)` takes: a path, a class, a typed configuration or a factory. With kwargs it becomes a
//! [`Recipe`] (all checks that need no I/O), and the keeper makes the manager from that.
//!
//! ```
//! use remuda_core::{class::ClassRef, error::Result, kwargs::Kwargs, manager::ClusterManager};
//! # fn connect(_: &str, _: Kwargs) -> Result<Box<dyn ClusterManager>> { unimplemented!() }
//!
//! let by_path = ClassRef::from("local::LocalCluster");
//! let account = String::from("me");
//! let sync = ClassRef::from_fn("my::Sync", { let account = account.clone(); move |kwargs: Kwargs| connect(&account, kwargs) });
//! let asynchronous = ClassRef::from_fn("my::Async", async move |kwargs: Kwargs| {
//!     tokio::task::yield_now().await; // ask some service
//!     connect(&account, kwargs)
//! });
//! assert_eq!((by_path.path(), sync.path(), asynchronous.path()), ("local::LocalCluster", "my::Sync", "my::Async"));
//! ```

mod factory;

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use self::factory::Factory;
use crate::{
    error::{Error, ErrorKind, Result},
    kwargs::{Kwargs, schema_of},
    manager::ClusterManager,
};

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A class written in Rust: its path, its typed kwargs, its constructor without I/O.
pub trait ClusterClass: ClusterManager + Sized {
    /// `crate::Type`: what users write.
    const PATH: &'static str;

    /// Its kwargs.
    type Config: ClusterConfig<Class = Self>;

    /// Makes the manager and nothing else: no I/O, no waiting. What no schema can say (two kwargs that contradict each other) is
    /// checked here.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`]; use [`Error::invalid`] to name every key.
    fn from_config(config: Self::Config) -> Result<Self>;
}

/// The kwargs of a class as a struct, which names its class: `runner.cluster(LocalConfig { .. })`.
///
/// All fields public, `Default` where nothing is required, not `non_exhaustive`: users write `..Default::default()`.
pub trait ClusterConfig: DeserializeOwned + JsonSchema + fmt::Debug + Clone + Send + 'static {
    /// The class it configures.
    type Class: ClusterClass<Config = Self>;
}

/// A cluster to be made: all checks that need no I/O are behind us. The keeper makes the manager from it, under the start deadline.
pub struct Recipe {
    path: String,
    make: Make,
}

type Made = Result<Box<dyn ClusterManager>>;
type Make = Box<dyn FnOnce(CancellationToken) -> BoxFuture<Made> + Send>;

impl Recipe {
    /// `make` is polled on the keeper's runtime, once; when the start is given up its future is dropped.
    pub fn new<Fut>(path: impl Into<String>, make: impl FnOnce() -> Fut + Send + 'static) -> Self
    where
        Fut: Future<Output = Made> + Send + 'static,
    {
        let make = move |abandoned: CancellationToken| -> BoxFuture<Made> {
            Box::pin(async move { abandoned.run_until_cancelled(make()).await.unwrap_or_else(|| Err(factory::abandoned())) })
        };
        Self { path: path.into(), make: Box::new(make) }
    }

    /// The path of the class.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Goes on until there is an answer, also after `abandoned`: a factory that blocks cannot be dropped, and a manager it makes
    /// too late must be closed by the caller.
    pub(crate) async fn make(self, abandoned: CancellationToken) -> Result<Arc<dyn ClusterManager>> {
        (self.make)(abandoned).await.map(Arc::from)
    }
}

impl<M: ClusterManager> From<M> for Recipe {
    fn from(manager: M) -> Self {
        Self::new(manager.info().class, move || async move { Ok(manager.into()) })
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipe").field(&self.path).finish()
    }
}

/// What the registry stores: a class by path.
pub trait ClusterEntry: fmt::Debug + Send + Sync {
    /// `crate::Type`.
    fn path(&self) -> &str;

    /// JSON Schema of the kwargs. `None`: the class checks them itself, when it is made.
    fn schema(&self) -> Option<Value>;

    /// One line for people.
    fn summary(&self) -> Option<String> {
        let schema = self.schema()?;
        schema["description"].as_str()?.lines().next().map(|line| line.trim().to_owned())
    }

    /// Checks the kwargs. No I/O: whatever must wait (a factory) does so inside the recipe.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] with every mistake.
    fn prepare(&self, kwargs: Kwargs) -> Result<Recipe>;
}

/// A class by path, or the thing itself. What `.cluster(..)` takes.
#[derive(Debug, Clone)]
pub enum ClassRef {
    /// To be looked up in a registry.
    Path(String),
    /// Known already.
    Entry(Arc<dyn ClusterEntry>),
}

impl ClassRef {
    /// A class written in Rust, by type.
    #[must_use]
    pub fn of<C: ClusterClass>() -> Self {
        Self::Entry(Arc::new(ClassEntry::<C>(PhantomData)))
    }

    /// `build`: a sync or async closure from [`Kwargs`] to a manager, or to a boxed one, with any error. See [`Factory`].
    pub fn from_fn<Marker>(path: impl Into<String>, build: impl Factory<Marker>) -> Self {
        Self::Entry(factory::entry(path.into(), build))
    }

    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Entry(entry) => entry.path(),
        }
    }
}

impl From<&str> for ClassRef {
    fn from(path: &str) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<String> for ClassRef {
    fn from(path: String) -> Self {
        Self::Path(path)
    }
}

impl From<Arc<dyn ClusterEntry>> for ClassRef {
    fn from(entry: Arc<dyn ClusterEntry>) -> Self {
        Self::Entry(entry)
    }
}

/// A typed configuration is a class reference, too: `runner.cluster(LocalConfig { .. })`. In this crate, because the blanket
/// impl is only coherent next to the trait. Reusable: every run makes its own cluster from a clone.
impl<C: ClusterConfig> From<C> for ClassRef {
    fn from(config: C) -> Self {
        Self::Entry(Arc::new(ConfigEntry(Mutex::new(config))))
    }
}

struct ClassEntry<C>(PhantomData<fn() -> C>);

impl<C: ClusterClass> fmt::Debug for ClassEntry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClassEntry").field(&C::PATH).finish()
    }
}

impl<C: ClusterClass> ClusterEntry for ClassEntry<C> {
    fn path(&self) -> &str {
        C::PATH
    }

    fn schema(&self) -> Option<Value> {
        Some(schema_of::<C::Config>())
    }

    fn prepare(&self, kwargs: Kwargs) -> Result<Recipe> {
        let manager = kwargs.parse_into(C::from_config);
        manager.map(Into::into).map_err(|error| error.with_context("class", C::PATH))
    }
}

struct ConfigEntry<C>(Mutex<C>);

impl<C: ClusterConfig> fmt::Debug for ConfigEntry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConfigEntry").field(&C::Class::PATH).finish()
    }
}

impl<C: ClusterConfig> ClusterEntry for ConfigEntry<C> {
    fn path(&self) -> &str {
        C::Class::PATH
    }

    fn schema(&self) -> Option<Value> {
        Some(schema_of::<C>())
    }

    fn prepare(&self, kwargs: Kwargs) -> Result<Recipe> {
        if !kwargs.is_empty() {
            let error = Error::new(ErrorKind::ConfigInvalid, "cluster_kwargs beside a typed configuration");
            return Err(error.with_context("class", C::Class::PATH).with_hint("set the fields of the configuration instead"));
        }
        let config = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        C::Class::from_config(config).map(Into::into).map_err(|error| error.with_context("class", C::Class::PATH))
    }
}
