//! Sticky sessions: which server a client belongs to. A core, used by `proxy`.
