//! Reads `[[route]]`: which requests it matches, and what is done with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocks::file;
use super::identity::{self, AccessFiles};
use super::model::{
    FieldMatch, FixedResponse, HeaderEdits, HostMatch, Maintenance, PathMatch, PathRewrite, RateLimit, Redirect,
    Rewrite, RouteAccess, RouteMatch, ValueMatch,
};
use super::reader::{Table, Value};
use super::report::{Located, Mistakes, Place};
use super::templates::{self, Moment};
use super::{error_pages, protection, route_values, values};

const METHODS_MAX: usize = 16;
const FIELDS_MAX: usize = 16;
const NETWORKS_MAX: usize = 256;
const SPLIT_MAX: usize = 16;
const WEIGHT_MAX: u32 = 1_000_000;
const PRIORITY_MAX: i32 = 1000;
const BODY_MAX: usize = 64 * 1024;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(300);
const MIRROR_BODY_MAX: u64 = 16 * 1024 * 1024;
const MIRROR_BODY_DEFAULT: usize = 64 * 1024;
const MIRROR_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const MIRROR_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const MIRROR_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const CONTENT_TYPE_DEFAULT: &str = "text/plain; charset=utf-8";
const MAINTENANCE_BODY: &str = "503 Service Unavailable\nThis site is being worked on and will be back soon.\n";

/// `[[route]]`
pub(super) struct RouteBlock {
    pub(super) place: Place,
    pub(super) name: Option<Located<String>>,
    pub(super) listener: Option<Located<String>>,
    pub(super) matches: RouteMatch,
    /// Whether what it matches was read as it stands.
    pub(super) is_whole: bool,
    pub(super) priority: i32,
    /// `None` when it is missing or broken.
    pub(super) action: Option<ActionBlock>,
    pub(super) maintenance: Option<Maintenance>,
    /// Files that hold its answers.
    pub(super) body_files: Vec<Located<PathBuf>>,
    pub(super) rewrite: Rewrite,
    pub(super) request_headers: HeaderEdits,
    pub(super) response_headers: HeaderEdits,
    pub(super) mirror: Option<MirrorBlock>,
    /// Whole when the file has no mistake.
    pub(super) access: RouteAccess,
    pub(super) access_files: AccessFiles,
    pub(super) rate_limits: Vec<RateLimit>,
}

/// What a route does.
pub(super) enum ActionBlock {
    Pool(Located<String>),
    Split(Vec<ShareBlock>),
    Redirect(Redirect),
    Respond(FixedResponse),
    Unavailable,
}

/// An entry of `route.pools`.
pub(super) struct ShareBlock {
    pub(super) pool: Located<String>,
    pub(super) weight: u32,
}

/// `route.mirror`
pub(super) struct MirrorBlock {
    pub(super) pool: Located<String>,
    pub(super) percent: u32,
    pub(super) body_max_bytes: usize,
    pub(super) concurrency_max: u32,
    pub(super) timeout: Duration,
}

impl RouteBlock {
    /// The pools that its requests go to.
    pub(super) fn pools(&self) -> Vec<&Located<String>> {
        match &self.action {
            Some(ActionBlock::Pool(pool)) => vec![pool],
            Some(ActionBlock::Split(split)) => split.iter().map(|share| &share.pool).collect(),
            Some(ActionBlock::Redirect(_) | ActionBlock::Respond(_) | ActionBlock::Unavailable) | None => Vec::new(),
        }
    }

    /// All pools that it names.
    pub(super) fn named_pools(&self) -> Vec<&Located<String>> {
        let mut pools = self.pools();
        pools.extend(self.mirror.as_ref().map(|mirror| &mirror.pool));
        pools
    }
}

