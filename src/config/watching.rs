//! Reads `[[fitness]]` and `[events]`: what a node has to have to hold a vip, and who is told of role changes.

use std::path::Path;
use std::time::Duration;

use super::blocks::{EventsBlock, FitnessBlock, Rhythm, SubjectBlock, VIPS_MAX, file, interval_and_timeout};
use super::model::Events;
use super::reader::{Table, Value};
use super::report::{Located, Mistakes};
use super::values;

/// Words of a command. More belong into a script.
const COMMAND_WORDS_MAX: usize = 64;
const FITNESS_RHYTHM: Rhythm = Rhythm {
    interval_min: Duration::from_millis(10),
    interval_default: Duration::from_secs(1),
    timeout_default: Duration::from_millis(500),
};
const EVENT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const EVENT_TIMEOUT_MAX: Duration = Duration::from_secs(600);
const EVENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const EVENTS_KEPT_MAX: u32 = 100_000;
const EVENTS_KEPT_DEFAULT: u32 = 1000;

/// What a check looks at, and which keys say so.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Gateway,
    Command,
    File,
    Process,
}

const KINDS: [(&str, Kind); 4] =
    [("gateway", Kind::Gateway), ("command", Kind::Command), ("file", Kind::File), ("process", Kind::Process)];

impl Kind {
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Gateway => &["address", "interface"],
            Kind::Command => &["command"],
            Kind::File => &["path", "must"],
            Kind::Process => &["process"],
        }
    }
}

/// Reads a `[[fitness]]`. Relative paths in it are relative to `directory`.
pub(super) fn fitness(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> FitnessBlock {
    let place = table.place().clone();
    let name = table.name();
    let kind = table
        .required("type", "say what is looked at: \"gateway\", \"command\", \"file\" or \"process\"")
        .and_then(|value| value.choice(&KINDS, &[]))
        .map(|found| found.value);
    let subject = kind.map(|kind| subject(kind, &mut table, directory));
    for (word, other) in KINDS.iter().filter(|(_, other)| kind != Some(*other)) {
        match kind {
            // Nobody knows which of them were meant.
            None => table.skip(other.keys()),
            Some(_) => table.without_meaning(
                other.keys(),
                &format!("has a meaning with type = \"{word}\" alone"),
                &format!("leave it out, or write type = \"{word}\""),
            ),
        }
    }
    let (interval, timeout) = interval_and_timeout(&mut table, mistakes, &FITNESS_RHYTHM);
    let block = FitnessBlock {
        place,
        name,
        subject,
        interval,
        timeout,
        fall: table.integer("fall", 1..=100, 3),
        rise: table.integer("rise", 1..=100, 2),
        vips: table.optional("vips").map(|value| {
            value.list(VIPS_MAX).into_iter().filter_map(|value| value.parsed(values::reference)).collect()
        }),
    };
    table.finish();
    block
}

fn subject(kind: Kind, table: &mut Table<'_>, directory: &Path) -> SubjectBlock {
    match kind {
        Kind::Gateway => SubjectBlock::Gateway {
            address: table
                .required("address", "write the gateway's address, such as \"192.0.2.1\"")
                .and_then(|value| value.parsed(values::gateway)),
            interface: table.optional("interface").and_then(|value| value.parsed(values::interface)),
        },
        Kind::Command => SubjectBlock::Command {
            command: table
                .required("command", "list the program and its arguments, such as [\"/usr/local/bin/check\"]")
                .map(command)
                .unwrap_or_default(),
        },
        Kind::File => SubjectBlock::File {
            path: table
                .required("path", "name the file, such as \"/run/maintenance\"")
                .and_then(|value| file(value, directory)),
            must_exist: table
                .optional("must")
                .and_then(|value| value.choice(&[("exist", true), ("be_absent", false)], &[]))
                .is_none_or(|found| found.value),
        },
        Kind::Process => SubjectBlock::Process {
            process: table
                .required("process", "name the process as `ps -o comm` shows it, such as \"sshd\"")
                .and_then(|value| value.parsed(values::process)),
        },
    }
}

/// A program and its arguments; empty when one of them is broken.
pub(super) fn command(value: Value<'_>) -> Vec<Located<String>> {
    let words = value.list(COMMAND_WORDS_MAX);
    let parse = |(index, value): (usize, Value<'_>)| match index {
        0 => value.parsed(values::program),
        _ => value.parsed(values::argument),
    };
    // All of them, so that every mistake is reported.
    let parsed: Vec<Option<Located<String>>> = words.into_iter().enumerate().map(parse).collect();
    parsed.into_iter().collect::<Option<_>>().unwrap_or_default()
}

/// Reads `[events]`.
pub(super) fn events(table: Option<Table<'_>>) -> EventsBlock {
    let mut block = EventsBlock {
        events: Events {
            command: None,
            webhook: None,
            timeout: EVENT_TIMEOUT_DEFAULT,
            kept_max: EVENTS_KEPT_DEFAULT,
            user: None,
        },
        program: None,
        user: None,
    };
    let Some(mut table) = table else { return block };
    let (command_value, webhook) = (table.optional("command"), table.optional("webhook"));
    if command_value.is_none() && webhook.is_none() {
        table.without_meaning(
            &["timeout", "kept_max", "user"],
            "has no meaning without a command or a webhook that is told",
            "leave it out, or add command = [\"/…\"] or webhook = \"https://…\"",
        );
    }
    if let Some(words) = command_value.map(command) {
        block.program = words.first().cloned();
        block.events.command = Some(words.into_iter().map(|word| word.value).collect());
    }
    block.events.webhook = webhook.and_then(|value| value.parsed(values::webhook)).map(|found| found.value);
    block.events.timeout = table.duration("timeout", EVENT_TIMEOUT_MIN..=EVENT_TIMEOUT_MAX, EVENT_TIMEOUT_DEFAULT);
    block.events.kept_max = table.integer("kept_max", 1..=EVENTS_KEPT_MAX, EVENTS_KEPT_DEFAULT);
    block.user = table.optional("user").and_then(|value| value.parsed(values::user));
    block.events.user = block.user.as_ref().map(|found| found.value.clone());
    table.finish();
    block
}
