//! The file of a drill: how nodes are reached, what clients do, which events are played and what is expected of each.
//!
//! Read with the same strictness as the configuration: every mistake at once, each with its place and remedy. Called by
//! `baton drill`. What a host name means and whether a node can be reached is found out there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Place, Report, Wrong};
use super::values;
use super::{Scope, machine};

/// The longest that anything in a scenario may take.
const HOUR: Duration = Duration::from_secs(3600);

/// Events of one drill.
const EVENTS_MAX: usize = 64;

/// Servers that a drill may stop.
const SERVERS_MAX: usize = 64;

/// Characters of a script.
const SCRIPT_MAX: usize = 16 * 1024;

/// A drill as its file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Its title in reports.
    pub name: String,
    /// The VIP whose holder is struck; the first one of the nodes' status where none is named.
    pub vip: Option<String>,
    /// How long the pair is watched without any event.
    pub steady: Duration,
    /// How long no client may have failed before an event counts as over.
    pub quiet: Duration,
    /// How long a cause lasts after the pair has answered it: a cut link is joined no sooner.
    pub hold: Duration,
    /// Both nodes of the pair.
    pub nodes: [ScenarioNode; 2],
    /// Servers that can be stopped.
    pub servers: Vec<ScenarioServer>,
    /// What clients do.
    pub load: ScenarioLoad,
    /// In the order in which they are played.
    pub events: Vec<ScenarioEvent>,
}

/// A node of the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioNode {
    /// Its name, as its status says it.
    pub name: String,
    /// What comes before `sh` in a command line that runs a script there; empty for this machine.
    pub reach: Vec<String>,
    /// The program on the node.
    pub baton: String,
    /// Where its control socket is, when not in the usual place.
    pub runtime_dir: Option<String>,
    /// What has to be done in a way of its own.
    pub scripts: NodeScripts,
}

/// Scripts of a node; `None` for the usual way, where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeScripts {
    /// Stops the service.
    pub stop: Option<Script>,
    /// Starts it, and does no harm when it runs.
    pub start: Option<Script>,
    /// Cuts the link that carries the VIP.
    pub cut: Option<Script>,
    /// Joins it again.
    pub mend: Option<Script>,
    /// Restarts the machine.
    pub reboot: Option<Script>,
    /// Takes its power away.
    pub power_off: Option<Script>,
    /// Gives it back.
    pub power_on: Option<Script>,
    /// Has the node read its configuration again, changed before if that is wanted.
    pub reload: Option<Script>,
    /// Installs another release.
    pub upgrade: Option<Script>,
}

/// A text for `sh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Run on the node or server that it belongs to.
    There(String),
    /// Run on the machine that the drill runs on.
    Here(String),
}

/// A server behind the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioServer {
    /// Its name, as in the configuration of the pair.
    pub name: String,
    /// As of a node.
    pub reach: Vec<String>,
    /// Ends it.
    pub stop: Script,
    /// Starts it again.
    pub start: Script,
}

/// What clients do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioLoad {
    /// Where new connections, kept connections and users ask.
    pub url: Url,
    /// Certificates of those that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// New connections a second.
    pub new_connections: u32,
    /// Connections that are kept and ask again and again.
    pub kept_connections: u16,
    /// Time between an answer and the next request on them.
    pub kept_pause: Duration,
    /// Clients with a cookie.
    pub users: u16,
    /// Time between an answer and their next request.
    pub user_pause: Duration,
    /// The cookie that ties a user to a server.
    pub cookie: String,
    /// What tells which server answered.
    pub server_from: ServerFrom,
    /// Where WebSockets are opened; the server sends back every message.
    pub websocket: Option<Url>,
    /// How many.
    pub websockets: u16,
    /// Where TCP connections are opened, as host:port; the server sends back every byte.
    pub tcp: Option<(String, u16)>,
    /// How many.
    pub tcp_connections: u16,
    /// Time between two messages of a WebSocket or TCP connection.
    pub message_pause: Duration,
    /// Time for a request or a message.
    pub timeout: Duration,
}

