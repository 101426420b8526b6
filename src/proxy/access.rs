//! Who may come in, prepared: lists of addresses, users with passwords, and servers that are asked. What is made of files
//! is made anew when they change; the steps of a request that use this are in `http::access`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;

use self::basic::BasicAuth;
use self::external::External;
use super::files::Files;
use crate::config::{self, AccessLists, RouteRule};
use crate::units::IpNetwork;
use crate::units::networks::{NetworkSet, parse_list};

pub mod basic;
pub mod external;

/// Who may come in, of a listener and its routes.
#[derive(Default)]
pub struct Access {
    /// Present where not everybody may, by address.
    pub lists: Option<Lists>,
    /// Present where a password is asked for.
    pub basic_auth: Option<BasicAuth>,
    /// Present where another server is asked.
    pub external: Option<External>,
    /// For each route of the listener.
    pub routes: Vec<RouteAccess>,
    /// What servers believe because one of those that are asked says it.
    pub word: WordFields,
}

/// The fields that are set by servers that are asked, on any route of a listener. A client may not say them on any other,
/// where nobody is asked: the servers behind are often the same.
///
/// What clients prove themselves with, to servers too, is not among them, nor what the listener's `forwarded` deals with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WordFields {
    /// Those that nobody has to see before they are removed.
    pub at_once: Vec<HeaderName>,
    /// Those that are asked with as well, as clients send them.
    pub once_asked: Vec<HeaderName>,
}

/// Fields that stay on routes where nobody is asked, though servers that are asked set them.
const OF_OTHERS: [&str; 8] = [
    "authorization",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

impl WordFields {
    fn new(listener: &config::Listener) -> Self {
        let asked_with: BTreeSet<&String> = listener.authorizers().flat_map(|asked| &asked.request_headers).collect();
        let set: BTreeSet<&String> = listener.authorizers().flat_map(|asked| &asked.response_headers).collect();
        let named = |name: &&String| HeaderName::from_bytes(name.as_bytes()).ok();
        let ours = set.into_iter().filter(|name| !OF_OTHERS.contains(&name.as_str()));
        let (once_asked, at_once): (Vec<&String>, Vec<&String>) = ours.partition(|name| asked_with.contains(name));
        Self {
            at_once: at_once.iter().filter_map(named).collect(),
            once_asked: once_asked.iter().filter_map(named).collect(),
        }
    }
}

/// Who may come in, of a route.
pub struct RouteAccess {
    /// Present where not everybody may, by address.
    pub lists: Option<Lists>,
    /// Whether a password is asked for.
    pub basic_auth: RouteRule<BasicAuth>,
    /// Whether another server is asked.
    pub external: RouteRule<External>,
}

impl Access {
    /// As configured.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(listener: &config::Listener, files: &Files) -> Result<Self, String> {
        let config = &listener.access;
        let route = |route: &config::Route| RouteAccess::new(&route.access, files);
        Ok(Self {
            lists: Lists::new(&config.lists, files)?,
            basic_auth: config.basic_auth.as_ref().map(|basic| BasicAuth::new(basic, files)).transpose()?,
            external: config.authorize.as_ref().map(|asked| External::new(asked, files)).transpose()?,
            routes: listener.routes.iter().map(route).collect::<Result<_, _>>()?,
            word: WordFields::new(listener),
        })
    }

    /// Takes files that have changed. What cannot be used is left as it was, and said in words.
    pub fn files_changed(&self, files: &Files) -> Vec<String> {
        let of_routes = self.routes.iter().flat_map(|route| {
            let basic = match &route.basic_auth {
                RouteRule::Own(basic) => Some(basic),
                RouteRule::OfListener | RouteRule::Off => None,
            };
            let external = match &route.external {
                RouteRule::Own(external) => Some(external),
                RouteRule::OfListener | RouteRule::Off => None,
            };
            of_rules(route.lists.as_ref(), basic, external, files)
        });
        let (basic, external) = (self.basic_auth.as_ref(), self.external.as_ref());
        of_rules(self.lists.as_ref(), basic, external, files).chain(of_routes).collect()
    }

    /// The password that is asked for on a route, or where no route matches.
    pub fn basic_auth(&self, route: Option<usize>) -> Option<&BasicAuth> {
        let route = route.and_then(|route| self.routes.get(route));
        chosen(route.map(|route| &route.basic_auth), self.basic_auth.as_ref())
    }

    /// The server that is asked on a route, or where no route matches.
    pub fn external(&self, route: Option<usize>) -> Option<&External> {
        let route = route.and_then(|route| self.routes.get(route));
        chosen(route.map(|route| &route.external), self.external.as_ref())
    }

    /// Whether an address may use a route, where the listener has let it in.
    pub fn admits_to(&self, route: Option<usize>, address: IpAddr) -> bool {
        let lists = route.and_then(|route| self.routes.get(route)).and_then(|route| route.lists.as_ref());
        lists.is_none_or(|lists| lists.admit(address))
    }
}

