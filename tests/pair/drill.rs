//! `baton drill` on a pair in namespaces, with a scenario like those for real machines: the nodes are reached by nsenter, the
//! test is their service manager and starts guards that ended, and cables are pulled at the switch.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use baton::lab::pair::{CLIENT, NODES, Pair, PairSpec, SERVERS};
use baton::lab::process::{Process, log_tail};
use baton::lab::web::WebServer;
use baton::units::AdvertInterval;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::scene::{Outcome, PATIENCE, find_program, program, until};
use crate::small_disk::SmallDisk;

/// Time for a whole drill.
const DRILL_TIMEOUT: Duration = Duration::from_secs(240);

/// The namespaces' names begin with this: tests of the pair show theirs in the same directory.
const PREFIX: &str = "drill-";

/// Beside the pair's own configuration: a service that sends back what it gets.
const ECHO: &str = r#"
[[listener]]
name = "echo"
bind = ["10.77.0.100:7"]
protocol = "tcp"
pool = "echo"

[[pool]]
name = "echo"
servers = [{ name = "echo1", address = "10.77.0.21:7" }]
"#;

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, body: fn(&mut Stand) -> Outcome| {
        Trial::test(name, move || Stand::build()?.play(body).map_err(|error| format!("{error:#}").into()))
    };
    vec![
        trial("drill_of_every_kind_of_event_passes_and_leaves_its_reports", passes),
        trial("drill_of_planned_moves_fails_no_request_over_http", plans),
        trial("drill_over_its_limits_fails_and_names_what_was_exceeded", fails),
        trial("drill_that_is_interrupted_mends_what_it_broke", is_interrupted),
        trial("drill_refuses_a_pair_that_is_not_whole", refuses),
        trial("drill_whose_disk_is_full_is_not_passed_and_writes_what_it_can", fills_the_disk),
        trial("drill_whose_terminal_is_closed_leaves_its_reports_and_ends_as_hung_up", loses_its_terminal),
        trial("drill_refuses_a_scenario_of_another_pair_and_strikes_nothing", refuses_strangers),
    ]
}

/// A pair, and what stands around it.
struct Stand {
    pair: Pair,
    /// The guards that ended are started again, as a service manager does.
    restarts: bool,
}

impl Stand {
    fn build() -> anyhow::Result<Self> {
        let spec = PairSpec {
            program: program(),
            advert_interval: AdvertInterval::new(Duration::from_millis(100)).context("an interval of the wire")?,
            config_extra: ECHO.to_owned(),
            netns_prefix: Some(PREFIX.to_owned()),
        };
        let mut pair = Pair::build(&spec)?;
        // A worker that a busy machine keeps waiting is not taken for hung.
        let config = pair.directory().join("baton.toml");
        let patient = "[worker]\nprobe_timeout = \"5s\"\n\n[pair]";
        fs::write(&config, fs::read_to_string(&config)?.replacen("[pair]", patient, 1))?;
        serve_echo(&pair)?;
        pair.start()?;
        pair.wait_until_healthy(PATIENCE)?;
        pair.wait_until_serving(PATIENCE)?;
        Ok(Self { pair, restarts: true })
    }

    fn play(mut self, body: fn(&mut Stand) -> Outcome) -> Outcome {
        let outcome = body(&mut self);
        if outcome.is_err() {
            let logs = self.pair.nodes().each_ref().map(|node| node.log());
            for log in logs.into_iter().chain([self.path("drill.log")]) {
                eprintln!("--- the last lines of {}", log.display());
                log_tail(&log, 40).iter().for_each(|line| eprintln!("{line}"));
            }
        }
        outcome
    }

    fn path(&self, name: &str) -> PathBuf {
        self.pair.directory().join(name)
    }