/// What tells which server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrom {
    /// The value of the cookie.
    Cookie,
    /// The first line of the body.
    Body,
    /// A header of the response.
    Header(String),
}

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether over TLS.
    pub is_tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// As the Host header has it.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// An event and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioEvent {
    /// What happens.
    pub kind: EventKind,
    /// The server that is stopped; the first one where the file names none.
    pub server: Option<String>,
    /// Where the VIP ends.
    pub outcome: ExpectedRole,
    /// What must not be exceeded.
    pub limits: Limits,
    /// Time for each thing that has to happen.
    pub timeout: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The VIP is moved as planned.
    Switchover,
    /// The active node's worker is killed.
    WorkerKilled,
    /// The active node's worker neither works nor ends.
    WorkerHung,
    /// The active node's guard is killed.
    GuardKilled,
    /// The active node is stopped as an operator stops it.
    NodeStopped,
    /// The active node's link is cut.
    LinkCut,
    /// The active node is rebooted.
    NodeRebooted,
    /// The active node loses its power.
    PowerCut,
    /// A server is killed.
    ServerKilled,
    /// Both nodes read their configuration again.
    Reload,
    /// Both nodes get another release, the standby first.
    Upgrade,
}

/// What is expected of the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedRole {
    /// The other node takes it.
    Moves,
    /// It stays where it is.
    Stays,
    /// Either will do.
    Either,
}

/// What must not be exceeded; `None` for what is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Time without service.
    pub gap: Option<Duration>,
    /// Requests and messages without a good answer.
    pub failed: Option<u32>,
    /// Users who were answered by another server than before.
    pub users_moved: Option<u32>,
    /// Time from the end of the cause until the pair is whole.
    pub recovery: Option<Duration>,
}

impl EventKind {
    /// All of them, by the words of the file.
    pub const ALL: [(&'static str, EventKind); 11] = [
        ("switchover", EventKind::Switchover),
        ("worker-killed", EventKind::WorkerKilled),
        ("worker-hung", EventKind::WorkerHung),
        ("guard-killed", EventKind::GuardKilled),
        ("node-stopped", EventKind::NodeStopped),
        ("link-cut", EventKind::LinkCut),
        ("node-rebooted", EventKind::NodeRebooted),
        ("power-cut", EventKind::PowerCut),
        ("server-killed", EventKind::ServerKilled),
        ("reload", EventKind::Reload),
        ("upgrade", EventKind::Upgrade),
    ];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            EventKind::Switchover => "switchover",
            EventKind::WorkerKilled => "worker killed",
            EventKind::WorkerHung => "worker hung",
            EventKind::GuardKilled => "guard killed",
            EventKind::NodeStopped => "clean stop",
            EventKind::LinkCut => "link cut",
            EventKind::NodeRebooted => "node rebooted",
            EventKind::PowerCut => "power cut",
            EventKind::ServerKilled => "server killed",
            EventKind::Reload => "config reload",
            EventKind::Upgrade => "rolling upgrade",
        }
    }

    /// What becomes of the VIP where the file does not say.
    pub fn usual_outcome(self) -> ExpectedRole {
        match self {
            EventKind::ServerKilled | EventKind::Reload => ExpectedRole::Stays,
            EventKind::Upgrade => ExpectedRole::Either,
            EventKind::Switchover
            | EventKind::WorkerKilled
            | EventKind::WorkerHung
            | EventKind::GuardKilled
            | EventKind::NodeStopped
            | EventKind::LinkCut
            | EventKind::NodeRebooted
            | EventKind::PowerCut => ExpectedRole::Moves,
        }
    }

    /// Whether its cause has to be taken away; others pass by themselves.
    pub fn is_mended(self) -> bool {
        match self {
            EventKind::WorkerHung
            | EventKind::GuardKilled
            | EventKind::NodeStopped
            | EventKind::LinkCut
            | EventKind::PowerCut
            | EventKind::ServerKilled => true,
            EventKind::Switchover
            | EventKind::WorkerKilled
            | EventKind::NodeRebooted
            | EventKind::Reload
            | EventKind::Upgrade => false,
        }
    }

    /// Limits where the file has none. Failed requests depend on the load, and are limited only where none may fail.
    fn usual_limits(self) -> Limits {
        let seconds = |count| Some(Duration::from_secs(count));
        let crash = Limits { gap: seconds(5), failed: None, users_moved: Some(0), recovery: seconds(60) };
        match self {
            EventKind::Switchover => Limits { gap: seconds(1), ..crash },
            EventKind::ServerKilled => Limits { gap: seconds(1), users_moved: None, ..crash },
            EventKind::Reload => Limits { gap: seconds(1), failed: Some(0), ..crash },
            EventKind::NodeRebooted | EventKind::PowerCut | EventKind::Upgrade => {
                Limits { recovery: seconds(300), ..crash }
            }
            EventKind::WorkerKilled
            | EventKind::WorkerHung
            | EventKind::GuardKilled
            | EventKind::NodeStopped
            | EventKind::LinkCut => crash,
        }
    }

    /// Time for each thing that has to happen, where the file does not say.
    fn usual_timeout(self) -> Duration {
        match self {
            EventKind::NodeRebooted | EventKind::PowerCut | EventKind::Upgrade => Duration::from_secs(600),
            _ => Duration::from_secs(120),
        }
    }

    /// Played where the file names no event: what every pair can do without a script of its own.
    const USUAL: [EventKind; 5] = [
        EventKind::Switchover,
        EventKind::WorkerKilled,
        EventKind::WorkerHung,
        EventKind::GuardKilled,
        EventKind::Reload,
    ];
}

