//! VRRPv3 (RFC 9568) for a pair of nodes, as a core: it decides which node holds the VIP and touches nothing.
//!
//! [`packet`] turns bytes into adverts and back, and says of every packet it refuses why. [`machine`] is the state
//! machine of one virtual router: it takes what happened and the time, and returns what is to be done.
//! Sockets, clocks and addresses belong to the shell that drives both, `guard::heartbeat`. For each virtual router:
//!
//! 1. read the clock once, then everything the socket holds: [`packet::decode`], [`packet::judge`],
//!    [`machine::Machine::handle`] with [`machine::Input::Heard`];
//! 2. if [`machine::Machine::deadline`] has passed, `handle` with [`machine::Input::Timer`];
//! 3. perform the returned actions in their order, each one to its end.
//!
//! IPv4 only, and no VRRPv2: both are refused by name.

pub mod packet;

pub mod auth;

pub mod machine;

pub mod witness;