    /// The file of a drill with these events, and `more` before them.
    fn scenario(&self, more: &str, events: &str) -> anyhow::Result<PathBuf> {
        let baton = program();
        let node = |name: &str| {
            let run = self.pair.node(name).map(|node| node.runtime_dir().display().to_string()).unwrap_or_default();
            let (baton, config) = (baton.display(), self.path("baton.toml").display().to_string());
            format!(
                r#"
[[node]]
name = "{name}"
reach = ["nsenter", "--net=/run/netns/{PREFIX}{name}", "--"]
baton = "{baton}"
runtime_dir = "{run}"
start = "true" # the test starts it
stop = '''kill $({baton} status --json --runtime-dir {run} | sed -n 's/.*"guard_pid": *\([0-9]*\).*/\1/p')'''
cut = {{ here = "nsenter --net=/run/netns/{PREFIX}switch ip link set {name} down" }}
mend = {{ here = "nsenter --net=/run/netns/{PREFIX}switch ip link set {name} up" }}
reload = "sed -i 's/interval = \"500ms\"/interval = \"600ms\"/' {config}; {baton} reload --runtime-dir {run}"
upgrade = "{baton} --version"
"#
            )
        };
        let server = |name: &str| {
            let order = self.path(&format!("{name}.order")).display().to_string();
            let script = |what: &str| format!("echo {what} >{order}; while test -e {order}; do sleep 0.05; done");
            let (stop, start) = (script("stop"), script("start"));
            format!("\n[[server]]\nname = \"{name}\"\nstop = \"{stop}\"\nstart = \"{start}\"\n")
        };
        let text = format!(
            r#"name = "a pair in namespaces"
steady = "1s"
quiet = "1s"
hold = "500ms"
{more}
{}{}{}
[load]
url = "http://10.77.0.100/"
new_connections = 50
kept_connections = 2
users = 12
user_pause = "100ms"
server_from = "header:x-server"
websocket = "ws://10.77.0.100/echo"
websockets = 4
tcp = "10.77.0.100:7"
tcp_connections = 4
timeout = "2s"
{events}"#,
            node(NODES[0]),
            node(NODES[1]),
            server(SERVERS[1]),
        );
        let path = self.path("drill.toml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a drill on the machine of the clients.
    fn begin(&self, scenario: &Path) -> anyhow::Result<Process> {
        let mut command = self.pair.topology().host(CLIENT)?.command(program());
        command.arg("drill").arg("--scenario").arg(scenario);
        for file in ["json", "junit", "report", "ledger"] {
            command.arg(format!("--{file}")).arg(self.path(&format!("drill.{file}")));
        }
        command.env("TERM", "dumb");
        Ok(Process::spawn("drill", command, &self.path("drill.log"))?)
    }

    /// Waits for its end, looking after guards and servers meanwhile, and gives its exit status.
    fn finish(&mut self, drill: &mut Process) -> anyhow::Result<i32> {
        let ended = Instant::now() + DRILL_TIMEOUT;
        loop {
            if let Some(status) = drill.exit_status()? {
                return status.code().context("the drill was killed");
            }
            self.look_after()?;
            ensure!(Instant::now() < ended, "the drill takes too long");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn look_after(&mut self) -> Outcome {
        for name in NODES {
            let node = self.pair.node_mut(name)?;
            if self.restarts && node.exit_status()?.is_some() {
                node.start()?;
            }
        }
        for name in SERVERS {
            let order = self.path(&format!("{name}.order"));
            match fs::read_to_string(&order).unwrap_or_default().trim() {
                "stop" => self.pair.servers_mut().retain(|server| server.name() != name),
                "start" => {
                    let address = format!("10.77.0.2{}:8080", &name[3..]).parse()?;
                    let server = WebServer::start(self.pair.topology().host(name)?, name, address)?;
                    self.pair.servers_mut().push(server);
                }
                "" => continue,
                other => bail!("{}: {other}", order.display()),
            }
            fs::remove_file(&order)?;
        }
        Ok(())
    }

    fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.path("drill.log"))?)
    }

    fn json(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&fs::read_to_string(self.path("drill.json"))?)?)
    }
}

/// Sends back what it gets, on the first server's machine, for as long as the network is there.
fn serve_echo(pair: &Pair) -> Outcome {
    let listener = pair.topology().host(SERVERS[0])?.run(|| TcpListener::bind("10.77.0.21:7"))??;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(())
}