impl ScenarioEvent {
    /// With nothing said about it.
    pub fn usual(kind: EventKind) -> Self {
        Self {
            kind,
            server: None,
            outcome: kind.usual_outcome(),
            limits: kind.usual_limits(),
            timeout: kind.usual_timeout(),
        }
    }
}

impl Scenario {
    /// Reads and checks the file at `path`, and those that it names.
    ///
    /// # Errors
    /// Every mistake in the file, in one report.
    pub fn load(path: &Path) -> Result<Self, Report> {
        Self::checked(&super::read(path)?, path, Scope::Machine)
    }

    /// Checks `text`, which stands in the file at `path`, by itself.
    ///
    /// # Errors
    /// As [`Scenario::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Report> {
        Self::checked(text, path, Scope::File)
    }

    fn checked(text: &str, path: &Path, scope: Scope) -> Result<Self, Report> {
        let mistakes = Mistakes::new(text);
        let (document, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            mistakes.syntax(error.span(), error.message(), "correct what is marked; see https://toml.io");
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let scenario = read(Table::root(&mistakes, document.get_ref()), &mistakes, directory, scope);
        if let Some(report) = mistakes.into_report(path) {
            return Err(report);
        }
        scenario.ok_or_else(|| Report::of_file(path, "a value is missing", "report this file to the developers"))
    }
}

fn read(mut root: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path, scope: Scope) -> Option<Scenario> {
    let name = root.optional("name").and_then(|value| value.parsed(title)).map(|found| found.value);
    let vip = root.optional("vip").and_then(|value| value.parsed(values::name)).map(|found| found.value);
    let second = Duration::from_secs(1);
    let steady = root.duration("steady", second..=HOUR, 3 * second);
    let quiet = root.duration("quiet", second..=HOUR, 3 * second);
    let hold = root.duration("hold", Duration::ZERO..=HOUR, 2 * second);
    let nodes: Vec<_> = root
        .required("node", "write a block [[node]] for each node of the pair")
        .map_or(Vec::new(), |value| value.blocks(2))
        .into_iter()
        .map(node)
        .collect();
    let servers: Vec<_> = root.blocks("server", SERVERS_MAX).into_iter().filter_map(server).collect();
    let load = root.required("load", "write a block [load] with the url that clients ask for");
    let load = load.and_then(Value::block).and_then(|table| read_load(table, directory, scope, mistakes));
    let limits = root.block("limits").map(|mut table| {
        let limits = written_limits(&mut table);
        table.finish();
        limits
    });
    let limits = limits.unwrap_or_default();
    let events: Vec<_> =
        root.blocks("event", EVENTS_MAX).into_iter().filter_map(|table| event(table, limits)).collect();
    let node_count = nodes.len();
    let nodes: Vec<ScenarioNode> = nodes.into_iter().flatten().collect();
    if node_count == 1 {
        mistakes.file("a drill needs both nodes of a pair", "add a second block [[node]]");
    }
    if let [first, second] = nodes.as_slice()
        && first.name == second.name
    {
        mistakes.file(format!("both nodes are called {}", first.name), "give each node the name that its status says");
    }
    cross_check(&events, &nodes, &servers, mistakes);
    root.finish();
    let mut events: Vec<ScenarioEvent> = events.into_iter().map(|found| found.value).collect();
    for event in events.iter_mut().filter(|event| event.kind == EventKind::ServerKilled && event.server.is_none()) {
        event.server = servers.first().map(|server: &ScenarioServer| server.name.clone());
    }
    if events.is_empty() {
        events = EventKind::USUAL.map(|kind| with_limits(ScenarioEvent::usual(kind), limits)).to_vec();
    }
    let name = name.unwrap_or_else(|| "failover drill".to_owned());
    Some(Scenario { name, vip, steady, quiet, hold, nodes: nodes.try_into().ok()?, servers, load: load?, events })
}

