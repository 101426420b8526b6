//! Sessions while neither node runs: the archive in the state directory, and what may happen to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use baton::lab::pair::{NODES, TARGET};
use baton::status::{ArchiveStatus, NodeStatus};
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, program, until};
use crate::small_disk::SmallDisk;

/// Users by a header, and a copy on the disk each second.
fn by_user() -> Plan {
    Plan::usual()
        .patient()
        .edit("by = \"cookie\"\nname = \"BATON\"", "by = \"header\"\nname = \"X-User\"")
        .edit("[pair]", "[sessions]\nsnapshot_interval = \"1s\"\n\n[pair]")
}

pub fn trials() -> Vec<Trial> {
    let seldom = || by_user().edit("snapshot_interval = \"1s\"", "snapshot_interval = \"24h\"");
    vec![
        seldom().trial("sessions_survive_a_stop_of_both_nodes", sessions_survive_a_stop_of_both_nodes),
        by_user().trial("sessions_survive_a_power_cut_of_both_nodes", sessions_survive_a_power_cut_of_both_nodes),
        seldom().trial("sessions_age_while_no_node_runs", sessions_age_while_no_node_runs),
        by_user().trial("damaged_archive_is_set_aside_and_reported", damaged_archive_is_set_aside_and_reported),
        by_user().trial("full_disk_keeps_the_archive_before", full_disk_keeps_the_archive_before),
        seldom().trial("cleared_sessions_do_not_come_back", cleared_sessions_do_not_come_back),
    ]
}

