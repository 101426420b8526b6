//! What a pool does about servers where requests fare badly.

use std::ops::RangeInclusive;

use crate::health::{breaker, outliers};

/// What follows from the outcomes of clients' requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// Statuses that count as errors of the server, 400 to 599. Default 500 to 599.
    pub error_statuses: Vec<RangeInclusive<u16>>,
    /// When a server is ejected for a time. Default after five requests in a row without a response.
    pub outliers: outliers::Settings,
    /// The breaker of the pool as a whole. Default none.
    pub breaker: Option<PoolBreaker>,
    /// The breakers of its servers, each for itself. Default none.
    pub server_breaker: Option<breaker::Settings>,
}

/// The breaker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolBreaker {
    /// When it opens, and how it closes again.
    pub terms: breaker::Settings,
    /// Requests under way at once, 1 to 1000000; `None`: no limit.
    pub in_flight_max: Option<u32>,
    /// Requests at once for which a connection is being made, 1 to 1000000; `None`: no limit.
    pub pending_max: Option<u32>,
    /// Requests at once that are tried again, 1 to 1000000; `None`: no limit.
    pub retries_max: Option<u32>,
}

impl Passive {
    /// Whether a status counts as an error of the server.
    pub fn is_error(&self, status: u16) -> bool {
        status >= 400 && self.error_statuses.iter().any(|range| range.contains(&status))
    }

    /// Whether anything follows from what comes of requests to servers.
    pub fn follows_servers(&self) -> bool {
        self.outliers.is_on() || self.server_breaker.is_some()
    }
}
