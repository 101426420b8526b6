//! Who serves, put together from the condition of every server whenever that has changed.

/// The effective weight of a server with weight 1: weights are counted in 256ths, so that a ramp has steps.
pub const WEIGHT_ONE: u32 = 256;

/// The inverse of the weight 1, in the units of [`Member::inverse`].
const INVERSE_ONE: u64 = 1 << 20;

/// What counts of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// It is fit to serve.
    pub is_healthy: bool,
    /// Operators let it have new clients.
    pub is_enabled: bool,
    /// It serves only while no other server does.
    pub is_backup: bool,
    /// It is in the zone of this node.
    pub is_near: bool,
    /// Its effective weight in 256ths, below 2^24; with 0 it gets no new clients.
    pub weight: u32,
}

/// What a pool has settled about its servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// With a smaller share of healthy servers, in percent, all of them are used; 0: never.
    pub panic_percent: u32,
    /// With a smaller share of healthy servers in this node's zone, in percent, those of other zones are used alike.
    pub near_percent: u32,
}

/// A server that may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its index in the pool.
    pub server: usize,
    /// Its effective weight, above 0.
    pub weight: u32,
    /// The sum of the weights up to and with its own.
    pub weights_to: u64,
    /// The inverse of its weight, as dividing takes long: 2^20 for a server with weight 1.
    pub inverse: u64,
}

/// Servers that are picked from alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tier {
    /// In the order of the pool; one at least.
    pub members: Vec<Member>,
    /// Whether all have the same weight.
    pub is_even: bool,
    /// They serve only while no other server can.
    pub is_backup: bool,
}

impl Tier {
    fn new(servers: impl Iterator<Item = (usize, Condition)>) -> Self {
        let mut sum = 0;
        let member = |(server, condition): (usize, Condition)| {
            sum += u64::from(condition.weight);
            let inverse = INVERSE_ONE * u64::from(WEIGHT_ONE) / u64::from(condition.weight.max(1));
            Member { server, weight: condition.weight, weights_to: sum, inverse }
        };
        let members: Vec<Member> = servers.map(member).collect();
        let is_even = members.windows(2).all(|pair| matches!(pair, [one, other] if one.weight == other.weight));
        Self { members, is_even, is_backup: false }
    }

    /// The sum of all weights.
    pub fn weights(&self) -> u64 {
        self.members.last().map_or(0, |member| member.weights_to)
    }

    /// Indexes of its servers.
    pub fn servers(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.server)
    }
}

/// A server, as a hash that has found it asks for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bits of the tiers that it is in.
    tiers: u8,
    /// Its effective weight.
    pub weight: u32,
}

impl Standing {
    /// Whether it is in a tier.
    pub fn is_in(&self, tier: usize) -> bool {
        self.tiers & 1_u8.checked_shl(u32::try_from(tier).unwrap_or(u32::MAX)).unwrap_or(0) != 0
    }
}

/// The servers of a pool at some moment, those first that are to be used first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    tiers: Vec<Tier>,
    standings: Vec<Standing>,
    is_panicking: bool,
    stays_near: bool,
}

