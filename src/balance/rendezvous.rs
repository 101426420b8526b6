//! Rendezvous hashing: a key's server by its hash alone, so that load balancers that know nothing of each other agree.
//!
//! Every server gets a score from the key and its name, and the highest score wins (Thaler and Ravishankar, "Using
//! name-based mappings to increase hit rates", 1998). When a server goes, only its own keys move; when one comes, it takes
//! an even share of everybody's. The order of the servers does not matter, so the files need not be the same.

use super::{Candidate, mix, name_hash};

/// The index of the eligible server with the highest score; a backup only when nothing else is eligible, `None` when
/// nothing is. `names` are the servers in the order of their indexes. The result for a key is part of what different
/// releases agree on.
pub fn pick<'name>(
    key: &[u8; 16],
    names: impl Iterator<Item = &'name str>,
    candidate: impl Fn(usize) -> Candidate,
) -> Option<usize> {
    let eligible = names.enumerate().filter(|(index, _)| candidate(*index).eligible);
    // The name settles a tie of scores, so that it too is settled the same way everywhere.
    let rank = |(index, name): &(usize, &'name str)| (!candidate(*index).backup, score(key, name), *name);
    eligible.max_by_key(rank).map(|(index, _)| index)
}

fn score(key: &[u8; 16], name: &str) -> u64 {
    let key = u128::from_be_bytes(*key);
    let [high, low] = [(key >> 64) as u64, key as u64];
    mix(mix(high ^ name_hash(name)) ^ low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Candidate = Candidate { eligible: true, backup: false };
    const DOWN: Candidate = Candidate { eligible: false, backup: false };
    const SPARE: Candidate = Candidate { eligible: true, backup: true };

    /// 10,000 keys that differ in few bits, which is worse than the hashes that keys are.
    fn keys() -> impl Iterator<Item = [u8; 16]> {
        (0_u128..10_000).map(u128::to_be_bytes)
    }

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("app{number}")).collect()
    }

    fn picked(key: &[u8; 16], names: &[String], candidate: impl Fn(usize) -> Candidate) -> Option<usize> {
        pick(key, names.iter().map(String::as_str), candidate)
    }

    #[test]
    fn only_the_keys_of_a_server_that_goes_move() {
        for count in [2, 3, 10, 100] {
            let names = names(count);
            let mut moved = 0;
            for key in keys() {
                let before = picked(&key, &names, |_| UP).unwrap();
                let after = picked(&key, &names, |index| if index == 1 { DOWN } else { UP }).unwrap();
                assert!(before == after || before == 1, "a key of server {before} moved to {after}");
                moved += usize::from(before != after);
            }
            // Its even share, with six standard deviations of room.
            let share = 10_000.0 / count as f64;
            let room = 6.0 * (share * (1.0 - 1.0 / count as f64)).sqrt();
            assert!((moved as f64 - share).abs() <= room, "{moved} of 10000 keys moved among {count} servers");
        }
    }

    #[test]
    fn a_server_that_comes_takes_an_even_share_of_everybody() {
        let (before, after) = (names(4), names(5));
        let mut taken = [0; 4];
        for key in keys() {
            let (old, new) = (picked(&key, &before, |_| UP).unwrap(), picked(&key, &after, |_| UP).unwrap());
            assert!(old == new || new == 4, "a key moved from {old} to {new}");
            taken[old] += usize::from(new == 4);
        }
        assert!(taken.iter().all(|count| (380..=620).contains(count)), "{taken:?}");
    }

    #[test]
    fn every_server_gets_its_share() {
        let names = names(5);
        let mut counts = [0; 5];
        keys().for_each(|key| counts[picked(&key, &names, |_| UP).unwrap()] += 1);
        assert!(counts.iter().all(|count| (1760..=2240).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_order_of_the_servers_does_not_matter() {
        let names = names(7);
        let reversed: Vec<String> = names.iter().rev().cloned().collect();
        for key in keys().take(1000) {
            let (forward, backward) = (picked(&key, &names, |_| UP), picked(&key, &reversed, |_| UP));
            assert_eq!(names[forward.unwrap()], reversed[backward.unwrap()]);
        }
    }

    #[test]
    fn a_backup_serves_only_when_nothing_else_does() {
        let names = names(2);
        assert_eq!(picked(&[7; 16], &names, |index| [UP, SPARE][index]), Some(0));
        assert_eq!(picked(&[7; 16], &names, |index| [DOWN, SPARE][index]), Some(1));
        assert_eq!(picked(&[7; 16], &names, |_| DOWN), None);
        assert_eq!(picked(&[7; 16], &[], |_| UP), None);
    }

    #[test]
    fn the_score_is_the_same_in_every_release() {
        // FNV-1a of "a" as the test suite of its authors has it; SplitMix64 from seed 0 as its reference has it.
        assert_eq!(name_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
