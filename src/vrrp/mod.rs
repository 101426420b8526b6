//! VRRPv3 (RFC 9568) as a core: packets, and the state machine. Driven by `guard::heartbeat`.
