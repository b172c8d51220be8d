//! Configuration: where it comes from, what wins, what it comes to.
//!
//! File (`remuda.yaml` or `remuda.toml`, then the `runner` part of a flow file) < environment < flags < code, each with the same keys:
//! `cluster_class`, `cluster_kwargs`, `adapt_kwargs`, `client_kwargs`, `address`.
//!
//! A class with its kwargs and bounds, or an address, is a *mode*, one unit: a layer that names a class or an address replaces the mode
//! of the layers below whole. Kwargs without a class are merged, key by key, into the mode in force. An address beside a class, kwargs
//! or bounds in one layer is a mistake.
//!
//! ```
//! use std::collections::BTreeMap;
//! use remuda::config::{Layer, Mode, resolve};
//!
//! let env = BTreeMap::from([("REMUDA_CLUSTER_KWARGS".to_owned(), r#"{"n_workers": 2}"#.to_owned())]);
//! let [prefect, env] = Layer::from_environment(&env);
//! let config = resolve(vec![prefect, env, Layer::new().with("cluster_class", "local::LocalCluster")])?;
//! // The code named a class, so the kwargs of the environment do not count.
//! assert!(matches!(config.mode, Mode::Temporary { class, kwargs, .. } if class == "local::LocalCluster" && kwargs == Default::default()));
//! # Ok::<(), remuda_core::error::Error>(())
//! ```

mod address;
mod client;
mod document;
mod draft;
mod layer;
mod load;
mod merge;
mod mistakes;
mod prefect;
mod unread;
pub(crate) mod yaml;

use remuda_core::{adaptive::AdaptConfig, error::Error, kwargs::Kwargs};

pub use self::{
    address::Address,
    client::{ClientConfig, TaskHost},
    document::{At, Document, Format, KeyPath, Location, Step},
    layer::{Flags, Layer, Origin, Setting, parse_bounds},
    load::Loader,
    merge::resolve,
    mistakes::{Mistake, Mistakes},
};
pub(crate) use self::{
    client::{check_security, read_scheduler_file},
    draft::{Wrong, explain, together},
    layer::{split_assignment, type_name},
    load::read,
    mistakes::did_you_mean,
};

/// The class of runs that name none.
pub const DEFAULT_CLASS: &str = "local::LocalCluster";

/// Where a run gets its cluster from.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// One is made for the run, and closed after it.
    Temporary {
        /// Path of the class. Not looked up yet.
        class: String,
        /// Not checked yet: that is the class's business.
        kwargs: Kwargs,
        /// `Some`: it scales itself between bounds.
        adapt: Option<AdaptConfig>,
    },
    /// One that runs already.
    Existing {
        /// Of its scheduler.
        address: Address,
    },
}

/// The layers put together, checked as far as the keys themselves go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunConfig {
    /// Where the cluster comes from.
    pub mode: Mode,
    /// How to connect to a scheduler.
    pub client: ClientConfig,
    /// Every value that was said, the dropped ones too, lowest layer first.
    pub settings: Vec<Setting>,
    /// For standard error: what was read under an old name, what has no meaning here.
    pub notices: Vec<String>,
}

impl RunConfig {
    /// Where the value that counts for `key` (`cluster_class`, `cluster_kwargs.n_workers`) came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let live = self.settings.iter().rev().filter(|s| s.dropped.is_none());
        live.clone().find(|s| s.key.to_string() == key).or_else(|| live.clone().find(|s| s.root() == key)).map(|s| &s.origin)
    }

    /// The class's complaint about its kwargs, the client's about its own, with the place of each key.
    pub(crate) fn explain(&self, wrong: &[Wrong]) -> Error {
        draft::explain(&self.settings, Mistakes::default(), wrong)
    }

    /// One line for each value: what it is, where it came from, and, if it does not count, why.
    #[must_use]
    pub fn show(&self, origins: bool) -> String {
        merge::show(self, origins)
    }
}

#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;
