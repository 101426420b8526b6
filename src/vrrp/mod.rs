//! VRRP (RFC 9568, RFC 3768) for a pair of nodes, as a core: it decides which node holds the VIP and touches nothing.
//!
//! [`packet`] turns bytes into adverts and back, and says of every packet it refuses why. [`auth`] signs adverts and
//! verifies them. [`hello`] is what the nodes of a pair tell each other besides adverts, over UDP. [`machine`] is the
//! state machine of one virtual router: it takes what happened and the time, and returns what is to be done.
//! Sockets, clocks and addresses belong to the shell that drives all of them, `guard::heartbeat`. For each virtual router:
//!
//! 1. read the clock once, then everything the sockets hold: [`packet::decode`], [`packet::judge`],
//!    [`auth::Verifier::verify`], [`machine::Machine::handle`] with [`machine::Input::Heard`]; hellos by
//!    [`hello::Channel::open`];
//! 2. if [`machine::Machine::deadline`] has passed, `handle` with [`machine::Input::Timer`];
//! 3. perform the returned actions in their order, each one to its end.

pub mod packet;

pub mod auth;

pub mod machine;

pub mod hello;

pub mod witness;
