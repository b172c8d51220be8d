//! A connection to a scheduler or worker.

use std::{fmt, io, time::Duration};

use remuda_core::error::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Address,
    protocol::{Connection, Event, Limits, Message, Peer, encode},
};

#[allow(dead_code, reason = "the session comes next")]
mod split;

#[allow(unused_imports, reason = "the session comes next")]
pub(crate) use split::{CommReader, CommWriter};

/// What bytes come from and go to.
type Stream = TcpStream;

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For everything until the connection can be used: name, connection, handshake. Default: 10 s.
    pub timeout: Duration,
    /// What the peer may send.
    pub limits: Limits,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), limits: Limits::default() }
    }
}

/// A connection after its handshake: messages in both directions. Dropping it closes it.
pub struct Comm {
    stream: Stream,
    connection: Connection,
    address: Address,
    peer: Peer,
    /// A message was written in part, or what was read is no message: nothing that follows can be understood.
    is_broken: bool,
}

impl Comm {
    /// Connects and shakes hands. Not tried again here.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`]: not through in time; says whether the connection or the handshake was missing.
    /// - [`ErrorKind::Unavailable`]: refused, no such host, or closed by the peer.
    /// - [`ErrorKind::ConfigInvalid`]: something else than Dask listens there.
    pub async fn connect(address: &Address, options: &ConnectOptions) -> Result<Self> {
        let mut stage = Stage::Connection;
        let error = match timeout(options.timeout, Self::dial(address, options.limits, &mut stage)).await {
            Ok(Ok(comm)) => {
                tracing::debug!(%address, peer = ?comm.peer, "connected");
                return Ok(comm);
            }
            Ok(Err(error)) => error,
            Err(_) => stage.missing(options.timeout),
        };
        Err(error.with_operation("connect").with_context("address", address))
    }

    async fn dial(address: &Address, limits: Limits, stage: &mut Stage) -> Result<Self> {
        let stream = TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
        *stage = Stage::Handshake;
        // Requests are small, and each waits for its answer.
        stream.set_nodelay(true).map_err(|error| lost(error, "the connection cannot be set up"))?;
        let peer = Peer::default();
        let mut comm = Self { stream, connection: Connection::new(limits), address: address.clone(), peer, is_broken: false };
        // A peer that is something else may have closed by now, after saying what it is: that is the better error.
        let written = comm.write_bytes(Connection::hello()).await;
        match comm.event().await {
            Ok(Some(Event::Ready(peer))) => comm.peer = peer,
            Ok(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "the peer closed the connection before its handshake").with_hint(NOT_DASK));
            }
            Err(error) => return Err(error),
        }
        written.map(|()| comm)
    }

    /// Whom this is connected to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the peer said of itself.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The next message; `None` when the peer has closed the connection between two. May be dropped at any point: nothing is lost.
    ///
    /// Waits for as long as the peer has nothing to say, as it may on a stream of news; who waits for an answer sets the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the connection is lost, and as [`Connection::next`].
    pub async fn read(&mut self) -> Result<Option<Message>> {
        self.check()?;
        match self.event().await {
            Ok(None) => Ok(None),
            Ok(Some(Event::Message(message))) => Ok(Some(message)),
            Ok(Some(Event::Ready(_))) => Err(Error::new(ErrorKind::Unexpected, "a second handshake")),
            Err(error) => Err(error),
        }
        .map_err(|error| self.told(error))
    }

    /// Writes one message. Dropped half-way, it breaks the connection: the peer has half a message.
    ///
    /// Waits for as long as the peer does not read; who cannot, sets a deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the connection is lost, [`ErrorKind::Closed`] when it was broken before,
    /// [`ErrorKind::Unserializable`] when the message cannot be written.
    pub async fn write(&mut self, message: &Message) -> Result<()> {
        self.check()?;
        let bytes = message.to_frames().map(encode)?;
        self.write_bytes(bytes).await.map_err(|error| self.told(error))
    }

    async fn write_bytes(&mut self, chunks: Vec<bytes::Bytes>) -> Result<()> {
        self.is_broken = true;
        for chunk in chunks {
            self.stream.write_all(&chunk).await.map_err(|error| lost(error, LOST))?;
        }
        self.is_broken = false;
        Ok(())
    }

    async fn event(&mut self) -> Result<Option<Event>> {
        let event = next_event(&mut self.stream, &mut self.connection).await;
        self.is_broken |= event.is_err();
        event
    }

    fn check(&self) -> Result<()> {
        if !self.is_broken {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Closed, "the connection broke within a message").with_hint("connect again");
        Err(error.with_context("address", &self.address))
    }

    fn told(&self, error: Error) -> Error {
        error.with_context("address", &self.address)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comm").field("address", &self.address).field("peer", &self.peer).field("is_broken", &self.is_broken).finish()
    }
}

/// May be dropped at any point: nothing is lost.
async fn next_event<S: AsyncRead + Unpin>(stream: &mut S, connection: &mut Connection) -> Result<Option<Event>> {
    loop {
        match connection.next() {
            Ok(None) => {}
            event => return event,
        }
        match stream.read_buf(&mut connection.space()).await {
            Ok(0) => return connection.end().map(|()| None),
            Ok(_) => {}
            // What came before may say more than "reset": a server that is not Dask's says what it is, then hangs up.
            Err(error) => return Err(connection.end().err().filter(Error::is_user_error).unwrap_or_else(|| lost(error, LOST))),
        }
    }
}

const LOST: &str = "the connection is lost";
const NOT_DASK: &str =
    "a Dask scheduler speaks at once: check that the port is the scheduler's (8786 by default), not the dashboard's (8787)";

/// How far a connection had come.
#[derive(Clone, Copy)]
enum Stage {
    Connection,
    Handshake,
}

impl Stage {
    fn missing(self, timeout: Duration) -> Error {
        let (what, hint) = match self {
            Self::Connection => ("no connection", "the host is down, or a firewall drops what is sent to it"),
            Self::Handshake => ("connected, but no Dask handshake came", NOT_DASK),
        };
        Error::new(ErrorKind::Timeout, format!("{what} within {timeout:?}")).with_hint(hint)
    }
}

fn unreachable(error: io::Error) -> Error {
    let (what, hint) = match error.kind() {
        io::ErrorKind::ConnectionRefused => ("nothing listens there", "is the scheduler running, and is this its port?"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ("no way to the host", "check the host, and the network here")
        }
        _ => ("cannot connect", "check the address"),
    };
    lost(error, what).with_hint(hint)
}

fn lost(error: io::Error, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what).with_source(error)
}
