//! The sync link.

pub mod identity;