/// What one block says may need another one.
fn cross_check(
    events: &[Located<ScenarioEvent>],
    nodes: &[ScenarioNode],
    servers: &[ScenarioServer],
    mistakes: &Mistakes<'_>,
) {
    for Located { value: event, place } in events {
        let missing = |named: &str, has: fn(&NodeScripts) -> bool| {
            for node in nodes.iter().filter(|node| !has(&node.scripts)) {
                let (title, node) = (event.kind.title(), &node.name);
                let rule = format!("{title} needs a script that the node {node} does not have: {named}");
                mistakes.absent(place, rule, format!("give [[node]] {node} the key {named}"));
            }
        };
        match event.kind {
            EventKind::PowerCut => {
                missing("power_off", |scripts| scripts.power_off.is_some());
                missing("power_on", |scripts| scripts.power_on.is_some());
            }
            EventKind::Upgrade => missing("upgrade", |scripts| scripts.upgrade.is_some()),
            EventKind::LinkCut => {
                let halves = |scripts: &NodeScripts| scripts.cut.is_some() == scripts.mend.is_some();
                missing("cut and mend, one of which it has alone", halves);
            }
            EventKind::ServerKilled if servers.is_empty() => {
                mistakes.absent(place, "there is no server to kill", "write a block [[server]] with stop and start");
            }
            _ => {}
        }
        if let Some(server) = &event.server
            && event.kind == EventKind::ServerKilled
            && !servers.iter().any(|known| known.name == *server)
        {
            let known: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            mistakes.absent(
                place,
                format!("there is no [[server]] {server}"),
                format!("name one of: {}", known.join(", ")),
            );
        }
    }
}

fn node(mut table: Table<'_>) -> Option<ScenarioNode> {
    let name = table.name();
    let reach = reach(&mut table);
    let baton = table.optional("baton").and_then(|value| value.parsed(values::argument));
    let runtime_dir = table.optional("runtime_dir").and_then(|value| value.parsed(values::file));
    let mut take = |key| table.optional(key).and_then(script);
    let scripts = NodeScripts {
        stop: take("stop"),
        start: take("start"),
        cut: take("cut"),
        mend: take("mend"),
        reboot: take("reboot"),
        power_off: take("power_off"),
        power_on: take("power_on"),
        reload: take("reload"),
        upgrade: take("upgrade"),
    };
    table.finish();
    Some(ScenarioNode {
        name: name?.value,
        reach,
        baton: baton.map_or_else(|| "baton".to_owned(), |found| found.value),
        runtime_dir: runtime_dir.map(|found| found.value),
        scripts,
    })
}

fn server(mut table: Table<'_>) -> Option<ScenarioServer> {
    let name = table.name();
    let reach = reach(&mut table);
    let stop =
        table.required("stop", "write the script that ends the server, such as stop = \"systemctl kill -s KILL app\"");
    let stop = stop.and_then(script);
    let start =
        table.required("start", "write the script that starts it again, such as start = \"systemctl start app\"");
    let start = start.and_then(script);
    table.finish();
    Some(ScenarioServer { name: name?.value, reach, stop: stop?, start: start? })
}

/// The command prefix; none for this machine.
fn reach(table: &mut Table<'_>) -> Vec<String> {
    let arguments = table.optional("reach").map_or(Vec::new(), |value| value.list_of(0, 64));
    arguments.into_iter().filter_map(|value| value.parsed(values::argument)).map(|found| found.value).collect()
}

