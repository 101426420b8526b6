//! Whether a worker that does not answer hangs, or has had no chance to answer.
//!
//! A worker is asked every few ten milliseconds and has to answer soon. On a machine whose processors are all busy even a
//! healthy one may be late, and to move the VIP for that would be wrong. So when the time is over its threads are looked
//! at, and the worker hangs when
//! - a thread is stopped, by a signal or a debugger;
//! - a thread has used three quarters of the time-out on a processor and still not answered: it turns in circles;
//! - no thread wants a processor, at two looks in a row: nobody is about to answer;
//! - it has not answered for [`LIMIT_TIMEOUTS`] time-outs, whatever its threads do.
//!
//! A thread that wants a processor and gets none is waited for. Time in which the asker itself was late does not count: it
//! may have been starved together with the worker, or the whole machine been paused.

use std::time::{Duration, Instant};

/// Time-outs after which even a starved worker is given up: clients get no answers from it either.
pub const LIMIT_TIMEOUTS: u32 = 5;

/// What a thread is doing (proc_pid_stat(5), field 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// On a processor or waiting for one (`R`).
    Running,
    /// Waiting for something else (`S`, `D`, `I`).
    Waiting,
    /// Stopped by a signal or a debugger (`T`, `t`).
    Stopped,
    /// Ended (`Z`, `X`), of which the guard is told otherwise.
    Ended,
}

impl Doing {
    /// From the kernel's letter.
    pub fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Doing::Running,
            'T' | 't' => Doing::Stopped,
            'Z' | 'X' | 'x' => Doing::Ended,
            _ => Doing::Waiting,
        }
    }
}

/// A thread at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub doing: Doing,
    /// Processor time that it has used so far.
    pub used: Duration,
}

/// What is thought of the silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Wait on, until [`Silence::deadline`].
    Wait,
    /// It hangs.
    Hung {
        /// For how long it has not answered; time in which the asker was late left out.
        silent_for: Duration,
        /// What shows it, in words.
        evidence: String,
        /// It would go on if it got a processor.
        is_starved: bool,
    },
}

/// A question that was not answered yet.
#[derive(Debug, Clone)]
pub struct Silence {
    timeout: Duration,
    counted: Duration,
    looked: Instant,
    /// The threads at half time, for the processor time that they use from then on.
    baseline: Option<Vec<Thread>>,
    /// Nobody wanted a processor at the last look.
    was_idle: bool,
}

impl Silence {
    /// The worker was asked at `now` and last heard of at `last_alive`. It may have been gone since then, so that time
    /// counts, but at most a quarter of the time-out: the question needs time for its answer.
    pub fn begin(now: Instant, last_alive: Instant, probe_interval: Duration, timeout: Duration) -> Self {
        let before = now.saturating_duration_since(last_alive).min(probe_interval).min(timeout / 4);
        Self { timeout, counted: before, looked: now, baseline: None, was_idle: false }
    }

    /// When to look at the threads.
    pub fn deadline(&self) -> Instant {
        self.looked + self.gap()
    }

    /// The time from the last look to the next: to half of the time-out, to its end, and then in tenths of it.
    fn gap(&self) -> Duration {
        let goal = if self.baseline.is_none() { self.timeout / 2 } else { self.timeout };
        goal.checked_sub(self.counted).filter(|gap| !gap.is_zero()).unwrap_or(self.timeout / 10)
    }

    /// Takes a look at the threads that have to answer; `None` when they could not be looked at, so that time alone
    /// decides. A look before the deadline changes nothing.
    pub fn look(&mut self, now: Instant, threads: Option<Vec<Thread>>) -> Judged {
        let gap = self.gap();
        let Some(late) = now.checked_duration_since(self.looked + gap) else { return Judged::Wait };
        self.counted += gap + late.min(self.timeout / 20);
        self.looked = now;
        if self.counted < self.timeout {
            self.baseline = Some(threads.unwrap_or_default());
            return Judged::Wait;
        }
        let judged = match &threads {
            None => Some(("its threads cannot be looked at".to_owned(), false)),
            Some(threads) => self.judge(threads),
        };
        match judged {
            Some((evidence, is_starved)) => Judged::Hung { silent_for: self.counted, evidence, is_starved },
            None => Judged::Wait,
        }
    }

    /// What shows that it hangs, and whether it is starved.
    fn judge(&mut self, threads: &[Thread]) -> Option<(String, bool)> {
        let mut starved = None;
        for thread in threads {
            let used = self.used_since_half_time(thread);
            match thread.doing {
                Doing::Stopped => return Some((format!("thread {} is stopped", thread.name), false)),
                Doing::Running if used >= self.timeout * 3 / 4 => {
                    let used_ms = used.as_millis();
                    let evidence =
                        format!("thread {} used {used_ms} ms of processor time without answering", thread.name);
                    return Some((evidence, false));
                }
                Doing::Running => starved = Some(&thread.name),
                Doing::Waiting | Doing::Ended => {}
            }
        }
        let was_idle = std::mem::replace(&mut self.was_idle, starved.is_none());
        let is_over = self.counted >= self.timeout * LIMIT_TIMEOUTS;
        match starved {
            None if was_idle || is_over => Some(("none of its threads is about to".to_owned(), false)),
            Some(name) if is_over => Some((format!("thread {name} still waits for a processor"), true)),
            _ => None,
        }
    }

