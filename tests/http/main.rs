//! The data plane from outside: the real program between raw sockets (and curl) and servers that record every byte.
//!
//! One test a behaviour, each with a program of its own on a port that the kernel chose. [`baton`] runs the program,
//! [`server`] and [`client`] are its two sides, [`wire`] is how both of them read HTTP: literally, and without hyper.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of a test may end the test"
)]

mod baton;
mod client;
mod curl;
mod discovery;
mod dnsmasq;
mod h2_server;
mod h2_wire;
mod haproxy;
mod mariadb;
mod nginx;
mod postgres;
mod redis;
mod server;
mod tls_client;
mod tls_files;
mod wire;

mod access;
mod access_log;
mod algorithms;
mod balancing;
mod bodies;
mod checks_connections;
mod checks_databases;
mod checks_services;
mod compression;
mod connection_limits;
mod connections;
mod discovery_consul;
mod discovery_dns;
mod discovery_files;
mod discovery_http;
mod discovery_operators;
mod discovery_tls;
mod error_pages;
mod errors;
mod fields;
mod forwarded;
mod h2_abuse;
mod h2_conformance;
mod h2_limits;
mod hedging;
mod hostile_http2_servers;
mod hostile_servers;
mod http2_servers;
mod http2_switches;
mod lifecycle;
mod limits;
mod malformed;
mod open_files;
mod operating;
mod outliers;
mod programs;
mod proxy_protocol;
mod queueing;
mod rate_limit;
mod reload;
mod request_id;
mod request_metrics;
mod resting;
mod retries;
mod routes;
mod routes_shares;
mod shedding;
mod slow_clients;
mod sticky;
mod store;
mod takeover;
mod tcp;
mod tcp_sticky;
mod tickets;
mod timeouts;
mod tls;
mod tls_choice;
mod tls_clients;
mod tls_https;
mod tls_ocsp;
mod tls_reload;
mod tls_scan;
mod tls_servers;
mod tunnels;
mod upgrades;

use std::time::Duration;

/// How long anything may take before a test fails: far beyond what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
