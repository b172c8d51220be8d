//! The settings of a runner, from code or from a configuration.

use std::{path::PathBuf, sync::Arc};

use remuda_core::{
    adaptive::AdaptConfig,
    class::ClassRef,
    cluster::ClusterOptions,
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
    manager::ClusterManager,
};
use remuda_registry::Registry;
use tokio::sync::Mutex;

use crate::{
    config::{self, Address, ClientConfig, DEFAULT_CLASS, Loader, RunConfig, Wrong},
    connect,
    runner::{Inner, Mode, Scope, TaskRunner},
};

/// How to connect, as it was given.
#[derive(Debug)]
enum Client {
    Kwargs(Kwargs),
    Parsed(Box<ClientConfig>),
}

/// Settings of a [`TaskRunner`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    class: Option<ClassRef>,
    kwargs: Kwargs,
    adapt: Option<Kwargs>,
    /// What a configuration says about it.
    adapting: Option<AdaptConfig>,
    address: Option<String>,
    client: Client,
    registry: Option<Registry>,
    options: ClusterOptions,
    scope: Scope,
    /// For the places of what is wrong.
    config: Option<RunConfig>,
}

impl TaskRunner {
    /// Settings to choose.
    pub fn builder() -> Builder {
        Builder {
            class: None,
            kwargs: Kwargs::new(),
            adapt: None,
            adapting: None,
            address: None,
            client: Client::Kwargs(Kwargs::new()),
            registry: None,
            options: ClusterOptions::default(),
            scope: Scope::default(),
            config: None,
        }
    }

    /// As the configuration says: `remuda.yaml` or `remuda.toml` in the working directory, then the environment (`REMUDA_CLUSTER_CLASS`
    /// and so on), which wins. Neither: a `local::LocalCluster` with its defaults.
    ///
    /// # Errors
    /// Every mistake in the configuration, at once, each with its place.
    pub fn load() -> Result<Self> {
        let (runner, config) = Self::builder().load(Loader::from_process())?;
        for notice in &config.notices {
            tracing::warn!("{notice}");
        }
        Ok(runner)
    }

    /// As a file says, `remuda.yaml` or `remuda.toml` by form, and nothing else.
    ///
    /// ```no_run
    /// let runner = remuda::TaskRunner::from_file("clusters/large.yaml")?;
    /// # Ok::<(), remuda::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::builder().load(Loader::new().file(path))?.0)
    }

    /// As the environment says (`REMUDA_CLUSTER_CLASS`, `REMUDA_CLUSTER_KWARGS`, `REMUDA_ADDRESS`), and nothing else.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_env() -> Result<Self> {
        Ok(Self::builder().load(Loader::new().process_env())?.0)
    }

    /// As a configuration says that was put together by hand: see [`Loader`].
    ///
    /// # Errors
    /// What this build cannot do; the class's complaints about its kwargs, with the place of each key.
    pub fn from_config(config: &RunConfig) -> Result<Self> {
        Self::builder().config(config).build()
    }
}

