//! What depends on the machine: interfaces, key files, certificates. Modes are judged as bits, so that root gets the same
//! answers as everybody.

use std::path::Path;

use baton::config::{self, AdvertPassword, KeyError, PairKey, Scope};

use super::Directory;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

/// A key and its certificate, and a key of another one; for tests alone.
pub(super) const SITE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2IA53hm7LkqBuqKA
jd37Dn1CHdi6cSmsG5EXqpwK05+hRANCAASE1OYvfg5Jtx8SbIw4tw7PWPOOqSiV
WIlEA6jDdzNU+rxd+OxaVug6TR1n3bTp+NPtQorrdc+h2uyVzMwq0Xd6
-----END PRIVATE KEY-----
";
pub(super) const SITE_CERT: &str = "-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUGcQmdW52C64g+zY4RrybRHdHKLowCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGYS50ZXN0MCAXDTI2MTEyMTEwNDI1MFoYDzIxMjYxMDI4MTA0
MjUwWjARMQ8wDQYDVQQDDAZhLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASE1OYvfg5Jtx8SbIw4tw7PWPOOqSiVWIlEA6jDdzNU+rxd+OxaVug6TR1n3bTp
+NPtQorrdc+h2uyVzMwq0Xd6o1MwUTAdBgNVHQ4EFgQU3dPMlHk663T8F4Zk4F31
SU3ggrUwHwYDVR0jBBgwFoAU3dPMlHk663T8F4Zk4F31SU3ggrUwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAxCBJ9rF9KqAHRX/cy4TKoCCCsDP1u
euZi1mBECKGSaQIgKRbWJneFRiyRVt0NdFmVV0QW9ua+xPtdU5ArPMdgePM=
-----END CERTIFICATE-----
";
pub(super) const OTHER_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMl+vsGa2LKj0QAMq
RWZe4PCWb0AM3Q+pHUAIQhY9Z1uhRANCAATSJXkrDxUnvj+AnxSctshYdaelWD/o
4h6AuWpiifugTijh5vjtI/f8YtiuHkXY+k8Hf12La/EIYKxEVJJ5ebkQ
-----END PRIVATE KEY-----
";

const VIP: &str = r#"
[[node]]
name = "lb-a"
address = "192.0.2.11"
[pair]
key_file = "pair.key"
[[vip]]
name = "web"
addresses = ["192.0.2.100/24"]
interface = "lo"
virtual_router_id = 51
"#;

