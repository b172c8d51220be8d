//! Attribute macros of Remuda: task, main, test.
