//! The data plane: from an accepted connection to a server and back. Runs in the worker.
//!
//! Each thread is a world of its own: its listening sockets, its runtime, its connections to servers. What threads share
//! ([`state::Site`]) they read through atomics, so that no request waits for another thread.

pub mod accept;
pub mod access;
pub mod access_log;
pub mod administration;
pub mod admission;
pub mod chance;
pub mod counters;
pub mod files;
pub mod hash_key;
pub mod http;
pub mod limits;
pub mod load;
pub mod outcomes;
pub mod passive;
pub mod picking;
pub mod proxy_protocol;
pub mod queue;
pub mod refusals;
pub mod reload;
pub mod server;
pub mod server_io;
pub mod sessions;
pub mod socket;
pub mod state;
pub mod sticky;
pub mod tcp;
pub mod thread;
pub mod tickets;
pub mod timers;
pub mod tls;
pub mod traffic;
pub mod upstream;
pub mod visits;
