//! Rules of `[access_log]`, and what a listener has of it.

use std::path::Path;

use baton::config::{AccessLog, LogFormat, LogTarget, SyslogFormat, parse};

use super::rules::{TRAFFIC, check_one, mistakes, refused};
use super::{Directory, baton, stderr};

refused! {
    unknown_key: ["[access_log]\nformt = \"json\"\n", TRAFFIC], 2, "access_log.formt", "unknown key";
    unknown_format: ["[access_log]\nformat = \"clf\"\n", TRAFFIC], 2, "access_log.format", "must be \"json\" or \"combined\"";
    misspelt_target: ["[access_log]\nto = \"sysog\"\n", TRAFFIC], 2, "access_log.to", "or a path";
    empty_target: ["[access_log]\nto = \"\"\n", TRAFFIC], 2, "access_log.to", "or a path";
    number_for_a_target: ["[access_log]\nto = 1\n", TRAFFIC], 2, "access_log.to", "must be a string";
    no_share: ["[access_log]\nsample = 0\n", TRAFFIC], 2, "access_log.sample", "above 0 and at most 1";
    negative_share: ["[access_log]\nsample = -0.5\n", TRAFFIC], 2, "access_log.sample", "above 0 and at most 1";
    more_than_all: ["[access_log]\nsample = 1.01\n", TRAFFIC], 2, "access_log.sample", "above 0 and at most 1";
    no_number: ["[access_log]\nsample = nan\n", TRAFFIC], 2, "access_log.sample", "above 0 and at most 1";
    share_in_quotes: ["[access_log]\nsample = \"0.5\"\n", TRAFFIC], 2, "access_log.sample", "must be a number, not a string";
    unknown_selection: ["[access_log]\nonly = \"slow\"\n", TRAFFIC], 2, "access_log.only", "must be \"all\" or \"errors\"";
    path_without_slash: ["[access_log]\nexcept_paths = [\"health\"]\n", TRAFFIC],
        2, "access_log.except_paths[#1]", "must begin with '/'";
    every_path: ["[access_log]\nexcept_paths = [\"/\"]\n", TRAFFIC],
        2, "access_log.except_paths[#1]", "every path lies below";
    path_for_a_list: ["[access_log]\nexcept_paths = \"/health\"\n", TRAFFIC],
        2, "access_log.except_paths", "must be a list";
    socket_of_nothing: ["[access_log]\nsocket = \"/dev/log\"\n", TRAFFIC],
        2, "access_log.socket", "has no meaning without to = \"syslog\" or \"journal\"";
    socket_of_a_file: ["[access_log]\nto = \"/a.log\"\nsocket = \"/dev/log\"\n", TRAFFIC],
        3, "access_log.socket", "has no meaning";
    syslog_format_of_the_journal: ["[access_log]\nto = \"journal\"\nsyslog_format = \"rfc5424\"\n", TRAFFIC],
        3, "access_log.syslog_format", "has no meaning without to = \"syslog\"";
    unknown_syslog_format: ["[access_log]\nto = \"syslog\"\nsyslog_format = \"bsd\"\n", TRAFFIC],
        3, "access_log.syslog_format", "must be \"rfc3164\" or \"rfc5424\"";
    listener_says_something_else: [TRAFFIC_OPEN, "access_log = \"on\"\n", POOL], 4, "listener[web].access_log", "must be \"off\"";
    listener_says_false: [TRAFFIC_OPEN, "access_log = false\n", POOL], 4, "listener[web].access_log", "must be a string";
    key_of_a_listener: [TRAFFIC_OPEN, "access_log = { only = 1 }\n", POOL], 4, "listener[web].access_log.only", "must be a string";
}

/// A listener, to be continued, and its pool.
const TRAFFIC_OPEN: &str = "[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:80\"]\n";
const POOL: &str =
    "pool = \"app\"\n[[pool]]\nname = \"app\"\nservers = [{ name = \"app1\", address = \"10.0.0.1:8080\" }]\n";

