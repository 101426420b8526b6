//! What the tests of discovery share: a pool whose servers are found, and what the status says of it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::baton::Baton;
use crate::server::Server;

/// A program whose pool `app` has this `[pool.discovery]`; its servers may be on this machine.
pub fn finding(discovery: &str) -> Baton {
    finding_with("", discovery, "")
}

/// The same with further keys of the pool, and further blocks.
pub fn finding_with(pool: &str, discovery: &str, blocks: &str) -> Baton {
    let discovery = format!("[pool.discovery]\nnetworks = [\"127.0.0.0/8\"]\n{discovery}");
    let pool = format!("[[pool]]\nname = \"app\"\n{pool}\n{discovery}\n");
    Baton::run("pool = \"app\"", &format!("{pool}{blocks}\n[worker]\nthreads = 1\n"))
}

/// The names of the pool's servers in a status.
pub fn names(status: &Value) -> Vec<String> {
    let servers = status["pools"][0]["servers"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = servers.iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Waits until these are the servers, in the order of their names.
pub fn wait_for_servers(baton: &Baton, expected: &[&str]) -> Value {
    baton.wait_for_status(|status| names(status) == expected)
}

/// Waits until the source has a problem that says this.
pub fn wait_for_problem(baton: &Baton, text: &str) -> Value {
    let says = |status: &Value| {
        let problem = &status["pools"][0]["discovery"]["problem"];
        problem.as_str().is_some_and(|problem| problem.contains(text))
    };
    let status = baton.wait_for_status(says);
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains(text) && warnings.contains("the last list"), "{warnings}");
    status
}

/// Waits until the source has no problem.
pub fn wait_until_good(baton: &Baton) {
    baton.wait_for_status(|status| status["pools"][0]["discovery"]["problem"].is_null());
}

/// A list with one server of each name.
pub fn list(servers: &[(&str, &Server)]) -> String {
    let server = |(name, server): &(&str, &Server)| format!(r#"{{"name":"{name}","address":"{}"}}"#, server.address());
    format!("[{}]", servers.iter().map(server).collect::<Vec<_>>().join(","))
}

/// Writes a file in one step.
pub fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the directory is writable");
    fs::rename(new, path).expect("the directory is writable");
}
