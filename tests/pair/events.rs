//! Events: told in order, again until it works, and after whatever happened in between.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton::event::Event;
use baton::lab::pair::NODES;
use baton::lab::process::ProcessHandle;
use baton::status::{EventsStatus, Role};
use libtest_mimic::Trial;
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};
use crate::small_disk::SmallDisk;

/// The node of these tests: one is enough, and then it is always the active one.
const NODE: &str = NODES[0];

/// Tells everything to the file `told`, one event a line; fails while there is no file `open`.
const WHEN_OPEN: &str = r#"[ -e "$1/open" ] || { echo "not open" >&2; exit 1; }; cat >> "$1/told"; echo >> "$1/told""#;

pub fn trials() -> Vec<Trial> {
    vec![
        Plan::usual().trial("events_keep_their_order_when_the_command_fails", events_keep_their_order),
        Plan::usual().trial("events_survive_a_killed_guard", events_survive_a_killed_guard),
        Plan::usual().trial("last_events_of_a_stop_are_told", last_events_of_a_stop_are_told),
        Plan::usual().trial("webhook_is_tried_until_it_takes_an_event", webhook_is_tried_until_it_takes_an_event),
        Plan::usual()
            .trial("event_webhook_over_tls_shows_its_secret_nowhere", webhook_over_tls_shows_its_secret_nowhere),
        Plan::usual().trial("event_command_that_hangs_is_killed_with_its_children", command_that_hangs_is_killed),
        Plan::usual().trial("killed_courier_costs_no_event_and_no_role", killed_courier_costs_no_event),
        Plan::usual().trial("events_are_told_without_a_spool", events_are_told_without_a_spool),
        Plan::usual().trial("full_disk_keeps_events_in_memory_and_is_tried_again", full_disk_keeps_events_in_memory),
        Plan::usual().trial("no_more_events_are_kept_than_was_said", no_more_events_are_kept_than_was_said),
        Plan::usual().trial("no_courier_is_started_without_events_to_tell", nobody_is_started_when_nobody_is_told),
    ]
}

/// Adds `[events]`. As root: in the directory of the test nobody else can write.
fn tell(scene: &Scene, settings: &str) -> Outcome {
    scene.edit_config("[pair]", &format!("[events]\nuser = \"root\"\n{settings}\n\n[pair]"))
}

/// The key for a shell script that gets the directory of the test as `$1`.
fn script(scene: &Scene, script: &str) -> String {
    format!("command = [\"/bin/sh\", \"-c\", '''{script}''', \"teller\", \"{}\"]", scene.pair.directory().display())
}

fn file(scene: &Scene, name: &str) -> PathBuf {
    scene.pair.directory().join(name)
}

fn lines(scene: &Scene, name: &str) -> Vec<String> {
    let text = fs::read_to_string(file(scene, name)).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn told(scene: &Scene) -> anyhow::Result<Vec<Event>> {
    lines(scene, "told").iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

fn roles(events: &[Event]) -> Vec<(Role, Role)> {
    events.iter().map(|event| (event.from, event.to)).collect()
}

fn wait_until_told(scene: &Scene, count: usize) -> anyhow::Result<Vec<Event>> {
    until(&format!("{count} events"), PATIENCE, || Ok(Some(told(scene)?).filter(|told| told.len() >= count)))
}

fn status(scene: &Scene) -> anyhow::Result<EventsStatus> {
    scene.status(NODE)?.events.context("events are configured")
}

fn wait_for_status(
    scene: &Scene,
    what: &str,
    condition: impl Fn(&EventsStatus) -> bool,
) -> anyhow::Result<EventsStatus> {
    until(what, PATIENCE, || Ok(Some(status(scene)?).filter(&condition)))
}

/// Starts the one node and waits until it is active: its second event.
fn start(scene: &mut Scene) -> Outcome {
    scene.node_mut(NODE).start()?;
    scene.wait_for_role(NODE, Role::Active, PATIENCE)
}

/// Three more events: the VIP is given up, the node is ready again, and takes it.
fn kill_worker(scene: &Scene) -> Outcome {
    let before = scene.vip(NODE)?.transitions;
    scene.node(NODE).kill_worker()?;
    until("the node to be active again", PATIENCE, || {
        Ok(Some(scene.vip(NODE)?).filter(|vip| vip.role == Role::Active && vip.transitions == before + 3))
    })?;
    Ok(())
}

/// The process that delivers.
fn courier(scene: &Scene) -> anyhow::Result<u32> {
    let guard = scene.node(NODE).guard_pid().context("it runs")?;
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children"))?;
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_courier =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"baton\0courier\0"));
    pids.into_iter().find(is_courier).context("it has no courier")
}

