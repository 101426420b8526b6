//! Baton: a high-availability load balancer. Two machines share virtual addresses; each runs this program.
//!
//! Read the modules in this order. Imports point one way, down this list and never up, and
//! `tests/architecture.rs` holds it so:
//!
//! | layer | modules |
//! |---|---|
//! | values | [`units`] |
//! | cores: decide, without sockets, clocks, logs | [`vrrp`], [`session`], [`balance`], [`health`] |
//! | what both processes share | [`config`], [`link`], [`status`], [`telemetry`], [`net`] |
//! | the data plane | [`proxy`], [`probe`] |
//! | the two processes | [`guard`], [`worker`] |
//! | rehearsal: nodes in network namespaces | [`lab`] |
//! | what an operator types | [`cli`] |

pub mod units;

pub mod vrrp;

pub mod session;

pub mod balance;

pub mod health;

pub mod config;

pub mod link;

pub mod status;

pub mod telemetry;

pub mod net;

pub mod proxy;

pub mod probe;

pub mod guard;

pub mod worker;

pub mod lab;

pub mod cli;
