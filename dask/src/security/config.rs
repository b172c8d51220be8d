//! The user's own certificates.

use std::{env, fmt, fs, path::PathBuf};

use remuda_core::{
    error::{Error, Mistake, Result},
    security::Security,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls::{self, Names};

const NAMES: Names<'_> = Names { ca: "tls_ca_file", cert: "tls_cert", key: "tls_key" };

/// What to connect to a `tls://` cluster with: each is the path of a PEM file, or its text.
///
/// The names are those of Dask's `Security` and of Dask Gateway's; `ca`, `cert` and `key` are understood too. `Debug` shows paths, never
/// text, and nothing of the key; what it is serialized to holds all that was given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {
    "require_encryption": "whether a connection is encrypted is said by its address: write `tls://`",
    "tls_scheduler_cert": "the driver shows its own certificate only: name it `tls_cert`",
    "tls_scheduler_key": "the driver needs its own key only: name it `tls_key`",
    "tls_worker_cert": "the driver shows its own certificate only: name it `tls_cert`",
    "tls_worker_key": "the driver needs its own key only: name it `tls_key`",
    "tls_ciphers": "leave it out: ciphers are those of TLS 1.2 and 1.3 that are not known to be weak",
    "tls_min_version": "leave it out: TLS 1.2 and 1.3 are spoken, the newer one where the peer can",
    "tls_max_version": "leave it out: TLS 1.2 and 1.3 are spoken, the newer one where the peer can",
    "extra_conn_args": "leave it out: it belongs to Python's sockets"
}))]
pub struct SecurityConfig {
    /// The cluster's authority: file or PEM text. Needed.
    #[serde(alias = "ca")]
    #[schemars(extend("x-aliases" = ["ca"]))]
    pub tls_ca_file: Option<String>,
    /// The driver's certificate, signed by the authority: file or PEM text; intermediate ones may follow. Needed.
    #[serde(alias = "cert", alias = "tls_client_cert")]
    #[schemars(extend("x-aliases" = ["cert", "tls_client_cert"]))]
    pub tls_cert: Option<String>,
    /// Its private key, not encrypted: file or PEM text. Not needed where the certificate's file holds it too.
    #[serde(alias = "key", alias = "tls_client_key")]
    #[schemars(extend("x-aliases" = ["key", "tls_client_key"]))]
    pub tls_key: Option<String>,
}

impl SecurityConfig {
    /// The text of all, after a look at it: whether key and certificate belong together, whether the certificate has expired. Reads files;
    /// relative paths are relative to the working directory, `~/` is the home directory.
    ///
    /// # Errors
    /// [`ConfigInvalid`](remuda_core::error::ErrorKind::ConfigInvalid) with everything that is wrong; paths are relative to this struct.
    pub fn resolve(&self) -> Result<Security> {
        let mut mistakes = Vec::new();
        let mut text = |name: &str, given: &Option<String>, is_needed: bool| match given {
            Some(given) => read(name, given).map_err(|error| mistakes.extend_from_slice(error.mistakes())).unwrap_or_default(),
            None if is_needed => {
                mistakes.push(Mistake::new(name, "is required").with_hint("a `tls://` cluster wants certificates of both sides"));
                String::new()
            }
            None => String::new(),
        };
        let security = Security {
            ca: text(NAMES.ca, &self.tls_ca_file, true),
            cert: text(NAMES.cert, &self.tls_cert, true),
            key: text(NAMES.key, &self.tls_key, false),
        };
        if let Err(error) = tls::check(&security, &NAMES) {
            // What is not there cannot be judged.
            let known: Vec<_> = mistakes.iter().map(|mistake| mistake.path.clone()).collect();
            let key_may_be_there = self.tls_key.is_none() && known.iter().any(|path| path == NAMES.cert);
            let is_new = |mistake: &&Mistake| !(known.contains(&mistake.path) || key_may_be_there && mistake.path == NAMES.key);
            mistakes.extend(error.mistakes().iter().filter(is_new).cloned());
        }
        if mistakes.is_empty() { Ok(security) } else { Err(Error::invalid(mistakes)) }
    }
}

/// The text itself, or the file's.
fn read(name: &str, given: &str) -> Result<String> {
    if is_text(given) {
        return Ok(given.to_owned());
    }
    let path = match given.strip_prefix("~/").zip(env::var_os("HOME")) {
        Some((below, home)) => PathBuf::from(home).join(below),
        None => PathBuf::from(given),
    };
    fs::read_to_string(&path).map_err(|error| {
        // What should be a key and is no path may well be a key without its first line.
        let value = (name != NAMES.key).then(|| given.into());
        let mistake = Mistake::new(name, format!("the file cannot be read: {error}"));
        let mistake = mistake.with_hint("give the path of a PEM file, or its text from `-----BEGIN` on");
        Error::invalid(vec![Mistake { value, expected: Some("path of a PEM file, or PEM text".into()), ..mistake }])
    })
}

