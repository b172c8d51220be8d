//! `cargo fuzz run connection`: see README.md.
#![no_main]

mod connection;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| connection::check(stream));
