//! What is seen while a drill or the demo runs: a line drawn over and over on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::drill::{Sight, Spectator};
use crate::status::{NodeStatus, Role, VipStatus};

use super::interrupt::Interrupt;

/// How often the line is drawn, and the nodes are asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How often a plain line is written when nothing changes.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Back to the first column, and clear the line.
const CLEAR_LINE: &str = "\r\x1b[K";

/// How it can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A line that is drawn over.
    Terminal { color: bool },
    /// A line for each thing that happens.
    Plain,
}

/// The progress display, on stdout.
#[derive(Debug)]
pub(super) struct Screen {
    style: Style,
    began: Instant,
    looked: Option<Instant>,
    written: Option<Instant>,
    nodes: [String; 2],
    vip: Option<String>,
    roles: [String; 2],
    interrupt: Interrupt,
}

impl Spectator for Screen {
    fn say(&mut self, text: &str) {
        let clear = if self.style == Style::Plain { "" } else { CLEAR_LINE };
        self.write(&format!("{clear}{} {text}\n", self.clock()));
    }

    fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL)
    }

    /// Role changes always, the rest as often as suits where it goes.
    fn show(&mut self, sight: &Sight) {
        self.looked = Some(Instant::now());
        let roles = sight.statuses.each_ref().map(|status| self.role_of(status.as_ref()));
        let nodes = self.nodes.clone().into_iter().zip(&sight.statuses);
        for ((before, now), (node, status)) in self.roles.clone().iter().zip(&roles).zip(nodes) {
            if before != now {
                self.say(&format!("{node}: {before} → {now}{}", self.reason_of(status.as_ref())));
            }
        }
        self.roles = roles;
        match self.style {
            Style::Terminal { color } => self.write(&format!("{CLEAR_LINE}{}", self.line(sight, color))),
            Style::Plain if self.written.is_none_or(|written| written.elapsed() >= PLAIN_INTERVAL) => {
                self.write(&format!("{}\n", self.line(sight, false)));
                self.written = Some(Instant::now());
            }
            Style::Plain => {}
        }
    }

    fn signal(&self) -> Option<u8> {
        self.interrupt.signal()
    }
}

impl Screen {
    /// For a pair of `nodes`, of whose VIPs one counts, on the stdout that there is. Signals that ask to end are noted from
    /// here on. `NO_COLOR` is respected (no-color.org), and a terminal that can do nothing is none.
    pub(super) fn new(nodes: [String; 2], vip: Option<String>) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style =
            if io::stdout().is_terminal() && !dumb { Style::Terminal { color: !no_color } } else { Style::Plain };
        Self {
            style,
            began: Instant::now(),
            looked: None,
            written: None,
            nodes,
            vip,
            roles: ["down".to_owned(), "down".to_owned()],
            interrupt: Interrupt::listen(),
        }
    }

    /// Takes the progress line away.
    pub(super) fn finish(&mut self) {
        if self.style != Style::Plain {
            self.write(CLEAR_LINE);
        }
    }

    fn line(&self, sight: &Sight, color: bool) -> String {
        let [first, second] = &self.roles;
        let [first_name, second_name] = &self.nodes;
        let rate = sight.requests_a_second.map_or(String::new(), |rate| format!("  {rate:>5} requests/s"));
        let failed = if sight.failed > 0 { format!("  {} failed", sight.failed) } else { String::new() };
        let scene = &sight.scene;
        let (first, second) = (painted(first, color), painted(second, color));
        format!("{} {scene:<18} {first_name} {first} {second_name} {second}{rate}{failed}", self.clock())
    }

    fn vip_of<'s>(&self, status: &'s NodeStatus) -> Option<&'s VipStatus> {
        match &self.vip {
            Some(name) => status.vips.iter().find(|vip| vip.name == *name),
            None => status.vips.first(),
        }
    }

    /// A node's role in a word; `down` when it does not say.
    fn role_of(&self, status: Option<&NodeStatus>) -> String {
        match status.map(|status| self.vip_of(status)) {
            Some(Some(vip)) => vip.role.to_string(),
            Some(None) => Role::Unfit.to_string(),
            None => "down".to_owned(),
        }
    }

    /// Why it is in that role, in brackets.
    fn reason_of(&self, status: Option<&NodeStatus>) -> String {
        let reason = status.and_then(|status| self.vip_of(status)).map(|vip| vip.reason.as_str()).unwrap_or_default();
        if reason.is_empty() { String::new() } else { format!(" ({reason})") }
    }

    fn clock(&self) -> String {
        let elapsed = self.began.elapsed();
        format!("{:>3}.{} s", elapsed.as_secs(), elapsed.subsec_millis() / 100)
    }

    fn write(&self, text: &str) {
        // Progress that nobody reads is no reason to stop.
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// The role in eight columns: green for active, red for what cannot take over.
fn painted(role: &str, color: bool) -> String {
    let code = match role {
        "active" => "\x1b[1;32m",
        "standby" => "",
        _ => "\x1b[31m",
    };
    if color && !code.is_empty() { format!("{code}{role:<8}\x1b[0m") } else { format!("{role:<8}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_eight_columns_wide_with_and_without_color() {
        assert_eq!(painted("active", false), "active  ");
        assert_eq!(painted("active", true), "\x1b[1;32mactive  \x1b[0m");
        assert_eq!(painted("standby", true), "standby ");
        assert_eq!(painted("down", true), "\x1b[31mdown    \x1b[0m");
    }

    #[test]
    fn line_fits_a_narrow_terminal() {
        let mut screen = Screen::new(["lb-a".to_owned(), "lb-b".to_owned()], None);
        screen.roles = ["active".to_owned(), "standby".to_owned()];
        let sight = Sight {
            scene: "3/5 guard killed".to_owned(),
            statuses: [None, None],
            requests_a_second: Some(4321),
            failed: 123,
        };
        let line = screen.line(&sight, false);
        assert_eq!(&line[7..], " 3/5 guard killed   lb-a active   lb-b standby    4321 requests/s  123 failed");
        assert!(line.len() <= 90, "{}", line.len());
    }
}