/// `"text"`, or `{ here = "text" }`.
fn script(value: Value<'_>) -> Option<Script> {
    if !value.is_table() {
        return value.parsed(script_text).map(|found| Script::There(found.value));
    }
    let mut table = value.block()?;
    let here = table.required("here", "write { here = \"…\" } for a script that runs on the machine of the drill");
    let here = here.and_then(|value| value.parsed(script_text));
    table.finish();
    Some(Script::Here(here?.value))
}

fn script_text(text: &str) -> Result<String, Wrong> {
    if !text.trim().is_empty() && text.len() <= SCRIPT_MAX && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    let rule = format!("must be a script for sh of 1 to {SCRIPT_MAX} bytes");
    Err(Wrong::new(rule, "write commands as on a terminal; `true` does nothing"))
}

fn read_load(mut table: Table<'_>, directory: &Path, scope: Scope, mistakes: &Mistakes<'_>) -> Option<ScenarioLoad> {
    let ms = Duration::from_millis;
    let url = table.required("url", "write where clients ask, such as url = \"http://192.0.2.100/\"");
    let url = url.and_then(|value| value.parsed(|text| parse_url(text, ["http", "https"])));
    let ca = table.optional("ca").and_then(|value| value.parsed(values::file));
    let ca = ca.map(|found| Located { value: directory.join(found.value), place: found.place });
    if let Some(ca) = ca.as_ref().filter(|_| scope == Scope::Machine) {
        machine::check_authorities(ca, mistakes);
    }
    let cookie = table.optional("cookie").and_then(|value| value.parsed(values::cookie_name));
    let server_from = table.optional("server_from").and_then(|value| value.parsed(parse_server_from));
    let websocket = table.optional("websocket");
    let websocket = websocket.and_then(|value| value.parsed(|text| parse_url(text, ["ws", "wss"])));
    let tcp = table.optional("tcp").and_then(|value| value.parsed(parse_host_and_port));
    let alone = "means nothing without the address of such a service";
    if !table.has("websocket") {
        table.without_meaning(&["websockets"], alone, "add websocket = \"ws://…\", or remove it");
    }
    if !table.has("tcp") {
        table.without_meaning(&["tcp_connections"], alone, "add tcp = \"host:port\", or remove it");
    }
    let mut clients = |key, default| u16::try_from(table.integer(key, 0..=1000, default)).unwrap_or(u16::MAX);
    let (kept_connections, users) = (clients("kept_connections", 16), clients("users", 40));
    let (websockets, tcp_connections) = (clients("websockets", 10), clients("tcp_connections", 10));
    let new_connections = table.integer("new_connections", 1..=500, 100);
    let kept_pause = table.duration("kept_pause", Duration::ZERO..=HOUR, ms(20));
    let user_pause = table.duration("user_pause", ms(1)..=HOUR, ms(100));
    let message_pause = table.duration("message_pause", ms(1)..=HOUR, ms(50));
    let timeout = table.duration("timeout", ms(10)..=Duration::from_secs(30), ms(500));
    table.finish();
    Some(ScenarioLoad {
        url: url?.value,
        ca: ca.map(|found| found.value),
        new_connections,
        kept_connections,
        kept_pause,
        users,
        user_pause,
        cookie: cookie.map_or_else(|| "BATON".to_owned(), |found| found.value),
        server_from: server_from.map_or(ServerFrom::Cookie, |found| found.value),
        websocket: websocket.map(|found| found.value),
        websockets,
        tcp: tcp.map(|found| found.value),
        tcp_connections,
        message_pause,
        timeout,
    })
}

fn event(mut table: Table<'_>, defaults: WrittenLimits) -> Option<Located<ScenarioEvent>> {
    let place: Place = table.place().clone();
    let kind = table.required("type", "say what happens, such as type = \"worker-killed\"");
    let kind = kind.and_then(|value| value.choice(&EventKind::ALL, &[]));
    let server = table.optional("server").and_then(|value| value.parsed(values::name)).map(|found| found.value);
    let outcomes = [("moves", ExpectedRole::Moves), ("stays", ExpectedRole::Stays), ("either", ExpectedRole::Either)];
    let outcome = table.optional("vip").and_then(|value| value.choice(&outcomes, &[]));
    let limits = written_limits(&mut table);
    let timeout = table.optional("timeout").and_then(|value| value.duration(Duration::from_secs(1)..=HOUR));
    if kind.as_ref().is_some_and(|kind| kind.value != EventKind::ServerKilled) {
        table.without_meaning(&["server"], "only an event of type \"server-killed\" has a server", "remove it");
    }
    table.finish();
    let mut event = with_limits(with_limits(ScenarioEvent::usual(kind?.value), defaults), limits);
    event.server = server;
    event.outcome = outcome.map_or(event.outcome, |found| found.value);
    event.timeout = timeout.map_or(event.timeout, |found| found.value);
    Some(Located { value: event, place })
}

