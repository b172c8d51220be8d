//! Which values are never printed.

use serde_json::Value;

const MASK: &str = "***";
const ANYWHERE: [&str; 8] = ["password", "passwd", "passphrase", "secret", "token", "credential", "private", "authorization"];

/// Whether the value of a key of that name is one nobody else should read: passwords, tokens, keys.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    ANYWHERE.iter().any(|word| key.contains(word)) || key == "auth" || key.split('_').any(|word| matches!(word, "key" | "apikey" | "pwd"))
}

/// Whether any key on a path (`a.b[2].c`) looks like a secret.
pub(super) fn on_path(path: &str) -> bool {
    path.split(['.', '[', ']']).any(is_secret)
}

/// A copy to print: values of secret keys, and passwords in URLs, are masked.
#[must_use]
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let shown = members.iter().map(|(key, value)| match is_secret(key) && !value.is_null() {
                true => (key.clone(), MASK.into()),
                false => (key.clone(), redacted(value)),
            });
            Value::Object(shown.collect())
        }
        Value::Array(items) => items.iter().map(redacted).collect(),
        // A certificate may bring its key in the same text.
        Value::String(text) if text.contains("PRIVATE KEY-----") => MASK.into(),
        Value::String(text) if text.contains("-----BEGIN CERTIFICATE") => "(PEM text)".into(),
        Value::String(text) => url_without_user(text).into(),
        other => other.clone(),
    }
}

/// `tls://user:pw@host:1` without what stands between `//` and `@`.
fn url_without_user(text: &str) -> String {
    let user = text.split_once("://").and_then(|(scheme, rest)| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host.rfind('@').map(|at| format!("{scheme}://{MASK}{}", &rest[at..]))
    });
    user.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_at_any_depth_and_in_urls() {
        let tree = json!({
            "API-Token": "t", "aws_access_key_id": "k", "auth": {"a": 1}, "keyspace": "shown", "monkey": 1,
            "env": [{"DB_PASSWORD": "p", "HOME": "/h"}], "address": "tls://me:pw@host:1/x", "token": null,
            "tls_cert": "-----BEGIN CERTIFICATE-----\nMII\n-----BEGIN EC PRIVATE KEY-----\nMHc", "ca": "-----BEGIN CERTIFICATE-----\nMII"
        });
        assert_eq!(
            redacted(&tree),
            json!({
                "API-Token": "***", "aws_access_key_id": "***", "auth": "***", "keyspace": "shown", "monkey": 1,
                "env": [{"DB_PASSWORD": "***", "HOME": "/h"}], "address": "tls://***@host:1/x", "token": null,
                "tls_cert": "***", "ca": "(PEM text)"
            })
        );
        assert!(on_path("env[0].DB_PASSWORD") && !on_path("env[0].HOME"));
    }
}
