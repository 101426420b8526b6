//! The sync link between the workers of a real pair: it comes back whoever dies, and what hangs on it waits for it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;
use baton::lab::client::Failure;
use baton::lab::load::ask_once;
use baton::lab::pair::{NODES, SERVERS, TARGET};
use baton::lab::process::log_tail;
use baton::lab::web::WebServer;
use baton::status::{Role, SyncStatus};
use libtest_mimic::Trial;

use crate::handover::{baton, said};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::split::nft;

/// Time for what happens at once, on a machine that is busy with something else.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The checks of the pool, as the file of the pair has them.
const CHECKS: &str = "[pool.health]\ntype = \"http\"\npath = \"/health\"\ninterval = \"500ms\"\ntimeout = \"300ms\"\nfall = 2\nrise = 1\n";

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("sync_comes_back_after_either_worker_was_killed", comes_back_after_a_worker),
        Plan::usual().trial("sync_comes_back_after_either_node_was_killed", comes_back_after_a_node),
        Plan::usual()
            .edit("by = \"cookie\"\nname = \"BATON\"", "by = \"source_ip\"")
            .trial("sessions_outlive_every_node_but_one", sessions_outlive_nodes),
        Plan::usual()
            .edit("protocol = \"http\"", "protocol = \"http\"\nrate_limit = { requests = 30, per = \"24h\" }")
            .trial("client_over_its_rate_limit_is_so_at_every_node_that_takes_over", limit_outlives_nodes),
        Plan::usual()
            .edit(CHECKS, "[pool.breaker]\nconsecutive_errors = 3\nopen_time = \"120s\"\n")
            .trial("breaker_of_a_pool_is_open_at_the_node_that_takes_over", breaker_outlives_its_node),
        Plan::usual().trial("switchover_out_of_sync_is_refused_unless_forced", refused_out_of_sync),
        Plan::usual().trial("standby_out_of_sync_takes_over_all_the_same", takes_over_out_of_sync),
        Plan::usual().prefer("lb-b").trial("preferred_node_waits_for_sync_before_it_takes_back", preferred_waits),
        Plan::usual().trial("stranger_on_the_sync_port_is_refused_and_shown", stranger_is_shown),
        Plan::usual().trial("node_whose_sync_port_is_taken_does_not_start", port_is_taken),
        Plan::usual().keyless().trial("pair_without_a_key_has_no_sync_link", none_without_a_key),
    ]
}

fn sync(scene: &Scene, node: &str) -> anyhow::Result<SyncStatus> {
    scene.status(node)?.sync.ok_or_else(|| anyhow::anyhow!("{node} has no sync link"))
}

fn until_in_sync(scene: &Scene, in_sync: bool) -> Outcome {
    for node in NODES {
        let what = format!("{node} to say that in sync is {in_sync}");
        until(&what, PATIENCE, || Ok((sync(scene, node)?.in_sync == in_sync).then_some(())))?;
    }
    Ok(())
}

/// Drops what runs over the sync link, at the switch; the heartbeat runs on.
fn block_sync(scene: &Scene) -> Outcome {
    let chain = |port: &str| {
        format!(
            "chain of_{} {{ type filter hook ingress device \"{port}\" priority 0; tcp dport 7947 drop; tcp sport 7947 drop; }}\n",
            port.replace('-', "_")
        )
    };
    nft(scene, &format!("table netdev nosync {{\n{}}}\n", NODES.map(chain).concat()))
}

fn unblock_sync(scene: &Scene) -> Outcome {
    nft(scene, "delete table netdev nosync\n")
}

fn comes_back_after_a_worker(scene: &mut Scene) -> Outcome {
    scene.form()?;
    for victim in NODES {
        let other = if victim == NODES[0] { NODES[1] } else { NODES[0] };
        let before = sync(scene, other)?.disconnects;
        scene.node(victim).kill_worker()?;
        until("the other node to notice", AT_ONCE, || Ok((sync(scene, other)?.disconnects > before).then_some(())))?;
        // Which includes that they are in sync.
        scene.formed()?;
        let text = said(&baton(scene, other, &["status"])?);
        ensure!(text.contains(&format!("sync with {victim}: in sync for")), "{text}");
        assert!(sync(scene, other)?.refused.is_empty());
    }
    Ok(())
}

