//! What one party shows to the others, and by what it knows them: certificates as text, no TLS.

use std::fmt;

/// The certificate authority of a cluster, and one party's certificate and key, as PEM text.
///
/// ```
/// use remuda_core::security::Security;
///
/// let security = Security { ca: "-----BEGIN CERTIFICATE-----..".into(), cert: "..".into(), key: "secret".into() };
/// assert!(!format!("{security:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Security {
    /// Whose signature the other side's certificate must carry.
    pub ca: String,
    /// Our certificate; intermediate ones may follow.
    pub cert: String,
    /// Its private key. May be the same text as `cert`, where a file holds both.
    pub key: String,
}

/// Without the key, and without the length of it.
impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").finish_non_exhaustive()
    }
}
