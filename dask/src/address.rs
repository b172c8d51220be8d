//! Where a scheduler or worker listens.

use std::{fmt, str::FromStr};

use remuda_core::error::{Error, Mistake};

/// `tcp://host:port`. A bare `host:port` is read as that, as Dask does.
///
/// ```
/// use remuda_dask::Address;
///
/// assert_eq!("10.0.0.7:8786".parse::<Address>()?.to_string(), "tcp://10.0.0.7:8786");
/// let error = "http://10.0.0.7:8787".parse::<Address>().unwrap_err();
/// assert!(error.is_user_error() && error.message().contains("tcp://10.0.0.7:8786"));
/// # Ok::<_, remuda_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
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
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "tcp://[{host}]:{port}") } else { write!(f, "tcp://{host}:{port}") }
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
                expected: Some("tcp://HOST:PORT".into()),
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
        match scheme {
            "tcp" => {}
            "http" | "https" => {
                return wrong(
                    format!("`{scheme}` is the dashboard's protocol, not the scheduler's"),
                    format!("did you mean `tcp://{host}:8786`?"),
                );
            }
            "tls" => {
                return wrong(
                    "this build does not speak TLS yet".to_owned(),
                    "a scheduler that listens at tcp:// can be reached".to_owned(),
                );
            }
            other => return wrong(format!("the protocol `{other}` is not supported"), format!("write `tcp://{place}`")),
        }
        if host.is_empty() {
            return wrong("no host".into(), "write `tcp://HOST:8786`".into());
        }
        match port.map(str::parse) {
            Some(Ok(port)) if port > 0 && rest == place => Ok(Self { host: host.to_owned(), port }),
            Some(Ok(1..)) => wrong("nothing may follow the port".into(), format!("write `tcp://{place}`")),
            Some(_) => wrong("expected a port from 1 to 65535".into(), format!("did you mean `tcp://{host}:8786`?")),
            None => wrong("no port".into(), format!("did you mean `tcp://{host}:8786`?")),
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_core::error::ErrorKind;

    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (text, host) in [("tcp://barn:8786", "barn"), ("tcp://[::1]:80", "::1"), ("tcp://10.0.0.7:65535", "10.0.0.7")] {
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
            ("tls://barn:8786", "a scheduler that listens at tcp:// can be reached"),
            ("ucx://barn:8786", "write `tcp://barn:8786`"),
            ("::1", "did you mean `tcp://::1:8786`?"),
            ("", "write `tcp://HOST:8786`"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!((error.kind(), error.mistakes()[0].hint.as_deref()), (ErrorKind::ConfigInvalid, Some(hint)), "{text}");
        }
    }
}
