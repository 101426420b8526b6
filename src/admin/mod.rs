//! What operators and their programs ask of a worker: sessions, the administrative state of servers, metrics.
//!
//! [`questions`] answers what is asked, over the link from the guard or here. [`server`] is the admin listener, which is
//! there where the configuration has `[admin]`: [`target`] reads what it is asked for, [`access`] decides who may change
//! something, [`metrics`] renders the page that Prometheus reads. Called by the worker.

pub mod access;
pub mod metrics;
pub mod questions;
pub mod server;
pub mod target;
