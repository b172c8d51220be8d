//! Whether a peer is one of ours.

use std::{error::Error as StdError, fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::provider;

/// A certificate of X.509 version 1: `openssl x509 -req` makes them when it is given no extensions. Python takes them, webpki does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionOne;

impl fmt::Display for VersionOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is of X.509 version 1")
    }
}

impl StdError for VersionOne {}

/// The chain must lead to our authority; names are not looked at, as in Dask: workers have any address, and the authority signs for one
/// cluster alone.
#[derive(Debug)]
pub(super) struct Chain {
    inner: Arc<WebPkiServerVerifier>,
    /// The authority's own certificates.
    anchors: Vec<CertificateDer<'static>>,
}

impl Chain {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        anchors: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        Ok(Self { inner: WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?, anchors })
    }
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if is_version_one(end_entity) {
            return Err(CertificateError::Other(OtherError(Arc::new(VersionOne))).into());
        }
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(problem)) => match problem {
                // The last thing that is looked at: the chain is good.
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Ok(ServerCertVerified::assertion()),
                expired if is_about_time(&expired) => Err(expired.into()),
                // One certificate for everything (`openssl req -x509`): an authority is no server to webpki, but this very one was given
                // to us as trusted.
                _ if self.anchors.iter().any(|anchor| anchor == end_entity) => Ok(ServerCertVerified::assertion()),
                other => Err(other.into()),
            },
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

pub(super) fn is_about_time(problem: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(problem, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// Whether the field `version` is absent: it is the first of a `TBSCertificate`, tagged 0, and its default is version 1.
pub(super) fn is_version_one(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let inner = |der: &[u8]| -> Option<Vec<u8>> {
        let (&[SEQUENCE, length], rest) = der.split_first_chunk()? else { return None };
        // A long length says how many bytes it has.
        let skip = if length < 0x80 { 0 } else { usize::from(length & 0x7f) };
        rest.get(skip..).map(<[u8]>::to_vec)
    };
    let first = inner(der).and_then(|certificate| inner(&certificate)).and_then(|fields| fields.first().copied());
    first.is_some_and(|tag| tag != VERSION)
}