    fn used_since_half_time(&self, thread: &Thread) -> Duration {
        let before = self.baseline.iter().flatten().find(|before| before.id == thread.id);
        before.map_or(Duration::ZERO, |before| thread.used.saturating_sub(before.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn thread(id: u32, letter: char, used_ms: u64) -> Thread {
        let name = if id == 1 { "main".to_owned() } else { format!("proxy-{}", id - 2) };
        Thread { id, name, doing: Doing::from_letter(letter), used: MS(used_ms) }
    }

    fn threads(letters: &str, used_ms: u64) -> Option<Vec<Thread>> {
        Some(letters.chars().zip(1..).map(|(letter, id)| thread(id, letter, used_ms)).collect())
    }

    /// Asked at 50 ms, last heard of at 0, as in the default configuration.
    fn asked() -> (Instant, Silence) {
        let start = Instant::now();
        (start, Silence::begin(start + MS(50), start, MS(50), MS(200)))
    }

    /// What is said at each of the looks, given as (time in ms, states of main, proxy-0, proxy-1, processor time each).
    fn run(looks: &[(u64, &str, u64)]) -> Vec<String> {
        let (start, mut silence) = asked();
        let say = |(at, letters, used): &(u64, &str, u64)| {
            assert!(silence.deadline() <= start + MS(*at), "the look at {at} ms is too early to count");
            match silence.look(start + MS(*at), threads(letters, *used)) {
                Judged::Wait => "wait".to_owned(),
                Judged::Hung { silent_for, evidence, is_starved } => {
                    assert_eq!(is_starved, evidence.ends_with("waits for a processor"));
                    format!("{} ms: {evidence}", silent_for.as_millis())
                }
            }
        };
        looks.iter().map(say).collect()
    }

    #[test]
    fn stopped_worker_hangs_when_the_time_is_over() {
        assert_eq!(
            run(&[(100, "TTT", 0), (200, "TTT", 0)]),
            ["wait", "200 ms: thread main is stopped"],
            "stopped by a signal"
        );
        assert_eq!(run(&[(100, "StR", 0), (200, "StR", 0)]), ["wait", "200 ms: thread proxy-0 is stopped"]);
    }

    #[test]
    fn worker_whose_threads_all_wait_hangs_at_the_second_look() {
        let idle = "220 ms: none of its threads is about to";
        assert_eq!(run(&[(100, "SSS", 0), (200, "SSS", 0), (220, "SSS", 0)]), ["wait", "wait", idle]);
        assert_eq!(run(&[(100, "SDS", 0), (200, "SDS", 0), (220, "DDD", 0)]), ["wait", "wait", idle]);
        assert_eq!(
            run(&[(100, "SSS", 0), (200, "SSS", 0), (220, "SRS", 0), (240, "SSS", 0), (260, "SSS", 0)]),
            ["wait", "wait", "wait", "wait", "260 ms: none of its threads is about to"],
            "both looks have to follow each other"
        );
    }

    #[test]
    fn worker_that_turns_in_circles_hangs_once_it_used_three_quarters_of_the_time() {
        assert_eq!(
            run(&[(100, "SRS", 40), (200, "SRS", 140), (220, "SRS", 160), (240, "SRS", 189), (260, "SRS", 190)]),
            ["wait", "wait", "wait", "wait", "260 ms: thread proxy-0 used 150 ms of processor time without answering"]
        );
    }

    #[test]
    fn starved_worker_is_waited_for_up_to_five_times_as_long() {
        let mut looks = vec![(100, "SRS", 40)];
        looks.extend((0..=40).map(|n| (200 + 20 * n, "SRR", 40 + n)));
        let said = run(&looks);
        assert_eq!(said[..41], vec!["wait"; 41]);
        assert_eq!(said[41], "1000 ms: thread proxy-1 still waits for a processor");
    }

    #[test]
    fn time_alone_decides_where_threads_cannot_be_looked_at() {
        let (start, mut silence) = asked();
        assert_eq!(silence.look(start + MS(100), None), Judged::Wait);
        let evidence = "its threads cannot be looked at".to_owned();
        assert_eq!(
            silence.look(start + MS(200), None),
            Judged::Hung { silent_for: MS(200), evidence, is_starved: false }
        );
    }

    #[test]
    fn time_in_which_the_asker_was_late_does_not_count() {
        let (start, mut silence) = asked();
        // Half a second late for the first look: it counts as 10 ms.
        assert_eq!(silence.look(start + MS(600), threads("SSS", 0)), Judged::Wait);
        assert_eq!(silence.deadline(), start + MS(690));
        assert_eq!(silence.look(start + MS(689), threads("TTT", 0)), Judged::Wait, "too early");
        let hung = silence.look(start + MS(690), threads("TTT", 0));
        let evidence = "thread main is stopped".to_owned();
        assert_eq!(hung, Judged::Hung { silent_for: MS(200), evidence, is_starved: false });
    }

    #[test]
    fn time_before_the_question_counts_up_to_a_quarter_of_the_timeout() {
        let start = Instant::now();
        let looks_at = |asked_ms, interval_ms, timeout_ms| {
            Silence::begin(start + MS(asked_ms), start, MS(interval_ms), MS(timeout_ms)).deadline() - start
        };
        assert_eq!(looks_at(10, 50, 200), MS(100), "10 ms count: 90 to half time");
        assert_eq!(looks_at(50, 50, 200), MS(100), "50 ms count");
        assert_eq!(looks_at(400, 50, 200), MS(450), "the asker was late: 50 ms count");
        assert_eq!(looks_at(200, 200, 200), MS(250), "a question needs time for its answer: 50 ms count");
    }
}
