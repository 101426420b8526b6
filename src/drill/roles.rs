//! Which node had which role when, as far as it could be seen.

use std::time::{Duration, Instant};

use crate::status::Role;

use super::site::Sighting;

/// Changes kept of a node, the newest.
const CHANGES_MAX: usize = 4096;

/// What a node was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It held the VIP.
    Active,
    /// It was ready to take it.
    Standby,
    /// It took no part.
    Unfit,
    /// It did not answer.
    Silent,
}

impl Seen {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Seen::Active => "active",
            Seen::Standby => "standby",
            Seen::Unfit => "unfit",
            Seen::Silent => "no answer",
        }
    }
}

/// The roles of one node over time.
#[derive(Debug, Default)]
pub struct Roles {
    changes: Vec<(Instant, Seen)>,
    looked: Option<Instant>,
}

impl Roles {
    /// Takes a look into account. A node says for how long it has had its role, so that a change is known better than
    /// to the moment of the look; a role that began and ended between two looks is missed.
    pub fn saw(&mut self, sighting: &Sighting, vip: Option<&str>) {
        if self.looked.is_some_and(|looked| sighting.at <= looked) {
            return;
        }
        let vip_status = sighting.vip(vip);
        let seen = match vip_status.map(|vip| vip.role) {
            Some(Role::Active) => Seen::Active,
            Some(Role::Standby) => Seen::Standby,
            Some(Role::Unfit) => Seen::Unfit,
            None if sighting.status.is_some() => Seen::Unfit,
            None => Seen::Silent,
        };
        let since = Duration::from_millis(vip_status.map_or(0, |vip| vip.since_ms));
        let began = sighting.at.checked_sub(since).unwrap_or(sighting.at);
        let last = self.changes.last().copied();
        if last.is_none_or(|(_, last)| last != seen) {
            // Never before the look that still saw the other role. A node that was out of sight may say what it was then.
            let began = match last {
                Some((silent, Seen::Silent)) => began.max(silent),
                _ => self.looked.map_or(began, |looked| began.max(looked)),
            };
            if self.changes.len() == CHANGES_MAX {
                self.changes.remove(0);
            }
            self.changes.push((began, seen));
        }
        self.looked = Some(sighting.at);
    }

    /// Its roles between two times, each from when to when.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<(Instant, Instant, Seen)> {
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([to]);
        let spans = self.changes.iter().zip(ends);
        let clipped = spans.map(|((start, seen), end)| ((*start).max(from), end.min(to), *seen));
        clipped.filter(|(start, end, _)| start < end).collect()
    }

    /// When it first became active after `since`.
    pub fn active_after(&self, since: Instant) -> Option<Instant> {
        self.changes.iter().find(|(at, seen)| *seen == Seen::Active && *at >= since).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::VipStatus;

    fn sighting(at: Instant, role: Option<(Role, u64)>) -> Sighting {
        let status = role.map(|(role, since_ms)| {
            let vip = VipStatus { name: "web".to_owned(), role, since_ms, ..VipStatus::default() };
            super::super::site::samples::status("lb-a", vec![vip])
        });
        Sighting { at, status, carries: None, trouble: None }
    }

    #[test]
    fn change_is_dated_by_what_the_node_says_but_not_before_the_last_look() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut roles = Roles::default();
        roles.saw(&sighting(at(1000), Some((Role::Standby, 900))), None);
        roles.saw(&sighting(at(2000), Some((Role::Active, 300))), None);
        roles.saw(&sighting(at(2500), None), None);
        roles.saw(&sighting(at(2700), None), None);
        roles.saw(&sighting(at(3000), Some((Role::Standby, 2900))), None);
        let spans = roles.between(at(0), at(4000));
        let expected = [
            (at(100), at(1700), Seen::Standby),
            (at(1700), at(2500), Seen::Active),
            (at(2500), at(3000), Seen::Standby),
        ];
        assert_eq!(spans[..2], expected[..2]);
        assert_eq!(spans[2], (at(2500), at(4000), Seen::Standby));
        assert_eq!(roles.active_after(at(1000)), Some(at(1700)));
        assert_eq!(roles.active_after(at(1701)), None);
    }
}
