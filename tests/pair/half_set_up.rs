//! A pair that was set up by half, and machines that lack something: the log says what, and what to do.

use std::fs;
use std::path::Path;

use anyhow::Context;
use baton::lab::pair::NODES;
use baton::lab::process::{Process, log_tail};
use baton::status::Role;
use baton::units::IpNetwork;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, program, until};
use crate::surroundings::ip;

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("nodes_with_different_keys_say_so", nodes_with_different_keys_say_so),
        Plan::usual().trial("a_node_without_the_key_is_named", a_node_without_the_key_is_named),
        Plan::usual().trial("nodes_with_different_files_say_so", nodes_with_different_files_say_so),
        Plan::usual().trial("no_right_to_real_time_is_said_and_no_end", no_right_to_real_time_is_said_and_no_end),
        Plan::usual()
            .edit("[\"10.77.0.100/24\"]", "[\"10.77.0.100/24\", \"fd00::100/64\"]")
            .trial("without_ipv6_the_remedy_is_said_and_waited_for", without_ipv6_the_remedy_is_said_and_waited_for),
        Plan::usual().trial("an_interface_that_is_late_is_named", an_interface_that_is_late_is_named),
    ]
}

/// Starts the second node with files of its own: the usual ones, changed.
fn start_other(
    scene: &mut Scene,
    change: impl FnOnce(&Path, String) -> anyhow::Result<String>,
) -> anyhow::Result<Process> {
    let [_, name] = NODES;
    let directory = scene.pair.directory().join("other");
    fs::create_dir_all(&directory)?;
    fs::copy(scene.pair.directory().join("pair.key"), directory.join("pair.key"))?;
    let text = change(&directory, fs::read_to_string(scene.config())?)?;
    let config = directory.join("baton.toml");
    fs::write(&config, text)?;
    let node = scene.node(name);
    let mut command = node.namespace().command(program());
    command.arg("run").arg("--config").arg(config).args(["--node", name]);
    command.arg("--runtime-dir").arg(node.runtime_dir()).arg("--state-dir").arg(node.state_dir());
    Ok(Process::spawn(name, command, &node.log())?)
}

/// Waits until one line of a node's log has all of these texts.
fn says(scene: &Scene, node: &str, texts: &[&str]) -> Outcome {
    let log = scene.node(node).log();
    until(&format!("{node} to say {texts:?}"), PATIENCE, || {
        let said = log_tail(&log, 1000);
        Ok(said.iter().any(|line| texts.iter().all(|text| line.contains(text))).then_some(()))
    })
}

fn nodes_with_different_keys_say_so(scene: &mut Scene) -> Outcome {
    scene.node_mut(NODES[0]).start()?;
    let _other = start_other(scene, |directory, text| {
        let key = directory.join("pair.key");
        fs::write(&key, format!("{}\n", "5a".repeat(32)))?;
        let line = text.lines().find(|line| line.starts_with("key_file = ")).context("it names a key")?;
        Ok(text.replace(line, &format!("key_file = \"{}\"", key.display())))
    })?;
    for node in NODES {
        says(
            scene,
            node,
            &["WARN", "adverts were refused", "reason=wrong_hmac", "the nodes have different keys: copy the key_file"],
        )?;
    }
    Ok(())
}

fn a_node_without_the_key_is_named(scene: &mut Scene) -> Outcome {
    let [keyed, other] = NODES;
    let start_keyless =
        |scene: &mut Scene| start_other(scene, |_, text| Ok(text.replace("key_file = ", "# key_file = ")));
    let keyless = start_keyless(scene)?;
    scene.wait_for_role(other, Role::Active, PATIENCE)?;
    scene.node_mut(keyed).start()?;
    says(scene, keyed, &["WARN", "adverts were refused", "missing_trailer", "the other node has no key_file"])?;
    says(scene, other, &["WARN", "pair.key_file is not set, so that adverts are not authenticated"])?;
    drop(keyless);
    // The other way round.
    scene.wait_for_role(keyed, Role::Active, PATIENCE)?;
    let _keyless = start_keyless(scene)?;
    says(scene, other, &["WARN", "adverts were refused", "unexpected_trailer", "and this one has none"])
}

fn nodes_with_different_files_say_so(scene: &mut Scene) -> Outcome {
    scene.node_mut(NODES[0]).start()?;
    let _other = start_other(scene, |_, text| Ok(format!("{text}\n# edited here alone\n")))?;
    for node in NODES {
        says(scene, node, &["WARN", "the peer runs another configuration: make the files on both nodes the same"])?;
    }
    Ok(())
}

fn no_right_to_real_time_is_said_and_no_end(scene: &mut Scene) -> Outcome {
    let [name, _] = NODES;
    let node = scene.node(name);
    let mut command = node.namespace().command(find_program("setpriv", "util-linux")?);
    command.args(["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "--"]);
    command.arg(find_program("prlimit", "util-linux")?).arg("--rtprio=0:0").arg(program());
    command.arg("run").arg("--config").arg(scene.config()).args(["--node", name]);
    command.arg("--runtime-dir").arg(node.runtime_dir()).arg("--state-dir").arg(node.state_dir());
    let _guard = Process::spawn(name, command, &node.log())?;
    scene.wait_for_role(name, Role::Active, PATIENCE)?;
    says(
        scene,
        name,
        &["WARN", "adverts have no real-time priority", "set LimitRTPRIO=99, or have the service manager run chrt"],
    )
}

fn without_ipv6_the_remedy_is_said_and_waited_for(scene: &mut Scene) -> Outcome {
    let [name, _] = NODES;
    let set = |scene: &Scene, value: &'static str| {
        let file = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        anyhow::Ok(scene.node(name).namespace().run(|| fs::write(file, value))??)
    };
    set(scene, "1")?;
    scene.node_mut(name).start()?;
    let remedy = "sysctl net.ipv6.conf.eth0.disable_ipv6=0";
    says(scene, name, &["WARN", "IPv6 is off on eth0, so that it cannot carry fd00::100", remedy])?;
    says(scene, name, &["ERROR", "the VIP could not be taken", "failed to add fd00::100/64 to eth0", remedy])?;
    assert!(!scene.holds(name)?, "half of a VIP looks served");
    set(scene, "0")?;
    // Tried again by itself, and then with both addresses.
    scene.wait_for_role(name, Role::Active, PATIENCE)?;
    let own =
        IpNetwork::new(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100), 64).context("a prefix length")?;
    until("both addresses to be there", PATIENCE, || {
        Ok((scene.holds(name)? && scene.pair.topology().carries(name, own.address())?).then_some(()))
    })
}

fn an_interface_that_is_late_is_named(scene: &mut Scene) -> Outcome {
    let [name, _] = NODES;
    ip(scene.node(name), "link set eth0 down")?;
    ip(scene.node(name), "link set eth0 name eth7")?;
    // It ends, and the service manager starts it again: `Restart=always` in the unit.
    let mut guard = scene.start_with(name, &[])?;
    assert_eq!(guard.wait(PATIENCE)?.code(), Some(1));
    says(scene, name, &["eth0", "this machine has no such interface"])?;
    says(scene, name, &["remedy: it has lo, eth7"])?;
    // There, and with neither carrier nor the node's address yet.
    ip(scene.node(name), "link set eth7 name eth0")?;
    ip(scene.node(name), "addr flush dev eth0")?;
    let mut guard = scene.start_with(name, &[])?;
    assert_eq!(guard.wait(PATIENCE)?.code(), Some(1));
    says(scene, name, &["the address of this node is on no interface of this machine", "check node.address and --node"])
}
