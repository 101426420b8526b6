//! What HTTP clients notice of a planned move: nothing. And what becomes of those that do not leave.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::lab::load::{Load, LoadSpec};
use baton::lab::pair::{NODES, SERVERS, TARGET};
use baton::status::Role;
use libtest_mimic::Trial;

use crate::handover::{baton, said};
use crate::scene::{Outcome, PATIENCE, Plan, Scene, program, until};

/// How long nothing may have failed before a move, and after it.
const QUIET_TIME: Duration = Duration::from_millis(300);

/// A VIP that the second node holds.
const OTHER_VIP: &str = r#"[[vip]]
name = "other"
addresses = ["10.77.0.101/24"]
interface = "eth0"
virtual_router_id = 52
advert_interval = "100ms"
transport = "unicast"
prefer = "lb-b"
"#;

pub fn trials() -> Vec<Trial> {
    let plan = || Plan::usual().patient();
    let drained_for = |time: &str| plan().edit("[pair]", format!("[pair]\nswitchover_drain = \"{time}\""));
    vec![
        plan().trial("planned_moves_fail_no_request_and_break_no_connection_of_http", are_unnoticed),
        drained_for("800ms").trial("idle_connections_are_closed_before_the_vip_moves", closes_idle_ones),
        drained_for("20s").trial("switchover_is_called_off_when_the_peer_dies_meanwhile", is_called_off),
        drained_for("20s").trial("switchover_waits_no_longer_when_somebody_is_in_a_hurry", is_hurried),
        drained_for("20s").trial("second_signal_has_a_stop_wait_no_longer_for_clients", stop_is_hurried),
        drained_for("20s")
            .edit("pool = \"app\"", "pool = \"app\"\nhttp2 = true")
            .trial("http2_clients_are_told_to_go_away_before_the_vip_moves", tells_http2),
        plan()
            .prefer(NODES[0])
            .edit("[[listener]]", format!("{OTHER_VIP}\n[[listener]]"))
            .trial("node_that_stops_leaves_the_others_vip_alone", leaves_the_others_alone),
        drained_for("0s").trial("switchover_without_a_drain_moves_the_vip_at_once", moves_at_once),
    ]
}

/// The pair, with the link between its nodes up.
fn form(scene: &mut Scene) -> anyhow::Result<(&'static str, &'static str)> {
    let (active, standby) = scene.form()?;
    for node in [active, standby] {
        until(&format!("{node} to hear the other over the link"), PATIENCE, || {
            Ok(scene.vip(node)?.peer_says.filter(|says| says.fit && says.synced).map(|_| ()))
        })?;
    }
    Ok((active, standby))
}

/// From each node to the other, and by a clean stop.
fn are_unnoticed(scene: &mut Scene) -> Outcome {
    let (first, second) = form(scene)?;
    // Whoever is late on a busy machine has not failed.
    let spec = LoadSpec {
        probe_interval: Duration::from_millis(5),
        probe_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        answer_timeout: PATIENCE,
        ..LoadSpec::steady(TARGET, SERVERS.iter().map(|name| (*name).to_owned()).collect())
    };
    let load = Load::start(scene.pair.client()?, spec)?;
    for (turn, active, standby) in [(1, first, second), (2, second, first), (3, first, second)] {
        until("the clients to be at work", PATIENCE, || Ok(load.is_quiet(QUIET_TIME).then_some(())))?;
        until("the peer to be in sync", PATIENCE, || {
            Ok(scene.vip(active)?.peer_says.filter(|says| says.fit && says.synced).map(|_| ()))
        })?;
        let from = Instant::now();
        if turn < 3 {
            let output = baton(scene, active, &["switchover"])?;
            ensure!(output.status.success(), "{}", said(&output));
        } else {
            ensure!(scene.node_mut(active).stop(PATIENCE * 2)?.success(), "the stop");
        }
        scene.wait_for_holder(standby, PATIENCE)?;
        let moved = Instant::now();
        until("the clients to go on", PATIENCE, || {
            Ok((moved.elapsed() > QUIET_TIME && load.answered_since(moved)).then_some(()))
        })?;
        let window = load.window(from, Instant::now());
        println!("turn {turn}: {} ms without service, {:?}", window.outage.length.as_millis(), window.failed);
        ensure!(window.failed.total() == 0 && window.failed.reconnects == 0, "turn {turn}: {window:?}");
        ensure!(window.connections_broken == 0 && window.users_moved == 0, "turn {turn}: {window:?}");
    }
    Ok(())
}

