//! Run flows of many tasks, each on its own temporary cluster.

pub mod config;
pub mod flowfile;
