//! What a failure of TLS means, and what to do about it.

use std::io;

use remuda_core::error::{Error, ErrorKind};
use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::verify::{VersionOne, is_about_time};
use crate::{Address, Scheme};

pub(super) const VERSION_ONE: &str =
    "issue it as version 3: give `openssl x509 -req` an `-extfile` with `subjectAltName = DNS:dask-internal`";
const OURS: &str = "`cert` must be signed by the authority that the scheduler was given (`tls_ca_file`)";

/// As [`failed`], before the connection is encrypted.
pub(crate) fn not_encrypted(error: io::Error, address: &Address) -> Error {
    let has_hung_up = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    if !has_hung_up {
        return failed(error, address);
    }
    Error::new(ErrorKind::Unavailable, "the peer closed the connection within the TLS handshake")
        .with_hint("is this the scheduler's port, and does the scheduler speak TLS? its logs may say more")
        .with_source(error)
}

/// A connection that failed within TLS, or under it.
pub(crate) fn failed(error: io::Error, address: &Address) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>()).cloned();
    let told = |kind, message: &str, hint: &str| Error::new(kind, message).with_hint(hint);
    let wrong = |message: &str, hint: &str| told(ErrorKind::ConfigInvalid, message, hint);
    let explained = match cause {
        Some(TlsError::InvalidCertificate(problem)) => certificate(&problem),
        Some(TlsError::AlertReceived(alert)) => refused(alert),
        Some(TlsError::InvalidMessage(_)) => {
            let plain = address.clone().with_scheme(Scheme::Tcp);
            wrong("the peer does not speak TLS", &format!("did you mean `{plain}`?"))
        }
        Some(TlsError::PeerIncompatible(_)) => wrong("no TLS version or cipher in common with the peer", "TLS 1.2 or 1.3 is needed"),
        Some(_) => told(ErrorKind::Unexpected, "TLS failed", "the peer's logs may say more"),
        None => Error::new(ErrorKind::Unavailable, "the connection is lost"),
    };
    explained.with_source(error)
}

/// What is wrong with the peer's certificate.
fn certificate(problem: &CertificateError) -> Error {
    let wrong = |message: String, hint: &str| Error::new(ErrorKind::ConfigInvalid, message).with_hint(hint);
    match problem {
        // The latter with the right name and another key: Dask's temporary authorities are all called the same.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => wrong(
            "the peer's certificate is not signed by the authority given".into(),
            "`ca` must be the `tls_ca_file` that the scheduler was started with; or this is another cluster",
        ),
        late if is_about_time(late) => wrong(format!("the peer's certificate {}", time(late)), "issue it again, or check both clocks"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => wrong(
            "the peer's certificate is not meant for servers".into(),
            "issue it with `extendedKeyUsage = serverAuth, clientAuth`, or without that field",
        ),
        CertificateError::Other(other) if other.0.is::<VersionOne>() => {
            wrong("the peer's certificate is of X.509 version 1, which is not supported".into(), VERSION_ONE)
        }
        other => wrong(format!("the peer's certificate is not accepted: {other}"), "issue it again"),
    }
}

/// `expired 3 days ago`.
pub(super) fn time(problem: &CertificateError) -> String {
    let days = |later: u64, earlier: u64| match later.saturating_sub(earlier) / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    match problem {
        CertificateError::ExpiredContext { time, not_after } => format!("expired {} ago", days(time.as_secs(), not_after.as_secs())),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("is not valid yet: it will be in {}", days(not_before.as_secs(), time.as_secs()))
        }
        CertificateError::NotValidYet => "is not valid yet".into(),
        _ => "has expired".into(),
    }
}

/// What the peer does not like.
fn refused(alert: AlertDescription) -> Error {
    use AlertDescription as A;
    let (message, hint) = match alert {
        A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::DecryptError | A::AccessDenied => {
            ("the peer does not accept our certificate", OURS)
        }
        A::CertificateExpired => ("the peer says that our certificate has expired", "issue it again, or check both clocks"),
        A::UnsupportedCertificate => {
            ("the peer does not accept our certificate for this purpose", "issue it with `extendedKeyUsage = serverAuth, clientAuth`")
        }
        A::CertificateRequired | A::NoCertificate => ("the peer wants a certificate, and got none that it can use", OURS),
        A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
            ("no TLS version or cipher in common with the peer", "TLS 1.2 or 1.3 is needed; the peer's `tls.ciphers` may be too narrow")
        }
        A::UnrecognisedName => ("the proxy does not know this name", "check the address: is the cluster still there?"),
        _ => return Error::new(ErrorKind::Unavailable, format!("the peer ended TLS: {alert:?}")).with_hint("the peer's logs may say more"),
    };
    Error::new(ErrorKind::ConfigInvalid, message).with_hint(hint)
}
