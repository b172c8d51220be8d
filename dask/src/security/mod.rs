//! The certificates of a cluster: given by the user ([`SecurityConfig`]), or made for it ([`Material`]).
//!
//! Whoever holds a certificate that the cluster's authority has signed may run anything there: Dask knows no other authentication. So each
//! cluster has an authority of its own.
//!
//! ```
//! use remuda_dask::security::{Material, Role, SecurityConfig};
//!
//! // For a cluster that we start: what its scheduler gets in its environment, and what we connect with.
//! let material = Material::temporary(30)?;
//! let environment = material.environment(Role::Scheduler);
//! assert!(environment["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"].starts_with("-----BEGIN CERTIFICATE-----"));
//!
//! // For one that is there: files or PEM text, by the names of Dask, of Dask Gateway, or short.
//! let config = SecurityConfig {
//!     tls_ca_file: Some(material.client.ca.clone()),
//!     tls_cert: Some(material.client.cert.clone()),
//!     tls_key: Some(material.client.key.clone()),
//! };
//! assert_eq!(config.resolve()?, material.client);
//! # Ok::<_, remuda_core::error::Error>(())
//! ```

mod config;
mod temporary;

use std::{collections::BTreeMap, fmt};

use remuda_core::security::Security;

pub use config::SecurityConfig;

/// Who holds a certificate.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The scheduler.
    Scheduler,
    /// Each worker and its nanny: they share one.
    Worker,
    /// Drivers.
    Client,
}

/// What all parties of one cluster need.
///
/// `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The scheduler's.
    pub scheduler: Security,
    /// The workers'.
    pub worker: Security,
    /// The driver's.
    pub client: Security,
}

impl Material {
    /// One certificate for everybody, as people have it who made theirs by hand.
    #[must_use]
    pub fn shared(security: Security) -> Self {
        Self { scheduler: security.clone(), worker: security.clone(), client: security }
    }

    /// The certificate of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> &Security {
        match role {
            Role::Scheduler => &self.scheduler,
            Role::Worker => &self.worker,
            Role::Client => &self.client,
        }
    }

    /// Dask's configuration for a process of that role, as environment: works in images that know nothing of us, and no file has to be put
    /// there. With it the process takes nothing but encrypted connections. **The values are secret.**
    ///
    /// A client inside such a process (`get_client()` in a task) has the process's own certificate.
    #[must_use]
    pub fn environment(&self, role: Role) -> BTreeMap<String, String> {
        let security = self.of(role);
        // One text may hold both.
        let key = if security.key.trim().is_empty() { &security.cert } else { &security.key };
        let mut environment = BTreeMap::from([
            ("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION".to_owned(), "True".to_owned()),
            ("DASK_DISTRIBUTED__COMM__TLS__CA_FILE".to_owned(), security.ca.clone()),
        ]);
        let own = match role {
            Role::Scheduler => Some("SCHEDULER"),
            Role::Worker => Some("WORKER"),
            Role::Client => None,
        };
        for name in own.into_iter().chain(["CLIENT"]) {
            environment.insert(format!("DASK_DISTRIBUTED__COMM__TLS__{name}__CERT"), security.cert.clone());
            environment.insert(format!("DASK_DISTRIBUTED__COMM__TLS__{name}__KEY"), key.clone());
        }
        environment
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}