fn comes_back_after_a_node(scene: &mut Scene) -> Outcome {
    scene.form()?;
    for victim in NODES {
        let other = if victim == NODES[0] { NODES[1] } else { NODES[0] };
        scene.node_mut(victim).kill_guard()?;
        until("the other node to notice", PATIENCE, || Ok((!sync(scene, other)?.in_sync).then_some(())))?;
        scene.wait_for_holder(other, PATIENCE)?;
        let text = said(&baton(scene, other, &["explain"])?);
        ensure!(text.contains(&format!("Sessions with {victim}: connecting for")), "{text}");
        scene.node_mut(victim).start()?;
        scene.formed()?;
        assert_eq!(scene.holders()?, [other]);
    }
    Ok(())
}

/// A client keeps its server while one node after the other dies and comes back with nothing but what the peer knows.
fn sessions_outlive_nodes(scene: &mut Scene) -> Outcome {
    let (mut active, mut standby) = scene.form()?;
    let server = scene.pair.wait_until_serving(PATIENCE)?;
    for _ in 0..4 {
        scene.node_mut(active).kill_guard()?;
        scene.wait_for_holder(standby, PATIENCE)?;
        for _ in 0..SERVERS.len() {
            assert_eq!(scene.pair.wait_until_serving(PATIENCE)?, server);
        }
        scene.node_mut(active).start()?;
        (active, standby) = scene.formed()?;
        until("the client to be known to the node that came back", PATIENCE, || {
            let sessions = scene.status(standby)?.sessions.pools;
            Ok((sessions.first().map(|pool| (pool.pool.as_str(), pool.entries)) == Some(("app", 1))).then_some(()))
        })?;
    }
    Ok(())
}

/// What became of a request through the VIP, once it was answered at all.
fn answered(scene: &Scene) -> anyhow::Result<Result<Option<String>, Failure>> {
    let client = scene.pair.client()?;
    until("an answer through the VIP", PATIENCE, || {
        let answer = ask_once(client, TARGET, AT_ONCE)?;
        Ok(Some(answer).filter(|answer| answer.is_ok() || *answer == Err(Failure::Refused)))
    })
}

/// A client uses its limit up at one node, and is refused by the other, and by the first one when it comes back with nothing
/// but what the peer knows.
fn limit_outlives_nodes(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let answers: Vec<_> = (0..31).map(|_| answered(scene)).collect::<anyhow::Result<_>>()?;
    let (good, refused) = answers.split_at(answers.iter().take_while(|answer| answer.is_ok()).count());
    ensure!(good.len() < 30 && !refused.is_empty(), "{answers:?}");
    ensure!(refused.iter().all(Result::is_err), "{answers:?}");
    scene.holds_for("the client is refused", AT_ONCE / 2, || Ok(answered(scene)? == Err(Failure::Refused)))?;
    for (from, to) in [(active, standby), (standby, active)] {
        scene.node_mut(from).kill_guard()?;
        scene.wait_for_holder(to, PATIENCE)?;
        assert_eq!(answered(scene)?, Err(Failure::Refused), "{to}");
        scene.node_mut(from).start()?;
        scene.pair.wait_until_healthy(PATIENCE)?;
        let limited = until("the refusal to show", PATIENCE, || {
            Ok(scene.status(to)?.listeners.first().map(|http| http.rate_limited).filter(|count| *count > 0))
        })?;
        let text = said(&baton(scene, to, &["status"])?);
        ensure!(text.contains(&format!("  {limited} requests were over the rate limit\n")), "{text}");
    }
    Ok(())
}

/// The servers are back when the other node takes over, and nobody has tried them there: it knows from the peer alone that
/// they are to be left in peace.
fn breaker_outlives_its_node(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    assert!(answered(scene)?.is_ok());
    let servers: Vec<_> = scene.pair.servers_mut().drain(..).map(|it| (it.name().to_owned(), it.address())).collect();
    let breaker = |scene: &Scene, node: &str| {
        let state = scene.status(node)?.pools.into_iter().find_map(|pool| pool.breaker);
        state.ok_or_else(|| anyhow::anyhow!("the pool of {node} has no breaker"))
    };
    until("the breaker to open", PATIENCE, || {
        let _failed = answered(scene)?;
        Ok((breaker(scene, active)?.state == "open").then_some(()))
    })?;
    until("the peer to know it", PATIENCE, || Ok((breaker(scene, standby)?.state == "open").then_some(())))?;
    let reason = breaker(scene, standby)?.reason;
    ensure!(reason.starts_with("opened by the other node"), "{reason}");
    for (name, address) in servers {
        let server = WebServer::start(scene.pair.topology().host(&name)?, &name, address)?;
        scene.pair.servers_mut().push(server);
    }
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    assert_eq!(answered(scene)?, Err(Failure::Refused));
    let text = said(&baton(scene, standby, &["status"])?);
    ensure!(text.contains("breaker open: no request passes"), "{text}");
    Ok(())
}

