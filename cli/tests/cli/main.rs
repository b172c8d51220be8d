//! The `remuda` program as its users meet it: exit code, standard output, standard error, and what is left behind.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod harness;
mod interrupted;
mod runs;
mod says;