fn log(scene: &Scene) -> String {
    scene.node(NODE).log_tail(1000).join("\n")
}

fn events_keep_their_order(scene: &mut Scene) -> Outcome {
    let fails_twice = r#"n=$(cat "$1/tries" 2>/dev/null || echo 0); echo $((n + 1)) > "$1/tries"
        if [ $n -lt 2 ]; then echo "not yet" >&2; exit 3; fi
        cat >> "$1/told"; echo >> "$1/told"
        echo "$BATON_EVENT_SEQUENCE $BATON_EVENT_NODE $BATON_EVENT_VIP $BATON_EVENT_FROM $BATON_EVENT_TO" \
            "$BATON_EVENT_EPOCH $BATON_EVENT_ADDRESSES $BATON_EVENT_PEER: $BATON_EVENT_REASON" >> "$1/environment""#;
    tell(scene, &script(scene, fails_twice))?;
    start(scene)?;
    let failed = wait_for_status(scene, "a failure", |status| status.last_error.is_some())?;
    assert_eq!(failed.last_error.as_deref(), Some("command: exit status 3: not yet"));
    assert!(failed.spooled >= 1 && failed.oldest_age_ms.is_some(), "{failed:?}");
    let events = wait_until_told(scene, 2)?;
    assert_eq!(sequences(&events), [1, 2]);
    assert_eq!(roles(&events), [(Role::Unfit, Role::Standby), (Role::Standby, Role::Active)]);
    let first = &events[0];
    assert_eq!((first.node.as_str(), first.vip.as_str(), first.reason.as_str()), ("lb-a", "web", "ready"));
    assert_eq!((first.addresses.join(" ").as_str(), first.peer.as_deref()), ("10.77.0.100/24", Some("lb-b")));
    assert_eq!((first.time.len(), first.time.ends_with('Z')), (24, true));
    let epoch = first.epoch;
    let expected = format!("1 lb-a web unfit standby {epoch} 10.77.0.100/24 lb-b: ready");
    assert_eq!(lines(scene, "environment")[0], expected);
    assert_eq!(lines(scene, "tries"), ["4"]);
    let done = wait_for_status(scene, "nothing to wait", |status| status.spooled == 0)?;
    assert_eq!(done, EventsStatus { spooled: 0, delivered: 2, dropped: 0, last_error: None, oldest_age_ms: None });
    Ok(())
}

fn events_survive_a_killed_guard(scene: &mut Scene) -> Outcome {
    tell(scene, &script(scene, WHEN_OPEN))?;
    start(scene)?;
    wait_for_status(scene, "two events and a failure", |status| status.spooled == 2 && status.last_error.is_some())?;
    let spool = scene.node(NODE).state_dir().join("events");
    until("two events on disk", PATIENCE, || Ok(spool.join("00000000000000000002.json").exists().then_some(())))?;
    scene.node_mut(NODE).kill_guard()?;
    ensure!(told(scene)?.is_empty(), "told before it was open");
    fs::write(file(scene, "open"), "")?;
    start(scene)?;
    let events = wait_until_told(scene, 4)?;
    assert_eq!(sequences(&events), [1, 2, 3, 4]);
    let taken = [(Role::Unfit, Role::Standby), (Role::Standby, Role::Active)];
    assert_eq!(roles(&events), [taken, taken].concat());
    // Nothing is left to be told again.
    wait_for_status(scene, "nothing to wait", |status| status.spooled == 0)?;
    until("the files to be gone", PATIENCE, || {
        let names: Vec<_> = fs::read_dir(&spool)?.flatten().map(|entry| entry.file_name()).collect();
        Ok((names == ["delivered.json"]).then_some(()))
    })?;
    scene.node_mut(NODE).kill_guard()?;
    start(scene)?;
    assert_eq!(sequences(&wait_until_told(scene, 6)?), [1, 2, 3, 4, 5, 6]);
    Ok(())
}

