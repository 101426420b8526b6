//! What a node has to be to hold its VIP, and what happens when it is not.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::lab::pair::{NODES, TARGET};
use baton::lab::process::log_tail;
use baton::status::{Role, VerdictStatus};
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, until};

/// Exists where there is an interface `flag`, in the network of whoever looks: so that one file can be there for one node
/// and not for the other.
const FLAG: &str = "/proc/sys/net/ipv4/conf/flag";

/// Time for what happens at once, on a machine that is busy with something else.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Lines of a log that are searched.
const LOG_LINES: usize = 10_000;

pub fn trials() -> Vec<Trial> {
    let busy = Plan::usual().edit("protocol = \"http\"", "protocol = \"http\"\nconnections_max = 2");
    vec![
        watched("type = \"gateway\"\naddress = \"10.77.0.201\"")
            .trial("fitness_gateway_that_falls_silent_moves_the_vip", gateway_that_falls_silent),
        watched(&format!("type = \"file\"\npath = \"{FLAG}\"\nmust = \"be_absent\""))
            .trial("fitness_maintenance_file_moves_the_vip", maintenance_file),
        watched(&sh(&format!("test ! -e {FLAG} || {{ echo the flag is up; exit 3; }}")))
            .trial("fitness_command_that_fails_moves_the_vip", command_that_fails),
        watched(&sh(&format!("test ! -e {FLAG} || sleep 1000")))
            .trial("fitness_command_that_hangs_is_killed_and_moves_the_vip", command_that_hangs),
        watched("type = \"process\"\nprocess = \"bt-one\"")
            .trial("fitness_process_that_is_gone_moves_the_vip", process_that_is_gone),
        watched(&sh(&format!("test ! -e {FLAG}"))).trial("fitness_flapping_command_is_held_down", flapping_command),
        Plan::usual().trial("fitness_listener_that_does_not_answer_moves_the_vip", listener_that_does_not_answer),
        busy.trial("fitness_listener_at_its_limit_keeps_the_vip", listener_at_its_limit),
        Plan::usual()
            .edit("[[listener]]", BYTES)
            .trial("fitness_listener_of_bytes_is_good_whatever_its_servers_do", listener_of_bytes),
        Plan::usual().trial("fitness_servers_that_are_down_are_no_fault", servers_that_are_down),
        Plan::usual().trial("fitness_hung_worker_is_found_by_its_threads", hung_worker),
        Plan::usual().trial("fitness_starved_worker_is_not_taken_for_hung", starved_worker),
    ]
}

/// The usual pair with a check that looks ten times a second.
fn watched(check: &str) -> Plan {
    let rhythm = "interval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 1";
    Plan::usual().edit("[[listener]]", format!("[[fitness]]\nname = \"probe\"\n{check}\n{rhythm}\n\n[[listener]]"))
}

fn sh(script: &str) -> String {
    format!("type = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]")
}

fn ip(scene: &Scene, host: &str, arguments: &str) -> Outcome {
    let host = scene.pair.topology().host(host)?;
    let done = host.command(find_program("ip", "iproute2")?).args(arguments.split(' ')).status()?;
    ensure!(done.success(), "ip {arguments} failed");
    Ok(())
}

fn raise_flag(scene: &Scene, node: &str) -> Outcome {
    ip(scene, node, "link add flag type veth peer name flag-end")
}

fn lower_flag(scene: &Scene, node: &str) -> Outcome {
    ip(scene, node, "link del flag")
}

/// Starts the nodes with two different configurations.
fn form_apart(scene: &mut Scene, from: &str, to: &str) -> Outcome {
    let [first, second] = NODES;
    scene.node_mut(first).start()?;
    scene.wait_for_role(first, Role::Active, PATIENCE)?;
    scene.edit_config(from, to)?;
    scene.node_mut(second).start()?;
    assert_eq!(scene.formed()?, (first, second));
    Ok(())
}

fn verdict(scene: &Scene, node: &str, subject: &str) -> anyhow::Result<VerdictStatus> {
    let verdicts = scene.vip(node)?.verdicts;
    let found = verdicts.iter().find(|verdict| verdict.subject == subject).cloned();
    found.with_context(|| format!("{node} has no verdict on {subject}: {verdicts:?}"))
}

