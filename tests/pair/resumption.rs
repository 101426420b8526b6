//! TLS sessions are resumed on whichever node is active: the keys of their tickets are on both.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use baton::lab::pair::VIP;
use libtest_mimic::Trial;

use crate::handover::{baton, said};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program};

/// Sessions of each version of TLS.
const SESSIONS: usize = 10;
const VERSIONS: [&str; 2] = ["-tls1_3", "-tls1_2"];

pub fn trials() -> Vec<Trial> {
    let listener = "[[listener]]\nname = \"https\"\nbind = [\"10.77.0.100:443\"]\npool = \"app\"\n\
                    tls = { certificates = [{ cert = \"site.crt\", key = \"site.key\" }] }\n\n[[listener]]";
    let plan = || Plan::usual().edit("[[listener]]", listener);
    vec![
        plan().trial("tls_sessions_are_resumed_after_failovers_in_both_directions", resumed_after_failovers),
        plan().trial("tls_sessions_are_resumed_after_the_worker_was_killed", resumed_after_a_worker),
    ]
}

/// Certificate and key beside the configuration.
fn certify(scene: &Scene) -> Outcome {
    let directory = scene.pair.directory();
    let mut command = Command::new(find_program("openssl", "openssl")?);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=a.example", "-keyout"]).arg(directory.join("site.key"));
    let output = command.arg("-out").arg(directory.join("site.crt")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Connects to the VIP, offers a session and keeps one. Whether the one that was offered was resumed.
fn connect(scene: &Scene, version: &str, offered: Option<&Path>, kept: &Path) -> anyhow::Result<bool> {
    let mut command = scene.pair.client()?.command(find_program("openssl", "openssl")?);
    command.args(["s_client", "-ign_eof", "-connect", &format!("{VIP}:443"), "-servername", "a.example", version]);
    command.arg("-sess_out").arg(kept).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(offered) = offered {
        command.arg("-sess_in").arg(offered);
    }
    let mut child = command.spawn()?;
    child.stdin.take().context("it is piped")?.write_all(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (new, reused) = (text.contains("\nNew, TLSv1."), text.contains("\nReused, TLSv1."));
    let is_served = text.contains("HTTP/1.0 200 OK");
    ensure!(new != reused && is_served, "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(reused)
}

/// New sessions, each with its version.
fn sessions(scene: &Scene, name: &str) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let numbers = VERSIONS.iter().flat_map(|version| (0..SESSIONS).map(move |number| (*version, number)));
    let made = numbers.map(|(version, number)| {
        let kept = scene.pair.directory().join(format!("{name}{version}-{number}"));
        ensure!(!connect(scene, version, None, &kept)?, "a session that was not offered was resumed");
        Ok((version, kept))
    });
    made.collect()
}

fn resumed_count(scene: &Scene, sessions: &[(&'static str, PathBuf)]) -> anyhow::Result<usize> {
    let next = scene.pair.directory().join("next");
    let resumed = sessions.iter().map(|(version, session)| connect(scene, version, Some(session), &next));
    Ok(resumed.collect::<anyhow::Result<Vec<_>>>()?.into_iter().filter(|resumed| *resumed).count())
}

fn resumed_after_failovers(scene: &mut Scene) -> Outcome {
    certify(scene)?;
    let (first, second) = scene.form()?;
    let of_first = sessions(scene, "first")?;
    scene.node_mut(first).kill_guard()?;
    scene.wait_for_holder(second, PATIENCE)?;
    assert_eq!(resumed_count(scene, &of_first)?, 2 * SESSIONS);
    let of_second = sessions(scene, "second")?;
    // The first node comes back without any key, and is given those of both.
    scene.node_mut(first).start()?;
    assert_eq!(scene.formed()?, (second, first));
    scene.node_mut(second).kill_guard()?;
    scene.wait_for_holder(first, PATIENCE)?;
    assert_eq!(resumed_count(scene, &of_first)?, 2 * SESSIONS);
    assert_eq!(resumed_count(scene, &of_second)?, 2 * SESSIONS);
    Ok(())
}

/// It comes back without any key, and is given those that it had.
fn resumed_after_a_worker(scene: &mut Scene) -> Outcome {
    certify(scene)?;
    let (first, second) = scene.form()?;
    let before = sessions(scene, "before")?;
    scene.node(first).kill_worker()?;
    scene.wait_for_holder(second, PATIENCE)?;
    assert_eq!(scene.formed()?, (second, first));
    let output = baton(scene, second, &["switchover"])?;
    ensure!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(first, PATIENCE)?;
    assert_eq!(resumed_count(scene, &before)?, 2 * SESSIONS);
    Ok(())
}
