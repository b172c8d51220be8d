//! Where a scheduler or worker listens.

use std::{fmt, str::FromStr};

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
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let place = rest.split('/').next().unwrap_or_default();
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of a bare IPv6 number is not before a port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let scheme = match scheme {
            "tcp" => Scheme::Tcp,
            "tls" => Scheme::Tls,
            "http" | "https" => {
                return wrong(
                    format!("`{scheme}` is the dashboard's protocol, not the scheduler's"),
                    format!("did you mean `tcp://{host}:8786`?"),
                );
            }
            other => return wrong(format!("the protocol `{other}` is not supported"), format!("write `tcp://{place}`")),
        };
        // Brackets again, where the hint needs them.
        let shown = if host.contains(':') { format!("{scheme}://[{host}]") } else { format!("{scheme}://{host}") };
        if host.is_empty() {
            return wrong("no host".into(), format!("write `{scheme}://HOST:8786`"));
        }
        match port.map(str::parse) {
            Some(Ok(port)) if port > 0 && rest == place => Ok(Self { scheme, host: host.to_owned(), port }),
            Some(Ok(1..)) => wrong("nothing may follow the port".into(), format!("write `{scheme}://{place}`")),
            Some(_) => wrong("expected a port from 1 to 65535".into(), format!("did you mean `{shown}:8786`?")),
            None => wrong("no port".into(), format!("did you mean `{shown}:8786`?")),
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_core::error::ErrorKind;

    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (text, host) in [("tcp://barn:8786", "barn"), ("tls://[::1]:80", "::1"), ("tcp://10.0.0.7:65535", "10.0.0.7")] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (text, host));
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        for (text, hint) in [
            ("http://barn:8787/status", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:no", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:0", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:70000", "did you mean `tcp://barn:8786`?"),
            ("tcp://barn:8786/path", "write `tcp://barn:8786`"),
            ("tls://barn", "did you mean `tls://barn:8786`?"),
            ("tls://barn:8786/path", "write `tls://barn:8786`"),
            ("tls://", "write `tls://HOST:8786`"),
            ("ucx://barn:8786", "write `tcp://barn:8786`"),
            ("::1", "did you mean `tcp://[::1]:8786`?"),
            ("", "write `tcp://HOST:8786`"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!((error.kind(), error.mistakes()[0].hint.as_deref()), (ErrorKind::ConfigInvalid, Some(hint)), "{text}");
        }
    }
}