impl Builder {
    /// The cluster class: a path (`"local::LocalCluster"`), a typed configuration (`LocalConfig { .. }`), [`ClassRef::of`] a type, or
    /// [`ClassRef::from_fn`] a factory. Default: `local::LocalCluster`.
    pub fn cluster(mut self, class: impl Into<ClassRef>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Keyword arguments of the class, where it was given by path, by type or as a factory.
    pub fn cluster_kwargs(mut self, kwargs: impl Into<Kwargs>) -> Self {
        self.kwargs = kwargs.into();
        self
    }

    /// Lets the number of workers follow the work between bounds: see [`AdaptConfig`] for the names. `{}` means on, with defaults.
    /// `n_workers` is then only the number to begin with, as far as the bounds allow; without it, it begins with the minimum.
    pub fn adapt_kwargs(mut self, kwargs: impl Into<Kwargs>) -> Self {
        self.adapt = Some(kwargs.into());
        self
    }

    /// An existing cluster instead of a temporary one: `tcp://host:port` or `tls://host:port`. Nothing of it is changed, scaled or closed.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How to connect to a scheduler elsewhere: see [`ClientConfig`] for the names.
    pub fn client_kwargs(mut self, kwargs: impl Into<Kwargs>) -> Self {
        self.client = Client::Kwargs(kwargs.into());
        self
    }

    /// The classes that paths may name. Default: [`Registry::with_builtins`].
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// How long a cluster lives. Default: [`Scope::Run`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Deadlines and other settings of the cluster's keeper.
    pub fn options(mut self, options: ClusterOptions) -> Self {
        self.options = options;
        self
    }

    /// The mode of a configuration, in place of what was said before. [`build`](Self::build) then tells where each value was set.
    pub fn config(self, config: &RunConfig) -> Self {
        let mut builder = self.mode(&config.mode);
        builder.client = Client::Parsed(Box::new(config.client.clone()));
        builder.config = Some(config.clone());
        builder
    }

    fn mode(mut self, mode: &config::Mode) -> Self {
        (self.class, self.kwargs, self.address, self.adapting) = match mode {
            config::Mode::Temporary { class, kwargs, adapt } => (Some(class.as_str().into()), kwargs.clone(), None, adapt.clone()),
            config::Mode::Existing { address } => (None, Kwargs::new(), Some(address.to_string()), None),
        };
        self.adapt = None;
        self
    }

    /// The runner for a configuration, in place of what was said before of class, address and their keywords; and the configuration.
    ///
    /// ```no_run
    /// use remuda::{Registry, TaskRunner, config::Loader};
    ///
    /// let registry = Registry::with_builtins(); // and classes of your own
    /// let (runner, config) = TaskRunner::builder().registry(registry).load(Loader::from_process())?;
    /// # Ok::<(), remuda::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every mistake in the configuration, the class's complaints about its keywords among them, at once, each with its place.
    pub fn load(self, loader: Loader) -> Result<(TaskRunner, RunConfig)> {
        let draft = loader.draft();
        let mut builder = match &draft.mode {
            Some(mode) => self.mode(mode),
            None => Self { adapt: None, adapting: None, address: None, kwargs: Kwargs::new(), ..self }.cluster(unknown()),
        };
        builder.client = Client::Parsed(Box::new(draft.client.clone()));
        match builder.checked() {
            Ok(runner) => Ok((runner, draft.whole()?)),
            Err(wrong) => Err(config::explain(&draft.settings, draft.mistakes, &wrong)),
        }
    }

    /// The runner. Everything that can be checked without creating anything is checked here.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownClass`]; [`ErrorKind::ConfigInvalid`] with every mistake in the keyword arguments, or a class or
    /// adaptive scaling beside an address.
    pub fn build(mut self) -> Result<TaskRunner> {
        match self.config.take() {
            Some(config) => self.checked().map_err(|wrong| config.explain(&wrong)),
            None => self.checked().map_err(config::together),
        }
    }

    fn checked(self) -> Result<TaskRunner, Vec<Wrong>> {
        let mut wrong = Vec::new();
        note(&mut wrong, "", self.check_mode());
        let adapt = match self.adapt {
            Some(kwargs) => note(&mut wrong, "adapt_kwargs", AdaptConfig::parse(kwargs)),
            None => self.adapting,
        };
        let client = match self.client {
            Client::Kwargs(kwargs) => note(&mut wrong, "client_kwargs", ClientConfig::parse(kwargs)),
            Client::Parsed(client) => Some(*client),
        };
        let security = client.as_ref().and_then(|client| note(&mut wrong, "client_kwargs", client.certificates())).flatten();
        // A configuration has read it by now.
        let classed = self.class.is_some();
        let file = client.as_ref().filter(|_| self.address.is_none() && !classed).and_then(|client| client.scheduler_file.as_deref());
        let address = match (&self.address, file) {
            (Some(address), _) => Some(Address::parse(address).map_err(|text| format!("address: {text}"))),
            (None, Some(file)) => Some(config::read_scheduler_file(file).map_err(|text| format!("client_kwargs.scheduler_file: {text}"))),
            (None, None) => None,
        };
        let registry = self.registry.unwrap_or_else(Registry::with_builtins);
        let (class, kwargs) = (self.class.unwrap_or_else(|| DEFAULT_CLASS.into()), self.kwargs);
        if classed || address.is_none() {
            // Made again for each run; here for its complaints.
            match registry.prepare(&class, kwargs.clone()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::UnknownClass => wrong.push(("cluster_class", error)),
                Err(error) => wrong.push(("cluster_kwargs", error)),
            }
        }
        let mode = match address {
            Some(address) => {
                let address = note(&mut wrong, "", address.map_err(|text| Error::new(ErrorKind::ConfigInvalid, text)));
                if let (Some(address), Some(client)) = (&address, &client) {
                    note(&mut wrong, "", config::check_security(address, client));
                }
                address.map(|address| Mode::Existing { address, security: security.clone() })
            }
            None => Some(Mode::Temporary { class, kwargs }),
        };
        let (mut options, scope) = (self.options, self.scope);
        options.adapt = adapt.or(options.adapt);
        match (mode, client, wrong) {
            (Some(mode), Some(client), nothing) if nothing.is_empty() => {
                options.connect = connect::with_dask(options.connect, &client, security, matches!(mode, Mode::Temporary { .. }));
                Ok(TaskRunner(Arc::new(Inner { mode, registry, options, scope, shared: Mutex::default() })))
            }
            (_, _, wrong) => Err(wrong),
        }
    }

    fn check_mode(&self) -> Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let class = self.class.as_ref().map(|class| format!("`cluster_class` ({class:?})"));
        let kwargs = (self.kwargs != Kwargs::new()).then(|| "`cluster_kwargs`".to_owned());
        let adapts = self.adapt.is_some() || self.options.adapt.is_some();
        let adapt = adapts.then(|| "`adapt_kwargs`".to_owned());
        let beside: Vec<_> = [class, kwargs, adapt].into_iter().flatten().collect();
        if beside.is_empty() {
            return Ok(());
        }
        let text = format!("{} beside `address` ({address}): a run has one cluster, made for it or there already", beside.join(", "));
        Err(Error::new(ErrorKind::ConfigInvalid, text).with_hint("leave out the one or the other"))
    }
}

/// What is right; and what is not is kept.
fn note<T>(wrong: &mut Vec<Wrong>, root: &'static str, result: Result<T>) -> Option<T> {
    result.map_err(|error| wrong.push((root, error))).ok()
}

/// Stands where nobody knows which class is meant, and finds nothing wrong with any keyword.
fn unknown() -> ClassRef {
    ClassRef::from_fn("unknown", |_: Kwargs| -> Result<Box<dyn ClusterManager>> {
        Err(Error::new(ErrorKind::ConfigInvalid, "which cluster class is meant is not known"))
    })
}
