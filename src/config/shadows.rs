//! Routes that no request reaches, as an earlier one matches all that they match.

use std::collections::HashMap;

use super::model::{FieldMatch, HostMatch, Listener, PathMatch, RouteMatch, ValueMatch};

/// Adds a warning for each route of a listener that can never match.
pub(super) fn warn(listener: &Listener, warnings: &mut Vec<String>) {
    let mut by_host: HashMap<&HostMatch, Vec<usize>> = HashMap::new();
    for (index, route) in listener.routes.iter().enumerate() {
        let covering = hosts_covering(&route.matches.host);
        let earlier = covering.iter().filter_map(|host| by_host.get(host)).flatten();
        let mut earlier = earlier.filter_map(|index| listener.routes.get(*index));
        if let Some(first) = earlier.find(|earlier| covers(&earlier.matches, &route.matches)) {
            warnings.push(format!(
                "route {} of listener {} is never reached: route {} comes before it and matches all of its requests",
                route.label, listener.name, first.label
            ));
        }
        by_host.entry(&route.matches.host).or_default().push(index);
    }
}

/// The hosts of routes that match all that a host matches.
fn hosts_covering(host: &HostMatch) -> Vec<HostMatch> {
    let mut covering = vec![HostMatch::Any];
    let name = match host {
        HostMatch::Any => return covering,
        HostMatch::Exact(name) | HostMatch::Below(name) => name,
    };
    covering.push(host.clone());
    let parents = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
    covering.extend(parents.map(|parent| HostMatch::Below(parent.to_owned())));
    covering
}

/// Whether one matches all that another matches, whose host it matches. What takes insight into expressions counts as no.
fn covers(wide: &RouteMatch, narrow: &RouteMatch) -> bool {
    let path = match (&wide.path, &narrow.path) {
        (PathMatch::Any, _) => true,
        (PathMatch::Prefix(prefix), PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (wide, narrow) => wide == narrow,
    };
    let methods = wide.methods.is_empty()
        || (!narrow.methods.is_empty() && narrow.methods.iter().all(|method| wide.methods.contains(method)));
    let inside = |network: &crate::units::IpNetwork| {
        wide.sources.iter().any(|wide| wide.prefix_len() <= network.prefix_len() && wide.contains(network.address()))
    };
    let sources = wide.sources.is_empty() || (!narrow.sources.is_empty() && narrow.sources.iter().all(inside));
    path && methods
        && sources
        && fields(&wide.headers, &narrow.headers)
        && fields(&wide.query, &narrow.query)
        && fields(&wide.cookies, &narrow.cookies)
}

/// Whether each condition of `wide` is implied by one of `narrow`.
fn fields(wide: &[FieldMatch], narrow: &[FieldMatch]) -> bool {
    let implied =
        |wide: &FieldMatch| narrow.iter().any(|narrow| narrow.name == wide.name && implies(&narrow.value, &wide.value));
    wide.iter().all(implied)
}

fn implies(narrow: &ValueMatch, wide: &ValueMatch) -> bool {
    match (narrow, wide) {
        (ValueMatch::Absent, ValueMatch::Absent) => true,
        (ValueMatch::Absent, _) | (_, ValueMatch::Absent) => false,
        (_, ValueMatch::Present) => true,
        (ValueMatch::Exact(text) | ValueMatch::Prefix(text), ValueMatch::Prefix(prefix)) => text.starts_with(prefix),
        (narrow, wide) => narrow == wide,
    }
}
