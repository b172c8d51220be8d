//! Certificates for a cluster that does not live long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use remuda_core::{
    error::{Error, ErrorKind, Mistake, Result},
    security::Security,
};

use super::Material;

/// What certificates are made out to. Nobody looks at it, for workers have any address, but a certificate without names is odd.
const NAMES: [&str; 4] = ["dask-internal", "localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(86_400);
/// Clocks of machines differ: certificates are valid from that long ago.
const SKEW: Duration = Duration::from_secs(3600);

impl Material {
    /// A new authority with three certificates, valid for `days`: P-256, X.509 version 3. The authority's own key is thrown away, so nobody
    /// can ever issue another.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when `days` is 0 or more than a hundred years.
    pub fn temporary(days: u32) -> Result<Self> {
        if days == 0 || days > 36_500 {
            let problem = format!("expected 1 to 36500 days, found {days}");
            return Err(Error::invalid(vec![Mistake::new("days", problem).with_hint("365 is what Dask's own have")]));
        }
        issue(SystemTime::now() - SKEW, SKEW + DAY * days)
            .map_err(|error| Error::new(ErrorKind::Unexpected, "certificates cannot be made").with_source(error))
    }
}

fn issue(from: SystemTime, valid: Duration) -> Result<Material, rcgen::Error> {
    let mut params = CertificateParams::default();
    period(&mut params, from, valid);
    params.distinguished_name = name("Remuda cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let party = |role: &str| {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        period(&mut params, from, valid);
        params.distinguished_name = name(role);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Workers connect to each other, and the scheduler to workers: everybody is both.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &authority)?;
        Ok::<_, rcgen::Error>(Security { ca: authority.pem(), cert: cert.pem(), key: key.serialize_pem() })
    };
    Ok(Material { scheduler: party("scheduler")?, worker: party("worker")?, client: party("client")? })
}

fn period(params: &mut CertificateParams, from: SystemTime, valid: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_after = params.not_before + valid;
}

fn name(role: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, role);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Names, check};

    #[test]
    fn everybody_can_connect_with_theirs_and_all_are_different() {
        let material = Material::temporary(1).unwrap();
        let parties = [&material.scheduler, &material.worker, &material.client];
        for (n, party) in parties.iter().enumerate() {
            check(party, &Names::SHORT).unwrap();
            assert_eq!(party.ca, parties[0].ca);
            assert!(parties[..n].iter().all(|other| other.cert != party.cert && other.key != party.key));
        }
        assert_ne!(Material::temporary(1).unwrap().client.ca, material.client.ca);
        assert_eq!(format!("{material:?}"), "Material { .. }");
    }

    #[test]
    fn our_own_certificate_is_looked_at_before_it_is_shown_to_anybody() {
        let now = SystemTime::now();
        for (from, problem) in [
            (now - DAY * 5, "`cert`: the certificate expired 3 days ago; issue it again"),
            (now + DAY * 5 / 2, "`cert`: the certificate is not valid yet: it will be in 2 days; issue it again"),
        ] {
            let material = issue(from, DAY * 3 / 2).unwrap();
            assert_eq!(check(&material.client, &Names::SHORT).unwrap_err().message(), problem);
        }
    }

    #[test]
    fn no_days_are_no_period() {
        for days in [0, u32::MAX] {
            assert!(Material::temporary(days).unwrap_err().is_user_error());
        }
    }
}
