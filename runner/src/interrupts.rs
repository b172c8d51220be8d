//! Signals that ask a program to end.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM, and the end of the terminal (SIGHUP, unless the program was started by `nohup`).
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
    last: Option<(SignalKind, Instant)>,
}

/// `timeout` and some job runners signal the process and then its whole group: that is one request, not a second, more urgent one.
const SAME: Duration = Duration::from_millis(500);

impl Interrupts {
    /// Listens from now on. Inside a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let hang_up = (!hang_up_is_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hang_up, last: None })
    }

    /// Returns at the next request. A repetition of the last signal within half a second is not one.
    pub async fn next(&mut self) {
        loop {
            let hang_up = async {
                match &mut self.hang_up {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            let kind = tokio::select! {
                _ = self.interrupt.recv() => SignalKind::interrupt(),
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = hang_up => SignalKind::hangup(),
            };
            let now = Instant::now();
            let again = self.last.is_some_and(|(last, at)| last == kind && now.duration_since(at) < SAME);
            self.last = Some((kind, now));
            if !again {
                return;
            }
        }
    }
}

/// Whether whoever started us wants us to outlive the terminal.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 != 0)
}
