//! The settings of a runner, from code or from a configuration.

use std::{path::PathBuf, sync::Arc};

use remuda_core::{
    adaptive::AdaptConfig,
    class::ClassRef,
    cluster::ClusterOptions,
    error::{Error, ErrorKind, Result},
    kwargs::Kwargs,
};
use remuda_registry::Registry;
use tokio::sync::Mutex;

use crate::{
    config::{self, Address, ClientConfig, DEFAULT_CLASS, Loader, RunConfig},
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
        let config = Loader::from_process().load()?;
        for notice in &config.notices {
            tracing::warn!("{notice}");
        }
        Self::from_config(&config)
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
        Self::from_config(&Loader::new().file(path).load()?)
    }

    /// As the environment says (`REMUDA_CLUSTER_CLASS`, `REMUDA_CLUSTER_KWARGS`, `REMUDA_ADDRESS`), and nothing else.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_env() -> Result<Self> {
        Self::from_config(&Loader::new().process_env().load()?)
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
    pub fn config(mut self, config: &RunConfig) -> Self {
        (self.class, self.kwargs, self.address) = match &config.mode {
            config::Mode::Temporary { class, kwargs, .. } => (Some(class.as_str().into()), kwargs.clone(), None),
            config::Mode::Existing { address } => (None, Kwargs::new(), Some(address.to_string())),
        };
        self.adapt = None;
        self.adapting = match &config.mode {
            config::Mode::Temporary { adapt, .. } => adapt.clone(),
            config::Mode::Existing { .. } => None,
        };
        self.client = Client::Parsed(Box::new(config.client.clone()));
        self.config = Some(config.clone());
        self
    }

    /// The runner. Everything that can be checked without creating anything is checked here.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownClass`]; [`ErrorKind::ConfigInvalid`] with every mistake in the keyword arguments, or a class or
    /// adaptive scaling beside an address.
    pub fn build(mut self) -> Result<TaskRunner> {
        match self.config.take() {
            Some(config) => self.checked().map_err(|error| config.explain(&error)),
            None => self.checked(),
        }
    }

    fn checked(self) -> Result<TaskRunner> {
        self.check_mode()?;
        let adapt = match self.adapt {
            Some(kwargs) => Some(AdaptConfig::parse(kwargs).map_err(|error| error.under("adapt_kwargs"))?),
            None => self.adapting,
        };
        let client = match self.client {
            Client::Kwargs(kwargs) => ClientConfig::parse(kwargs).map_err(|error| error.under("client_kwargs"))?,
            Client::Parsed(client) => *client,
        };
        let security = client.certificates().map_err(|error| error.under("client_kwargs"))?;
        // A configuration has read it by now.
        let file = if self.address.is_none() && self.class.is_none() { client.scheduler_file.as_deref() } else { None };
        let address = match (&self.address, file) {
            (Some(address), _) => Some(Address::parse(address).map_err(|text| format!("address: {text}"))),
            (None, Some(file)) => Some(config::read_scheduler_file(file).map_err(|text| format!("client_kwargs.scheduler_file: {text}"))),
            (None, None) => None,
        };
        let mode = match address {
            Some(address) => {
                let address = address.map_err(|text| Error::new(ErrorKind::ConfigInvalid, text))?;
                config::check_security(&address, &client)?;
                Mode::Existing { address, security: security.clone() }
            }
            None => Mode::Temporary { class: self.class.unwrap_or_else(|| DEFAULT_CLASS.into()), kwargs: self.kwargs },
        };
        let registry = self.registry.unwrap_or_else(Registry::with_builtins);
        let (mut options, scope) = (self.options, self.scope);
        options.adapt = adapt.or(options.adapt);
        options.connect = connect::with_dask(options.connect, &client, security, matches!(mode, Mode::Temporary { .. }));
        let runner = TaskRunner(Arc::new(Inner { mode, registry, options, scope, shared: Mutex::default() }));
        runner.recipe()?; // made again for each run; here for its complaints
        Ok(runner)
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
