//! Clusters on this machine: the embedded engine.