/// A connection of the client's machine.
fn connect(scene: &Scene) -> anyhow::Result<TcpStream> {
    let stream = scene.pair.client()?.run(|| TcpStream::connect(TARGET))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks, and gives the head of the answer.
fn ask(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let len: usize = len.context("a length")?.trim().parse()?;
            if body.len() >= len {
                return Ok(head.to_owned());
            }
        }
        let count = stream.read(&mut bytes)?;
        ensure!(count > 0, "closed after {text:?}");
        answer.extend_from_slice(&bytes[..count]);
    }
}

/// Begins a switchover and waits until clients are asked to leave.
fn begin(scene: &Scene, active: &str) -> anyhow::Result<std::process::Child> {
    let mut command = Command::new(program());
    command.arg("switchover").arg("--runtime-dir").arg(scene.node(active).runtime_dir());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    is_leaving(scene, active)?;
    Ok(child)
}

fn is_leaving(scene: &Scene, active: &str) -> Outcome {
    until("clients to be asked to leave", PATIENCE, || {
        let waiting = scene.vip(active)?.waiting.unwrap_or_default();
        Ok(waiting.contains("for its HTTP clients to leave").then_some(()))
    })
}

fn closes_idle_ones(scene: &mut Scene) -> Outcome {
    let (active, standby) = form(scene)?;
    let mut idle = connect(scene)?;
    ensure!(ask(&mut idle)?.starts_with("http/1.1 200"), "the answer");
    let mut never_asked = connect(scene)?;
    let switchover = begin(scene, active)?;
    // One that asks is told, as soon as the worker has heard of it from the guard.
    let mut asking = until("a client that asks to be told", PATIENCE, || {
        let mut asking = connect(scene)?;
        Ok(ask(&mut asking)?.contains("connection: close").then_some(asking))
    })?;
    ensure!(asking.read(&mut [0])? == 0, "it is still open");
    for stream in [&mut idle, &mut never_asked] {
        ensure!(stream.read(&mut [0])? == 0, "an orderly end");
    }
    let output = switchover.wait_with_output()?;
    let told =
        "vip web is standby here now\nwaiting for HTTP clients to leave, for at most 800 ms; --now does not wait\n";
    ensure!(output.status.success() && said(&output) == told, "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)
}

fn is_called_off(scene: &mut Scene) -> Outcome {
    let (active, standby) = form(scene)?;
    let mut kept = connect(scene)?;
    ask(&mut kept)?;
    let switchover = begin(scene, active)?;
    scene.node_mut(standby).kill_all()?;
    let output = switchover.wait_with_output()?;
    ensure!(!output.status.success(), "{}", said(&output));
    ensure!(
        said(&output).contains("vip web was not moved: the peer does not answer; clients may stay"),
        "{}",
        said(&output)
    );
    ensure!(scene.holders()? == [active], "{:?}", scene.holders()?);
    until("the worker to be told", PATIENCE, || {
        // Who is told to leave goes, until nobody is told any more.
        let head = ask(&mut kept)?;
        if head.contains("connection: close") {
            kept = connect(scene)?;
            return Ok(None);
        }
        Ok(Some(()))
    })?;
    ensure!(ask(&mut connect(scene)?)?.starts_with("http/1.1 200"), "new connections");
    Ok(())
}

fn is_hurried(scene: &mut Scene) -> Outcome {
    let (active, standby) = form(scene)?;
    let mut idle = connect(scene)?;
    ask(&mut idle)?;
    let switchover = begin(scene, active)?;
    let refused = baton(scene, active, &["switchover"])?;
    let what = "a switchover is under way already; --now has it wait no longer for clients";
    ensure!(!refused.status.success() && said(&refused).contains(what), "{}", said(&refused));
    ensure!(scene.holders()? == [active], "{:?}", scene.holders()?);
    let hurried = baton(scene, active, &["switchover", "--now"])?;
    ensure!(said(&hurried).contains("it waits for clients no longer"), "{}", said(&hurried));
    let output = switchover.wait_with_output()?;
    ensure!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)
}

