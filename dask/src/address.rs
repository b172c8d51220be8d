//! Where a scheduler or worker listens.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use remuda_core::error::{Error, Mistake};

/// How a scheduler or worker is spoken to.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain: whoever is on the way can read along, and whoever reaches the port can run anything.
    Tcp,
    /// TLS with certificates on both sides.
    Tls,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// `tcp://host:port` or `tls://host:port`. A bare `host:port` is read as `tcp://`, as Dask does.
///
/// ```
/// use remuda_dask::{Address, Scheme};
///
/// assert_eq!("10.0.0.7:8786".parse::<Address>()?.to_string(), "tcp://10.0.0.7:8786");
/// assert_eq!("tls://barn:8786".parse::<Address>()?.scheme(), Scheme::Tls);
/// let error = "http://10.0.0.7:8787".parse::<Address>().unwrap_err();
/// assert!(error.is_user_error() && error.message().contains("tcp://10.0.0.7:8786"));
/// # Ok::<_, remuda_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Address {
    /// Plain, or with TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or number of the host; an IPv6 number without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same place, spoken to like that.
    #[must_use]
    pub fn with_scheme(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::ConfigInvalid`](remuda_core::error::ErrorKind::ConfigInvalid), with what to write instead.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem: String, hint: String| {
            let mistake = Mistake {
                value: Some(text.into()),
                expected: Some("tcp://HOST:PORT or tls://HOST:PORT".into()),
                ..Mistake::new("address", problem).with_hint(hint)
            };
            Err(Error::invalid(vec![mistake]))
        };
        let (word, mark, rest) = split_scheme(text);
        let one_more = rest.trim_end_matches('/').starts_with('/');
        let rest = rest.trim_matches('/');
        // Without what is no part of an address: a user before it, a path behind it.
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(place);
        let number = port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        if host.contains(':') && host.split('%').next().is_none_or(|number| number.parse::<Ipv6Addr>().is_err()) {
            return wrong(format!("`{host}` is no host"), format!("write `{word}://HOST:PORT`, with [..] round an IPv6 number"));
        }
        let scheme = match word {
            "tcp" => Scheme::Tcp,
            "tls" => Scheme::Tls,
            // Its port is the dashboard's and says nothing about the scheduler's.
            "http" | "https" | "ws" | "wss" => {
                let right = written(if matches!(word, "https" | "wss") { "tls" } else { "tcp" }, host, None);
                return wrong(
                    format!("`{word}` is the dashboard's protocol (mostly at port 8787), not the scheduler's"),
                    format!("write `{right}`, or the port where the scheduler listens if that is not 8786"),
                );
            }
            other => {
                let right = written(meant(other), host, number);
                return wrong(format!("the protocol `{other}` is not supported"), format!("write `{right}`"));
            }
        };
        let right = written(word, host, number);
        if mark != "://" || one_more {
            return wrong(format!("`://` must follow `{word}`"), format!("write `{right}`"));
        }
        if host.is_empty() {
            return wrong("the host is missing".into(), format!("write `{right}`"));
        }
        match (port, number) {
            (_, Some(port)) if rest == place => Ok(Self { scheme, host: host.to_owned(), port }),
            (_, Some(_)) => wrong("an address is protocol, host and port, and nothing else".into(), format!("write `{right}`")),
            (Some(port), None) => wrong(format!("`{port}` is no port, a number from 1 to 65535"), format!("did you mean `{right}`?")),
            (None, None) => wrong("the port is missing (Dask's scheduler listens at 8786)".into(), format!("did you mean `{right}`?")),
        }
    }
}

/// The protocol, what stands between, and the rest. `tcp:/h:1`, `tcp//h:1` and `tcp:h:1` are slips, but `tcp:1` is a host of that name.
fn split_scheme(text: &str) -> (&str, &str, &str) {
    if let Some((word, rest)) = text.split_once("://") {
        return (word, "://", rest);
    }
    let end = text.find([':', '/']).unwrap_or(text.len());
    let rest = text[end..].trim_start_matches([':', '/']);
    let mark = &text[end..text.len() - rest.len()];
    let is_host = mark.is_empty() || mark == ":" && rest.bytes().all(|b| b.is_ascii_digit());
    match &text[..end] {
        word @ ("tcp" | "tls" | "http" | "https" | "ws" | "wss") if !is_host => (word, mark, rest),
        _ => ("tcp", "://", text),
    }
}

/// Which protocol somebody meant by that word: the one of whose letters it has more.
fn meant(word: &str) -> &'static str {
    let word = word.to_lowercase();
    let shared = |right: &str| right.chars().filter(|letter| word.contains(*letter)).count();
    if shared("tls") > shared("tcp") { "tls" } else { "tcp" }
}

/// The host without brackets, and what follows its colon.
fn split_port(place: &str) -> (&str, Option<&str>) {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        // Without brackets; as there must be a port, this is it.
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => (host, Some(port)),
        _ => (place, None),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// What to write, for a hint.
fn written(scheme: &str, host: &str, port: Option<u16>) -> String {
    let (host, port) = (if host.is_empty() { "HOST" } else { host }, port.unwrap_or(8786));
    if host.contains(':') { format!("{scheme}://[{host}]:{port}") } else { format!("{scheme}://{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use remuda_core::error::ErrorKind;

    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (text, right) in
            [("tcp:1", "tcp://tcp:1"), ("barn:1", "tcp://barn:1"), ("tls://barn:1/", "tls://barn:1"), ("tcp://::1:80", "tcp://[::1]:80")]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), right);
        }
        for (text, host) in [("tcp://barn:8786", "barn"), ("tls://[::1]:80", "::1"), ("tcp://10.0.0.7:65535", "10.0.0.7")] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (text, host));
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        for (text, hint) in [
            ("http://barn:8787/status", "write `tcp://barn:8786`, or the port where the scheduler listens if that is not 8786"),
            ("http://10.0.0.7:19001", "write `tcp://10.0.0.7:8786`, or the port where the scheduler listens if that is not 8786"),
            ("https:/barn", "write `tls://barn:8786`, or the port where the scheduler listens if that is not 8786"),
            ("tcp:/127.0.0.1:19001", "write `tcp://127.0.0.1:19001`"),
            ("tcp:///barn:1/", "write `tcp://barn:1`"),
            ("tcp:barn:1", "write `tcp://barn:1`"),
            ("tls//barn", "write `tls://barn:8786`"),
            ("tcp://me@barn:1", "write `tcp://barn:1`"),
            ("tcp://a:b:1", "write `tcp://HOST:PORT`, with [..] round an IPv6 number"),
            ("tcp://barn", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:no", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:0", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:70000", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:8786/path", "write `tcp://barn:8786`"),
            ("tls://barn", "did you mean `tls://barn:8786`?"),
            ("tls://barn:8786/path", "write `tls://barn:8786`"),
            ("tls://", "write `tls://HOST:8786`"),
            ("ucx://barn:8786", "write `tcp://barn:8786`"),
            ("tpc://barn:1", "write `tcp://barn:1`"),
            ("tsl://barn:1", "write `tls://barn:1`"),
            ("TLS://barn:1", "write `tls://barn:1`"),
            ("ssl://barn", "write `tls://barn:8786`"),
            ("::1", "did you mean `tcp://[::1]:8786`?"),
            ("", "write `tcp://HOST:8786`"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!((error.kind(), error.mistakes()[0].hint.as_deref()), (ErrorKind::ConfigInvalid, Some(hint)), "{text}");
        }
    }
}
