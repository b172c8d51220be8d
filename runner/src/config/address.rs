//! The address of a scheduler that runs already.

use std::{fmt, net::Ipv6Addr};

/// `tcp://host:port` or `tls://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Address {
    /// Reads one. No name is looked up.
    ///
    /// # Errors
    /// What is wrong and what the right form is, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("\"{text}\" has no scheme: write {}", suggestion("tcp", text)));
        };
        let rest = rest.trim_end_matches('/');
        let scheme = match scheme {
            "tcp" => "tcp",
            "tls" => "tls",
            "http" | "https" | "ws" | "wss" => {
                let right = suggestion(if scheme.ends_with('s') && scheme != "ws" { "tls" } else { "tcp" }, rest);
                return Err(format!("{scheme}:// does not lead to a scheduler (its dashboard speaks http): write {right}"));
            }
            other => return Err(format!("unknown scheme {other}://: write {}", suggestion("tcp", rest))),
        };
        if let Some(odd) = rest.find(['/', '@', '?', '#']) {
            return Err(format!("\"{}\" is too much: an address is {scheme}://host:port", &rest[odd..]));
        }
        let (host, port) = split_port(rest);
        if host.is_empty() {
            return Err(format!("the host is missing: write {scheme}://host:port"));
        }
        if host.contains(':') && host.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_err() {
            return Err(format!("\"{host}\" is no host: write {scheme}://host:port, with [..] round an IPv6 address"));
        }
        let Some(port) = port else {
            return Err(format!("the port is missing (Dask's scheduler listens at 8786): write {scheme}://{host}:8786"));
        };
        match port.parse::<u16>() {
            Ok(port @ 1..) => Ok(Self { scheme, host: host.to_owned(), port }),
            _ => Err(format!("\"{port}\" is no port: a number from 1 to 65535")),
        }
    }

    /// `tcp` or `tls`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.scheme
    }
}

/// The port is what follows the last colon outside of brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(colon) if text.rfind(']').is_none_or(|bracket| bracket < colon) => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

fn suggestion(scheme: &str, rest: &str) -> String {
    let rest = rest.split(['/', '@', '?', '#']).next().unwrap_or_default();
    match split_port(rest) {
        ("", _) => format!("{scheme}://host:8786"),
        (host, Some(port)) if port.parse::<u16>().is_ok_and(|p| p != 8787 && p > 0) => format!("{scheme}://{host}:{port}"),
        (host, _) => format!("{scheme}://{host}:8786"),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
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
        assert_eq!(Address::parse("tcp://h:1/").unwrap().to_string(), "tcp://h:1");
    }

    #[test]
    fn wrong_forms_name_the_right_one() {
        let cases = [
            ("http://my-dask-cluster", "write tcp://my-dask-cluster:8786"),
            ("https://h:8787/status", "write tls://h:8786"),
            ("h:8786", "write tcp://h:8786"),
            ("tcp://h", "the port is missing (Dask's scheduler listens at 8786): write tcp://h:8786"),
            ("tcp://h:0", "\"0\" is no port"),
            ("tcp://h:x", "\"x\" is no port"),
            ("tcp://:8786", "the host is missing"),
            ("tcp://h:1/path", "\"/path\" is too much"),
            ("tcp://::1:8786", "right"),
            ("ucx://h:1", "unknown scheme ucx://: write tcp://h:1"),
        ];
        for (text, words) in cases {
            match Address::parse(text) {
                Err(error) => assert!(error.contains(words), "{text}: {error}"),
                Ok(address) => assert_eq!(words, "right", "{text}: {address}"),
            }
        }
    }
}