/// The server that a user is served by.
fn server_of(scene: &Scene, user: &str) -> anyhow::Result<String> {
    let answer = scene.pair.client()?.run(|| {
        let mut stream = TcpStream::connect_timeout(&TARGET, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = TARGET.ip();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nX-User: {user}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let server = answer.lines().find_map(|line| line.strip_prefix("x-server: "));
    server.map(str::to_owned).context("the server says who it is")
}

/// Thirty users, and who serves each.
fn users(scene: &Scene) -> anyhow::Result<BTreeMap<String, String>> {
    let names = (0..30).map(|user| format!("user{user}"));
    names.map(|user| Ok((user.clone(), server_of(scene, &user)?))).collect()
}

fn file(scene: &Scene, node: &str, name: &str) -> PathBuf {
    scene.node(node).state_dir().join(name)
}

fn archive(status: &NodeStatus) -> ArchiveStatus {
    status.sessions.archive.clone().unwrap_or_default()
}

fn entries(status: &NodeStatus) -> u64 {
    status.sessions.pools.iter().map(|pool| pool.entries).sum()
}

/// Waits until a node has a copy of so many sessions on the disk.
fn wait_until_written(scene: &Scene, node: &str, count: u64) -> Outcome {
    until(&format!("{count} sessions on the disk"), PATIENCE, || {
        let archive = archive(&scene.status(node)?);
        Ok((archive.entries == count && archive.written_ms.is_some() && archive.last_error.is_none()).then_some(()))
    })
}

fn command(scene: &Scene, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(program());
    command.args(arguments).arg("--runtime-dir").arg(scene.node(node).runtime_dir());
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn expect_users(scene: &Scene, users: &BTreeMap<String, String>) -> Outcome {
    for (user, server) in users {
        assert_eq!(server_of(scene, user)?, *server, "{user} was moved");
    }
    Ok(())
}

fn sessions_survive_a_stop_of_both_nodes(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let users = users(scene)?;
    for node in NODES {
        scene.node_mut(node).stop(PATIENCE)?;
    }
    let metadata = fs::metadata(file(scene, active, "sessions"))?;
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert!(!file(scene, active, "sessions.new").exists());
    scene.form_on(active)?;
    let status = scene.status(active)?;
    assert_eq!((archive(&status).restored, entries(&status)), (30, 30));
    assert_eq!(status.warnings, [""; 0]);
    expect_users(scene, &users)
}

fn sessions_survive_a_power_cut_of_both_nodes(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let users = users(scene)?;
    wait_until_written(scene, active, 30)?;
    for node in NODES {
        scene.node_mut(node).kill_all()?;
    }
    scene.form_on(active)?;
    assert_eq!(archive(&scene.status(active)?).restored, 30);
    expect_users(scene, &users)
}

/// The wall clock of writing stands in the archive: set back there, more time has passed.
fn sessions_age_while_no_node_runs(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    users(scene)?;
    for node in NODES {
        scene.node_mut(node).stop(PATIENCE)?;
    }
    // The default life of an entry is an hour.
    for (hours_ms, expected) in [(3_000_000, 30), (3_600_000, 0)] {
        rewrite_time(&file(scene, active, "sessions"), hours_ms)?;
        scene.node_mut(active).start()?;
        until("the worker to have read the archive", PATIENCE, || {
            let status = scene.status(active)?;
            let is_read = status.worker.state == "running" && archive(&status).restored == expected;
            Ok((is_read && entries(&status) == expected).then_some(()))
        })?;
        assert_eq!(scene.status(active)?.warnings, [""; 0]);
        let kept = fs::read(file(scene, active, "sessions"))?;
        scene.node_mut(active).kill_all()?;
        fs::write(file(scene, active, "sessions"), kept)?;
    }
    Ok(())
}

/// Makes an archive older, with the right checksum.
fn rewrite_time(path: &Path, by_ms: u64) -> Outcome {
    let mut bytes = fs::read(path)?;
    let written: [u8; 8] = bytes[10..18].try_into()?;
    bytes[10..18].copy_from_slice(&(u64::from_be_bytes(written) - by_ms).to_be_bytes());
    let content = bytes.len() - 32;
    let checksum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes[..content]);
    bytes[content..].copy_from_slice(checksum.as_ref());
    Ok(fs::write(path, bytes)?)
}

fn damaged_archive_is_set_aside_and_reported(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    users(scene)?;
    for node in NODES {
        scene.node_mut(node).stop(PATIENCE)?;
    }
    // One is cut short, in the other a byte is changed.
    let (cut, changed) = (file(scene, active, "sessions"), file(scene, standby, "sessions"));
    let length = fs::metadata(&cut)?.len();
    fs::OpenOptions::new().write(true).open(&cut)?.set_len(length - 100)?;
    let bytes = fs::read(&changed)?;
    fs::OpenOptions::new().write(true).open(&changed)?.write_at(&[bytes[80] ^ 1], 80)?;
    let (active_now, _) = scene.form()?;
    for node in NODES {
        until("the damage to be reported", PATIENCE, || {
            let status = scene.status(node)?;
            let is_told = |warning: &String| {
                warning.starts_with("the archive of sessions ") && warning.contains("/sessions.damaged, 0 min ago")
            };
            Ok((status.warnings.iter().any(is_told) && archive(&status).restored == 0).then_some(()))
        })?;
        assert!(scene.node(node).log_tail(1000).iter().any(|line| line.contains("was not used")));
        assert!(file(scene, node, "sessions.damaged").exists());
    }
    assert_eq!(fs::metadata(file(scene, active, "sessions.damaged"))?.len(), length - 100, "as it was");
    assert_eq!(entries(&scene.status(active_now)?), 0, "nothing of it is loaded");
    // And it goes on.
    users(scene)?;
    until("a good archive again", PATIENCE, || {
        let archive = archive(&scene.status(active_now)?);
        Ok((archive.entries == 30 && archive.written_ms.is_some()).then_some(()))
    })
}

fn full_disk_keeps_the_archive_before(scene: &mut Scene) -> Outcome {
    let [node, _] = NODES;
    let disk = SmallDisk::mount(&scene.node(node).state_dir())?;
    scene.node_mut(node).start()?;
    until("a server that answers", PATIENCE, || Ok(server_of(scene, "first").ok()))?;
    wait_until_written(scene, node, 1)?;
    let filler = disk.fill()?;
    let before = fs::read(file(scene, node, "sessions"))?;
    users(scene)?;
    until("the warning", PATIENCE, || {
        let warnings = scene.status(node)?.warnings;
        let is_told = |warning: &String| warning.contains("No space left on device");
        Ok(warnings.iter().any(is_told).then_some(()))
    })?;
    // Only the time of writing may differ from the one before, which was complete.
    let now = fs::read(file(scene, node, "sessions"))?;
    assert_eq!(now.len(), before.len());
    assert!(!file(scene, node, "sessions.new").exists());
    users(scene)?;
    fs::remove_file(filler)?;
    wait_until_written(scene, node, 31)?;
    assert_eq!(scene.status(node)?.warnings.iter().filter(|warning| warning.contains("sessions")).count(), 0);
    scene.node_mut(node).stop(PATIENCE)?;
    drop(disk);
    Ok(())
}

fn cleared_sessions_do_not_come_back(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    users(scene)?;
    scene.node_mut(standby).stop(PATIENCE)?;
    assert_eq!(command(scene, active, &["sessions", "clear", "--key", "user1"])?, "removed 1 session\n");
    until("a copy without it", Duration::from_secs(5), || {
        Ok((archive(&scene.status(active)?).entries == 29).then_some(()))
    })?;
    wait_until_written(scene, active, 29)?;
    scene.node_mut(active).kill_all()?;
    // What the other node has is older, and says so; here it is to come from the disk alone.
    scene.node_mut(active).start()?;
    until("the sessions of the disk", PATIENCE, || Ok((archive(&scene.status(active)?).restored == 29).then_some(())))?;
    assert!(command(scene, active, &["sessions", "show", "--key", "user1"]).is_err());
    assert!(command(scene, active, &["sessions", "show", "--key", "user2"]).is_ok());
    Ok(())
}