impl Snapshot {
    /// Puts servers in order.
    ///
    /// Servers in use are the usual ones, and the backups while none of those is healthy. Of the ones in use, all serve,
    /// healthy or not, where fewer are healthy than there have to be. Otherwise the healthy ones do: those in this node's
    /// zone before the rest, as long as enough of these are healthy, and backups where the usual ones have all failed a
    /// request.
    pub fn new(conditions: &[Condition], terms: Terms) -> Self {
        let of_kind = |is_backup: bool| {
            let servers = conditions.iter().copied().enumerate();
            servers.filter(move |(_, server)| server.is_enabled && server.weight > 0 && server.is_backup == is_backup)
        };
        let healthy = |is_backup| of_kind(is_backup).filter(|(_, server)| server.is_healthy);
        let is_backup = healthy(false).next().is_none() && healthy(true).next().is_some();
        let (fit, all) = (healthy(is_backup).count(), of_kind(is_backup).count());
        let is_panicking = fit < all && is_below(fit, all, terms.panic_percent);
        let mut snapshot = Self { is_panicking, ..Self::default() };
        if is_panicking {
            snapshot.tiers.push(Tier::new(of_kind(is_backup)));
        } else {
            let near = |server: &(usize, Condition)| server.1.is_near;
            let (near_fit, near_all) =
                (healthy(is_backup).filter(near).count(), of_kind(is_backup).filter(near).count());
            if near_fit > 0 && near_fit < fit && !is_below(near_fit, near_all, terms.near_percent) {
                snapshot.stays_near = true;
                snapshot.tiers.push(Tier::new(healthy(is_backup).filter(near)));
            }
            snapshot.tiers.push(Tier::new(healthy(is_backup)));
        }
        if is_backup {
            snapshot.tiers.iter_mut().for_each(|tier| tier.is_backup = true);
        } else {
            snapshot.tiers.push(Tier { is_backup: true, ..Tier::new(healthy(true)) });
        }
        snapshot.tiers.retain(|tier| !tier.members.is_empty());
        snapshot.standings = standings(&snapshot.tiers, conditions);
        snapshot
    }

    /// Those that are picked from, in this order: three at most.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// What a server is, by its index.
    pub fn standing(&self, server: usize) -> Standing {
        self.standings.get(server).copied().unwrap_or_default()
    }

    /// Servers in the pool.
    pub fn server_count(&self) -> usize {
        self.standings.len()
    }

    /// Whether servers are used that are not healthy, since so few are.
    pub fn is_panicking(&self) -> bool {
        self.is_panicking
    }

    /// Whether servers of this node's zone are preferred just now.
    pub fn stays_near(&self) -> bool {
        self.stays_near
    }
}

fn is_below(part: usize, whole: usize, percent: u32) -> bool {
    (part as u64) * 100 < (whole as u64) * u64::from(percent)
}

