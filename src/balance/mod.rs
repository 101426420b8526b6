//! Picks a server of a pool. A core, used by `proxy`.
