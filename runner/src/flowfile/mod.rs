//! Flow files.
