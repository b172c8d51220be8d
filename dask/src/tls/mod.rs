//! TLS as Dask does it: certificates on both sides, the chain is checked, the name is not.

mod explain;
mod pem;
mod verify;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use remuda_core::{
    error::{Error, Mistake, Result},
    security::Security,
};
use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
};
use tokio_rustls::TlsConnector;

pub(crate) use explain::{failed, not_encrypted};
pub(crate) use pem::{Names, check};

/// What Dask's own certificates are made out to. Any name would do.
const NAME: &str = "dask-internal";

/// Never the process's default: that belongs to the program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What has been made ready already, by who asked for it: read once, and later connections to the same place take up the session of
/// earlier ones, which spares both sides the certificates. Forgotten once nobody has the material any more.
static READY: Mutex<Vec<(Weak<Security>, TlsConnector)>> = Mutex::new(Vec::new());

/// Ready to encrypt connections.
pub(crate) fn connector(security: Option<&Arc<Security>>) -> Result<TlsConnector> {
    let Some(security) = security else {
        let hint =
            "give `security: {tls_ca_file: .., tls_cert: .., tls_key: ..}`: the cluster's authority, and a certificate that it has signed";
        return Err(Error::invalid(vec![Mistake::new("security", "a `tls://` address needs certificates").with_hint(hint)]));
    };
    let ready = || READY.lock().unwrap_or_else(PoisonError::into_inner);
    let known = {
        let mut ready = ready();
        ready.retain(|(material, _)| material.strong_count() > 0);
        // The allocation is not used again as long as the weak one is there.
        ready.iter().find(|(material, _)| material.as_ptr() == Arc::as_ptr(security)).map(|(_, connector)| connector.clone())
    };
    if let Some(connector) = known {
        return Ok(connector);
    }
    let config: ClientConfig = check(security, &Names::SHORT)?;
    let connector = TlsConnector::from(Arc::new(config));
    ready().push((Arc::downgrade(security), connector.clone()));
    Ok(connector)
}

/// What we say whom we want to talk to. Only a proxy listens to it.
pub(crate) fn server_name(host: &str) -> ServerName<'static> {
    let names = [host, NAME].into_iter().filter_map(|name| ServerName::try_from(name.to_owned()).ok());
    // The second is always one.
    names.take(1).next().unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}