fn log(before: &str, own: &str) -> Option<AccessLog> {
    let text = [before, TRAFFIC_OPEN, own, POOL].concat();
    let config = parse(&text, Path::new("/etc/baton/baton.toml")).unwrap_or_else(|report| panic!("{report}"));
    config.listeners.into_iter().next().and_then(|listener| listener.access_log)
}

const DEFAULT: AccessLog = AccessLog {
    format: LogFormat::Json,
    target: LogTarget::Stdout,
    sample_ppm: 1_000_000,
    only_errors: false,
    except_paths: Vec::new(),
};

#[test]
fn there_is_none_without_a_block_and_json_on_standard_output_with_an_empty_one() {
    assert_eq!(log("", ""), None);
    assert_eq!(log("[access_log]\n", ""), Some(DEFAULT));
    assert_eq!(log("", "access_log = {}\n"), Some(DEFAULT));
    assert_eq!(log("[access_log]\n", "access_log = \"off\"\n"), None);
}

#[test]
fn what_a_listener_does_not_say_it_has_from_all() {
    let all = "[access_log]\nformat = \"combined\"\nto = \"logs/a.log\"\nsample = 0.01\nonly = \"errors\"\nexcept_paths = [\"/health/\"]\n";
    let expected = AccessLog {
        format: LogFormat::Combined,
        target: LogTarget::File("/etc/baton/logs/a.log".into()),
        sample_ppm: 10_000,
        only_errors: true,
        except_paths: vec!["/health".to_owned()],
    };
    assert_eq!(log(all, ""), Some(expected.clone()));
    let own = "access_log = { format = \"json\", to = \"syslog\", sample = 1, only = \"all\", except_paths = [] }\n";
    let target = LogTarget::Syslog { socket: "/dev/log".into(), format: SyslogFormat::Rfc3164 };
    assert_eq!(log(all, own), Some(AccessLog { target, ..DEFAULT }));
    let target = LogTarget::Journal { socket: "/run/systemd/journal/socket".into() };
    assert_eq!(log(all, "access_log = { to = \"journal\" }\n"), Some(AccessLog { target, ..expected }));
}

#[test]
fn the_smallest_share_is_one_of_a_million() {
    let share = |share: &str| log(&format!("[access_log]\nsample = {share}\n"), "").map(|log| log.sample_ppm);
    assert_eq!(share("0.000001"), Some(1));
    assert_eq!(share("1e-9"), Some(1));
    assert_eq!(share("1.0"), Some(1_000_000));
}

#[test]
fn seventeen_places_are_one_too_many() {
    let listener = |index: u32| {
        format!(
            "[[listener]]\nname = \"l{index}\"\nbind = [\"0.0.0.0:{}\"]\npool = \"app\"\naccess_log = {{ to = \"/{index}.log\" }}\n",
            1000 + index
        )
    };
    let text = |count| (0..count).map(listener).collect::<String>() + TRAFFIC;
    assert_eq!(mistakes(&text(16)), []);
    check_one(&text(17), 85, "listener[l16].access_log.to", "16 places");
}

#[test]
fn a_file_that_cannot_be_written_is_found_on_the_machine() {
    let directory = Directory::new("access-log");
    let check = |to: &str| {
        let to = directory.path(to);
        let text = format!("[access_log]\nto = \"{}\"\n{TRAFFIC}", to.display());
        let file = directory.write("baton.toml", text, 0o644);
        let output = baton(&["check", "--config", &file.display().to_string()]);
        (output.status.success(), stderr(&output))
    };
    assert!(check("access.log").0);
    let (is_good, said) = check("missing/access.log");
    assert!(!is_good && said.contains("access_log.to") && said.contains("mkdir -p"), "{said}");
    std::fs::create_dir(directory.path("directory")).expect("it is ours");
    let (is_good, said) = check("directory");
    assert!(!is_good && said.contains("is no file"), "{said}");
}
