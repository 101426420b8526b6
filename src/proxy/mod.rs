//! The data plane: from an accepted connection to a server and back. Runs in the worker.

pub mod http;