const TLS: &str = r#"
[[listener]]
name = "https"
bind = ["0.0.0.0:443"]
pool = "app"
tls = { certificates = [{ cert = "site.crt", key = "site.key" }] }
[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:8080" }]
"#;

pub(super) fn mistakes(path: &Path) -> Vec<(String, String, String)> {
    let report = config::load(path, Scope::Machine).err();
    let mistakes = report.iter().flat_map(|report| report.mistakes());
    mistakes.map(|found| (found.key.clone(), found.rule.clone(), found.remedy.clone())).collect()
}

pub(super) fn check_one(path: &Path, key: &str, rule: &str) {
    let found = mistakes(path);
    let [(found_key, found_rule, _)] = found.as_slice() else { panic!("expected one mistake, found {found:#?}") };
    assert_eq!(found_key, key);
    assert!(found_rule.contains(rule), "{rule:?} is not in {found_rule:?}");
    assert!(config::load(path, Scope::File).is_ok(), "the file by itself is good");
}

#[test]
fn a_machine_with_all_that_the_file_names_is_good() {
    let directory = Directory::new("good");
    directory.write("pair.key", KEY, 0o600);
    directory.write("site.crt", SITE_CERT, 0o644);
    directory.write("site.key", SITE_KEY, 0o600);
    let path = directory.write("baton.toml", format!("{VIP}{TLS}"), 0o644);
    assert_eq!(mistakes(&path), []);
}

#[test]
fn an_interface_that_is_missing_is_named_with_those_that_are_there() {
    let directory = Directory::new("interface");
    directory.write("pair.key", KEY, 0o600);
    let path = directory.write("baton.toml", VIP.replace("\"lo\"", "\"nosuch0\""), 0o644);
    check_one(&path, "vip[web].interface", "no such interface");
    assert!(mistakes(&path)[0].2.starts_with("it has lo"));
}

#[test]
fn a_worker_user_that_is_missing_is_refused() {
    let directory = Directory::new("user");
    directory.write("pair.key", KEY, 0o600);
    let with_user = |user: &str| format!("{VIP}\n[worker]\nuser = \"{user}\"\n");
    let path = directory.write("baton.toml", with_user("no-such-user"), 0o644);
    check_one(&path, "worker.user", "no such user");
    directory.write("baton.toml", with_user("root"), 0o644);
    assert_eq!(mistakes(&path), []);
}

#[test]
fn a_pair_key_that_is_missing_is_made_with_keygen() {
    let directory = Directory::new("key-missing");
    let path = directory.write("baton.toml", VIP, 0o644);
    check_one(&path, "pair.key_file", "failed to read");
    assert!(mistakes(&path)[0].2.contains("baton keygen --out"));
}

#[test]
fn a_pair_key_that_others_can_use_is_refused() {
    for mode in [0o640, 0o620, 0o604, 0o602, 0o610, 0o644, 0o666] {
        let directory = Directory::new("key-mode");
        let key = directory.write("pair.key", KEY, mode);
        let path = directory.write("baton.toml", VIP, 0o644);
        check_one(&path, "pair.key_file", &format!("has mode {mode:04o}"));
        assert_eq!(mistakes(&path)[0].2, format!("chmod 600 {}", key.display()));
    }
}

#[test]
fn an_admin_token_is_judged_as_a_secret() {
    let directory = Directory::new("admin-token");
    let admin = "[admin]\nbind = \"127.0.0.1:9909\"\ntoken_file = \"token\"\n";
    directory.write("pair.key", KEY, 0o600);
    let path = directory.write("baton.toml", format!("{VIP}{admin}"), 0o644);
    check_one(&path, "admin.token_file", "failed to read");
    let token = directory.write("token", "0123456789abcdef012345\n", 0o640);
    check_one(&path, "admin.token_file", "has mode 0640");
    assert_eq!(mistakes(&path)[0].2, format!("chmod 600 {}", token.display()));
    directory.write("token", "too short\n", 0o600);
    check_one(&path, "admin.token_file", "must hold a token of 22 to 512");
}

#[test]
fn a_pair_key_that_only_its_owner_can_use_is_read() {
    for mode in [0o600, 0o400] {
        let directory = Directory::new("key-good");
        let path = directory.write("pair.key", KEY, mode);
        let key = PairKey::load(&path).expect("the key is good");
        assert_eq!(key.as_bytes(), (0..32).collect::<Vec<u8>>());
    }
}

#[test]
fn a_file_that_is_no_pair_key_is_refused() {
    let directory = Directory::new("key-content");
    for content in ["", "secret", &KEY[2..], &"0".repeat(1026)] {
        let path = directory.write("pair.key", content, 0o600);
        assert!(matches!(PairKey::load(&path), Err(KeyError::Malformed { .. })), "{content:?} was accepted");
    }
    assert!(matches!(PairKey::load(&directory.0), Err(KeyError::NotAFile { .. })));
}

#[test]
fn every_interface_that_the_file_names_must_be_there() {
    let directory = Directory::new("interfaces");
    directory.write("pair.key", KEY, 0o600);
    let text = VIP.replace(
        "addresses = [\"192.0.2.100/24\"]",
        "addresses = [\"192.0.2.100/24\", { address = \"192.0.2.101/24\", interface = \"nosuch1\" }]\n\
         advert_interface = \"nosuch2\"",
    ) + "[[fitness]]\nname = \"router\"\ntype = \"gateway\"\naddress = \"192.0.2.1\"\ninterface = \"nosuch3\"\n";
    let path = directory.write("baton.toml", text, 0o644);
    let keys: Vec<String> = mistakes(&path).into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys, ["vip[web].addresses[#2].interface", "vip[web].advert_interface", "fitness[router].interface"]);
}