fn of_rules(
    lists: Option<&Lists>,
    basic: Option<&BasicAuth>,
    external: Option<&External>,
    files: &Files,
) -> impl Iterator<Item = String> + use<> {
    let lists = lists.map(|lists| lists.files_changed(files)).unwrap_or_default();
    let basic = basic.and_then(|basic| basic.files_changed(files).err());
    let external = external.and_then(|external| external.files_changed(files).err());
    lists.into_iter().chain(basic).chain(external)
}

fn chosen<'a, T>(of_route: Option<&'a RouteRule<T>>, of_listener: Option<&'a T>) -> Option<&'a T> {
    match of_route {
        None | Some(RouteRule::OfListener) => of_listener,
        Some(RouteRule::Off) => None,
        Some(RouteRule::Own(own)) => Some(own),
    }
}

impl RouteAccess {
    fn new(config: &config::RouteAccess, files: &Files) -> Result<Self, String> {
        Ok(Self {
            lists: Lists::new(&config.lists, files)?,
            basic_auth: match &config.basic_auth {
                RouteRule::OfListener => RouteRule::OfListener,
                RouteRule::Off => RouteRule::Off,
                RouteRule::Own(basic) => RouteRule::Own(BasicAuth::new(basic, files)?),
            },
            external: match &config.authorize {
                RouteRule::OfListener => RouteRule::OfListener,
                RouteRule::Off => RouteRule::Off,
                RouteRule::Own(authorize) => RouteRule::Own(External::new(authorize, files)?),
            },
        })
    }
}

/// Addresses that may come in, and that may not.
pub struct Lists {
    allow: Option<List>,
    deny: Option<List>,
}

/// A list as it stands in the configuration and in a file.
struct List {
    written: Vec<IpNetwork>,
    file: Option<std::path::PathBuf>,
    /// What the file held when it was last used.
    content: ArcSwap<Arc<[u8]>>,
    set: ArcSwap<NetworkSet>,
}

impl Lists {
    /// `None` where everybody may come in.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(config: &AccessLists, files: &Files) -> Result<Option<Self>, String> {
        let is_allowing = config.allow.is_some() || config.allow_file.is_some();
        let is_denying = !config.deny.is_empty() || config.deny_file.is_some();
        let written = config.allow.clone().unwrap_or_default();
        let list = |written, file: &Option<_>| List::new(written, file.clone(), files);
        let allow = is_allowing.then(|| list(written, &config.allow_file)).transpose()?;
        let deny = is_denying.then(|| list(config.deny.clone(), &config.deny_file)).transpose()?;
        Ok((allow.is_some() || deny.is_some()).then_some(Self { allow, deny }))
    }

    /// Whether an address may come in.
    pub fn admit(&self, address: IpAddr) -> bool {
        let is_denied = self.deny.as_ref().is_some_and(|deny| deny.set.load().contains(address));
        !is_denied && self.allow.as_ref().is_none_or(|allow| allow.set.load().contains(address))
    }

    fn files_changed(&self, files: &Files) -> Vec<String> {
        self.allow.iter().chain(&self.deny).filter_map(|list| list.files_changed(files).err()).collect()
    }
}

