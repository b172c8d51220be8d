//! A connection to a scheduler or worker.

use std::{fmt, io, sync::Arc, time::Duration};

use remuda_core::{
    error::{Error, ErrorKind, Result},
    security::Security,
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    Address, Scheme,
    protocol::{Connection, Event, Limits, Message, Peer, encode},
    stream::{self, Sink, Source},
    tls,
};

/// How to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For everything until the connection can be used: name, connection, handshakes. Default: 10 s.
    pub timeout: Duration,
    /// A connection over which nothing comes back for so long, not even an acknowledgement, is lost. An idle one is probed. In whole
    /// seconds, at least one. Default: 30 s, as Dask.
    pub dead_after: Duration,
    /// What the peer may send.
    pub limits: Limits,
    /// Our certificate, and the authority of the peer's: for `tls://`. Not used for `tcp://`.
    pub security: Option<Arc<Security>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), dead_after: Duration::from_secs(30), limits: Limits::default(), security: None }
    }
}

/// A connection after its handshake: messages in both directions. Dropping it closes it.
pub struct Comm {
    reader: CommReader,
    writer: CommWriter,
    peer: Peer,
}

/// The half of a [`Comm`] that reads. The connection is closed when both halves are dropped.
pub struct CommReader {
    source: Source,
    connection: Connection,
    address: Address,
    /// What was read is no message: nothing that follows can be understood.
    is_broken: bool,
}

/// The half of a [`Comm`] that writes. Dropping it tells a `tcp://` peer that nothing more comes.
pub struct CommWriter {
    sink: Sink,
    address: Address,
    /// A message was written in part: the peer would not understand what follows.
    is_broken: bool,
}

impl Comm {
    /// Connects and shakes hands. Not tried again here.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`]: not through in time; says whether the connection or which handshake was missing.
    /// - [`ErrorKind::Unavailable`]: refused, no such host, or closed by the peer.
    /// - [`ErrorKind::ConfigInvalid`]: something else than Dask listens there; a certificate of ours or of the peer is not accepted; the
    ///   material of [`ConnectOptions::security`] cannot be used, or is missing for `tls://`.
    pub async fn connect(address: &Address, options: &ConnectOptions) -> Result<Self> {
        let mut stage = Stage::Connection;
        let error = match timeout(options.timeout, Self::dial(address, options, &mut stage)).await {
            Ok(Ok(comm)) => {
                tracing::debug!(%address, peer = ?comm.peer, "connected");
                return Ok(comm);
            }
            Ok(Err(error)) => error,
            Err(_) => stage.missing(options.timeout),
        };
        Err(error.with_operation("connect").with_context("address", address))
    }

    async fn dial(address: &Address, options: &ConnectOptions, stage: &mut Stage) -> Result<Self> {
        // Before anything goes out: what is wrong here need not be told to the peer.
        let tls = match address.scheme() {
            Scheme::Tcp => None,
            Scheme::Tls => Some(tls::connector(options.security.as_ref())?),
        };
        let stream = TcpStream::connect((address.host(), address.port())).await.map_err(unreachable)?;
        let set_up = |error| lost(error, "the connection cannot be set up");
        // Requests are small, and each waits for its answer.
        stream.set_nodelay(true).map_err(set_up)?;
        stream::keep_alive(&stream, options.dead_after).map_err(set_up)?;
        let (source, sink) = match tls {
            None => stream::plain(stream),
            Some(connector) => {
                *stage = Stage::Tls;
                stream::encrypted(
                    connector
                        .connect(tls::server_name(address.host()), stream)
                        .await
                        .map_err(|error| tls::not_encrypted(error, address))?,
                )
            }
        };
        *stage = Stage::Handshake;
        let reader = CommReader { source, connection: Connection::new(options.limits), address: address.clone(), is_broken: false };
        let writer = CommWriter { sink, address: address.clone(), is_broken: false };
        let mut comm = Self { reader, writer, peer: Peer::default() };
        // A peer that is something else may have closed by now, after saying what it is: that is the better error.
        let written = comm.writer.write_bytes(Connection::hello()).await;
        match comm.reader.event().await {
            Ok(Some(Event::Ready(peer))) => comm.peer = peer,
            Ok(_) => {
                let error = Error::new(ErrorKind::Unavailable, "the peer closed the connection before its handshake");
                return Err(error.with_hint(silent(address)));
            }
            // As an end, where the peer did not read what we had sent: a reset.
            Err(error) if error.kind() == ErrorKind::Unavailable && error.hint().is_none() => return Err(error.with_hint(silent(address))),
            Err(error) => return Err(error),
        }
        written.map(|()| comm)
    }

    /// Whom this is connected to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.reader.address
    }

    /// What the peer said of itself.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Both directions on their own: one task may read while another writes.
    #[must_use]
    pub fn split(self) -> (CommReader, CommWriter) {
        (self.reader, self.writer)
    }

    /// As [`CommReader::read`].
    ///
    /// # Errors
    /// As [`CommReader::read`], and [`ErrorKind::Closed`] after a write that broke the connection.
    pub async fn read(&mut self) -> Result<Option<Message>> {
        check(self.writer.is_broken, &self.writer.address)?;
        self.reader.read().await
    }

    /// As [`CommWriter::write`].
    ///
    /// # Errors
    /// As [`CommWriter::write`], and [`ErrorKind::Closed`] after a read that broke the connection.
    pub async fn write(&mut self, message: &Message) -> Result<()> {
        check(self.reader.is_broken, &self.reader.address)?;
        self.writer.write(message).await
    }
}

