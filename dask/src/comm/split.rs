//! Both directions of a connection apart, for whoever reads and writes at the same time.

use std::fmt;

use bytes::Bytes;
use remuda_core::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Comm, LOST, Stream, lost, next_event};
use crate::{
    Address,
    protocol::{Connection, Event, Message, encode},
};

/// The reading half of a [`Comm`].
pub(crate) struct CommReader {
    stream: ReadHalf<Stream>,
    connection: Connection,
    address: Address,
}

/// The writing half of a [`Comm`]. The connection ends when both halves are dropped.
pub(crate) struct CommWriter {
    stream: WriteHalf<Stream>,
    address: Address,
}

impl Comm {
    pub(crate) fn split(self) -> (CommReader, CommWriter) {
        let (read, write) = tokio::io::split(self.stream);
        let reader = CommReader { stream: read, connection: self.connection, address: self.address.clone() };
        (reader, CommWriter { stream: write, address: self.address })
    }
}

impl CommReader {
    /// As [`Comm::read`]. After an error the connection is of no more use.
    pub(crate) async fn read(&mut self) -> Result<Option<Message>> {
        match next_event(&mut self.stream, &mut self.connection).await {
            Ok(None) => Ok(None),
            Ok(Some(Event::Message(message))) => Ok(Some(message)),
            Ok(Some(Event::Ready(_))) => Err(Error::new(ErrorKind::Unexpected, "a second handshake")),
            Err(error) => Err(error),
        }
        .map_err(|error| error.with_context("address", &self.address))
    }
}

impl CommWriter {
    /// Writes a message whose body is MessagePack already. After an error, or dropped half-way, the connection is of no more use.
    pub(crate) async fn write_packed(&mut self, body: Bytes) -> Result<()> {
        for chunk in encode(vec![body]) {
            let written = self.stream.write_all(&chunk).await;
            written.map_err(|error| lost(error, LOST).with_context("address", &self.address))?;
        }
        // A stream that encrypts may hold back what was written.
        self.stream.flush().await.map_err(|error| lost(error, LOST).with_context("address", &self.address))
    }
}

impl fmt::Debug for CommReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommReader").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for CommWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommWriter").field("address", &self.address).finish_non_exhaustive()
    }
}