fn stop_is_hurried(scene: &mut Scene) -> Outcome {
    let (active, standby) = form(scene)?;
    let mut idle = connect(scene)?;
    ask(&mut idle)?;
    scene.node_mut(active).ask_to_stop()?;
    is_leaving(scene, active)?;
    ensure!(scene.holders()? == [active], "{:?}", scene.holders()?);
    scene.node_mut(active).ask_to_stop()?;
    scene.wait_for_holder(standby, PATIENCE)?;
    ensure!(scene.node_mut(active).wait_stopped(PATIENCE)?.success(), "the stop");
    Ok(())
}

fn leaves_the_others_alone(scene: &mut Scene) -> Outcome {
    let [stops, stays] = NODES;
    scene.pair.start()?;
    let other = |scene: &Scene, node: &str| {
        let vip = scene.status(node)?.vips.into_iter().find(|vip| vip.name == "other");
        vip.context("the other VIP")
    };
    until("each node to hold its VIP", PATIENCE, || {
        let is_so = scene.vip(stops)?.role == Role::Active && other(scene, stays)?.role == Role::Active;
        Ok((is_so && scene.holders()? == [stops] && other(scene, stops)?.role == Role::Standby).then_some(()))
    })?;
    let before = other(scene, stays)?.transitions;
    ensure!(scene.node_mut(stops).stop(PATIENCE)?.success(), "the stop");
    scene.wait_for_holder(stays, PATIENCE)?;
    let after = other(scene, stays)?;
    ensure!((after.role, after.transitions) == (Role::Active, before), "it has moved: {after:?}");
    Ok(())
}

fn moves_at_once(scene: &mut Scene) -> Outcome {
    let (active, standby) = form(scene)?;
    let mut idle = connect(scene)?;
    ask(&mut idle)?;
    let output = baton(scene, active, &["switchover"])?;
    ensure!(said(&output) == "vip web is standby here now\n", "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)?;
    idle.set_nonblocking(true)?;
    let read = idle.read(&mut [0]);
    ensure!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nobody has closed it");
    Ok(())
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame: its kind, its flags, and what it carries; `None` at the end.
fn next_frame(stream: &mut TcpStream) -> anyhow::Result<Option<(u8, u8, Vec<u8>)>> {
    let mut head = [0; 9];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload)?;
    Ok(Some((head[3], head[4], payload)))
}

fn tells_http2(scene: &mut Scene) -> Outcome {
    const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    let (active, standby) = form(scene)?;
    let mut stream = connect(scene)?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&[frame(4, 0, 0, &[]), frame(1, 5, 1, &GET)].concat())?;
    let (mut switchover, mut goaway) = (None, None);
    while let Some((kind, flags, payload)) = next_frame(&mut stream)? {
        match kind {
            // The answer is over, and the client goes on without a word.
            0 | 1 if flags & 1 == 1 && switchover.is_none() => switchover = Some(begin(scene, active)?),
            4 if flags & 1 == 0 => stream.write_all(&frame(4, 1, 0, &[]))?,
            6 if flags & 1 == 0 => stream.write_all(&frame(6, 1, 0, &payload))?,
            7 => goaway = Some(payload[4..8].to_vec()),
            _ => {}
        }
    }
    // No error, and an orderly end at once: nothing was under way.
    ensure!(goaway.as_deref() == Some(&[0, 0, 0, 0]), "{goaway:?}");
    let output = switchover.context("no answer came")?.wait_with_output()?;
    ensure!(output.status.success(), "{}", said(&output));
    scene.wait_for_holder(standby, PATIENCE)
}
