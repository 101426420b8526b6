//! What may happen around a node: its log cannot be written, its interface changes under it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use baton::lab::namespace::Namespace;
use baton::lab::node::Node;
use baton::lab::pair::{NODES, VIP};
use baton::lab::process::Process;
use baton::status::{NodeStatus, Role};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, program, until};

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("full_disk_under_the_log_ends_nothing", full_disk_under_the_log_ends_nothing),
        Plan::usual().trial("reader_of_the_log_that_stalls_holds_nothing_up", reader_of_the_log_that_stalls),
        Plan::usual().trial("renamed_interface_keeps_no_vip", renamed_interface_keeps_no_vip),
        Plan::usual().trial("interface_made_anew_is_used_again", interface_made_anew_is_used_again),
        Plan::usual().trial("release_is_refused_while_a_node_runs", release_is_refused_while_a_node_runs),
        Plan::usual().trial(
            "vip_of_a_killed_node_is_taken_off_whatever_the_file_says_by_then",
            vip_of_a_killed_node_is_taken_off_whatever_the_file_says_by_then,
        ),
    ]
}

/// One node alone, whose log goes to `log`, loses its worker and serves again.
fn survives_with_log(scene: &Scene, log: &Path) -> Outcome {
    let [name, _] = NODES;
    let mut command = scene.node(name).namespace().command(program());
    command.arg("run").arg("--config").arg(scene.config()).args(["--node", name]);
    command.arg("--runtime-dir").arg(scene.node(name).runtime_dir());
    let _guard = Process::spawn(name, command, log)?;
    let active = |status: &NodeStatus| status.vips.iter().any(|vip| vip.role == Role::Active);
    let first = until("the node to serve", PATIENCE, || Ok(scene.status(name).ok().filter(active)))?;
    let worker = first.worker.pid.context("it has a worker")?;
    kill_process(Pid::from_raw(worker.cast_signed()).context("a process id")?, Signal::KILL)?;
    until("the node to serve with another worker", PATIENCE, || {
        Ok(scene.status(name).ok().filter(|status| status.worker.restarts == 1 && active(status)))
    })?;
    Ok(())
}

fn full_disk_under_the_log_ends_nothing(scene: &mut Scene) -> Outcome {
    survives_with_log(scene, Path::new("/dev/full"))
}

fn reader_of_the_log_that_stalls(scene: &mut Scene) -> Outcome {
    let pipe = scene.config().with_file_name("log.pipe");
    let made = Command::new(find_program("mkfifo", "coreutils")?).arg(&pipe).status()?;
    ensure!(made.success(), "mkfifo failed");
    // Open for reading, so that there is a reader, who never reads; and filled to the brim.
    let mut held = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe)?;
    while held.write(&[b'.'; 4096]).is_ok() {}
    survives_with_log(scene, &pipe)
}

/// Runs ip(8) on a machine, and gives what it prints.
pub fn ip_on(machine: &Namespace, arguments: &str) -> anyhow::Result<String> {
    let done = machine.command(find_program("ip", "iproute2")?).args(arguments.split(' ')).output()?;
    ensure!(done.status.success(), "ip {arguments} failed: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}

/// The same on a node.
pub fn ip(node: &Node, arguments: &str) -> anyhow::Result<String> {
    ip_on(node.namespace(), arguments)
}

fn addresses(node: &Node) -> anyhow::Result<String> {
    ip(node, "-o -4 addr show")
}

fn renamed_interface_keeps_no_vip(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    ip(scene.node(active), "link set eth0 name eth9")?;
    scene.wait_for_role(standby, Role::Active, PATIENCE)?;
    until("the VIP to leave the renamed interface", PATIENCE, || {
        Ok(Some(()).filter(|()| addresses(scene.node(active)).is_ok_and(|all| !all.contains(&format!("{VIP}/")))))
    })
}

fn interface_made_anew_is_used_again(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let own = scene.address(active);
    ip(scene.node(active), "link del eth0")?;
    scene.wait_for_role(standby, Role::Active, PATIENCE)?;
    scene.wait_for_role(active, Role::Unfit, PATIENCE)?;
    // Another interface of that name, on a wire of its own: the node is alone there, and may claim.
    ip(scene.node(active), "link add eth0 type veth peer name far")?;
    ip(scene.node(active), "link set far up")?;
    ip(scene.node(active), "link set eth0 up")?;
    ip(scene.node(active), &format!("addr add {own}/24 dev eth0"))?;
    scene.wait_for_role(active, Role::Active, PATIENCE)?;
    let before = scene.vip(active)?.adverts_sent;
    until("adverts on the new interface", PATIENCE, || {
        Ok(Some(()).filter(|()| scene.vip(active).is_ok_and(|vip| vip.adverts_sent > before + 3)))
    })?;
    until("the VIP on the new interface", PATIENCE, || {
        Ok(Some(()).filter(|()| addresses(scene.node(active)).is_ok_and(|all| all.contains(&format!("{VIP}/")))))
    })
}

fn release_is_refused_while_a_node_runs(scene: &mut Scene) -> Outcome {
    let (active, _) = scene.form()?;
    let mut command = scene.node(active).namespace().command(program());
    command
        .arg("release")
        .arg("--config")
        .arg(scene.config())
        .arg("--runtime-dir")
        .arg(scene.node(active).runtime_dir());
    let refused = command.output()?;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr)?;
    assert!(said.contains("another baton runs on"), "{said}");
    assert!(scene.holds(active)?, "the VIP stays");
    Ok(())
}

fn vip_of_a_killed_node_is_taken_off_whatever_the_file_says_by_then(scene: &mut Scene) -> Outcome {
    let (first, second) = scene.form()?;
    let edited = scene.config().with_file_name("edited.toml");
    let text = fs::read_to_string(scene.config())?;
    let has_vip = |scene: &Scene, name: &str| -> anyhow::Result<bool> {
        Ok(addresses(scene.node(name))?.contains(&format!("{VIP}/")))
    };

    // A file that cannot be used, and `baton release`. With the janitor, which would have done it before.
    fs::write(&edited, "[[vip]]\nname = 7\n")?;
    scene.node_mut(first).kill_all()?;
    assert!(has_vip(scene, first)?, "its address outlasts it");
    let mut release = scene.node(first).namespace().command(program());
    release.arg("release").arg("--config").arg(&edited).arg("--runtime-dir").arg(scene.node(first).runtime_dir());
    let done = release.output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!has_vip(scene, first)?);
    // Nothing is recorded any more, and the mistakes are all that is left to say.
    let done = release.output()?;
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("edited.toml"));

    // Another VIP, and the next start.
    scene.wait_for_role(second, Role::Active, PATIENCE)?;
    scene.node_mut(second).kill_all()?;
    assert!(has_vip(scene, second)?, "its address outlasts it");
    let (vip, another) = (VIP.to_string(), "10.77.0.101");
    assert!(text.contains(&vip));
    fs::write(&edited, text.replace(&vip, another))?;
    let mut run = scene.node(second).namespace().command(program());
    run.arg("run").arg("--config").arg(&edited).args(["--node", second]);
    run.arg("--runtime-dir").arg(scene.node(second).runtime_dir());
    let _guard = Process::spawn(second, run, &scene.config().with_file_name("edited.log"))?;
    until("the address of the former configuration to be off", PATIENCE, || {
        let all = addresses(scene.node(second))?;
        Ok((!all.contains(&format!("{VIP}/")) && all.contains(&format!("{another}/"))).then_some(()))
    })
}
