//! Configuration.
mod document;
mod mistakes;
mod yaml;
pub use document::{At, Document, Format, KeyPath, Location, Step};
pub use mistakes::{Mistake, Mistakes};
