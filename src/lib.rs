//! Baton: a high-availability load balancer. Two machines share virtual addresses; each runs this program.
//!
//! Read the modules in this order. Imports point one way, down this list and never up, and
//! `tests/architecture.rs` holds it so:
//!
//! | layer | modules |
//! |---|---|
//! | values | [`units`] |
//! | cores: decide, without sockets, clocks, logs | [`vrrp`], [`session`], [`balance`], [`health`], [`fitness`], [`limit`] |
//! | what both processes share | [`net`], [`config`], [`status`], [`inquiry`], [`link`], [`event`], [`telemetry`] |
//! | the data plane | [`store`], [`proxy`], [`probe`], [`discovery`], [`admin`], [`peer`] |
//! | the processes | [`guard`], [`worker`], [`courier`], [`witness`] |
//! | rehearsal: nodes in network namespaces, failover drills | [`lab`], [`drill`] |
//! | what an operator types | [`cli`] |

pub mod units;

pub mod vrrp;

pub mod session;

pub mod balance;

pub mod health;

pub mod fitness;

pub mod limit;

pub mod net;

pub mod config;

pub mod status;

pub mod inquiry;

pub mod link;

pub mod event;

pub mod telemetry;

pub mod store;

pub mod proxy;

pub mod probe;

pub mod discovery;

pub mod admin;

pub mod peer;

pub mod guard;

pub mod worker;

pub mod courier;

pub mod witness;

pub mod lab;

pub mod drill;

pub mod cli;