/// Limits as a block has them: `None` where it says nothing, `Some(None)` where it says `false`.
#[derive(Debug, Clone, Copy, Default)]
struct WrittenLimits {
    gap: Option<Option<Duration>>,
    failed: Option<Option<u32>>,
    users_moved: Option<Option<u32>>,
    recovery: Option<Option<Duration>>,
}

fn written_limits(table: &mut Table<'_>) -> WrittenLimits {
    let duration = |value: Value<'_>| match value.is_false() {
        true => Some(None),
        false => value.duration(Duration::ZERO..=HOUR).map(|found| Some(found.value)),
    };
    let count = |value: Value<'_>| match value.is_false() {
        true => Some(None),
        false => value.integer(0..=u32::MAX).map(|found| Some(found.value)),
    };
    WrittenLimits {
        gap: table.optional("gap_max").and_then(duration),
        failed: table.optional("failed_max").and_then(count),
        users_moved: table.optional("users_moved_max").and_then(count),
        recovery: table.optional("recovery_max").and_then(duration),
    }
}

fn with_limits(event: ScenarioEvent, written: WrittenLimits) -> ScenarioEvent {
    let limits = event.limits;
    let limits = Limits {
        gap: written.gap.unwrap_or(limits.gap),
        failed: written.failed.unwrap_or(limits.failed),
        users_moved: written.users_moved.unwrap_or(limits.users_moved),
        recovery: written.recovery.unwrap_or(limits.recovery),
    };
    ScenarioEvent { limits, ..event }
}

fn title(text: &str) -> Result<String, Wrong> {
    if !text.trim().is_empty() && text.chars().count() <= 100 && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("must be a title of 1 to 100 characters on one line", "write a title such as \"pair in rack 4\""))
}

fn parse_server_from(text: &str) -> Result<ServerFrom, Wrong> {
    match text.split_once(':') {
        None if text == "cookie" => Ok(ServerFrom::Cookie),
        None if text == "body" => Ok(ServerFrom::Body),
        Some(("header", name)) => values::header_name(name.trim()).map(ServerFrom::Header),
        _ => Err(Wrong::new(
            "must be \"cookie\", \"body\" or \"header:NAME\"",
            "write server_from = \"header:x-server\"",
        )),
    }
}

/// A URL with one of two schemes, the second of which is over TLS.
fn parse_url(text: &str, [plain, secure]: [&str; 2]) -> Result<Url, Wrong> {
    let wrong = |rule: String| Wrong::new(rule, format!("write a URL such as \"{plain}://192.0.2.100/\""));
    let is_printable = text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let uri = text.parse::<http::Uri>().ok().filter(|_| is_printable);
    let uri = uri.ok_or_else(|| wrong("must be a URL in printable ASCII".to_owned()))?;
    let is_tls = match uri.scheme_str() {
        Some(scheme) if scheme == plain => false,
        Some(scheme) if scheme == secure => true,
        _ => return Err(wrong(format!("must begin with {plain}:// or {secure}://"))),
    };
    let authority =
        uri.authority().filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(|| wrong("must name a host, and no user".to_owned()))?;
    let usual_port = if is_tls { 443 } else { 80 };
    let has_port = authority.as_str().len() > authority.host().len();
    let port = if has_port { authority.port_u16().unwrap_or(0) } else { usual_port };
    if port == 0 {
        return Err(wrong("the port must be 1 to 65535".to_owned()));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Url { is_tls, host, port, authority: authority.to_string(), path: path.to_owned() })
}

fn parse_host_and_port(text: &str) -> Result<(String, u16), Wrong> {
    let wrong = || Wrong::new("must be a host and a port", "write \"192.0.2.100:5432\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.parse::<std::net::IpAddr>().is_err() {
        values::host(host)?;
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests;
