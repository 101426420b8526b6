use std::path::Path;

use super::*;
use crate::config;

const PAIR: &str = r#"
[[node]]
name = "a"
address = "192.0.2.1"
[[node]]
name = "b"
address = "192.0.2.2"

[[vip]]
name = "web"
addresses = ["192.0.2.10/24", { address = "198.51.100.10/24", interface = "eth1" }]
interface = "eth0"
advert_interface = "eth9"
virtual_router_id = 1

[[vip]]
name = "mail"
addresses = ["192.0.2.11/24"]
interface = "eth0"
advert_interface = "eth9"
virtual_router_id = 2

[[pool]]
name = "app"
servers = [{ name = "s", address = "192.0.2.20:80" }]
[[pool]]
name = "api"
servers = [{ name = "s", address = "192.0.2.21:80" }]
[[pool]]
name = "unused"
servers = [{ name = "s", address = "192.0.2.22:80" }]
"#;

fn config(more: &str) -> Config {
    config::parse(&format!("{PAIR}{more}"), Path::new("test.toml")).unwrap_or_else(|report| panic!("{report}"))
}

fn listener(bind: &str, pool: &str) -> String {
    format!("[[listener]]\nname = \"{pool}\"\nbind = [{bind}]\npool = \"{pool}\"\n")
}

/// The subjects that count for a VIP.
fn subjects(checks: &Checks, vip: usize) -> Vec<String> {
    checks.fitness.verdicts(vip).map(|verdict| verdict.subject.to_string()).collect()
}

#[test]
fn each_vip_has_the_checks_that_bear_on_it() {
    let check = "[[fitness]]\nname = \"uplink\"\ntype = \"gateway\"\naddress = \"192.0.2.254\"\nvips = [\"mail\"]\n";
    let text = [listener("\"192.0.2.10:80\"", "app"), listener("\"0.0.0.0:81\"", "api"), check.to_owned()];
    let checks = Checks::new(&config(&text.concat()));
    assert_eq!(
        subjects(&checks, 0),
        [
            "worker",
            "carrier of eth0",
            "carrier of eth1",
            "addresses",
            "adverts",
            "listener app",
            "listener api",
            "servers of app",
            "servers of api"
        ],
        "not eth9, which carries adverts alone"
    );
    assert_eq!(
        subjects(&checks, 1),
        ["worker", "carrier of eth0", "addresses", "adverts", "listener api", "gateway uplink", "servers of api"]
    );
    let faults: Vec<&str> = checks.fitness.faults(1).collect();
    assert_eq!(faults, ["worker was not looked at yet", "gateway uplink was not looked at yet"]);
}

#[test]
fn listener_on_another_address_counts_for_no_vip() {
    let checks = Checks::new(&config(&listener("\"192.0.2.99:80\"", "app")));
    assert_eq!(subjects(&checks, 0), ["worker", "carrier of eth0", "carrier of eth1", "addresses", "adverts"]);
}

#[test]
fn wildcard_takes_its_family_and_the_one_of_ipv6_takes_both() {
    let covers = |bind: &str, address: &str| super::covers(&bind.parse().unwrap(), address.parse().unwrap());
    assert!(covers("0.0.0.0:80", "192.0.2.1") && !covers("0.0.0.0:80", "2001:db8::1"));
    assert!(covers("[::]:80", "192.0.2.1") && covers("[::]:80", "2001:db8::1"));
    assert!(covers("192.0.2.1:80", "192.0.2.1") && !covers("192.0.2.1:80", "192.0.2.2"));
}

#[test]
fn listener_is_reached_over_loopback_or_over_the_vip_where_it_is() {
    let ways = |bind: &str| {
        let config = config(&listener(bind, "app"));
        let ways = ways_in(&config, &config.listeners[0]).into_iter();
        ways.map(|way| (way.address.to_string(), way.while_active)).collect::<Vec<_>>()
    };
    assert_eq!(ways("\"0.0.0.0:80\""), [("127.0.0.1:80".to_owned(), None)]);
    assert_eq!(ways("\"[::]:80\""), [("[::1]:80".to_owned(), None)]);
    assert_eq!(
        ways("\"192.0.2.11:80\", \"192.0.2.10:80\", \"192.0.2.99:80\""),
        [("192.0.2.11:80".to_owned(), Some(1)), ("192.0.2.10:80".to_owned(), Some(0))]
    );
}

#[test]
fn command_that_others_than_root_could_change_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let program = std::env::temp_dir().join(format!("baton-warning-{:08x}", fastrand::u32(..)));
    std::fs::write(&program, "").unwrap();
    let check = format!("[[fitness]]\nname = \"script\"\ntype = \"command\"\ncommand = [{program:?}]\n");
    let config = config(&check);
    let said = |mode: u32| {
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        warnings(&config)
    };
    assert_eq!(said(0o755), Vec::<String>::new());
    let expected = format!(
        "fitness check script runs {}, which has mode 0775: others than root can make it run anything",
        program.display()
    );
    assert_eq!((said(0o775), said(0o757).len()), (vec![expected], 1));
    std::fs::remove_file(&program).unwrap();
    assert_eq!(warnings(&config), Vec::<String>::new(), "nothing to warn of");
}