fn last_events_of_a_stop_are_told(scene: &mut Scene) -> Outcome {
    tell(scene, &script(scene, WHEN_OPEN))?;
    fs::write(file(scene, "open"), "")?;
    start(scene)?;
    wait_until_told(scene, 2)?;
    let stopped = scene.node_mut(NODE).stop(PATIENCE)?;
    assert_eq!(stopped.code(), Some(0));
    let events = told(scene)?;
    assert_eq!((sequences(&events), roles(&events)[2]), (vec![1, 2, 3], (Role::Active, Role::Unfit)));
    Ok(())
}

fn command_that_hangs_is_killed(scene: &mut Scene) -> Outcome {
    let hangs_once = r#"if mkdir "$1/once" 2>/dev/null; then sleep 1000 & echo $! > "$1/child"; wait; fi
        cat >> "$1/told"; echo >> "$1/told""#;
    tell(scene, &format!("{}\ntimeout = \"300ms\"", script(scene, hangs_once)))?;
    start(scene)?;
    let failed = wait_for_status(scene, "a failure", |status| status.last_error.is_some())?;
    assert_eq!(failed.last_error.as_deref(), Some("command: did not end within 300 ms and was killed"));
    let child = lines(scene, "child")[0].clone();
    until("its child to be gone too", PATIENCE, || {
        let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
    })?;
    assert_eq!(sequences(&wait_until_told(scene, 2)?), [1, 2]);
    Ok(())
}

fn killed_courier_costs_no_event(scene: &mut Scene) -> Outcome {
    let waits = r#"echo "$BATON_EVENT_SEQUENCE" >> "$1/begun"; while [ ! -e "$1/open" ]; do sleep 0.01; done
        cat >> "$1/told"; echo >> "$1/told""#;
    tell(scene, &script(scene, waits))?;
    start(scene)?;
    until("the first event under way", PATIENCE, || Ok((lines(scene, "begun") == ["1"]).then_some(())))?;
    let first = courier(scene)?;
    let capabilities = fs::read_to_string(format!("/proc/{first}/status"))?;
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(capabilities.contains(&format!("{set}\t0000000000000000\n")), "{set} of the courier");
    }
    ProcessHandle::open(first)?.signal(Signal::KILL)?;
    let second = until("another courier", PATIENCE, || Ok(courier(scene).ok().filter(|pid| *pid != first)))?;
    fs::write(file(scene, "open"), "")?;
    assert_eq!(sequences(&wait_until_told(scene, 2)?), [1, 2]);
    let vip = scene.vip(NODE)?;
    assert_eq!((vip.role, vip.transitions), (Role::Active, 2));
    assert!(log(scene).contains("the courier has ended and is started again"));
    // It ends with its guard.
    let handle = ProcessHandle::open(second)?;
    scene.node_mut(NODE).kill_guard()?;
    until("the courier to be gone", PATIENCE, || Ok((!handle.is_running()).then_some(())))
}

fn events_are_told_without_a_spool(scene: &mut Scene) -> Outcome {
    tell(scene, &script(scene, WHEN_OPEN))?;
    fs::write(file(scene, "open"), "")?;
    // A file in the place of the directory.
    fs::write(scene.node(NODE).state_dir(), "")?;
    start(scene)?;
    let warnings = scene.status(NODE)?.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("events are kept in memory alone")), "{warnings:?}");
    let events = wait_until_told(scene, 2)?;
    assert_eq!(roles(&events), [(Role::Unfit, Role::Standby), (Role::Standby, Role::Active)]);
    // Numbers that an earlier run cannot have used.
    assert!(events[0].sequence > 1_700_000_000_000 && events[1].sequence == events[0].sequence + 1);
    Ok(())
}

fn full_disk_keeps_events_in_memory(scene: &mut Scene) -> Outcome {
    tell(scene, &script(scene, WHEN_OPEN))?;
    let disk = SmallDisk::mount(&scene.node(NODE).state_dir())?;
    let filler = disk.fill()?;
    start(scene)?;
    wait_for_status(scene, "two events and a failure", |status| status.spooled == 2 && status.last_error.is_some())?;
    assert_eq!(log(scene).matches("events cannot be written to disk").count(), 1, "said once");
    let spool = scene.node(NODE).state_dir().join("events");
    assert!(!spool.join("00000000000000000001.json").exists());
    fs::remove_file(filler)?;
    until("both events on disk", PATIENCE, || {
        let is_there = |sequence| spool.join(format!("{sequence:020}.json")).exists();
        Ok((is_there(1) && is_there(2)).then_some(()))
    })?;
    scene.node_mut(NODE).kill_guard()?;
    fs::write(file(scene, "open"), "")?;
    start(scene)?;
    assert_eq!(sequences(&wait_until_told(scene, 4)?), [1, 2, 3, 4]);
    scene.node_mut(NODE).stop(PATIENCE)?;
    Ok(())
}