/// Times and failures depend on how busy the machine of the test is; that the VIP goes where it should does not.
const EVERYTHING: &str = r#"
[limits]
gap_max = false
users_moved_max = false

[[event]]
type = "switchover"

[[event]]
type = "worker-killed"

[[event]]
type = "worker-hung"

[[event]]
type = "guard-killed"

[[event]]
type = "link-cut"

[[event]]
type = "server-killed"

[[event]]
type = "reload"
failed_max = false

[[event]]
type = "upgrade"
vip = "stays"
"#;

fn passes(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", EVERYTHING)?;
    let mut drill = stand.begin(&scenario)?;
    let status = stand.finish(&mut drill)?;
    ensure!(status == 0, "exit status {status}: {}", stand.said()?);
    let report = stand.json()?;
    ensure!(report["passed"] == true, "{report}");
    let events = report["events"].as_array().context("events")?;
    let titles: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let expected = [
        "switchover",
        "worker killed",
        "worker hung",
        "guard killed",
        "link cut",
        "server killed",
        "config reload",
        "rolling upgrade",
    ];
    ensure!(titles == expected, "{titles:?}");
    for event in &events[..5] {
        // A machine that is too busy for a listener's check has it move back.
        let verdict = &event["verdict"];
        ensure!(verdict["moved"].is_object() || verdict["moved_back"].is_object(), "{event}");
        ensure!(event["moved_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{event}");
    }
    let hung = &events[2]["figures"];
    ensure!(hung["without_service_ms"].as_u64() > report["steady"]["without_service_ms"].as_u64(), "{hung}");
    let broken = |what: &str| hung[what].as_u64().unwrap_or(0);
    ensure!(broken("broken_websockets") >= 4 && broken("broken_tcp_connections") >= 4, "{hung}");
    let moved = events[5]["figures"]["users_moved"].as_u64();
    ensure!(moved.is_some_and(|users| users > 0), "nobody was on the server that was killed: {}", events[5]);
    looks_right(stand)
}

/// The files that a drill leaves: each is what its readers take.
fn looks_right(stand: &Stand) -> Outcome {
    // Every request is there, of every kind of client.
    let ledger = fs::read_to_string(stand.path("drill.ledger"))?;
    let mut kinds = BTreeSet::new();
    for line in ledger.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).context("a line of the ledger")?;
        kinds.extend(entry["client"].as_str().map(str::to_owned));
    }
    ensure!(kinds.iter().eq(["kept", "new", "tcp", "user", "websocket"]), "{kinds:?}");
    ensure!(ledger.ends_with("{\"lines_lost\":0}\n"), "the ledger lost lines");

    let cases = "import sys, xml.etree.ElementTree as tree
suite = tree.parse(sys.argv[1]).getroot().find('testsuite')
print(suite.get('tests'), suite.get('failures'), len(suite.findall('testcase')))";
    let python = find_program("python3", "python3")?;
    let read = Command::new(python).args(["-c", cases]).arg(stand.path("drill.junit")).output()?;
    let read = String::from_utf8_lossy(&read.stdout).into_owned();
    ensure!(read == "8 0 8\n", "{read}");

    // The page in a browser: as many pictures as events, and not a word in its console, where everything that it would
    // have liked to load from elsewhere would be refused by its own policy.
    let page = stand.path("drill.html");
    fs::copy(stand.path("drill.report"), &page)?;
    let mut chromium = Command::new(find_program("chromium", "chromium")?);
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--enable-logging=stderr", "--timeout=20000"])
        .arg(format!("--user-data-dir={}", stand.path("chromium").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null());
    let shown = chromium.output()?;
    let (document, log) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    ensure!(document.matches("<svg ").count() == 8, "{document}\n{log}");
    ensure!(document.contains("Passed: all 8 events are within their limits"), "{document}");
    ensure!(!log.contains("CONSOLE"), "the page is not content: {log}");
    Ok(())
}

/// Moves from each node, and a clean stop, as operators do them.
const PLANNED: &str = r#"
[limits]
gap_max = false
users_moved_max = 0
failed_max = 0

