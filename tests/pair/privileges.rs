//! What each process may do, and what keeps a node from starting at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use baton::lab::pair::NODES;
use baton::lab::process::log_tail;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("worker_has_no_privilege_and_no_secret_to_show", worker_has_no_privilege),
        Plan::usual().trial("control_socket_is_for_its_owner_alone", control_socket_is_for_its_owner_alone),
        Plan::usual().trial("exposed_pair_key_starts_nothing", exposed_pair_key_starts_nothing),
        Plan::usual().trial("config_with_mistakes_starts_nothing", config_with_mistakes_starts_nothing),
        Plan::usual().trial("second_guard_on_one_directory_is_refused", second_guard_is_refused),
    ]
}

fn worker_has_no_privilege(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let pid = scene.node(active).worker()?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set} of the worker");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    // In a user namespace that maps one user there is no other to become.
    let is_all_mapped = fs::read_to_string("/proc/self/uid_map")?.split_whitespace().last() == Some("4294967295");
    assert!(!is_all_mapped || !field("Uid:").contains('0'), "the worker runs as root: {}", field("Uid:"));
    let key = fs::read_to_string(scene.pair.directory().join("pair.key"))?;
    for file in ["cmdline", "environ"] {
        let shown = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}"))?).replace('\0', " ");
        assert!(!shown.contains(key.trim()), "the pair key is in {file}");
        assert!(file != "cmdline" || shown.split_whitespace().count() == 3, "more than a descriptor is in {shown}");
    }
    Ok(())
}

fn control_socket_is_for_its_owner_alone(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let socket = scene.node(active).runtime_dir().join("control.sock");
    assert_eq!(fs::metadata(socket)?.permissions().mode() & 0o7777, 0o600);
    Ok(())
}

/// Starts a node that must refuse, and gives what it says.
fn refusal(scene: &mut Scene) -> anyhow::Result<String> {
    let [node, _] = NODES;
    let capture = scene.capture(node)?;
    let mut guard = scene.start_with(node, &[])?;
    let status = guard.wait(PATIENCE)?;
    assert_eq!(status.code(), Some(1));
    assert!(!scene.node(node).runtime_dir().join("control.sock").exists(), "it opened its control socket");
    assert!(!capture.all().iter().any(|seen| seen.priority().is_some()), "it sent adverts");
    let said = log_tail(guard.log(), 100).join("\n");
    assert!(!said.contains("baton starts") && !said.contains("worker started"), "{said}");
    Ok(said)
}

fn exposed_pair_key_starts_nothing(scene: &mut Scene) -> Outcome {
    let key = scene.pair.directory().join("pair.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let said = refusal(scene)?;
    assert!(said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
    // With the mode as it has to be the same files are good.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    scene.form()?;
    Ok(())
}

fn config_with_mistakes_starts_nothing(scene: &mut Scene) -> Outcome {
    scene.edit_config("virtual_router_id = 51", "virtual_router_id = 256")?;
    scene.edit_config("pool = \"app\"", "pool = \"apps\"")?;
    let said = refusal(scene)?;
    assert!(said.contains("virtual_router_id") && said.contains("apps"), "both mistakes at once: {said}");
    Ok(())
}

fn second_guard_is_refused(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let before = scene.status(active)?;
    let mut second = scene.start_with(active, &[])?;
    assert_eq!(second.wait(PATIENCE)?.code(), Some(1));
    let said = log_tail(second.log(), 5).join("\n");
    assert!(said.contains("another baton runs on"), "{said}");
    let after = scene.status(active)?;
    assert_eq!((after.guard_pid, after.worker.pid), (before.guard_pid, before.worker.pid));
    assert_eq!(after.vips[0].transitions, before.vips[0].transitions);
    assert_eq!(scene.formed()?, (active, standby));
    Ok(())
}