fn no_more_events_are_kept_than_was_said(scene: &mut Scene) -> Outcome {
    tell(scene, &format!("{}\nkept_max = 2", script(scene, WHEN_OPEN)))?;
    start(scene)?;
    kill_worker(scene)?;
    let full = wait_for_status(scene, "dropped events", |status| status.dropped == 3)?;
    assert_eq!(full.spooled, 2);
    // The log is written by a thread of its own.
    until("each is logged", PATIENCE, || {
        Ok((log(scene).matches("an event was dropped undelivered").count() == 3).then_some(()))
    })?;
    fs::write(file(scene, "open"), "")?;
    let events = wait_until_told(scene, 2)?;
    assert_eq!(sequences(&events), [4, 5]);
    assert_eq!(roles(&events), [(Role::Unfit, Role::Standby), (Role::Standby, Role::Active)]);
    Ok(())
}

fn nobody_is_started_when_nobody_is_told(scene: &mut Scene) -> Outcome {
    start(scene)?;
    assert!(courier(scene).is_err());
    assert!(scene.status(NODE)?.events.is_none());
    assert!(!scene.node(NODE).state_dir().join("events").exists());
    Ok(())
}

/// A server on another machine that takes events as it is told to.
struct Hook {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Posted>>>,
}

#[derive(Clone)]
struct Posted {
    head: String,
    event: Event,
}

/// What the server does about a request.
#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    /// Nothing, for as long as the client waits.
    Silence,
}

type Tls = Option<Arc<rustls::ServerConfig>>;

impl Hook {
    /// Gives these answers, and 200 afterwards.
    fn start(scene: &Scene, answers: Vec<Answer>, tls: Tls) -> anyhow::Result<Self> {
        let web = scene.pair.topology().host("web1")?;
        // The socket stays in the namespace, wherever it is used.
        let listener = web.run(|| TcpListener::bind("10.77.0.21:0"))??;
        let (address, taken) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let hook = Self { address, taken: Arc::clone(&taken) };
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                let answer = answers.next().unwrap_or(Answer::Status(200));
                // A client that gives up is one that timed out.
                let _ = serve(stream, answer, &tls, &taken, &mut silent);
            }
        });
        Ok(hook)
    }

    fn wait(&self, count: usize) -> anyhow::Result<Vec<Posted>> {
        until(&format!("{count} requests"), PATIENCE, || {
            Ok(Some(self.taken.lock().unwrap().clone()).filter(|taken| taken.len() >= count))
        })
    }
}

fn serve(
    stream: TcpStream,
    answer: Answer,
    tls: &Tls,
    taken: &Mutex<Vec<Posted>>,
    silent: &mut Vec<TcpStream>,
) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    silent.push(stream.try_clone()?);
    match tls {
        None => exchange(stream, answer, taken)?,
        Some(config) => {
            let connection = rustls::ServerConnection::new(Arc::clone(config))?;
            exchange(rustls::StreamOwned::new(connection, stream), answer, taken)?;
        }
    }
    if matches!(answer, Answer::Status(_)) {
        silent.pop();
    }
    Ok(())
}

fn exchange(stream: impl Read + Write, answer: Answer, taken: &Mutex<Vec<Posted>>) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "the client has gone");
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).context("a length")?.parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    taken.lock().unwrap().push(Posted { head, event: serde_json::from_slice(&body)? });
    if let Answer::Status(status) = answer {
        let location = if status == 302 { "location: /elsewhere\r\n" } else { "" };
        write!(reader.get_mut(), "HTTP/1.1 {status} Said\r\n{location}content-length: 0\r\n\r\n")?;
        reader.get_mut().flush()?;
    }
    Ok(())
}

