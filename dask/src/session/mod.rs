//! One run's side of a Dask scheduler.

mod book;
mod call;
mod wire;