fn wait_for_verdict(
    scene: &Scene,
    node: &str,
    subject: &str,
    state: &str,
    within: Duration,
) -> anyhow::Result<VerdictStatus> {
    until(&format!("{subject} of {node} to be {state}"), within, || {
        Ok(Some(verdict(scene, node, subject)?).filter(|verdict| verdict.state == state))
    })
}

/// The VIP has left `node` for `other`, because `subject` is broken there.
fn has_moved(scene: &Scene, node: &str, other: &str, subject: &str, evidence: &str) -> Outcome {
    scene.wait_for_holder(other, AT_ONCE)?;
    let vip = scene.vip(node)?;
    assert_eq!((vip.role, vip.faults), (Role::Unfit, vec![evidence.to_owned()]));
    let verdict = verdict(scene, node, subject)?;
    assert_eq!((verdict.state.as_str(), verdict.evidence.as_str()), ("broken", evidence));
    Ok(())
}

/// The node that lost the VIP may have it again, and leaves it where it is.
fn is_fit_again(scene: &Scene, node: &str, other: &str, subject: &str) -> Outcome {
    wait_for_verdict(scene, node, subject, "good", PATIENCE)?;
    assert_eq!(scene.formed()?, (holder(other), holder(node)));
    assert_eq!(scene.vip(node)?.faults, Vec::<String>::new());
    Ok(())
}

fn holder(name: &str) -> &'static str {
    if name == NODES[0] { NODES[0] } else { NODES[1] }
}

fn gateway_that_falls_silent(scene: &mut Scene) -> Outcome {
    // Two addresses of one machine, so that each node has a gateway of its own.
    ip(scene, "web1", "addr add 10.77.0.201/24 dev eth0")?;
    ip(scene, "web1", "addr add 10.77.0.202/24 dev eth0")?;
    form_apart(scene, "10.77.0.201", "10.77.0.202")?;
    let [node, other] = NODES;
    let good = verdict(scene, node, "gateway probe")?;
    assert!(good.evidence.starts_with("10.77.0.201 is at "), "{}", good.evidence);
    ip(scene, "web1", "addr del 10.77.0.201/24 dev eth0")?;
    let silent = "10.77.0.201 did not answer on eth0 within 100 ms";
    has_moved(scene, node, other, "gateway probe", silent)?;
    ip(scene, "web1", "addr add 10.77.0.201/24 dev eth0")?;
    is_fit_again(scene, node, other, "gateway probe")
}

fn maintenance_file(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    raise_flag(scene, node)?;
    has_moved(scene, node, other, "file probe", &format!("{FLAG} exists"))?;
    lower_flag(scene, node)?;
    is_fit_again(scene, node, other, "file probe")
}

fn command_that_fails(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    assert_eq!(verdict(scene, node, "command probe")?.evidence, "exit status 0");
    raise_flag(scene, node)?;
    has_moved(scene, node, other, "command probe", "exit status 3: the flag is up")?;
    lower_flag(scene, node)?;
    is_fit_again(scene, node, other, "command probe")
}

fn command_that_hangs(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    raise_flag(scene, node)?;
    has_moved(scene, node, other, "command probe", "it ran for more than 100 ms and was killed")?;
    lower_flag(scene, node)?;
    is_fit_again(scene, node, other, "command probe")?;
    let guard = scene.node(node).guard_pid().context("the guard runs")?;
    until("no command to be left", PATIENCE, || {
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children"))?;
        let sleeps = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        Ok((!children.split_whitespace().any(sleeps)).then_some(()))
    })
}

/// Under a name that no other process has.
fn start_sleeper(scene: &Scene, name: &str) -> anyhow::Result<Child> {
    let program = scene.config().with_file_name(name);
    if !program.exists() {
        fs::copy(find_program("sleep", "coreutils")?, &program)?;
    }
    Ok(Command::new(program).arg("1000").spawn()?)
}

