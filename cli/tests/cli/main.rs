//! The `remuda` program as its users meet it: exit code, standard output, standard error, and what is left behind.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of a test may panic like a test, and says what it skips")]

mod adaptive;
mod bad_input;
mod clusters;
mod connections;
mod dask;
mod harness;
mod held;
mod interrupted;
mod leftovers;
mod runs;
mod says;
