//! Active health checks: the shell around `health`.
