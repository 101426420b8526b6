//! The routes of a listener, in the order in which they are tried, and why in that order.

use std::fmt::Write as _;

use crate::config::{
    Config, FieldMatch, HostMatch, Listener, Mirror, PathMatch, PathRewrite, PoolIndex, Rewrite, Route, RouteAction,
    RouteMatch, ValueMatch, duration_text,
};

/// Describes them. Writing to a `String` cannot fail, so that the results are let go.
pub(super) fn describe(text: &mut String, config: &Config, listener: &Listener) {
    for route in &listener.routes {
        let conditions = conditions(&route.matches);
        let _ = writeln!(
            text,
            "  {}{conditions} -> {}{}",
            target(&route.matches),
            done(config, route),
            further(config, route)
        );
        let _ = writeln!(text, "    route {}: {}", route.label, reason(route));
    }
}

/// What makes it come where it does.
fn reason(route: &Route) -> String {
    let matches = &route.matches;
    let mut parts = Vec::new();
    if route.priority != 0 {
        parts.push(format!("priority {}", route.priority));
    }
    parts.push(match &matches.host {
        HostMatch::Any => "any host".to_owned(),
        HostMatch::Exact(_) => "exact host".to_owned(),
        HostMatch::Below(host) => format!("wildcard host of {} characters", host.len()),
    });
    parts.push(match &matches.path {
        PathMatch::Any => "any path".to_owned(),
        PathMatch::Exact(_) => "exact path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path prefix of {} characters", prefix.len()),
        PathMatch::Regex(_) => "path expression".to_owned(),
    });
    parts.push(match matches.further_count() {
        0 => "no further conditions".to_owned(),
        1 => "1 further condition".to_owned(),
        count => format!("{count} further conditions"),
    });
    parts.join(", ")
}

fn target(matches: &RouteMatch) -> String {
    let path = match &matches.path {
        PathMatch::Any => None,
        PathMatch::Exact(path) => Some(format!("= {path}")),
        PathMatch::Prefix(prefix) => Some(prefix.clone()),
        PathMatch::Regex(regex) => Some(format!("~ {regex}")),
    };
    let host = match &matches.host {
        HostMatch::Any => None,
        HostMatch::Exact(host) => Some(host.clone()),
        HostMatch::Below(host) => Some(format!("*.{host}")),
    };
    match (host, path, &matches.path) {
        (Some(host), None, _) => format!("{host}/"),
        (Some(host), Some(path), PathMatch::Prefix(_)) => format!("{host}{path}"),
        (Some(host), Some(path), _) => format!("{host}, path {path}"),
        (None, Some(path), PathMatch::Prefix(_)) => format!("any host, {path}"),
        (None, Some(path), _) => format!("any host, path {path}"),
        (None, None, _) => "any request".to_owned(),
    }
}

fn conditions(matches: &RouteMatch) -> String {
    let mut text = String::new();
    if !matches.methods.is_empty() {
        let _ = write!(text, ", method {}", matches.methods.join(" or "));
    }
    for (kind, fields) in [("header", &matches.headers), ("query", &matches.query), ("cookie", &matches.cookies)] {
        for FieldMatch { name, value } in fields {
            let _ = match value {
                ValueMatch::Present => write!(text, ", with {kind} {name}"),
                ValueMatch::Absent => write!(text, ", without {kind} {name}"),
                ValueMatch::Exact(wanted) => write!(text, ", {kind} {name} = \"{wanted}\""),
                ValueMatch::Prefix(wanted) => write!(text, ", {kind} {name} = \"{wanted}…\""),
                ValueMatch::Regex(wanted) => write!(text, ", {kind} {name} ~ {wanted}"),
            };
        }
    }
    if !matches.sources.is_empty() {
        let sources: Vec<String> = matches.sources.iter().map(ToString::to_string).collect();
        let _ = write!(text, ", from {}", sources.join(" or "));
    }
    text
}

fn pool_name(config: &Config, index: PoolIndex) -> &str {
    config.pools.get(index.0).map_or("", |pool| pool.name.as_str())
}

fn done(config: &Config, route: &Route) -> String {
    let action = match &route.action {
        RouteAction::Pool(pool) => Some(format!("pool {}", pool_name(config, *pool))),
        RouteAction::Split(shares) => {
            let sum: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
            let share = |share: &crate::config::Share| {
                format!("pool {} ({} of {sum})", pool_name(config, share.pool), share.weight)
            };
            Some(shares.iter().map(share).collect::<Vec<_>>().join(" or "))
        }
        RouteAction::Redirect(redirect) => Some(format!("redirect with {}", redirect.status)),
        RouteAction::Respond(response) => Some(format!("answer {}", response.status)),
        RouteAction::Unavailable => None,
    };
    match (&route.maintenance, action) {
        (None, action) => action.unwrap_or_default(),
        (Some(maintenance), None) => format!("maintenance, back in {}", duration_text(maintenance.retry_after)),
        (Some(maintenance), Some(action)) if maintenance.exempt.is_empty() => {
            format!("maintenance, back in {}, in place of {action}", duration_text(maintenance.retry_after))
        }
        (Some(maintenance), Some(action)) => {
            let exempt: Vec<String> = maintenance.exempt.iter().map(ToString::to_string).collect();
            let back = duration_text(maintenance.retry_after);
            format!("maintenance, back in {back}, but for {}: {action}", exempt.join(" and "))
        }
    }
}

fn further(config: &Config, route: &Route) -> String {
    let mut text = String::new();
    let Rewrite { path, host } = &route.rewrite;
    let _ = match path {
        Some(PathRewrite::To(_)) => write!(text, "; with another path"),
        Some(PathRewrite::StripPrefix(prefix)) => write!(text, "; without {prefix}"),
        Some(PathRewrite::Replace { regex, with }) => write!(text, "; {regex} in the path becomes {with}"),
        None => Ok(()),
    };
    if host.is_some() {
        text.push_str("; with another host");
    }
    if let Some(Mirror { pool, percent, .. }) = &route.mirror {
        let _ = write!(text, "; {percent}% copied to pool {}", pool_name(config, *pool));
    }
    text
}