impl List {
    fn new(written: Vec<IpNetwork>, file: Option<std::path::PathBuf>, files: &Files) -> Result<Self, String> {
        let list = Self { written, file, content: ArcSwap::default(), set: ArcSwap::default() };
        let content = list.file.as_ref().map(|path| handed(files, path)).transpose()?.unwrap_or_default();
        list.take(content)?;
        Ok(list)
    }

    fn files_changed(&self, files: &Files) -> Result<(), String> {
        let Some(path) = &self.file else { return Ok(()) };
        let content = handed(files, path)?;
        // Files change together; this one may be as it was, and long.
        if content == **self.content.load() {
            return Ok(());
        }
        self.take(content).map_err(|reason| format!("{reason}; the list as it was before is in use"))
    }

    fn take(&self, content: Arc<[u8]>) -> Result<(), String> {
        let named = |reason| match &self.file {
            Some(path) => format!("{} {reason}", path.display()),
            None => reason,
        };
        let networks = parse_list(&content).map_err(|error| named(error.to_string()))?;
        self.set.store(Arc::new(NetworkSet::new(networks.into_iter().chain(self.written.iter().copied()))));
        self.content.store(Arc::new(content));
        Ok(())
    }
}

/// What a file holds. The guard has read every file of the configuration.
fn handed(files: &Files, path: &Path) -> Result<Arc<[u8]>, String> {
    files.get(path).ok_or_else(|| format!("{} was not handed over", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::files::{FileContent, HandedFiles};
    use crate::units::networks::parse_network;

    fn files(content: &str) -> Files {
        let content = FileContent(content.as_bytes().into());
        Files::new(HandedFiles([("/list".into(), content)].into_iter().collect()))
    }

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| parse_network(text).unwrap()).collect()
    }

    fn admitted(lists: &Lists, addresses: &[&str]) -> Vec<bool> {
        addresses.iter().map(|address| lists.admit(address.parse().unwrap())).collect()
    }

    #[test]
    fn denied_are_denied_and_others_let_in_unless_there_is_a_list_of_those_who_may() {
        let config = AccessLists { deny: networks(&["192.0.2.0/24"]), ..AccessLists::default() };
        let lists = Lists::new(&config, &Files::default()).unwrap().unwrap();
        assert_eq!(admitted(&lists, &["192.0.2.1", "192.0.3.1", "::1"]), [false, true, true]);
        let config = AccessLists { allow: Some(networks(&["192.0.0.0/16", "::1"])), ..config };
        let lists = Lists::new(&config, &Files::default()).unwrap().unwrap();
        assert_eq!(admitted(&lists, &["192.0.2.1", "192.0.3.1", "::1", "198.51.100.1"]), [false, true, true, false]);
        let config = AccessLists { allow: Some(Vec::new()), ..AccessLists::default() };
        let lists = Lists::new(&config, &Files::default()).unwrap().unwrap();
        assert_eq!(admitted(&lists, &["192.0.2.1"]), [false]);
        assert!(Lists::new(&AccessLists::default(), &Files::default()).unwrap().is_none());
    }

    #[test]
    fn file_and_configuration_are_one_list_and_a_bad_file_changes_nothing() {
        let config = AccessLists {
            deny: networks(&["198.51.100.1"]),
            deny_file: Some("/list".into()),
            ..AccessLists::default()
        };
        let lists = Lists::new(&config, &files("192.0.2.0/24\n")).unwrap().unwrap();
        let all = ["198.51.100.1", "192.0.2.1", "203.0.113.1"];
        assert_eq!(admitted(&lists, &all), [false, false, true]);
        assert_eq!(lists.files_changed(&files("203.0.113.0/24")), Vec::<String>::new());
        assert_eq!(admitted(&lists, &all), [false, true, false]);
        let expected = "/list line 1: \"moon\" is no address and no network; the list as it was before is in use";
        assert_eq!(lists.files_changed(&files("moon")), [expected]);
        assert_eq!(admitted(&lists, &all), [false, true, false]);
        let error = Lists::new(&config, &files("moon")).err().unwrap();
        assert_eq!(error, "/list line 1: \"moon\" is no address and no network");
    }
}
