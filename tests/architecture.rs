//! Holds the direction of imports that `lib.rs` states, and keeps the cores free of the outside world.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a test may end the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the lowest to the highest. Those of one group may import each other only from left to right, except in
/// a group of cores, where they may not at all.
const LAYERS: &[(&[&str], Peers)] = &[
    (&["units"], Peers::Never),
    (&["vrrp", "session", "balance", "health", "fitness", "limit"], Peers::Never),
    (&["net", "config", "status", "inquiry", "link", "event", "telemetry"], Peers::LeftToRight),
    (&["store", "proxy", "probe", "discovery", "admin", "peer"], Peers::LeftToRight),
    (&["guard", "worker", "courier", "witness"], Peers::Never),
    (&["lab", "drill"], Peers::LeftToRight),
    (&["cli"], Peers::Never),
];

#[derive(Clone, Copy, PartialEq)]
enum Peers {
    Never,
    LeftToRight,
}

/// Layers that decide and do not act.
const CORES: &[&str] = &[
    "units",
    "vrrp",
    "session",
    "balance",
    "health",
    "fitness",
    "limit",
    "discovery/list",
    "discovery/consul",
    "discovery/operators",
    "proxy/http/route",
    "proxy/http/strict",
    "proxy/http/h2_frames",
    "proxy/http/h2_request",
    "proxy/tcp/hello",
    "proxy/upstream/head_gate",
    "proxy/upstream/retry",
    "proxy/access_log/line",
    "proxy/access_log/frame",
    "proxy/http/compression/negotiate",
    "proxy/http/forwarded",
    "proxy/http/ids",
    "proxy/proxy_protocol",
];

/// What a core may not name: sockets, clocks, threads, files, logs, the runtime.
const OUTSIDE: &[&str] = &[
    "tokio",
    "tracing",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::thread",
    "std::io",
    "TcpStream",
    "UdpSocket",
    "socket2",
    "libc",
    "rustix",
];

/// Files that may be longer than they are meant to be: none.
const FILE_LINES_MAX: usize = 800;

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pending = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((relative(&path, &root), fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 40, "only {} files found: is the test looking in the right place?", found.len());
    found
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).map(PathBuf::from).unwrap().display().to_string()
}

/// The top-level module that a file belongs to; `None` for lib.rs and main.rs.
fn module(file: &str) -> Option<&str> {
    let first = file.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|name| !["lib", "main"].contains(name))
}

fn rank(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, (modules, _))| {
        modules.iter().position(|known| *known == module).map(|position| (layer, position))
    })
}

fn may_import(importer: &str, imported: &str) -> bool {
    let (Some(from), Some(to)) = (rank(importer), rank(imported)) else { return false };
    let peers_allowed = LAYERS[from.0].1 == Peers::LeftToRight;
    importer == imported || to.0 < from.0 || (to.0 == from.0 && peers_allowed && to.1 < from.1)
}

/// Every `crate::name` of a file, whether it stands in a `use` or in a path.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mentions = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    mentions.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

/// A file without its tests and comments.
fn production(file: &str, text: &str) -> String {
    if file.ends_with("tests.rs") || file.contains("/tests/") {
        return String::new();
    }
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_module_has_its_place_in_the_layers() {
    for (file, _) in sources() {
        if let Some(module) = module(&file) {
            assert!(rank(module).is_some(), "src/{file}: give module {module} a place in lib.rs and in this test");
        }
    }
}

#[test]
fn imports_point_down_the_layers() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(importer) = module(&file) else { continue };
        for imported in imports(&text) {
            if !may_import(importer, &imported) {
                wrong.push(format!("src/{file} imports {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction in lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn the_rule_itself_tells_right_from_wrong() {
    assert!(may_import("guard", "vrrp"));
    assert!(may_import("link", "status"));
    assert!(!may_import("status", "link"));
    assert!(!may_import("vrrp", "session"));
    assert!(!may_import("proxy", "guard"));
    assert!(!may_import("worker", "guard"));
    assert!(!may_import("config", "nothing_known"));
}

#[test]
fn cores_do_not_touch_the_outside_world() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let is_core = CORES.iter().any(|core| file == format!("{core}.rs") || file.starts_with(&format!("{core}/")));
        let code = production(&file, &text);
        wrong.extend(
            OUTSIDE
                .iter()
                .filter(|name| is_core && code.contains(**name))
                .map(|name| format!("src/{file} names {name}")),
        );
    }
    assert!(wrong.is_empty(), "cores decide and do not act:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_grows_past_its_limit() {
    let long = sources().into_iter().map(|(file, text)| (file, text.lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > FILE_LINES_MAX).collect();
    assert!(long.is_empty(), "two things in one file? {long:?}");
}
