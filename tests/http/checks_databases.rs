//! Health checks of real databases: a listener for writes follows the primary, one for reads the replicas.

use std::net::SocketAddr;
use std::time::Instant;

use crate::PATIENCE;
use crate::baton::{Baton, Directory, Settings};
use crate::client::Client;
use crate::mariadb::{self, MariaDb};
use crate::postgres::{Postgres, secret, sql};
use crate::redis::server::RedisServer;
use crate::server::Port;

/// Two pools of the same two servers, one for each role, behind listeners for bytes. Gives the second one's port, too.
fn by_role(kind: &str, keys: &str, servers: [SocketAddr; 2]) -> (Baton, Port) {
    let [one, two] = servers;
    let reads = Port::reserve();
    let pool = |name: &str, role: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nservers = [{{ name = \"one\", address = \"{one}\" }}, {{ name = \"two\", \
             address = \"{two}\" }}]\nhealth = {{ type = \"{kind}\", role = \"{role}\", interval = \"200ms\", \
             interval_when_down = \"100ms\", fall = 2, rise = 1, {keys} }}\n"
        )
    };
    let blocks = format!(
        "[[listener]]\nname = \"reads\"\nbind = [\"{}\"]\nprotocol = \"tcp\"\npool = \"reads\"\n{}{}",
        reads.address(),
        pool("writes", "primary"),
        pool("reads", "replica"),
    );
    (Baton::run("protocol = \"tcp\"\npool = \"writes\"", &blocks), reads)
}

/// Which servers of a pool are up; none until the worker has told.
fn up(status: &serde_json::Value, pool: usize) -> Vec<bool> {
    let servers = status["pools"][pool]["servers"].as_array();
    servers.into_iter().flatten().map(|server| server["up"].as_bool().expect("it is said")).collect()
}

fn said(status: &serde_json::Value, pool: usize, server: usize) -> String {
    status["pools"][pool]["servers"][server]["last_check"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn writes_to_postgresql_follow_a_promotion() {
    let directory = Directory::new();
    let mut primary = Postgres::primary(&directory);
    let replica = Postgres::replica(&directory, &primary);
    let password = directory.path("password");
    secret(&password, "s3cret\n");
    let keys = format!("user = \"checker\", password_file = \"{}\"", password.display());
    let (baton, reads) = by_role("postgres", &keys, [primary.address(), replica.address()]);
    let status = baton.wait_for_status(|status| up(status, 0) == [true, false] && up(status, 1) == [false, true]);
    assert!(said(&status, 0, 0).starts_with("PostgreSQL, primary in "), "{status:#}");
    assert_eq!(said(&status, 0, 1), "it is a replica, and the primary is wanted");
    assert_eq!(said(&status, 1, 0), "it is the primary, and a replica is wanted");
    assert!(said(&status, 1, 1).starts_with("PostgreSQL, replica in "), "{status:#}");
    assert_eq!(sql(baton.address(), "create table t (n int)"), Ok("CREATE TABLE".to_owned()));
    assert_eq!(sql(reads.address(), "select pg_is_in_recovery()"), Ok("t".to_owned()));
    primary.crash();
    replica.promote();
    baton.wait_for_status(|status| up(status, 0) == [false, true]);
    assert_eq!(sql(baton.address(), "insert into t values (1)"), Ok("INSERT 0 1".to_owned()));
    assert_eq!(sql(baton.address(), "select n from t"), Ok("1".to_owned()));
    // Nobody is a replica now.
    baton.wait_for_status(|status| up(status, 1) == [false, false]);
}

#[test]
fn wrong_password_for_postgresql_is_said() {
    let directory = Directory::new();
    let primary = Postgres::primary(&directory);
    let password = directory.path("password");
    secret(&password, "wrong\n");
    let keys = format!("user = \"checker\", password_file = \"{}\"", password.display());
    let (baton, _reads) = by_role("postgres", &keys, [primary.address(), "127.0.0.2:1".parse().unwrap()]);
    let status = baton.wait_for_status(|status| up(status, 0) == [false, false]);
    let reason = "PostgreSQL says \"password authentication failed for user \"checker\"\"";
    assert_eq!(said(&status, 0, 0), reason);
    assert_eq!(said(&status, 0, 1), "connect failed: connection refused");
    // A file that is written anew is taken without a restart.
    secret(&password, "s3cret\n");
    baton.wait_for_status(|status| up(status, 0) == [true, false]);
}

#[test]
fn writes_to_mariadb_follow_a_promotion_and_a_wrong_password_is_said() {
    let directory = Directory::new();
    let [mut primary, replica] = MariaDb::pair(&directory);
    let password = directory.path("password");
    secret(&password, "wrong\n");
    let keys = format!("user = \"checker\", password_file = \"{}\"", password.display());
    let (baton, reads) = by_role("mysql", &keys, [primary.address(), replica.address()]);
    let refused = "MySQL says \"Access denied for user 'checker'@'127.0.0.1' (using password…\"";
    let status = baton.wait_for_status(|status| said(status, 0, 0) == refused && said(status, 1, 0) == refused);
    assert_eq!((up(&status, 0)[0], up(&status, 1)[0]), (false, false));
    // A file that is written anew is taken without a restart.
    secret(&password, "s3cret\n");
    let is_told = |status: &serde_json::Value| {
        [(0, 0), (0, 1), (1, 0), (1, 1)].iter().all(|(pool, server)| said(status, *pool, *server) != refused)
    };
    let status = baton
        .wait_for_status(|status| up(status, 0) == [true, false] && up(status, 1) == [false, true] && is_told(status));
    assert!(said(&status, 0, 0).starts_with("MySQL, primary in "), "{status:#}");
    assert_eq!(said(&status, 0, 1), "it is a replica, and the primary is wanted");
    assert_eq!(said(&status, 1, 0), "it is the primary, and a replica is wanted");
    assert!(said(&status, 1, 1).starts_with("MySQL, replica in "), "{status:#}");
    // One login of each pool's, however many checks.
    let logins = "select count(*) from information_schema.processlist where user = 'checker'";
    assert_eq!(primary.administer(logins), Ok("2".to_owned()));
    assert_eq!(mariadb::sql(baton.address(), "create table shop.t (n int)"), Ok(String::new()));
    assert_eq!(mariadb::sql(reads.address(), "select @@global.read_only"), Ok("1".to_owned()));
    let written = mariadb::sql(reads.address(), "insert into shop.t values (1)").expect_err("it is a replica");
    assert!(written.contains("--read-only"), "{written}");
    let deadline = Instant::now() + PATIENCE;
    while mariadb::sql(reads.address(), "select count(*) from shop.t") != Ok("0".to_owned()) {
        assert!(Instant::now() < deadline, "the replica does not follow");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    primary.crash();
    replica.promote();
    baton.wait_for_status(|status| up(status, 0) == [false, true] && up(status, 1) == [false, false]);
    assert_eq!(mariadb::sql(baton.address(), "insert into shop.t values (1)"), Ok(String::new()));
    assert_eq!(mariadb::sql(baton.address(), "select n from shop.t"), Ok("1".to_owned()));
}

#[test]
fn greeting_of_mariadb_is_enough_without_a_user() {
    let directory = Directory::new();
    let server = MariaDb::alone(&directory);
    let pool = "health = { type = \"mysql\", interval = \"100ms\", fall = 1 }\n".to_owned();
    let baton = Baton::before_addresses(&[server.address()], &Settings { pool, ..Settings::default() });
    let status = baton.wait_for_status(|status| status["pools"][0]["servers"][0]["checked"] == true);
    let said = said(&status, 0, 0);
    assert!(said.starts_with("MySQL ") && said.contains("MariaDB"), "{said}");
    assert_eq!(up(&status, 0), [true]);
}

/// What a client that says GET is told, over one of the listeners.
fn ask_redis(address: SocketAddr, command: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::connect(address);
        let _gone = client.send(format!("AUTH s3cret\r\n{command}\r\n"));
        if let Ok(first) = client.exactly(5)
            && first == b"+OK\r\n"
        {
            let answer = client.exactly(5).unwrap_or_default();
            return String::from_utf8_lossy(&answer).into_owned();
        }
        assert!(Instant::now() < deadline, "Redis does not answer through the listener");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn writes_to_redis_follow_a_failover() {
    let directory = Directory::new();
    let password = directory.path("password");
    secret(&password, "s3cret\n");
    let mut primary = RedisServer::start(&["--requirepass", "s3cret", "--masterauth", "s3cret"]);
    let of = primary.port().to_string();
    let replica = RedisServer::start(&[
        "--requirepass",
        "s3cret",
        "--masterauth",
        "s3cret",
        "--replicaof",
        &format!("127.0.0.1 {of}"),
    ]);
    let address = |server: &RedisServer| SocketAddr::from(([127, 0, 0, 1], server.port()));
    let keys = format!("password_file = \"{}\"", password.display());
    let (baton, reads) = by_role("redis", &keys, [address(&primary), address(&replica)]);
    let status = baton.wait_for_status(|status| up(status, 0) == [true, false] && up(status, 1) == [false, true]);
    assert!(said(&status, 0, 0).starts_with("Redis, primary in "), "{status:#}");
    assert_eq!(ask_redis(baton.address(), "SET k v"), "+OK\r\n");
    assert_eq!(ask_redis(reads.address(), "SET k v"), "-READ");
    primary.kill();
    assert_eq!(replica.cli(&["-a", "s3cret", "--no-auth-warning", "REPLICAOF", "NO", "ONE"]), "OK");
    baton.wait_for_status(|status| up(status, 0) == [false, true] && up(status, 1) == [false, false]);
    assert_eq!(ask_redis(baton.address(), "SET k v"), "+OK\r\n");
}