/// Reads a `[[route]]`.
pub(super) fn route(mut table: Table<'_>, mistakes: &Mistakes<'_>, directory: &Path) -> RouteBlock {
    let place = table.place().clone();
    let name = table.optional("name").and_then(|value| value.parsed(values::name));
    let listener = table
        .required("listener", "name the listener whose requests it picks")
        .and_then(|value| value.parsed(values::reference));
    let (matches, is_whole) = matched(&mut table, mistakes);
    let priority = table.optional("priority").and_then(|value| value.signed(-PRIORITY_MAX..=PRIORITY_MAX));
    let maintenance = table.block("maintenance");
    let exempts = maintenance.as_ref().is_some_and(|maintenance| maintenance.has("exempt"));
    let mut files = BodyFiles { directory, found: Vec::new() };
    let action = action(&mut table, mistakes, maintenance.as_ref().map(|_| exempts), &mut files);
    let (access, access_files) = identity::route_access(&mut table, mistakes, directory);
    let block = RouteBlock {
        access,
        access_files,
        rate_limits: protection::rate_limits(&mut table),
        name,
        listener,
        matches,
        is_whole,
        priority: priority.map_or(0, |found| found.value),
        maintenance: maintenance.map(|table| maintenance_block(table, &mut files)),
        body_files: files.found,
        rewrite: table.block("rewrite").map(|table| rewrite(table, mistakes)).unwrap_or_default(),
        request_headers: request_headers(&mut table),
        response_headers: response_headers(&mut table),
        mirror: table.block("mirror").and_then(mirror),
        place,
        action,
    };
    if matches!(block.action, Some(ActionBlock::Redirect(_) | ActionBlock::Respond(_) | ActionBlock::Unavailable)) {
        let rule = "has no meaning on a route that goes to no pool";
        table.without_meaning(&["rewrite", "request_headers", "mirror"], rule, "leave it out, or add pool = \"…\"");
    }
    table.finish();
    block
}

/// Reads `request_headers`.
pub(super) fn request_headers(table: &mut Table<'_>) -> HeaderEdits {
    table.block("request_headers").map(|table| templates::edits(table, Moment::Sent)).unwrap_or_default()
}

/// Reads `response_headers`.
pub(super) fn response_headers(table: &mut Table<'_>) -> HeaderEdits {
    table.block("response_headers").map(|table| templates::edits(table, Moment::Answered)).unwrap_or_default()
}

/// What a route matches, and whether all of it could be read.
fn matched(table: &mut Table<'_>, mistakes: &Mistakes<'_>) -> (RouteMatch, bool) {
    let host = table.written("host", |value| value.parsed(route_values::host));
    let path = table.written("path", |value| value.parsed(route_values::path));
    let prefix = table.written("path_prefix", |value| value.parsed(route_values::path_prefix));
    let regex = table.written("path_regex", |value| value.parsed(route_values::regex));
    let written = [("path", path.is_there()), ("path_prefix", prefix.is_there()), ("path_regex", regex.is_there())];
    let written: Vec<&'static str> = written.iter().filter(|(_, is_there)| *is_there).map(|(key, _)| *key).collect();
    if let [first, rest @ ..] = written.as_slice() {
        table.without_meaning(rest, &format!("has no meaning beside {first}"), "keep one of them, or write two routes");
    }
    let mut is_whole = written.len() < 2;
    is_whole &= [host.is_there() == host.known().is_some(), path.is_there() == path.known().is_some()] == [true; 2];
    is_whole &=
        [prefix.is_there() == prefix.known().is_some(), regex.is_there() == regex.known().is_some()] == [true; 2];
    let path = match (path.into_known(), prefix.into_known(), regex.into_known()) {
        (Some(path), _, _) => PathMatch::Exact(path.value),
        (None, Some(prefix), _) => prefix.value.map_or(PathMatch::Any, PathMatch::Prefix),
        (None, None, Some(regex)) => PathMatch::Regex(regex.value),
        (None, None, None) => PathMatch::Any,
    };
    let mut all = |key: &'static str, read: &dyn Fn(Value<'_>) -> Option<String>| {
        let values = table.optional(key).map(|value| value.list(METHODS_MAX)).unwrap_or_default();
        let read: Vec<_> = values.into_iter().map(read).collect();
        is_whole &= read.iter().all(Option::is_some);
        read.into_iter().flatten().collect::<Vec<_>>()
    };
    let methods = all("methods", &|value| Some(value.parsed(route_values::method)?.value));
    let mut fields = |key, name: fn(&str) -> Result<String, super::report::Wrong>| {
        let blocks = table.optional(key).map(|value| value.blocks(FIELDS_MAX)).unwrap_or_default();
        let read: Vec<_> = blocks.into_iter().map(|table| field(table, name, mistakes)).collect();
        is_whole &= read.iter().all(Option::is_some);
        read.into_iter().flatten().collect::<Vec<_>>()
    };
    let headers = fields("headers", values::header_name);
    let query = fields("query", values::query_name);
    let cookies = fields("cookies", values::cookie_name);
    let sources = networks(table, "sources");
    is_whole &= sources.is_some();
    let sources = sources.unwrap_or_default();
    let host = host.into_known().map_or(HostMatch::Any, |host| host.value);
    (RouteMatch { host, path, methods, headers, query, cookies, sources }, is_whole)
}

