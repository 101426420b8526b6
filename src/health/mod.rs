//! Judges whether a server is up from the results of its checks. A core; `probe` makes the checks.

/// The verdict on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    fall: u32,
    rise: u32,
    up: bool,
    /// Results in a row that contradict `up`.
    streak: u32,
    judged: bool,
}

impl Judgement {
    /// A server nobody has checked: it counts as up, so that a restarted worker serves at once, and the first check
    /// decides alone. After that, `fall` failures in a row take it down and `rise` successes bring it back (1 to 100).
    pub fn new(fall: u32, rise: u32) -> Self {
        Self { fall, rise, up: true, streak: 0, judged: false }
    }

    /// Goes on with a verdict that there is already.
    pub fn resume(&mut self, is_up: bool) {
        (self.up, self.judged) = (is_up, true);
    }

    /// Whether it counts as up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Takes the result of one check. `Some(up)` when the verdict changed.
    pub fn record(&mut self, success: bool) -> Option<bool> {
        let first = !std::mem::replace(&mut self.judged, true);
        if success == self.up {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let needed = if self.up { self.fall } else { self.rise };
        if !first && self.streak < needed {
            return None;
        }
        self.up = success;
        self.streak = 0;
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(judgement: &mut Judgement, results: &[bool]) -> Vec<bool> {
        results
            .iter()
            .map(|&result| {
                judgement.record(result);
                judgement.is_up()
            })
            .collect()
    }

    #[test]
    fn falls_after_three_failures_in_a_row_and_not_after_two() {
        let mut judgement = Judgement::new(3, 2);
        assert_eq!(
            verdicts(&mut judgement, &[true, false, false, true, false, false, false]),
            [true, true, true, true, true, true, false]
        );
    }

    #[test]
    fn rises_after_two_successes_in_a_row_and_not_after_one() {
        let mut judgement = Judgement::new(1, 2);
        assert_eq!(verdicts(&mut judgement, &[false, true, false, true, true]), [false, false, false, false, true]);
    }

    #[test]
    fn the_first_check_decides_alone() {
        assert_eq!(Judgement::new(3, 2).record(false), Some(false));
        assert_eq!(Judgement::new(3, 2).record(true), None);
    }

    #[test]
    fn only_a_change_is_reported() {
        let mut judgement = Judgement::new(2, 2);
        assert_eq!(judgement.record(true), None);
        assert_eq!(judgement.record(false), None);
        assert_eq!(judgement.record(false), Some(false));
        assert_eq!(judgement.record(false), None);
    }
}
