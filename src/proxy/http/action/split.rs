//! Requests shared among several pools, such as a new release that gets a tenth of them.

use http::Request;

use crate::config::{PoolIndex, Share};
use crate::proxy::http::transaction::Transaction;
use crate::proxy::state::Pool;
use crate::proxy::sticky::Way;

/// The pool of a request: the one that keeps its client on a server, else one at random, by weight.
///
/// Pools whose servers are all down get nothing as long as another has one that is up.
pub(super) async fn choose<B>(transaction: &Transaction, shares: &[Share], request: &Request<B>) -> PoolIndex {
    let site = transaction.client.site();
    for share in shares {
        if let Some(pool) = site.pool(share.pool)
            && keeps(transaction, pool, request).await
        {
            return share.pool;
        }
    }
    let is_up =
        |share: &Share| site.pool(share.pool).is_some_and(|pool| pool.servers.iter().any(|server| server.takes_new()));
    by_weight(shares, is_up, |sum| fastrand::u64(..sum))
}

/// Whether the client belongs to a server of a pool.
async fn keeps<B>(transaction: &Transaction, pool: &Pool, request: &Request<B>) -> bool {
    let Some(sticky) = &pool.sticky else { return false };
    let sessions = &transaction.client.site().sessions;
    let mut visit = sticky.visit(sessions, transaction.ip, request);
    sticky.recall(sessions, &mut visit).await;
    match sticky.way(&visit, &pool.servers) {
        Way::Home(_) | Way::Closed(_) => true,
        Way::Any => false,
    }
}

/// One of the shares: of those that are up, where there are any with a weight.
fn by_weight(shares: &[Share], is_up: impl Fn(&Share) -> bool, random_below: impl FnOnce(u64) -> u64) -> PoolIndex {
    let sum = |only_up: bool| -> u64 {
        shares.iter().filter(|share| !only_up || is_up(share)).map(|share| u64::from(share.weight)).sum()
    };
    let (only_up, sum) = match sum(true) {
        0 => (false, sum(false)),
        up => (true, up),
    };
    let mut left = if sum == 0 { 0 } else { random_below(sum) };
    for share in shares.iter().filter(|share| !only_up || is_up(share)) {
        match left.checked_sub(u64::from(share.weight)) {
            Some(rest) => left = rest,
            None => return share.pool,
        }
    }
    // The configuration has a share with a weight, so that this is not reached.
    shares.first().map_or(PoolIndex(usize::MAX), |share| share.pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pool_gets_its_weight() {
        let shares = [9, 0, 1].into_iter().enumerate();
        let shares: Vec<_> = shares.map(|(index, weight)| Share { pool: PoolIndex(index), weight }).collect();
        let all = |is_up: fn(&Share) -> bool, sum: u64| -> Vec<usize> {
            let one = |number| {
                by_weight(&shares, is_up, |below| {
                    assert_eq!(below, sum);
                    number
                })
            };
            (0..sum).map(|number| one(number).0).collect()
        };
        assert_eq!(all(|_| true, 10), [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(all(|share| share.pool.0 == 2, 1), [2]);
        assert_eq!(all(|share| share.pool.0 == 1, 10), [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(all(|_| false, 10), [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
}
