//! The vocabulary of Remuda. (guide to be written)

pub mod adaptive;
pub mod class;
pub mod cluster;
pub mod duration;
pub mod engine;
pub mod error;
pub mod host;
pub mod keeper;
pub mod kwargs;
pub mod manager;
pub mod task;
pub mod value;
