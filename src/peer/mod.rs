//! The sync link.

pub mod connection;
pub mod endpoint;
pub mod identity;
pub mod refusals;
