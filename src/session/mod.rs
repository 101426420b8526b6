//! Sticky sessions: which server a client belongs to. A core, used by `proxy`, `peer` and `worker`.
//!
//! Read in this order: [`cookie`] names a server in a cookie of ours and needs no table; it also reads an
//! application's cookies. [`key`] makes of anything else that tells
//! clients apart a key of the [`table`], whose entries have a [`version`] each, so that two nodes can agree on the newest.
//! [`record`] is an entry on its way to the other node, [`facts`] and [`counters`] are the other things that both nodes share,
//! [`frame`] is how all of it looks on the wire, and [`replica`] is one node's end of the conversation. [`archive`] is the
//! table as a file.

pub mod archive;
pub mod cookie;
pub mod counters;
pub mod facts;
pub mod frame;
pub mod key;
pub mod record;
pub mod replica;
pub mod table;
pub mod version;

pub use record::{Record, ServerRef};