fn is_text(given: &str) -> bool {
    given.contains("-----BEGIN") || given.contains('\n')
}

impl fmt::Debug for SecurityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |given: &Option<String>| given.as_deref().map(|given| if is_text(given) { "PEM text" } else { given }.to_owned());
        f.debug_struct("SecurityConfig")
            .field(NAMES.ca, &shown(&self.tls_ca_file))
            .field(NAMES.cert, &shown(&self.tls_cert))
            .field(NAMES.key, &self.tls_key.as_ref().map(|_| ".."))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use remuda_core::kwargs::Kwargs;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::security::Material;

    fn parsed(json: serde_json::Value) -> Result<SecurityConfig> {
        Kwargs::try_from(json).unwrap().parse()
    }

    #[test]
    fn each_name_is_understood_and_each_form() {
        let material = Material::temporary(1).unwrap().client;
        let directory = TempDir::new().unwrap();
        let path = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, cert, key) = (path("ca.pem", &material.ca), path("cert.pem", &material.cert), path("key.pem", &material.key));
        for config in [
            json!({"tls_ca_file": ca, "tls_cert": cert, "tls_key": key}),
            json!({"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}),
            json!({"ca": ca, "cert": cert, "key": key}),
            json!({"ca": material.ca, "cert": material.cert, "key": material.key}),
        ] {
            assert_eq!(parsed(config.clone()).unwrap().resolve().unwrap(), material);
            assert_eq!(serde_json::from_value::<SecurityConfig>(config).unwrap().resolve().unwrap(), material);
        }
        let both = format!("{}{}", material.key, material.cert);
        for config in [json!({"ca": ca, "cert": both}), json!({"ca": ca, "cert": both, "key": both})] {
            parsed(config).unwrap().resolve().unwrap();
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_key_is() {
        let (one, other) = (Material::temporary(1).unwrap().client, Material::temporary(1).unwrap().client);
        let secret = one.key.lines().nth(1).unwrap().to_owned();
        for (ca, cert, key, problems) in [
            (
                "no/such/file",
                None,
                Some("nor/this"),
                vec!["`tls_ca_file`: the file cannot be read", "`tls_cert`: is required", "`tls_key`: the file cannot be read"],
            ),
            ("no/such/file", Some("neither"), None, vec!["`tls_ca_file`: the file", "`tls_cert`: the file"]),
            (&one.ca, Some(&*one.cert), None, vec!["`tls_key`: is required: there is no key in `tls_cert`"]),
            (&one.ca, Some(&*one.cert), Some(&*secret), vec!["`tls_key`: the file cannot be read"]),
            (&one.ca, Some(&*one.cert), Some(&*other.key), vec!["`tls_key`: the key does not belong to the certificate in `tls_cert`"]),
            (
                &one.key,
                Some(&*one.key),
                Some(&*one.cert),
                vec!["`tls_ca_file`: this is a key", "`tls_cert`: this is a key", "`tls_key`: this is a certificate"],
            ),
            (
                "a\nb",
                Some("-----BEGIN CERTIFICATE-----\nx"),
                Some("-----BEGIN PRIVATE KEY-----\nx"),
                vec!["`tls_ca_file`: no PEM certificate", "`tls_cert`: the PEM text is damaged", "`tls_key`: the PEM text is damaged"],
            ),
            (
                &one.ca,
                Some(&*one.cert),
                Some("-----BEGIN ENCRYPTED PRIVATE KEY-----\nx"),
                vec!["`tls_key`: the key is encrypted with a passphrase"],
            ),
            (
                &one.ca,
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                Some(&*one.key),
                vec!["`tls_cert`: the certificate cannot be read"],
            ),
            (
                &one.ca,
                Some(&*one.cert),
                Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                vec!["`tls_key`: the key is damaged, or of a kind"],
            ),
        ] {
            let config = SecurityConfig { tls_ca_file: Some(ca.to_owned()), tls_cert: cert.map(Into::into), tls_key: key.map(Into::into) };
            let error = config.resolve().unwrap_err();
            let said: Vec<_> = error.mistakes().iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), problems.len(), "{said:?}");
            for (said, problem) in said.iter().zip(problems) {
                assert!(said.starts_with(problem) && said.contains(';'), "{said}");
            }
            let shown = format!("{config:?} {error:?} {:?}", error.mistakes());
            assert!(!shown.contains(&secret) && !shown.contains("BEGIN PRIVATE KEY-----\n"), "{shown}");
        }
    }

    #[test]
    fn what_the_driver_does_not_take_is_said_why() {
        let error = parsed(json!({"require_encryption": true, "tls_worker_key": "x", "tls_ca_fil": 1})).unwrap_err();
        let said: Vec<_> = error.mistakes().iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().any(|said| said.contains("write `tls://`")), "{said:?}");
        assert!(said.iter().any(|said| said.contains("did you mean `tls_ca_file`?")), "{said:?}");
    }
}
