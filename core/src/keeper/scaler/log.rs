//! The decisions, for whoever wants to know them.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::adaptive::Entry;

/// Whoever wants to know each decision with all it was made from.
#[derive(Debug, Default)]
pub(in crate::keeper) struct Log {
    listeners: Vec<mpsc::UnboundedSender<Arc<Entry>>>,
    /// So many lines, also those that nobody wanted: what is missing of a log shows.
    lines: u64,
}

impl Log {
    /// `begin`: what those decisions follow from that were made before.
    pub(in crate::keeper) fn listen(&mut self, listener: mpsc::UnboundedSender<Arc<Entry>>, begin: Option<Entry>) {
        if begin.is_none_or(|begin| listener.send(Arc::new(begin.numbered(self.lines))).is_ok()) {
            self.listeners.push(listener);
        }
    }

    pub(super) fn write(&mut self, entry: impl FnOnce() -> Entry) {
        self.lines += 1;
        let traced = tracing::enabled!(target: "remuda::adaptive", tracing::Level::DEBUG);
        if !traced && self.listeners.is_empty() {
            return;
        }
        let entry = Arc::new(entry().numbered(self.lines));
        if traced {
            let line = entry.to_line().unwrap_or_default();
            tracing::debug!(target: "remuda::adaptive", entry = line, "decided");
        }
        self.listeners.retain(|listener| listener.send(entry.clone()).is_ok());
    }
}