[[event]]
type = "switchover"

[[event]]
type = "switchover"

[[event]]
type = "node-stopped"
"#;

fn plans(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", PLANNED)?;
    // Connections that are no HTTP cannot be asked to leave.
    let text = fs::read_to_string(&scenario)?;
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("websocket") && !line.starts_with("tcp")).collect();
    fs::write(&scenario, text.join("\n").replace("kept_connections = 2", "kept_connections = 8"))?;
    let mut drill = stand.begin(&scenario)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    println!("{}", said.lines().skip_while(|line| !line.starts_with("event ")).collect::<Vec<_>>().join("\n"));
    ensure!(status == 0, "exit status {status}: {said}");
    let report = stand.json()?;
    for event in report["events"].as_array().context("events")? {
        ensure!(event["figures"]["broken_connections"] == 0, "{event}");
    }
    Ok(())
}

fn fails(stand: &mut Stand) -> Outcome {
    // Nobody starts a guard that was killed: the node does not come back.
    stand.restarts = false;
    let events = r#"
[[event]]
type = "worker-hung"
gap_max = "0ms"

[[event]]
type = "guard-killed"
timeout = "5s"

[[event]]
type = "switchover"
"#;
    let scenario = stand.scenario("", events)?;
    let mut drill = stand.begin(&scenario)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 1, "exit status {status}: {said}");
    ensure!(said.contains("ms without service; the limit is 0 ms"), "{said}");
    ensure!(said.contains("does not answer"), "{said}");
    let last = said.lines().find(|line| line.starts_with("switchover")).context("the event that was not played")?;
    ensure!(last.ends_with("not played"), "{last}");
    let report = stand.json()?;
    ensure!(report["passed"] == false && report["events"][0]["passed"] == false, "{report}");
    let reason = report["events"][1]["verdict"]["failed"]["reason"].as_str().unwrap_or_default();
    ensure!(NODES.iter().any(|node| reason.contains(&format!("{node} does not answer"))), "{reason}");
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains("tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"1\""), "{junit}");
    ensure!(fs::read_to_string(stand.path("drill.report"))?.contains("Not passed: 0 of 3 events"), "the page");
    Ok(())
}

fn is_interrupted(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", "\n[[event]]\ntype = \"link-cut\"\n")?;
    let text = fs::read_to_string(&scenario)?.replace("hold = \"500ms\"", "hold = \"10m\"");
    fs::write(&scenario, text)?;
    let mut drill = stand.begin(&scenario)?;
    let struck = until("the cable to be pulled", DRILL_TIMEOUT, || {
        ensure!(drill.exit_status()?.is_none(), "it ended: {}", stand.said()?);
        let said = stand.said()?;
        Ok(NODES.into_iter().find(|node| said.contains(&format!("{node}: active → "))))
    })?;
    drill.signal(Signal::INT)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 130, "exit status {status}: {said}");
    // What was found until then is told all the same.
    ensure!(said.contains("interrupted by signal 2"), "{said}");
    let report = stand.json()?;
    ensure!(report["interrupted"] == 2 && report["passed"] == false, "{report}");
    ensure!(report["events"][0]["figures"]["answered"].as_u64() > Some(0), "{report}");
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains("tests=\"1\" failures=\"1\""), "{junit}");
    ensure!(said.contains(&format!("mending what was done (pull the cable of {struck}")), "{said}");
    stand.pair.topology().wait_until_linked(struck)?;
    stand.pair.wait_until_healthy(PATIENCE)?;
    Ok(())
}