fn refused_out_of_sync(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    block_sync(scene)?;
    until_in_sync(scene, false)?;
    until("the peer to have said so", PATIENCE, || {
        Ok(scene.vip(active)?.peer_says.filter(|says| !says.synced).map(|_| ()))
    })?;
    let output = baton(scene, active, &["switchover"])?;
    assert!(!output.status.success());
    assert_eq!(said(&output), "vip web was not moved: the peer is not in sync\n");
    let output = baton(scene, standby, &["switchover"])?;
    assert!(!output.status.success());
    assert!(said(&output).contains("vip web was not moved: this node is not in sync"), "{}", said(&output));
    scene.holds_for("the VIP stays", scene.interval * 5, || Ok(scene.holders()? == [active]))?;
    let output = baton(scene, active, &["switchover", "--force"])?;
    assert!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)?;
    unblock_sync(scene)?;
    assert_eq!(scene.formed()?, (standby, active));
    until("the peer to have said so", PATIENCE, || {
        Ok(scene.vip(standby)?.peer_says.filter(|says| says.synced).map(|_| ()))
    })?;
    let output = baton(scene, standby, &["switchover"])?;
    assert!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(active, PATIENCE)
}

fn takes_over_out_of_sync(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    block_sync(scene)?;
    until_in_sync(scene, false)?;
    scene.holds_for("the VIP stays", scene.interval * 5, || Ok(scene.holders()? == [active]))?;
    assert_eq!(scene.vip(standby)?.role, Role::Standby);
    scene.node_mut(active).kill_guard()?;
    scene.wait_for_holder(standby, AT_ONCE)
}

fn preferred_waits(scene: &mut Scene) -> Outcome {
    // Which of two that start at once is the first to lose its patience depends on the machine.
    let (active, other) = scene.form_on("lb-b")?;
    scene.node_mut(active).stop(PATIENCE)?;
    scene.wait_for_holder(other, PATIENCE)?;
    block_sync(scene)?;
    scene.node_mut(active).start()?;
    scene.wait_for_role(active, Role::Standby, PATIENCE)?;
    until("it to say what it waits for", PATIENCE, || {
        let waiting = scene.vip(active)?.waiting;
        Ok((waiting.as_deref() == Some("to be synced, before it takes the vip back from the peer")).then_some(()))
    })?;
    scene.holds_for("it waits", Duration::from_secs(1), || Ok(scene.holders()? == [other]))?;
    unblock_sync(scene)?;
    scene.wait_for_holder(active, PATIENCE)?;
    assert_eq!(scene.formed()?, (active, other));
    Ok(())
}

fn stranger_is_shown(scene: &mut Scene) -> Outcome {
    scene.form()?;
    let listens = NODES[0];
    let at = SocketAddr::new(IpAddr::V4(scene.address(listens)), 7947);
    scene.pair.client()?.run(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // The end, or a reset: nothing is said either way.
        assert!(!stream.read(&mut [0]).is_ok_and(|len| len > 0));
        Ok(())
    })??;
    until("the stranger to be shown", PATIENCE, || {
        Ok((sync(scene, listens)?.refused.get("stranger") == Some(&1)).then_some(()))
    })?;
    let text = said(&baton(scene, listens, &["status"])?);
    ensure!(text.contains("refused: stranger 1"), "{text}");
    ensure!(sync(scene, listens)?.in_sync, "the peer was cut off");
    Ok(())
}

fn port_is_taken(scene: &mut Scene) -> Outcome {
    let node = NODES[0];
    let at = SocketAddr::new(IpAddr::V4(scene.address(node)), 7947);
    let taken = scene.node(node).namespace().run(move || std::net::TcpListener::bind(at))??;
    let mut guard = scene.start_with(node, &[])?;
    assert_eq!(guard.wait(PATIENCE)?.code(), Some(1));
    let log = log_tail(guard.log(), 5).join("\n");
    ensure!(log.contains("the sync link cannot listen on 10.77.0.11:7947: Address already in use"), "{log}");
    ensure!(log.contains("or set another pair.sync_port"), "{log}");
    drop(taken);
    Ok(())
}

/// Nor is anything kept from moving for the lack of it.
fn none_without_a_key(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    for node in NODES {
        assert_eq!(scene.status(node)?.sync, None);
        let listening = scene.node(node).namespace().run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))??;
        ensure!(!listening.contains(":1F0B "), "{node} listens on port 7947:\n{listening}");
    }
    scene.node_mut(active).stop(PATIENCE)?;
    scene.wait_for_holder(standby, PATIENCE)
}