fn standings(tiers: &[Tier], conditions: &[Condition]) -> Vec<Standing> {
    let mut standings: Vec<Standing> =
        conditions.iter().map(|condition| Standing { tiers: 0, weight: condition.weight }).collect();
    for (index, tier) in tiers.iter().enumerate() {
        for server in tier.servers() {
            if let Some(standing) = standings.get_mut(server) {
                standing.tiers |= 1 << index;
            }
        }
    }
    standings
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Condition =
        Condition { is_healthy: true, is_enabled: true, is_backup: false, is_near: false, weight: WEIGHT_ONE };
    const DOWN: Condition = Condition { is_healthy: false, ..UP };
    const SPARE: Condition = Condition { is_backup: true, ..UP };
    const NEAR: Condition = Condition { is_near: true, ..UP };
    const NEAR_DOWN: Condition = Condition { is_near: true, ..DOWN };

    fn tiers(conditions: &[Condition], panic_percent: u32, near_percent: u32) -> Vec<Vec<usize>> {
        let snapshot = Snapshot::new(conditions, Terms { panic_percent, near_percent });
        snapshot.tiers().iter().map(|tier| tier.servers().collect()).collect()
    }

    #[test]
    fn servers_that_are_down_drained_or_without_weight_are_not_picked() {
        let drained = Condition { is_enabled: false, ..UP };
        let weightless = Condition { weight: 0, ..UP };
        assert_eq!(tiers(&[UP, DOWN, drained, weightless, UP], 0, 50), [vec![0, 4]]);
        assert_eq!(tiers(&[weightless, weightless], 0, 50), Vec::<Vec<usize>>::new());
        assert_eq!(tiers(&[weightless, weightless], 100, 50), Vec::<Vec<usize>>::new());
        assert_eq!(tiers(&[DOWN], 0, 50), Vec::<Vec<usize>>::new());
        assert_eq!(tiers(&[], 50, 50), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn backups_come_last_and_alone_where_nothing_else_can_serve() {
        assert_eq!(tiers(&[SPARE, UP, UP], 0, 50), [vec![1, 2], vec![0]]);
        assert_eq!(tiers(&[SPARE, DOWN, DOWN], 0, 50), [vec![0]]);
        assert_eq!(tiers(&[SPARE, Condition { weight: 0, ..UP }], 0, 50), [vec![0]]);
    }

    #[test]
    fn all_are_used_where_fewer_are_healthy_than_have_to_be() {
        assert_eq!(tiers(&[UP, UP, DOWN, DOWN], 50, 50), [vec![0, 1]]);
        assert_eq!(tiers(&[UP, UP, DOWN, DOWN], 51, 50), [vec![0, 1, 2, 3]]);
        assert_eq!(tiers(&[UP, DOWN, DOWN], 50, 50), [vec![0, 1, 2]]);
        assert_eq!(tiers(&[DOWN, DOWN], 1, 50), [vec![0, 1]]);
        assert_eq!(tiers(&[DOWN, DOWN], 0, 50), Vec::<Vec<usize>>::new());
        assert_eq!(tiers(&[UP, UP], 100, 50), [vec![0, 1]]);
        // What an operator has taken out stays out, and does not count.
        let drained = Condition { is_enabled: false, ..UP };
        assert_eq!(tiers(&[UP, drained, drained], 100, 50), [vec![0]]);
    }

    #[test]
    fn a_backup_serves_before_servers_that_are_down() {
        assert_eq!(tiers(&[DOWN, DOWN, SPARE], 50, 50), [vec![2]]);
        // While some usual ones serve, all of those do, and the backup helps who has tried them.
        assert_eq!(tiers(&[UP, DOWN, DOWN, SPARE], 50, 50), [vec![0, 1, 2], vec![3]]);
        let spare_down = Condition { is_healthy: false, ..SPARE };
        assert_eq!(tiers(&[DOWN, SPARE, spare_down, spare_down], 50, 50), [vec![1, 2, 3]]);
        assert_eq!(tiers(&[DOWN, spare_down], 50, 50), [vec![0]]);
    }

    #[test]
    fn servers_of_the_same_zone_come_first_as_long_as_enough_are_healthy() {
        assert_eq!(tiers(&[NEAR, UP, NEAR], 0, 50), [vec![0, 2], vec![0, 1, 2]]);
        assert_eq!(tiers(&[NEAR, UP, NEAR_DOWN], 0, 50), [vec![0], vec![0, 1]]);
        assert_eq!(tiers(&[NEAR, UP, NEAR_DOWN], 0, 51), [vec![0, 1]]);
        assert_eq!(tiers(&[NEAR_DOWN, UP], 0, 0), [vec![1]]);
        assert_eq!(tiers(&[UP, UP], 0, 50), [vec![0, 1]]);
        assert_eq!(tiers(&[NEAR, NEAR], 0, 50), [vec![0, 1]]);
        assert_eq!(tiers(&[NEAR, UP, SPARE], 0, 50), [vec![0], vec![0, 1], vec![2]]);
    }

    #[test]
    fn standings_say_what_tiers_hold() {
        let snapshot = Snapshot::new(&[NEAR, UP, SPARE, DOWN], Terms { panic_percent: 0, near_percent: 50 });
        let is_in = |server| [0, 1, 2, 200].map(|tier| snapshot.standing(server).is_in(tier));
        assert_eq!(is_in(0), [true, true, false, false]);
        assert_eq!(is_in(1), [false, true, false, false]);
        assert_eq!(is_in(2), [false, false, true, false]);
        assert_eq!(is_in(3), [false; 4]);
        assert_eq!(is_in(4), [false; 4]);
        assert!(snapshot.stays_near() && !snapshot.is_panicking());
    }

    #[test]
    fn weights_add_up() {
        let heavy = Condition { weight: 5 * WEIGHT_ONE, ..UP };
        let snapshot = Snapshot::new(&[heavy, UP, UP], Terms::default());
        let tier = &snapshot.tiers()[0];
        assert_eq!((tier.weights(), tier.is_even), (7 * 256, false));
        assert!(Snapshot::new(&[UP, UP], Terms::default()).tiers()[0].is_even);
    }
}