#[test]
fn advert_keys_are_held_to_what_holds_for_the_pair_key() {
    let directory = Directory::new("advert-keys");
    directory.write("pair.key", KEY, 0o600);
    directory.write("good.key", KEY, 0o600);
    let keys = "advert_keys = [{ id = 1, file = \"good.key\" }, { id = 2, file = \"two.key\" }]";
    let text = VIP.replace("key_file = \"pair.key\"", &format!("key_file = \"pair.key\"\n{keys}"));
    let path = directory.write("baton.toml", text, 0o644);
    check_one(&path, "pair.advert_keys[#2].file", "failed to read");
    directory.write("two.key", KEY, 0o640);
    check_one(&path, "pair.advert_keys[#2].file", "has mode 0640");
    directory.write("two.key", "short", 0o600);
    check_one(&path, "pair.advert_keys[#2].file", "64 to 1024 hex digits");
    directory.write("two.key", KEY, 0o600);
    assert_eq!(mistakes(&path), []);
}

#[test]
fn a_password_file_holds_a_password_and_is_its_owners_alone() {
    let directory = Directory::new("password");
    directory.write("pair.key", KEY, 0o600);
    let path = directory.write("baton.toml", format!("{VIP}version = \"2\"\npassword_file = \"vrrp\"\n"), 0o644);
    check_one(&path, "vip[web].password_file", "failed to read");
    assert!(mistakes(&path)[0].2.contains("the password that the other routers have"));
    let file = directory.write("vrrp", "secret\n", 0o644);
    check_one(&path, "vip[web].password_file", "has mode 0644");
    assert_eq!(mistakes(&path)[0].2, format!("chmod 600 {}", file.display()));
    for content in ["", "\n", "nine-long", "two words", "a much longer text than a password could be"] {
        directory.write("vrrp", content, 0o600);
        check_one(&path, "vip[web].password_file", "1 to 8 printable characters");
    }
    directory.write("vrrp", "secret\n", 0o600);
    assert_eq!(mistakes(&path), []);
    let password = AdvertPassword::load(&directory.path("vrrp")).expect("the password is good");
    assert_eq!(password.as_bytes(), b"secret\0\0");
    assert_eq!(format!("{password:?}"), "AdvertPassword(..)");
}

#[test]
fn the_password_of_a_store_is_its_owners_alone_and_its_authorities_are_certificates() {
    let directory = Directory::new("store");
    directory.write("pair.key", KEY, 0o600);
    let sessions = "[sessions]\nstore = \"rediss://10.0.0.5\"\nstore_password_file = \"password\"\n";
    let path = directory.write("baton.toml", format!("{VIP}{sessions}"), 0o644);
    check_one(&path, "sessions.store_password_file", "failed to read");
    assert!(mistakes(&path)[0].2.contains("the password of the store"));
    let file = directory.write("password", "two words\n", 0o640);
    check_one(&path, "sessions.store_password_file", "has mode 0640");
    assert_eq!(mistakes(&path)[0].2, format!("chmod 600 {}", file.display()));
    for content in ["", "\n", "one\ntwo\n"] {
        directory.write("password", content, 0o600);
        check_one(&path, "sessions.store_password_file", "1 to 512 printable characters");
    }
    directory.write("password", "two words\n", 0o600);
    assert_eq!(mistakes(&path), []);
    directory.write("baton.toml", format!("{VIP}{sessions}store_ca_file = \"ca.pem\"\n"), 0o644);
    check_one(&path, "sessions.store_ca_file", "failed to read");
    directory.write("ca.pem", "nothing\n", 0o644);
    check_one(&path, "sessions.store_ca_file", "holds no certificate");
}