/// A list of networks; `None` when one of them could not be read.
fn networks(table: &mut Table<'_>, key: &'static str) -> Option<Vec<crate::units::IpNetwork>> {
    let values = table.optional(key).map(|value| value.list(NETWORKS_MAX)).unwrap_or_default();
    let read: Vec<_> = values.into_iter().map(|value| value.parsed(identity::network)).collect();
    read.into_iter().map(|network| Some(network?.value)).collect()
}

/// Reads `{ name = "…", exact = "…" }`, or with another condition.
fn field(
    mut table: Table<'_>,
    read_name: fn(&str) -> Result<String, super::report::Wrong>,
    mistakes: &Mistakes<'_>,
) -> Option<FieldMatch> {
    const CONDITIONS: [&str; 5] = ["exact", "prefix", "regex", "present", "absent"];
    let name = table.required("name", "say whose value is compared").and_then(|value| value.parsed(read_name));
    let written: Vec<&'static str> = CONDITIONS.into_iter().filter(|key| table.has(key)).collect();
    let place = table.place().clone();
    let text = |value: Option<Value<'_>>| Some(value?.parsed(route_values::compared)?.value);
    let exact = text(table.optional("exact"));
    let prefix = text(table.optional("prefix"));
    let regex = table.optional("regex").and_then(|value| Some(value.parsed(route_values::regex)?.value));
    let mut only_true = |key| table.optional(key).and_then(|value| value.only_true("leave it out, or write true"));
    let (present, absent) = (only_true("present"), only_true("absent"));
    table.finish();
    match written.as_slice() {
        [_] => {}
        [] => mistakes.absent(
            &place,
            "has no condition",
            "add exact, prefix or regex with a text, or present = true or absent = true",
        ),
        _ => mistakes.block(
            &place,
            format!("has several conditions: {}", written.join(", ")),
            "keep one, and write an entry for each other",
        ),
    }
    let value = match written.as_slice() {
        ["exact"] => ValueMatch::Exact(exact?),
        ["prefix"] => ValueMatch::Prefix(prefix?),
        ["regex"] => ValueMatch::Regex(regex?),
        ["present"] => present.map(|()| ValueMatch::Present)?,
        ["absent"] => absent.map(|()| ValueMatch::Absent)?,
        _ => return None,
    };
    Some(FieldMatch { name: name?.value, value })
}

/// The files of answers that have been read so far.
struct BodyFiles<'a> {
    /// What relative paths are relative to.
    directory: &'a Path,
    found: Vec<Located<PathBuf>>,
}