fn refuses(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", "\n[[event]]\ntype = \"worker-killed\"\n")?;
    stand.restarts = false;
    stand.pair.node_mut(NODES[1])?.stop(PATIENCE)?;
    let mut drill = stand.begin(&scenario)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 1, "exit status {status}: {said}");
    ensure!(said.contains("the pair to be whole, but lb-b does not answer: "), "{said}");
    ensure!(said.contains("no baton runs here"), "{said}");
    ensure!(!said.contains("event 1"), "{said}");
    let report = stand.json()?;
    ensure!(report["passed"] == false && report["steady"].is_null(), "{report}");
    let trouble = report["troubles"][0].as_str().unwrap_or_default();
    ensure!(trouble.contains("lb-b does not answer: "), "{report}");
    let counts = "tests=\"2\" failures=\"0\" errors=\"1\" skipped=\"1\"";
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains(counts) && junit.contains("lb-b does not answer: "), "{junit}");

    let said_before = said.len();
    let file = stand.path("drill.json");
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    let mut drill = stand.begin(&scenario)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 1, "exit status {status}: {said}");
    ensure!(said.contains("failed to write the report ") && said.contains("drill.json: Is a directory"), "{said}");
    ensure!(!said[said_before..].contains("the pair to be whole"), "{said}");
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains(counts) && junit.contains("drill.json: Is a directory"), "{junit}");

    let broken = stand.scenario("quite = \"1s\"", "\n[[event]]\ntype = \"worker-kiled\"\n")?;
    let mut drill = stand.begin(&broken)?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 2, "exit status {status}: {said}");
    ensure!(said.contains("error: quite: unknown key") && said.contains("did you mean \"worker-killed\"?"), "{said}");
    Ok(())
}

fn refuses_strangers(stand: &mut Stand) -> Outcome {
    let event = "\n[[event]]\ntype = \"worker-killed\"\n";
    let [first, second] = NODES;
    let reach = |node: &str| format!("--net=/run/netns/{PREFIX}{node}\"");
    let run = |stand: &Stand, node: &str| -> anyhow::Result<String> {
        let node = stand.pair.node(node).context("a node of the pair")?;
        Ok(format!("runtime_dir = \"{}\"", node.runtime_dir().display()))
    };
    let (first_run, second_run) = (run(stand, first)?, run(stand, second)?);
    let swapped = |text: &str| {
        let held = text.replace(&reach(first), "@").replace(&reach(second), &reach(first)).replace('@', &reach(second));
        held.replace(&first_run, "@").replace(&second_run, &first_run).replace('@', &second_run)
    };
    let usual = fs::read_to_string(stand.scenario("", event)?)?;
    let cases = [
        (fs::read_to_string(stand.scenario("vip = \"nope\"", event)?)?, "lb-a has no VIP nope: name one of web"),
        (usual.replace("name = \"lb-a\"", "name = \"lb-x\""), "[[node]] lb-x leads to says that it is lb-a: "),
        (swapped(&usual), "[[node]] lb-a leads to says that it is lb-b: "),
        (
            usual.replace(&reach(second), &reach(first)).replace(&second_run, &first_run),
            "`reach` of [[node]] lb-a and of [[node]] lb-b lead to the same node, lb-a: ",
        ),
    ];
    let restarts = |stand: &Stand| -> anyhow::Result<Vec<u64>> {
        let status = |name: &&str| Ok(stand.pair.node(name).context("a node")?.status(PATIENCE)?.worker.restarts);
        NODES.iter().map(status).collect()
    };
    let before = restarts(stand)?;
    for (text, expected) in cases {
        let path = stand.path("drill.toml");
        ensure!(text != usual, "the case is the good scenario");
        fs::write(&path, text)?;
        let said_before = stand.said().unwrap_or_default().len();
        let mut drill = stand.begin(&path)?;
        let status = stand.finish(&mut drill)?;
        let said = stand.said()?.split_off(said_before);
        ensure!(status == 2, "exit status {status}: {said}");
        ensure!(said.contains(expected), "{expected} is not said: {said}");
        ensure!(!said.contains("load starts") && !said.contains("event 1"), "{said}");
    }
    ensure!(restarts(stand)? == before, "a worker was struck");

    fs::write(stand.path("drill.toml"), usual.replace("[load]\n", "[load]\nca = \"nowhere.pem\"\n"))?;
    let mut check = Command::new(program());
    let checked = check.args(["drill", "--check", "--scenario"]).arg(stand.path("drill.toml")).output()?;
    let said = String::from_utf8_lossy(&checked.stderr);
    ensure!(checked.status.code() == Some(2), "{checked:?}");
    ensure!(
        said.contains("error: load.ca = \"nowhere.pem\": failed to read ") && said.contains("nowhere.pem"),
        "{said}"
    );
    Ok(())
}

