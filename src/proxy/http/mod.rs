//! HTTP/1.1: the life of a request.

pub mod strict;
