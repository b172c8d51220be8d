//! Run flows of many tasks, each on its own temporary cluster.