#[test]
fn programs_must_be_there_and_be_programs() {
    let directory = Directory::new("programs");
    directory.write("pair.key", KEY, 0o600);
    let program = directory.path("program");
    let blocks = format!(
        "[[fitness]]\nname = \"disk\"\ntype = \"command\"\ncommand = [\"{0}\", \"x\"]\n[events]\ncommand = [\"{0}\"]\n",
        program.display()
    );
    let path = directory.write("baton.toml", format!("{VIP}{blocks}"), 0o644);
    let expect = |rule: &str| {
        let found = mistakes(&path);
        let keys: Vec<&str> = found.iter().map(|(key, _, _)| key.as_str()).collect();
        assert_eq!(keys, ["fitness[disk].command[#1]", "events.command[#1]"]);
        assert!(found.iter().all(|(_, found, _)| found.contains(rule)), "{rule:?} is not in {found:#?}");
    };
    expect("failed to find the program: No such file");
    directory.write("program", "#!/bin/sh\n", 0o644);
    expect("has mode 0644, so nobody may run it");
    directory.write("program", "#!/bin/sh\n", 0o755);
    assert_eq!(mistakes(&path), []);
    std::fs::remove_file(&program).expect("the file is ours");
    std::fs::create_dir(&program).expect("the directory is writable");
    expect("is not a file");
}

#[test]
fn a_user_of_events_that_is_missing_is_refused() {
    let directory = Directory::new("events-user");
    directory.write("pair.key", KEY, 0o600);
    let events = "[events]\nwebhook = \"http://h.example/\"\nuser = \"no-such-user\"\n";
    let path = directory.write("baton.toml", format!("{VIP}{events}"), 0o644);
    check_one(&path, "events.user", "no such user");
}

#[test]
fn every_address_of_the_node_that_no_interface_has_is_a_warning() {
    let directory = Directory::new("addresses");
    directory.write("pair.key", KEY, 0o600);
    let text = VIP.replace("\"192.0.2.11\"", "\"127.0.0.1\"\nfurther_addresses = [\"192.0.2.11\", \"2001:db8::11\"]");
    let path = directory.write("baton.toml", text, 0o644);
    let config = config::load(&path, Scope::Machine).expect("the file is good");
    let expected = [
        "there is one node, so that nobody takes its vips over",
        "node lb-a has address 192.0.2.11, which is on no interface of this machine",
        "node lb-a has address 2001:db8::11, which is on no interface of this machine",
    ];
    assert_eq!(config.machine_warnings(config.nodes.first()), expected);
}

#[test]
fn a_server_that_is_no_machine_of_a_subnet_here_is_a_warning() {
    let directory = Directory::new("broadcast");
    let server = "servers = [{ name = \"s\", address = \"127.255.255.255:80\" }]";
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = [\"127.0.0.1:80\"]\npool = \"p\"\n[[pool]]\nname = \"p\"\n{server}\n"
    );
    let path = directory.write("baton.toml", text, 0o644);
    let config = config::load(&path, Scope::Machine).expect("the file is good");
    let expected = "server s of pool p is at 127.255.255.255, the broadcast address of 127.0.0.0/8 on lo: write the address \
                    of one machine";
    assert_eq!(config.machine_warnings(None), [expected]);
}

#[test]
fn certificates_that_are_missing_are_all_reported() {
    let directory = Directory::new("tls-missing");
    let path = directory.write("baton.toml", TLS, 0o644);
    let keys: Vec<String> = mistakes(&path).into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys, ["listener[https].tls.certificates[#1].cert", "listener[https].tls.certificates[#1].key"]);
}

#[test]
fn a_certificate_file_without_a_certificate_is_refused() {
    let directory = Directory::new("tls-no-cert");
    directory.write("site.crt", SITE_KEY, 0o644);
    directory.write("site.key", SITE_KEY, 0o600);
    let path = directory.write("baton.toml", TLS, 0o644);
    check_one(&path, "listener[https].tls.certificates[#1].cert", "holds no certificate");
}

