//! The privileged process: VRRP, VIPs, listening sockets, and the watch over the worker.