/// What a route does: one of four things, or nothing with maintenance, of which `maintenance` says whether it exempts
/// anybody.
fn action(
    table: &mut Table<'_>,
    mistakes: &Mistakes<'_>,
    maintenance: Option<bool>,
    files: &mut BodyFiles<'_>,
) -> Option<ActionBlock> {
    const ACTIONS: [&str; 4] = ["pool", "pools", "redirect", "respond"];
    let written: Vec<&'static str> = ACTIONS.into_iter().filter(|key| table.has(key)).collect();
    if let [first, rest @ ..] = written.as_slice() {
        table.without_meaning(rest, &format!("has no meaning beside {first}"), "keep one of them");
    }
    match written.first() {
        Some(&"pools") => table.optional("pools").and_then(|value| split(value, mistakes)),
        Some(&"redirect") => {
            table.block("redirect").and_then(|table| redirect(table, mistakes)).map(ActionBlock::Redirect)
        }
        Some(&"respond") => {
            table.block("respond").and_then(|table| respond(table, mistakes, files)).map(ActionBlock::Respond)
        }
        None if maintenance == Some(false) => {
            table.skip(&ACTIONS);
            Some(ActionBlock::Unavailable)
        }
        _ => {
            table.skip(&ACTIONS);
            let remedy = "name the pool that its requests go to, or write pools, redirect or respond";
            table.required("pool", remedy).and_then(|value| value.parsed(values::reference)).map(ActionBlock::Pool)
        }
    }
}

fn split(value: Value<'_>, mistakes: &Mistakes<'_>) -> Option<ActionBlock> {
    let place = value.place().clone();
    let tables = value.blocks(SPLIT_MAX);
    let share = |mut table: Table<'_>| {
        let pool = table.required("pool", "name the pool").and_then(|value| value.parsed(values::reference));
        let weight = table
            .required("weight", "say which part of the requests it gets, such as weight = 10")
            .and_then(|value| value.integer(0..=WEIGHT_MAX));
        table.finish();
        Some(ShareBlock { pool: pool?, weight: weight?.value })
    };
    let shares: Vec<Option<ShareBlock>> = tables.into_iter().map(share).collect();
    let shares: Vec<ShareBlock> = shares.into_iter().collect::<Option<_>>()?;
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        mistakes.block(
            &place,
            "has no weight above 0, so that no new client could go anywhere",
            "give one pool a weight",
        );
    }
    for (first, again, _) in
        super::cross::repeated(shares.iter().map(|share| (share.pool.value.as_str(), &share.pool.place)))
    {
        mistakes.value(again, format!("{} is the same pool", first.key), "leave one of the two out");
    }
    Some(ActionBlock::Split(shares))
}