impl CommReader {
    /// The next message; `None` when the peer has closed the connection between two. May be dropped at any point: nothing is lost.
    ///
    /// Waits for as long as the peer has nothing to say, as it may on a stream of news; who waits for an answer sets the deadline. A peer
    /// that is gone without a word is noticed, see [`ConnectOptions::dead_after`].
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the connection is lost, [`ErrorKind::Closed`] when it was broken before, and as [`Connection::next`].
    pub async fn read(&mut self) -> Result<Option<Message>> {
        check(self.is_broken, &self.address)?;
        match self.event().await {
            Ok(None) => Ok(None),
            Ok(Some(Event::Message(message))) => Ok(Some(message)),
            Ok(Some(Event::Ready(_))) => Err(Error::new(ErrorKind::Unexpected, "a second handshake")),
            Err(error) => Err(error),
        }
        .map_err(|error| error.with_context("address", &self.address))
    }

    async fn event(&mut self) -> Result<Option<Event>> {
        loop {
            match self.connection.next() {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => {
                    self.is_broken = true;
                    return Err(error);
                }
            }
            match self.source.read(&mut self.connection.space()).await {
                Ok(0) => return self.connection.end().map(|()| None),
                Ok(_) => {}
                // What came before may say more than "reset": a server that is not Dask's says what it is, then hangs up.
                Err(error) => return Err(self.connection.end().err().filter(Error::is_user_error).unwrap_or_else(|| self.lost(error))),
            }
        }
    }

    fn lost(&self, error: io::Error) -> Error {
        match self.source {
            Source::Tcp(_) => lost(error, LOST),
            // TLS 1.3: what the peer thinks of our certificate comes after the handshake.
            Source::Tls(_) => tls::failed(error, &self.address),
        }
    }
}

impl CommWriter {
    /// Writes one message. Dropped half-way, it breaks the connection: the peer has half a message.
    ///
    /// Waits for as long as the peer does not read; who cannot, sets a deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the connection is lost, [`ErrorKind::Closed`] when it was broken before,
    /// [`ErrorKind::Unserializable`] when the message cannot be written.
    pub async fn write(&mut self, message: &Message) -> Result<()> {
        check(self.is_broken, &self.address)?;
        let bytes = message.to_frames().map(encode)?;
        self.write_bytes(bytes).await.map_err(|error| error.with_context("address", &self.address))
    }

    /// Writes a message whose body is MessagePack already, and that has no parts. As [`write`](Self::write) otherwise.
    pub(crate) async fn write_packed(&mut self, body: bytes::Bytes) -> Result<()> {
        check(self.is_broken, &self.address)?;
        self.write_bytes(encode(vec![body])).await.map_err(|error| error.with_context("address", &self.address))
    }

    async fn write_bytes(&mut self, chunks: Vec<bytes::Bytes>) -> Result<()> {
        self.is_broken = true;
        self.sink.write(chunks).await.map_err(|error| lost(error, LOST))?;
        self.is_broken = false;
        Ok(())
    }
}

fn check(is_broken: bool, address: &Address) -> Result<()> {
    if !is_broken {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Closed, "the connection broke within a message").with_hint("connect again");
    Err(error.with_context("address", address))
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_broken = self.reader.is_broken || self.writer.is_broken;
        f.debug_struct("Comm").field("address", self.address()).field("peer", &self.peer).field("is_broken", &is_broken).finish()
    }
}

impl fmt::Debug for CommReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommReader").field("address", &self.address).field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

impl fmt::Debug for CommWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommWriter").field("address", &self.address).field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

const LOST: &str = "the connection is lost";
const NOT_DASK: &str =
    "a Dask scheduler speaks at once: check that the port is the scheduler's (8786 by default), not the dashboard's (8787)";

/// How far a connection had come.
#[derive(Clone, Copy)]
enum Stage {
    Connection,
    Tls,
    Handshake,
}

impl Stage {
    fn missing(self, timeout: Duration) -> Error {
        let (what, hint) = match self {
            Self::Connection => ("no connection", "the host is down, or a firewall drops what is sent to it"),
            Self::Tls => ("connected, but no TLS handshake came", "a Dask scheduler answers at once: check host and port of the address"),
            Self::Handshake => ("connected, but no Dask handshake came", NOT_DASK),
        };
        Error::new(ErrorKind::Timeout, format!("{what} within {timeout:?}")).with_hint(hint)
    }
}

/// What to do about a peer that hung up without a word.
fn silent(address: &Address) -> String {
    match address.scheme() {
        Scheme::Tcp => {
            format!("{NOT_DASK}; one that wants TLS hangs up as well: then write `{}`", address.clone().with_scheme(Scheme::Tls))
        }
        Scheme::Tls => "it may not accept our certificate: is `cert` signed by the authority of this cluster?".to_owned(),
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