fn webhook_is_tried_until_it_takes_an_event(scene: &mut Scene) -> Outcome {
    let hook = Hook::start(scene, vec![Answer::Status(500), Answer::Silence, Answer::Status(204)], None)?;
    // The command does not wait for the webhook.
    let settings = format!("webhook = \"http://{}/baton?token=hush\"\ntimeout = \"400ms\"", hook.address);
    tell(scene, &format!("{settings}\n{}", script(scene, WHEN_OPEN)))?;
    fs::write(file(scene, "open"), "")?;
    start(scene)?;
    let from = Instant::now();
    assert_eq!(sequences(&wait_until_told(scene, 2)?), [1, 2]);
    wait_for_status(scene, "a bad answer", |status| {
        status.last_error.as_deref() == Some("webhook: 10.77.0.21 answered 500")
    })?;
    wait_for_status(scene, "no answer", |status| {
        status.last_error.as_deref() == Some("webhook: 10.77.0.21 did not answer within 400 ms")
    })?;
    let posted = hook.wait(4)?;
    let order: Vec<u64> = posted.iter().map(|posted| posted.event.sequence).collect();
    assert_eq!(order, [1, 1, 1, 2]);
    // One second after the first failure, two after the second.
    assert!(from.elapsed() >= Duration::from_secs(2), "it was tried again too soon: {:?}", from.elapsed());
    let head = posted[3].head.to_lowercase();
    assert!(head.starts_with("post /baton?token=hush http/1.1\r\n"), "{head}");
    for line in ["content-type: application/json", "baton-event-sequence: 2", &format!("host: {}", hook.address)] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }
    let done = wait_for_status(scene, "nothing to wait", |status| status.spooled == 0)?;
    assert_eq!((done.delivered, done.last_error), (2, None));
    assert!(!log(scene).contains("hush"), "the URL is in the log");
    Ok(())
}

/// Makes an authority, and a certificate of it for the server.
fn certificates(directory: &Path) -> anyhow::Result<(PathBuf, Arc<rustls::ServerConfig>)> {
    let at = |name: &str| directory.join(name);
    let openssl = |arguments: &[&str], key: &str, cert: &str, authority: &[PathBuf]| {
        let mut command = Command::new("openssl");
        command.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        command.args(arguments).arg("-keyout").arg(at(key)).arg("-out").arg(at(cert));
        if let [cert, key] = authority {
            command.arg("-CA").arg(cert).arg("-CAkey").arg(key);
        }
        let output = command.output().context("openssl cannot be run: install package openssl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    openssl(&["-subj", "/CN=authority"], "ca.key", "ca.crt", &[])?;
    let extensions = [
        "-subj",
        "/CN=hook",
        "-addext",
        "subjectAltName=IP:10.77.0.21",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    openssl(&extensions, "hook.key", "hook.crt", &[at("ca.crt"), at("ca.key")])?;
    let chain = vec![CertificateDer::from_pem_file(at("hook.crt"))?];
    let key = PrivateKeyDer::from_pem_file(at("hook.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok((at("ca.crt"), Arc::new(config.with_no_client_auth().with_single_cert(chain, key)?)))
}

fn webhook_over_tls_shows_its_secret_nowhere(scene: &mut Scene) -> Outcome {
    let (authority, config) = certificates(scene.pair.directory())?;
    let hook = Hook::start(scene, vec![Answer::Status(302)], Some(config))?;
    tell(scene, &format!("webhook = \"https://{}/hush/hush\"", hook.address))?;
    // The system trusts others; this one has to be named.
    let mut guard = scene.start_with(NODE, &[("SSL_CERT_FILE", authority.display().to_string())])?;
    wait_for_status(scene, "a refused redirection", |status| {
        status.last_error.as_deref() == Some("webhook: 10.77.0.21 answered 302; redirections are not followed")
    })?;
    let order: Vec<u64> = hook.wait(3)?.iter().map(|posted| posted.event.sequence).collect();
    assert_eq!(order, [1, 1, 2]);
    let shown = serde_json::to_string(&scene.status(NODE)?)?;
    assert!(!shown.contains("hush"), "the secret is in the status");
    for child in guard.children() {
        for shown in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{}/{shown}", child.pid())).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains("hush"), "the secret is in {shown}");
        }
    }
    guard.signal(Signal::TERM)?;
    guard.wait(PATIENCE)?;
    assert!(!log(scene).contains("hush"), "the secret is in the log");

    // Without it there is no trust, and no event for a server that anybody could be.
    let before = hook.taken.lock().unwrap().len();
    scene.node_mut(NODE).start()?;
    wait_for_status(scene, "no trust", |status| {
        status.last_error.as_deref().is_some_and(|error| {
            error.starts_with("webhook: no TLS with 10.77.0.21") || error.contains("trusts no certificate authority")
        })
    })?;
    assert_eq!(hook.taken.lock().unwrap().len(), before);
    Ok(())
}
