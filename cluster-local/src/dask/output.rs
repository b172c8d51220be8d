//! What tasks print, passed on line by line.

use std::{io::Write, sync::Arc};

/// Longest piece that is passed on as one line.
const LINE: usize = 16 * 1024;

pub(crate) struct Lines {
    worker: Arc<str>,
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(worker: Arc<str>) -> Self {
        Self { worker, line: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE {
                self.pass_on();
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if tracing::dispatcher::has_been_set() {
            tracing::info!(target: "remuda::task_output", worker = &*self.worker, "{line}");
        } else {
            // Nobody listens: a program without a subscriber still shows what its tasks print.
            let _ = writeln!(std::io::stderr(), "{} | {line}", self.worker);
        }
        self.line.clear();
    }
}
