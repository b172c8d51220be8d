//! A value that knows classes by path. No global, duplicates refused, unknown names answered with what exists.

use std::{collections::BTreeMap, fmt, sync::Arc};

use remuda_core::{
    class::{ClassRef, ClusterClass, ClusterEntry, Factory, Recipe},
    error::{Error, ErrorKind, Result},
    kwargs::{Kwargs, nearest},
};

type Resolver = dyn Fn(&str) -> Option<Result<Arc<dyn ClusterEntry>>> + Send + Sync;

#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<String, Arc<dyn ClusterEntry>>,
    aliases: BTreeMap<String, String>,
    resolvers: Vec<Box<Resolver>>,
}

impl Registry {
    pub fn with_builtins() -> Self { Self::default() }
    pub fn new() -> Self {
        Self::default()
    }

    pub fn register<C: ClusterClass>(&mut self) -> Result<&mut Self> {
        self.insert(ClassRef::of::<C>())
    }

    pub fn register_fn<Marker>(&mut self, path: &str, build: impl Factory<Marker>) -> Result<&mut Self> {
        self.insert(ClassRef::from_fn(path, build))
    }

    /// Another name for `path`, known here or not: an alias of a class that this build lacks says so.
    pub fn alias(&mut self, name: &str, path: &str) -> &mut Self {
        self.aliases.insert(name.to_owned(), path.to_owned());
        self
    }

    /// Asked in order for paths nobody registered: plugins (`./lib.so::Type`), dotted Python paths.
    pub fn add_resolver(&mut self, resolver: impl Fn(&str) -> Option<Result<Arc<dyn ClusterEntry>>> + Send + Sync + 'static) -> &mut Self {
        self.resolvers.push(Box::new(resolver));
        self
    }

    fn insert(&mut self, class: ClassRef) -> Result<&mut Self> {
        let ClassRef::Entry(entry) = class else { unreachable!("of and from_fn make entries") };
        let path = entry.path().to_owned();
        if self.entries.contains_key(&path) {
            return Err(Error::new(ErrorKind::ConfigInvalid, format!("the class `{path}` is registered twice")));
        }
        self.entries.insert(path, entry);
        Ok(self)
    }

    pub fn prepare(&self, class: &ClassRef, kwargs: Kwargs) -> Result<Recipe> {
        match class {
            ClassRef::Entry(entry) => entry.prepare(kwargs),
            ClassRef::Path(path) => self.resolve(path)?.prepare(kwargs),
        }
    }

    pub fn resolve(&self, path: &str) -> Result<Arc<dyn ClusterEntry>> {
        let target = self.aliases.get(path).map_or(path, String::as_str);
        if let Some(entry) = self.entries.get(target) {
            return Ok(entry.clone());
        }
        self.resolvers.iter().find_map(|resolve| resolve(target)).unwrap_or_else(|| Err(self.unknown(path, target)))
    }

    fn unknown(&self, path: &str, target: &str) -> Error {
        let error = Error::new(ErrorKind::UnknownClass, format!("no cluster class is called `{path}`"));
        if target != path {
            return error.with_hint(format!("it means `{target}`, which this build does not have"));
        }
        let known = || self.entries.keys().map(String::as_str);
        let name = path.rsplit(['.', ':']).next().unwrap_or(path);
        let same_type = known().find(|k| k.rsplit("::").next().is_some_and(|t| t.eq_ignore_ascii_case(name)));
        error.with_hint(match same_type {
            Some(right) => format!("write `{right}`"),
            None => format!("known are {}{:?}", known().collect::<Vec<_>>().join(", "), nearest(path, known())),
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("classes", &self.entries.keys()).field("aliases", &self.aliases).finish_non_exhaustive()
    }
}