fn redirect(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Option<Redirect> {
    const STATUSES: [u32; 5] = [301, 302, 303, 307, 308];
    let to = table.required("to", "write where to, such as to = \"https://{host}{path}\"").and_then(|value| {
        value.parsed(|text| route_values::redirect_target(templates::template(text, Moment::Asked)?))
    });
    let status = table.optional("status").and_then(|value| value.integer(301..=308));
    if let Some(found) = status.as_ref().filter(|found| !STATUSES.contains(&found.value)) {
        let remedy = "use 301 or 308 for good, 302 or 307 for now; 303 makes a GET of it";
        mistakes.value(&found.place, "must be 301, 302, 303, 307 or 308", remedy);
    }
    let keep_query = table.boolean("keep_query", true);
    table.finish();
    let status = status.map_or(302, |found| found.value);
    Some(Redirect { to: to?.value, status: u16::try_from(status).ok()?, keep_query })
}

fn respond(mut table: Table<'_>, mistakes: &Mistakes<'_>, files: &mut BodyFiles<'_>) -> Option<FixedResponse> {
    let status = table.optional("status").and_then(|value| value.integer(200..=599));
    let response = fixed(&mut table, status.as_ref().map_or(200, |found| found.value), "", files);
    if let Some(found) = status.filter(|found| matches!(found.value, 204 | 205 | 304))
        && (!response.body.is_empty() || response.body_file.is_some())
    {
        mistakes.value(&found.place, "is a status without a body", "leave the body out, or choose another status");
    }
    table.finish();
    Some(response)
}

fn maintenance_block(mut table: Table<'_>, files: &mut BodyFiles<'_>) -> Maintenance {
    let response = fixed(&mut table, 503, MAINTENANCE_BODY, files);
    let retry_after = table.duration("retry_after", Duration::from_secs(1)..=RETRY_AFTER_MAX, RETRY_AFTER_DEFAULT);
    let exempt = networks(&mut table, "exempt").unwrap_or_default();
    table.finish();
    Maintenance { response, retry_after, exempt }
}

/// Body, type and headers of an answer.
fn fixed(table: &mut Table<'_>, status: u32, body: &str, files: &mut BodyFiles<'_>) -> FixedResponse {
    if table.has("body_file") {
        table.without_meaning(&["body"], "has no meaning beside body_file", "keep one of them");
    }
    let body_file = table.optional("body_file").and_then(|value| file(value, files.directory));
    files.found.extend(body_file.clone());
    let body_file = body_file.map(|found| found.value);
    let default_type = body_file.as_deref().map_or(CONTENT_TYPE_DEFAULT, error_pages::content_type);
    let text = |value: Option<Located<String>>| value.map(|found| found.value);
    let written =
        text(table.optional("body").and_then(|value| value.parsed(|text| route_values::at_most(text, BODY_MAX))));
    let content_type = text(table.optional("content_type").and_then(|value| value.parsed(route_values::field_text)));
    let headers = table.block("headers").map(|table| templates::fields(table, Moment::Asked)).unwrap_or_default();
    FixedResponse {
        status: u16::try_from(status).unwrap_or(200),
        body: written.unwrap_or_else(|| body.to_owned()),
        body_file,
        content_type: content_type.unwrap_or_else(|| default_type.to_owned()),
        headers,
    }
}

fn rewrite(mut table: Table<'_>, mistakes: &Mistakes<'_>) -> Rewrite {
    const PATHS: [&str; 3] = ["path", "strip_prefix", "replace"];
    let written: Vec<&'static str> = PATHS.into_iter().filter(|key| table.has(key)).collect();
    if let [first, rest @ ..] = written.as_slice() {
        table.without_meaning(rest, &format!("has no meaning beside {first}"), "keep one of them");
    }
    if written.is_empty() && !table.has("host") {
        let remedy = "add path, strip_prefix, replace or host, or leave rewrite out";
        mistakes.absent(table.place(), "changes nothing", remedy);
    }
    table.skip(&PATHS);
    let path = match written.first() {
        Some(&"path") => table
            .optional("path")
            .and_then(|value| {
                value.parsed(|text| route_values::path_template(text, templates::template(text, Moment::Sent)?))
            })
            .map(|found| PathRewrite::To(found.value)),
        Some(&"strip_prefix") => table
            .optional("strip_prefix")
            .and_then(|value| value.parsed(route_values::path_prefix))
            .and_then(|found| found.value)
            .map(PathRewrite::StripPrefix),
        Some(_) => table.block("replace").and_then(replace),
        None => None,
    };
    let host = table.optional("host").and_then(|value| {
        value.parsed(|text| route_values::host_template(text, templates::template(text, Moment::Sent)?))
    });
    table.finish();
    Rewrite { path, host: host.map(|found| found.value) }
}

fn replace(mut table: Table<'_>) -> Option<PathRewrite> {
    let regex = table
        .required("regex", "write what is replaced, such as \"^/v1/\"")
        .and_then(|value| value.parsed(route_values::regex));
    let with = table
        .required("with", "write what comes in its place, such as \"/v2/\"")
        .and_then(|value| value.parsed(route_values::replacement));
    table.finish();
    Some(PathRewrite::Replace { regex: regex?.value, with: with?.value })
}

fn mirror(mut table: Table<'_>) -> Option<MirrorBlock> {
    let pool =
        table.required("pool", "name the pool that gets a copy").and_then(|value| value.parsed(values::reference));
    let percent = table.integer("percent", 1..=100, 100);
    let body_max = table.optional("body_max").and_then(|value| value.bytes(0..=MIRROR_BODY_MAX));
    let concurrency_max = table.integer("concurrency_max", 1..=10_000, 100);
    let timeout = table.duration("timeout", MIRROR_TIMEOUT_MIN..=MIRROR_TIMEOUT_MAX, MIRROR_TIMEOUT_DEFAULT);
    table.finish();
    let body_max_bytes = body_max.and_then(|found| usize::try_from(found.value).ok()).unwrap_or(MIRROR_BODY_DEFAULT);
    Some(MirrorBlock { pool: pool?, percent, body_max_bytes, concurrency_max, timeout })
}