/// What is of no matter here.
const ONE_EVENT: &str = r#"
[limits]
gap_max = false
users_moved_max = false

[[event]]
type = "worker-killed"
"#;

fn fills_the_disk(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", ONE_EVENT)?;
    let disk = SmallDisk::mount(&stand.path("small"))?;
    // A page is left for each of the file's own and of the ledger's first and last lines.
    fs::write(stand.path("small/filler"), [0; 52 * 1024])?;
    let ledger = stand.path("small/ledger");
    let mut command = stand.pair.topology().host(CLIENT)?.command(program());
    command.arg("drill").arg("--scenario").arg(&scenario).args(["--json", "/dev/full"]).arg("--ledger").arg(&ledger);
    command.arg("--junit").arg(stand.path("drill.junit")).arg("--report").arg(stand.path("drill.html"));
    command.env("TERM", "dumb");
    let mut drill = Process::spawn("drill", command, &stand.path("drill.log"))?;
    let status = stand.finish(&mut drill)?;
    let said = stand.said()?;
    ensure!(status == 1, "exit status {status}: {said}");
    ensure!(said.contains("\nNOT PASSED\n") && !said.contains("\npassed\n"), "{said}");
    ensure!(said.contains("failed to write the report /dev/full: No space left on device"), "{said}");
    let written = fs::read_to_string(&ledger)?;
    let lines = written.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().context("a line of the ledger")?;
    let lost = lines.last().and_then(|line| line["lines_lost"].as_u64()).context("the last line of the ledger")?;
    ensure!(lost > 0 && lines.len() > 20, "{lost} lines are lost, {} are there", lines.len());
    let expected = format!("{lost} requests are missing in the ledger: No space left on device");
    ensure!(said.contains(&expected), "{said}");
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains("tests=\"2\" failures=\"0\" errors=\"1\"") && junit.contains(&expected), "{junit}");
    let page = fs::read_to_string(stand.path("drill.html"))?;
    ensure!(page.contains("Not passed: 1 of 1 events") && page.contains(&expected), "{page}");
    drop(disk);
    Ok(())
}

fn loses_its_terminal(stand: &mut Stand) -> Outcome {
    let scenario = stand.scenario("", ONE_EVENT)?;
    let text = fs::read_to_string(&scenario)?.replace("steady = \"1s\"", "steady = \"10m\"");
    fs::write(&scenario, text)?;
    // Of a terminal that is gone remain the signal and that nothing can be written to it.
    let mut command = stand.pair.topology().host(CLIENT)?.command(Path::new("sh"));
    command.args(["-c", "exec \"$0\" \"$@\" >/dev/full"]).arg(program()).arg("drill").arg("--scenario").arg(&scenario);
    for file in ["json", "junit", "report", "ledger"] {
        command.arg(format!("--{file}")).arg(stand.path(&format!("drill.{file}")));
    }
    let mut drill = Process::spawn("drill", command, &stand.path("drill.log"))?;
    let ledger = stand.path("drill.ledger");
    until("requests of the drill", DRILL_TIMEOUT, || Ok((fs::metadata(&ledger)?.len() > 8 * 1024).then_some(())))?;
    drill.signal(Signal::HUP)?;
    let status = stand.finish(&mut drill)?;
    ensure!(status == 129, "exit status {status}: {}", stand.said()?);
    let report = stand.json()?;
    ensure!(report["interrupted"] == 1 && report["passed"] == false, "{report}");
    let junit = fs::read_to_string(stand.path("drill.junit"))?;
    ensure!(junit.contains("message=\"interrupted by signal 1\""), "{junit}");
    ensure!(fs::read_to_string(stand.path("drill.report"))?.contains("<li>interrupted by signal 1</li>"), "the page");
    let written = fs::read_to_string(&ledger)?;
    ensure!(written.ends_with("{\"lines_lost\":0}\n"), "the ledger is not whole");
    Ok(())
}
