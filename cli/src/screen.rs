//! Standard error, shared by the progress bars, the log and messages: a line never breaks into a bar.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::MultiProgress;

/// A handle on standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Screen(Arc<Mutex<Option<MultiProgress>>>);

impl Screen {
    /// From now on bars stand at the bottom.
    pub(crate) fn set_bars(&self, bars: MultiProgress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars);
    }

    /// Takes the bars away.
    pub(crate) fn clear_bars(&self) {
        if let Some(bars) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // An error here means that the terminal is gone.
            let _ = bars.clear();
        }
    }

    /// Writes whole lines. Nothing can be done about a closed standard error.
    pub(crate) fn lines(&self, text: &str) {
        self.bytes(format!("{}\n", text.trim_end()).as_bytes());
    }

    fn bytes(&self, bytes: &[u8]) {
        let bars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let write = || drop(io::stderr().lock().write_all(bytes));
        match &*bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Collects one log line and writes it whole.
#[derive(Debug)]
pub(crate) struct LogLine {
    screen: Screen,
    bytes: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.screen.bytes(&self.bytes);
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Screen {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { screen: self.clone(), bytes: Vec::new() }
    }
}
