//! The configuration file: read, checked whole, resolved.

mod model;

pub use model::*;
