//! Asking a scheduler or worker.

use std::time::Duration;

use remuda_core::error::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::{
    Address, Comm, ConnectOptions,
    protocol::{Message, Value, answer, value::map},
};

/// How long a call may take unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection for questions: one at a time, each with its answer. A slow one holds up those behind it.
#[derive(Debug)]
pub struct Rpc {
    comm: Comm,
    patience: Duration,
    /// An answer is still to come that nobody waits for any more.
    pub(crate) is_owed: bool,
}

impl Rpc {
    /// Connects; see [`Comm::connect`].
    ///
    /// # Errors
    /// As [`Comm::connect`].
    pub async fn connect(address: &Address, options: &ConnectOptions) -> Result<Self> {
        Ok(Comm::connect(address, options).await?.into())
    }

    /// How long one call may take. Default: 30 s.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The connection.
    #[must_use]
    pub fn comm(&self) -> &Comm {
        &self.comm
    }

    /// Any operation, its arguments by name.
    ///
    /// # Errors
    /// As [`answer()`], and [`ErrorKind::Timeout`] or [`ErrorKind::Unavailable`] when none comes. After a call that was dropped or timed out
    /// the connection is of no more use, [`ErrorKind::Closed`]: the next answer would be that of the old question.
    pub async fn call<'a>(&mut self, op: &'a str, args: impl IntoIterator<Item = (&'a str, Value)> + Send) -> Result<Message> {
        let request = map([("op", op.into()), ("reply", true.into())].into_iter().chain(args)).into();
        let answered = timeout(self.patience, self.exchange(&request)).await.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Timeout, format!("no answer to `{op}` within {:?}", self.patience));
            Err(error.with_hint("the scheduler is overloaded or stopped; its logs may say why"))
        });
        answered.and_then(|message| answer(op, message)).map_err(|error| error.with_context("address", self.comm.address()))
    }

    async fn exchange(&mut self, request: &Message) -> Result<Message> {
        if self.is_owed {
            return Err(
                Error::new(ErrorKind::Closed, "an earlier call was given up, its answer is still to come").with_hint("connect again")
            );
        }
        self.comm.write(request).await?;
        self.is_owed = true;
        let message = self.comm.read().await?;
        let gone = || Error::new(ErrorKind::Unavailable, "the peer closed the connection instead of answering");
        let message = message.ok_or_else(gone)?;
        self.is_owed = false;
        Ok(message)
    }
}

impl From<Comm> for Rpc {
    fn from(comm: Comm) -> Self {
        Self { comm, patience: PATIENCE, is_owed: false }
    }
}
