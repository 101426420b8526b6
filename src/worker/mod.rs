//! The unprivileged process: composition root of the data plane.