fn end(mut child: Child) -> Outcome {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn process_that_is_gone(scene: &mut Scene) -> Outcome {
    let (one, two) = (start_sleeper(scene, "bt-one")?, start_sleeper(scene, "bt-two")?);
    form_apart(scene, "bt-one", "bt-two")?;
    let [node, other] = NODES;
    end(one)?;
    has_moved(scene, node, other, "process probe", "no process bt-one runs")?;
    let one = start_sleeper(scene, "bt-one")?;
    is_fit_again(scene, node, other, "process probe")?;
    end(one)?;
    end(two)
}

/// The first three recoveries count at once, the fourth takes a second.
fn flapping_command(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    for _ in 0..3 {
        raise_flag(scene, node)?;
        wait_for_verdict(scene, node, "command probe", "broken", PATIENCE)?;
        lower_flag(scene, node)?;
        wait_for_verdict(scene, node, "command probe", "good", PATIENCE)?;
    }
    raise_flag(scene, node)?;
    wait_for_verdict(scene, node, "command probe", "broken", PATIENCE)?;
    lower_flag(scene, node)?;
    let held = wait_for_verdict(scene, node, "command probe", "held_down", PATIENCE)?;
    assert_eq!(held.evidence, "exit status 1; good again, which has to last 1 s");
    let vip = scene.vip(node)?;
    assert_eq!((vip.role, vip.faults), (Role::Unfit, vec![held.evidence]));
    let shown = scene.node(node).namespace().command(crate::scene::program());
    let text = status_text(shown, scene, node)?;
    assert!(text.contains("  held down for "), "{text}");
    is_fit_again(scene, node, other, "command probe")
}

fn status_text(mut command: Command, scene: &Scene, node: &str) -> anyhow::Result<String> {
    command.arg("status").arg("--runtime-dir").arg(scene.node(node).runtime_dir());
    Ok(String::from_utf8(command.output()?.stdout)?)
}

/// The worker is well and answers the guard, but what comes to the listener from this machine is thrown away.
fn listener_that_does_not_answer(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    let answered = wait_for_verdict(scene, node, "listener http", "good", PATIENCE)?;
    assert!(answered.evidence.starts_with("it answered in "), "{}", answered.evidence);
    until("the standby to know that it cannot look", PATIENCE, || {
        let unseen = verdict(scene, other, "listener http")?;
        let is_known = unseen.evidence == "it can only be reached where the vip is";
        Ok((is_known && unseen.state == "unknown").then_some(()))
    })?;
    let requests = scene.status(node)?.worker.requests;
    let rules = "table ip t { chain c { type filter hook input priority 0; iif lo tcp dport 80 drop; }; }";
    let nft = find_program("nft", "nftables")?;
    ensure!(scene.node(node).namespace().command(&nft).arg(rules).status()?.success(), "nft failed");
    let broken = wait_for_verdict(scene, node, "listener http", "broken", PATIENCE)?;
    assert_eq!(broken.evidence, "no reaction within 500 ms");
    scene.wait_for_holder(other, AT_ONCE)?;
    assert_eq!(scene.status(node)?.worker.requests, requests, "looks are no requests");
    // It cannot be looked at without the VIP: so it is tried again after a time.
    let held = wait_for_verdict(scene, node, "listener http", "held_down", PATIENCE)?;
    let evidence = "no reaction within 500 ms; tried again after 10 s, as it can only be reached where the vip is";
    assert_eq!(held.evidence, evidence);
    // While nobody else may hold it, slow service is better than none.
    ensure!(scene.node(other).namespace().command(&nft).arg(rules).status()?.success(), "nft failed");
    wait_for_verdict(scene, other, "listener http", "broken", PATIENCE)?;
    assert_eq!(scene.vip(node)?.role, Role::Unfit, "it is tried again later");
    assert!(scene.holds(other)?);
    // And when the other one may hold it again, that one does.
    wait_for_verdict(scene, node, "listener http", "unknown", PATIENCE)?;
    scene.wait_for_holder(node, PATIENCE)
}

/// A listener that passes bytes on to a server that nobody has ever heard of.
const BYTES: &str = "[[pool]]\nname = \"nowhere\"\nservers = [{ name = \"gone\", address = \"10.77.0.250:9\" }]\n\n\
                     [[listener]]\nname = \"bytes\"\nbind = [\"10.77.0.100:99\"]\nprotocol = \"tcp\"\npool = \"nowhere\"\n\n\
                     [[listener]]";

/// The guard's probes are answered by the worker, and get as far as it.
fn listener_of_bytes(scene: &mut Scene) -> Outcome {
    let (node, _) = scene.form()?;
    wait_for_verdict(scene, node, "listener bytes", "good", PATIENCE)?;
    let is_good = || Ok(verdict(scene, node, "listener bytes")?.state == "good");
    // Four probes, one a second.
    scene.holds_for("the listener is good", Duration::from_secs(4), is_good)?;
    let pools = scene.status(node)?.pools;
    let gone = pools.iter().flat_map(|pool| &pool.servers).find(|server| server.name == "gone");
    assert_eq!(gone.map(|server| server.requests), Some(0));
    Ok(())
}

/// More clients than the listener takes: a probe then waits like everybody, and that is no reason to move them all.
fn listener_at_its_limit(scene: &mut Scene) -> Outcome {
    let (node, _) = scene.form()?;
    wait_for_verdict(scene, node, "listener http", "good", PATIENCE)?;
    let connect = || (0..16).map(|_| TcpStream::connect_timeout(&TARGET, AT_ONCE)).collect::<Result<Vec<_>, _>>();
    let clients = scene.pair.client()?.run(connect)??;
    let unknown = wait_for_verdict(scene, node, "listener http", "unknown", PATIENCE)?;
    let full = "it takes no more connections for now (no reaction within 500 ms)";
    assert_eq!(unknown.evidence, full);
    scene.holds_for("the VIP stays", Duration::from_secs(5), || Ok(scene.holders()? == [node]))?;
    drop(clients);
    wait_for_verdict(scene, node, "listener http", "good", PATIENCE)?;
    assert_eq!(scene.vip(node)?.transitions, 2);
    Ok(())
}

fn servers_that_are_down(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    wait_for_verdict(scene, node, "servers of app", "good", PATIENCE)?;
    scene.pair.servers_mut().clear();
    for name in [node, other] {
        let weaker = wait_for_verdict(scene, name, "servers of app", "weaker", PATIENCE)?;
        assert_eq!(weaker.evidence, "0 of 3 servers of pool app are up");
    }
    let stays = || Ok(scene.holders()? == [node] && scene.vip(node)?.faults.is_empty());
    scene.holds_for("the VIP stays", Duration::from_secs(1), stays)
}

fn hung_worker(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    let stopped = Instant::now();
    scene.node_mut(node).hang_worker()?;
    scene.wait_for_holder(other, AT_ONCE)?;
    println!("hung worker: the VIP had moved after {} ms", stopped.elapsed().as_millis());
    let fault = scene.vip(node)?.faults.first().cloned().unwrap_or_default();
    let is_told =
        fault.starts_with("the worker did not answer for 2") && fault.ends_with(" ms: thread main is stopped");
    assert!(is_told, "{fault}");
    scene.node_mut(node).wake_worker();
    assert_eq!(scene.formed()?, (other, node));
    Ok(())
}

/// Both cores are busy four times over and clients ask all the time: the worker is late, and serves.
fn starved_worker(scene: &mut Scene) -> Outcome {
    let (node, other) = scene.form()?;
    let load = scene.pair.start_load()?;
    let cores = std::thread::available_parallelism()?.get();
    let spin = |_| Command::new("/bin/sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
    let spinners = (0..cores * 4).map(spin).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    let seen = scene.holds_for("the VIP stays", Duration::from_secs(20), || Ok(scene.holders()? == [node]));
    let window = load.window(started, Instant::now());
    spinners.into_iter().try_for_each(end)?;
    drop(load);
    println!("starved worker: {} requests answered in 20 s", window.answered);
    seen?;
    for name in [node, other] {
        let log = log_tail(&scene.node(name).log(), LOG_LINES);
        let hung: Vec<&String> = log.iter().filter(|line| line.contains("the worker does not answer")).collect();
        assert!(hung.is_empty(), "{name}: {hung:?}");
    }
    assert_eq!((scene.vip(node)?.transitions, scene.status(node)?.worker.restarts), (2, 0));
    Ok(())
}
