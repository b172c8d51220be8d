//! A gate at which tasks report and wait, wherever they run: a TCP listener of the test.

use std::{collections::VecDeque, io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long a test waits for something that should happen at once. Long: it only bounds a test that fails anyway.
pub const PATIENCE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// A subject's own patience, in the task that runs its cases.
    pub(crate) static OWN: Duration;
}

/// [`PATIENCE`], or less where a failure is what a test waits for.
#[must_use]
pub fn patience() -> Duration {
    OWN.try_with(|own| *own).unwrap_or(PATIENCE)
}

/// Where tasks arrive and wait to be let through.
///
/// Dropping it ends the wait of every task that is still there, so that a failing test leaves nothing stuck.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    address: String,
    early: VecDeque<Arrival>,
}

/// A task that stands at the gate.
#[derive(Debug)]
pub struct Arrival {
    /// What it was told to say.
    pub label: String,
    stream: BufReader<TcpStream>,
}

impl Gate {
    /// A gate on a free port of the loopback device.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn new() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        Ok(Self { listener, address, early: VecDeque::new() })
    }

    /// What tasks connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next task to arrive, whoever it is.
    ///
    /// # Panics
    /// When nobody comes for [`PATIENCE`].
    pub async fn next(&mut self) -> Arrival {
        match self.early.pop_front() {
            Some(arrival) => arrival,
            None => self.accept().await,
        }
    }

    /// The task with this label; others that come first are kept for later.
    ///
    /// # Panics
    /// As [`Gate::next`].
    pub async fn arrived(&mut self, label: &str) -> Arrival {
        if let Some(at) = self.early.iter().position(|a| a.label == label) {
            return self.early.remove(at).expect("found above");
        }
        loop {
            let arrival = self.accept().await;
            if arrival.label == label {
                return arrival;
            }
            self.early.push_back(arrival);
        }
    }

    /// `count` tasks that stand here at the same time.
    ///
    /// # Panics
    /// As [`Gate::next`].
    pub async fn together(&mut self, count: usize) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        while arrivals.len() < count {
            arrivals.push(self.next().await);
        }
        arrivals
    }

    async fn accept(&self) -> Arrival {
        timeout(patience(), async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("the gate's own socket");
                let (mut stream, mut label) = (BufReader::new(stream), String::new());
                // A task that was ended between connect and its first word never was here.
                if stream.read_line(&mut label).await.is_ok_and(|n| n > 0) {
                    return Arrival { label: label.trim_end().to_owned(), stream };
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no task arrived at the gate within {:?}", patience()))
    }
}

impl Arrival {
    /// Lets it through: it returns its label.
    pub async fn open(self) {
        self.say("open\n").await;
    }

    /// Makes it fail.
    pub async fn refuse(self) {
        self.say("refuse\n").await;
    }

    /// Waits until the task has left by itself: cancelled, or its worker killed.
    ///
    /// # Panics
    /// When it stays for [`PATIENCE`].
    pub async fn gone(mut self) {
        let mut rest = String::new();
        let left = timeout(patience(), self.stream.read_line(&mut rest)).await;
        assert!(left.is_ok(), "{} still stands at the gate", self.label);
    }

    async fn say(mut self, word: &str) {
        // It may have been ended in the meantime; the test will see that in its state.
        let _ = self.stream.get_mut().write_all(word.as_bytes()).await;
    }
}
