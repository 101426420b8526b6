//! Judges whether a server is up from the results of its checks. A core; `probe` makes the checks.
