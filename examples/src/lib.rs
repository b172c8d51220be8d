//! Programs and flow files that CI runs.