#[test]
fn a_key_file_without_a_key_is_refused() {
    let directory = Directory::new("tls-no-key");
    directory.write("site.crt", SITE_CERT, 0o644);
    directory.write("site.key", SITE_CERT, 0o600);
    let path = directory.write("baton.toml", TLS, 0o644);
    check_one(&path, "listener[https].tls.certificates[#1].key", "holds no private key");
}

#[test]
fn pem_that_is_cut_short_is_refused() {
    let directory = Directory::new("tls-cut");
    directory.write("site.crt", &SITE_CERT[..200], 0o644);
    directory.write("site.key", SITE_KEY, 0o600);
    let path = directory.write("baton.toml", TLS, 0o644);
    check_one(&path, "listener[https].tls.certificates[#1].cert", "is not PEM");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = Directory::new("tls-mismatch");
    directory.write("site.crt", SITE_CERT, 0o644);
    directory.write("site.key", OTHER_KEY, 0o600);
    let path = directory.write("baton.toml", TLS, 0o644);
    check_one(&path, "listener[https].tls.certificates[#1].key", "does not belong to the first certificate");
}

#[test]
fn a_tls_key_that_others_can_use_is_refused() {
    for mode in [0o640, 0o620, 0o604, 0o644, 0o666] {
        let directory = Directory::new("tls-mode");
        directory.write("site.crt", SITE_CERT, 0o644);
        let key = directory.write("site.key", SITE_KEY, mode);
        let path = directory.write("baton.toml", TLS, 0o644);
        check_one(&path, "listener[https].tls.certificates[#1].key", &format!("has mode {mode:04o}"));
        assert_eq!(mistakes(&path)[0].2, format!("chmod 600 {}", key.display()));
    }
}

#[test]
fn mistakes_of_the_file_and_of_the_machine_are_reported_together() {
    let directory = Directory::new("together");
    let text = VIP.replace("\"lo\"", "\"nosuch0\"").replace("= 51", "= 0");
    let path = directory.write("baton.toml", text, 0o644);
    let keys: Vec<String> = mistakes(&path).into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys, ["pair.key_file", "vip[web].interface", "vip[web].virtual_router_id"]);
}

/// A listener that names a list and a file of users.
const ACCESS: &str = r#"
[[listener]]
name = "web"
bind = ["0.0.0.0:80"]
pool = "app"
deny_file = "deny"
basic_auth = { users_file = "users" }
[[route]]
listener = "web"
path_prefix = "/in"
pool = "app"
allow_file = "allow"
[[pool]]
name = "app"
servers = [{ name = "app1", address = "10.0.0.1:8080" }]
"#;

#[test]
fn lists_and_users_are_read_and_what_is_wrong_in_them_is_reported_with_its_line() {
    let directory = Directory::new("access");
    let path = directory.write("baton.toml", ACCESS, 0o644);
    let keys: Vec<String> = mistakes(&path).into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys, ["listener[web].deny_file", "listener[web].basic_auth.users_file", "route[#1].allow_file"]);
    directory.write("allow", "10.0.0.0/8 # ours\n", 0o644);
    directory.write("users", "# none\n", 0o644);
    directory.write("deny", "\n10.0.0.1/8\n", 0o644);
    let rule = "line 2: \"10.0.0.1/8\" has bits set behind its prefix; the network is 10.0.0.0/8";
    check_one(&path, "listener[web].deny_file", rule);
    directory.write("deny", "", 0o644);
    directory.write("users", "ann:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=\n", 0o644);
    check_one(&path, "listener[web].basic_auth.users_file", "line 1: user ann: the password is hashed with SHA-1");
    directory.write("users", "", 0o644);
    assert!(mistakes(&path).is_empty());
}
