//! The limit on open files.

use std::fs;

use crate::baton::Baton;
use crate::server::Server;

fn pool(server: &Server) -> String {
    let address = server.address();
    format!(
        "[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{address}\" }}]\n[worker]\nthreads = 1\n"
    )
}

#[test]
fn worker_may_open_as_many_files_as_it_can_be_allowed() {
    let server = Server::saying("ok");
    let baton = Baton::run_under("ulimit -Sn 200", "pool = \"app\"", &pool(&server));
    let limits = fs::read_to_string(format!("/proc/{}/limits", baton.worker().as_raw_nonzero()));
    let limits = limits.expect("the worker runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the kernel says so");
    let [soft, hard] = [0, 1].map(|at| line.split_whitespace().nth(at).expect("there are two limits"));
    assert_eq!(soft, hard, "{line}");
    assert_ne!(soft, "200");
}

#[test]
fn clients_that_are_idle_leave_files_for_connections_to_servers_and_for_operators() {
    let server = Server::start(|exchange| {
        loop {
            exchange.request()?;
            exchange.wait_for_signal()?;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    });
    let baton = Baton::run_under("ulimit -n 200", "pool = \"app\"", &pool(&server));
    baton.wait_for_log("the limit on open files is too low for connections_max");
    let room = |status: &serde_json::Value| status["worker"]["load"]["connections_max_by_open_files"].as_u64();
    let status = baton.wait_for_status(|status| room(status).is_some());
    let room = room(&status).unwrap_or_default();
    let room = usize::try_from(room).expect("there are not many");
    assert!((30..100).contains(&room), "{room}");
    let mut clients: Vec<_> = (0..room + 100).map(|_| baton.client()).collect();
    baton.wait_for_log("connections wait: raise the limit on open files");
    let status = baton.done(&["status"]);
    assert!(status.contains(&format!("{room} connections at most, by the limit on open files")), "{status}");
    // All of those who are in, at once.
    let later = clients.split_off(room);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    }
    server.wait_until("each has a connection to the server", |record| record.requests.len() == room);
    (0..room).for_each(|_| server.signal());
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    drop((clients, later));
    server.signal();
    assert_eq!(baton.client().get("/").status(), 200);
}
