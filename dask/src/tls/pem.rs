//! From PEM text to something to connect with, or everything that is wrong with it.

use std::sync::Arc;

use remuda_core::{
    error::{Error, Mistake, Result},
    security::Security,
};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};

use super::{
    explain, provider,
    verify::{Chain, is_about_time, is_version_one},
};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";
const NO_X509: &str = "the certificate cannot be read: what the PEM text holds is no X.509";
const DAMAGED: &str = "copy it again, with its line breaks";
const UNREADABLE: &str = "`openssl x509 -in FILE -noout -text` shows what it holds";

/// What the user calls the three.
pub(crate) struct Names<'a> {
    pub(crate) ca: &'a str,
    pub(crate) cert: &'a str,
    pub(crate) key: &'a str,
}

impl Names<'static> {
    pub(crate) const SHORT: Self = Self { ca: "ca", cert: "cert", key: "key" };
}

/// The material, ready to connect with.
///
/// # Errors
/// [`ConfigInvalid`](remuda_core::error::ErrorKind::ConfigInvalid) with everything that is wrong. Shows nothing of a key.
pub(crate) fn check(security: &Security, names: &Names<'_>) -> Result<ClientConfig> {
    let mut mistakes = Vec::new();
    let anchors = noted(certificates(&security.ca, names.ca), &mut mistakes);
    let roots = anchors.as_deref().and_then(|anchors| noted(roots(anchors, names.ca), &mut mistakes));
    let cert = noted(certificates(&security.cert, names.cert), &mut mistakes);
    // An empty one means that the certificate's text holds both.
    let key = Some(&security.key).filter(|key| !key.trim().is_empty()).ok_or(&security.cert);
    let key = noted(private_key(key, names), &mut mistakes);
    if let Some(cert) = &cert
        && noted(usable(cert, roots.as_ref(), names.cert), &mut mistakes).is_some()
        && let Some(key) = &key
    {
        noted(belongs(cert, key, names), &mut mistakes);
    }
    let (Some(anchors), Some(roots), Some(cert), Some(key), true) = (anchors, roots, cert, key, mistakes.is_empty()) else {
        return Err(Error::invalid(mistakes));
    };
    build(anchors, roots, cert, key).map_err(|problem| mistake(names.cert, problem, UNREADABLE))
}

fn build(
    anchors: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    cert: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, String> {
    let verifier = Chain::new(roots, anchors).map_err(|error| error.to_string())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    builder.with_client_auth_cert(cert, key).map_err(|error| error.to_string())
}

fn noted<T>(found: Result<T>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    found.map_err(|error| mistakes.extend_from_slice(error.mistakes())).ok()
}

fn mistake(name: &str, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::invalid(vec![Mistake::new(name, problem).with_hint(hint)])
}

fn certificates(text: &str, name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |problem: &str, hint: &str| Err(mistake(name, problem, hint));
    let looks = format!("a certificate begins with `{CERTIFICATE}`");
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if text.trim().is_empty() => wrong("is empty", &looks),
        Ok(_) if text.contains("PRIVATE KEY-----") => wrong("this is a key, not a certificate", &looks),
        Ok(_) => wrong("no PEM certificate in it", &format!("{looks}; `openssl x509 -inform der -in FILE` makes it from DER")),
        Err(_) => wrong("the PEM text is damaged", DAMAGED),
    }
}

/// `given`: the key's own text, or that of the certificate.
fn private_key(given: Result<&String, &String>, names: &Names<'_>) -> Result<PrivateKeyDer<'static>> {
    let (Ok(text) | Err(text)) = given;
    let wrong = |problem: &str, hint: &str| Err(mistake(names.key, problem, hint));
    let looks = format!("a key begins with `{KEY}`, or has `EC` or `RSA` before `PRIVATE`");
    if text.contains("ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return wrong("the key is encrypted with a passphrase", "decrypt it: `openssl pkey -in FILE -out PLAIN`");
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Ok(key),
        Err(_) if text.contains("PRIVATE KEY-----") => wrong("the PEM text is damaged", DAMAGED),
        Err(_) if given.is_err() => wrong(&format!("is required: there is no key in `{}`", names.cert), &looks),
        Err(_) if text.contains(CERTIFICATE) => wrong("this is a certificate, not a key", &looks),
        Err(_) => wrong("no PEM key in it", &looks),
    }
}

fn roots(anchors: &[CertificateDer<'static>], name: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(anchor.clone()).map_err(|error| mistake(name, format!("a certificate cannot be read: {error}"), UNREADABLE))?;
    }
    Ok(Arc::new(roots))
}

/// Whether our own certificate is one that a peer can accept. Who signed it is for the peer to judge.
fn usable(cert: &[CertificateDer<'static>], roots: Option<&Arc<RootCertStore>>, name: &str) -> Result<()> {
    let Some((first, intermediates)) = cert.split_first() else { return Ok(()) };
    if is_version_one(first) {
        return Err(mistake(name, "the certificate is of X.509 version 1, which is not supported", explain::VERSION_ONE));
    }
    let Some(verifier) = roots.and_then(|roots| WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().ok()) else {
        return Ok(());
    };
    match verifier.verify_client_cert(first, intermediates, UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(problem)) if is_about_time(&problem) => {
            Err(mistake(name, format!("the certificate {}", explain::time(&problem)), "issue it again"))
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)) => Err(mistake(name, NO_X509, UNREADABLE)),
        _ => Ok(()),
    }
}

fn belongs(cert: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>, names: &Names<'_>) -> Result<()> {
    match CertifiedKey::from_der(cert.to_vec(), key.clone_key(), &provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let problem = format!("the key does not belong to the certificate in `{}`", names.cert);
            Err(mistake(names.key, problem, "take the two that were made together"))
        }
        Err(rustls::Error::InvalidCertificate(_)) => Err(mistake(names.cert, NO_X509, UNREADABLE)),
        // Says nothing of the key itself.
        Err(_) => {
            let hint = "supported are RSA of 2048 bits and more, P-256, P-384 and Ed25519";
            Err(mistake(names.key, "the key is damaged, or of a kind that is not supported", hint))
        }
    }
}
