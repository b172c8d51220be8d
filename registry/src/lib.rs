//! From the name of a cluster class to a cluster manager.
//!
//! A [`Registry`] is a value, no global: the runner has one, a test makes its own. It knows classes by path (`crate::Type`), other
//! names for them, and asks resolvers for the paths that nobody registered. It does no I/O.
//!
//! ```
//! use remuda_core::{class::ClassRef, error::ErrorKind, kwargs::Kwargs};
//! use remuda_registry::Registry;
//!
//! let mut registry = Registry::with_builtins();
//! registry.register_fn("my::Cluster", |_: Kwargs| -> Result<Box<dyn remuda_core::manager::ClusterManager>, String> {
//!     Err("not today".into())
//! })?;
//! assert_eq!(registry.prepare(&"my::Cluster".into(), Kwargs::new())?.path(), "my::Cluster");
//!
//! let error = registry.resolve("my.Cluster").unwrap_err();
//! assert_eq!((error.kind(), error.hint()), (ErrorKind::UnknownClass, Some("write `my::Cluster`")));
//! # Ok::<(), remuda_core::error::Error>(())
//! ```

mod python;
mod unknown;

use std::{collections::BTreeMap, fmt, sync::Arc};

use remuda_core::{
    class::{ClassRef, ClusterClass, ClusterEntry, Factory, Recipe},
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
    ledger::{Collector, builtin_collectors},
};
use serde_json::Value;

type Resolver = dyn Fn(&str) -> Option<Result<Arc<dyn ClusterEntry>>> + Send + Sync;

/// Cluster classes by path.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<String, Arc<dyn ClusterEntry>>,
    aliases: BTreeMap<String, String>,
    resolvers: Vec<Box<Resolver>>,
    collectors: Vec<Arc<dyn Collector>>,
}

/// What is known about a class, for `remuda classes`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct ClassInfo {
    /// `crate::Type`: what users write.
    pub path: String,
    /// One line for people.
    pub summary: Option<String>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// JSON Schema of its kwargs. `None`: it checks them itself.
    pub schema: Option<Value>,
}

impl Registry {
    /// Knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows the classes this build has, and the names that Dask's and Prefect's configurations use.
    #[must_use]
    pub fn with_builtins() -> Self {
        let mut registry = Self { collectors: builtin_collectors(), ..Self::new() };
        #[cfg(feature = "local")]
        {
            registry.put(ClassRef::of::<remuda_local::LocalCluster>());
            registry.put(ClassRef::of::<remuda_local::DaskCluster>());
        }
        for (name, path) in python::ALIASES {
            registry.aliases.insert((*name).to_owned(), (*path).to_owned());
        }
        registry
    }

    /// Adds a class written in Rust, under its own path.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the path is taken.
    pub fn register<C: ClusterClass>(&mut self) -> Result<&mut Self> {
        self.insert(ClassRef::of::<C>())
    }

    /// Adds a factory: a sync or async closure from kwargs to a manager.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the path is taken.
    pub fn register_fn<Marker>(&mut self, path: &str, build: impl Factory<Marker>) -> Result<&mut Self> {
        self.insert(ClassRef::from_fn(path, build))
    }

    /// Another name for `path`, known here or not: an alias of a class that this build lacks says so.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when the name means something else already.
    pub fn alias(&mut self, name: &str, path: &str) -> Result<&mut Self> {
        if self.entries.contains_key(name) || self.aliases.get(name).is_some_and(|known| known != path) {
            return Err(taken(name));
        }
        self.aliases.insert(name.to_owned(), path.to_owned());
        Ok(self)
    }

    /// Asked in order for paths nobody registered: `None` where the path is not its own.
    pub fn add_resolver(&mut self, resolver: impl Fn(&str) -> Option<Result<Arc<dyn ClusterEntry>>> + Send + Sync + 'static) -> &mut Self {
        self.resolvers.push(Box::new(resolver));
        self
    }

    /// Adds one that removes what dead drivers of some class left behind.
    pub fn add_collector(&mut self, collector: impl Collector + 'static) -> &mut Self {
        self.collectors.push(Arc::new(collector));
        self
    }

    /// Those that know what the classes create: for [`remuda_core::ledger::sweep`].
    #[must_use]
    pub fn collectors(&self) -> &[Arc<dyn Collector>] {
        &self.collectors
    }

    /// Every class, by path.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassInfo> {
        self.entries.values().map(|entry| self.info(entry.as_ref())).collect()
    }

    /// What is known about one class, by path or alias.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn describe(&self, path: &str) -> Result<ClassInfo> {
        Ok(self.info(&*self.resolve(path)?))
    }

    /// The class of that path or alias.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownClass`] with what to write instead; whatever a resolver says.
    pub fn resolve(&self, path: &str) -> Result<Arc<dyn ClusterEntry>> {
        let target = self.aliases.get(path).map_or(path, String::as_str);
        if let Some(entry) = self.entries.get(target) {
            return Ok(entry.clone());
        }
        self.resolvers.iter().find_map(|resolve| resolve(target)).unwrap_or_else(|| Err(self.unknown(path, target)))
    }

    /// Looks the class up and checks the kwargs. No I/O.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`ErrorKind::ConfigInvalid`] with every mistake in the kwargs.
    pub fn prepare(&self, class: &ClassRef, kwargs: Kwargs) -> Result<Recipe> {
        match class {
            ClassRef::Entry(entry) => entry.prepare(kwargs),
            ClassRef::Path(path) => self.resolve(path)?.prepare(kwargs),
        }
    }

    fn insert(&mut self, class: ClassRef) -> Result<&mut Self> {
        let path = class.path();
        if self.entries.contains_key(path) || self.aliases.contains_key(path) {
            return Err(taken(path));
        }
        self.put(class);
        Ok(self)
    }

    fn put(&mut self, class: ClassRef) {
        if let ClassRef::Entry(entry) = class {
            self.entries.insert(entry.path().to_owned(), entry);
        }
    }

    fn info(&self, entry: &dyn ClusterEntry) -> ClassInfo {
        let path = entry.path().to_owned();
        let aliases = self.aliases.iter().filter(|(_, target)| **target == path).map(|(name, _)| name.clone()).collect();
        ClassInfo { summary: entry.summary(), schema: entry.schema(), aliases, path }
    }
}

fn taken(path: &str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, format!("the cluster class `{path}` is registered twice"))
        .with_hint("register it under another path, or once")
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("classes", &self.entries.keys()).field("aliases", &self.aliases).finish_non_exhaustive()
    }
}
