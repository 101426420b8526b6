//! The redis-server of the store's own tests.

#[path = "../store/certificates.rs"]
pub mod certificates;
#[path = "../store/server.rs"]
pub mod server;
