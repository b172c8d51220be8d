//! The address of a scheduler that runs already.

use std::fmt;

use remuda_dask::Scheme;

/// `tcp://host:port` or `tls://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(remuda_dask::Address);

impl Address {
    /// Reads one. No name is looked up.
    ///
    /// # Errors
    /// What is wrong and what the right form is, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = text.parse::<remuda_dask::Address>().map_err(|error| match error.mistakes() {
            [mistake] => [Some(mistake.problem.as_str()), mistake.hint.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("; "),
            _ => error.to_string(),
        })?;
        // A configuration is read by others, too: it says whether the connection is encrypted.
        match text.contains("://") {
            true => Ok(Self(read)),
            false => Err(format!("\"{text}\" has no protocol; write `{read}`")),
        }
    }

    /// `tcp` or `tls`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match self.0.scheme() {
            Scheme::Tls => "tls",
            _ => "tcp",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_forms() {
        for text in ["tcp://10.0.0.1:8786", "tls://scheduler.example:443", "tcp://[::1]:8786"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for (text, right) in [("tcp://h:1/", "tcp://h:1"), ("tcp://::1:8786", "tcp://[::1]:8786")] {
            assert_eq!(Address::parse(text).unwrap().to_string(), right);
        }
    }

    #[test]
    fn wrong_forms_name_the_right_one() {
        let cases = [
            ("http://my-dask-cluster:19001", "not the scheduler's; write `tcp://my-dask-cluster:8786`, or the port"),
            ("https://h:8787/status", "write `tls://h:8786`"),
            ("h:8786", "has no protocol; write `tcp://h:8786`"),
            ("tcp:/127.0.0.1:19001", "`://` must follow `tcp`; write `tcp://127.0.0.1:19001`"),
            ("tcp://h", "the port is missing (Dask's scheduler listens at 8786); did you mean `tcp://h:8786`?"),
            ("tcp://h:0", "`0` is no port"),
            ("tcp://h:x", "`x` is no port"),
            ("tcp://:8786", "the host is missing; write `tcp://HOST:8786`"),
            ("tcp://h:1/path", "nothing else; write `tcp://h:1`"),
            ("tcp://[a:b]:1", "`a:b` is no host"),
            ("ucx://h:1", "`ucx` is not supported; write `tcp://h:1`"),
        ];
        for (text, words) in cases {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
