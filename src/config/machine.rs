//! What depends on the machine: interfaces, key files, certificates. The same file can be good on one node and not on
//! the other, so these checks are apart from those of the file.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::access_log;
use super::blocks::{Blocks, SubjectBlock, VipBlock};
use super::certificates::{self, Unusable};
use super::choose::{NodeHints, choose_name};
use super::discovery::DiscoveryFiles;
use super::error_pages;
use super::files::{FileKind, list_directory, read_file, system_roots};
use super::key::{AdminToken, AdvertPassword, PairKey, StorePassword};
use super::model::{Certificate, ClientAuthMode, Config, Node, RESOLV_CONF, Tls};
use super::networkd;
use super::report::{Located, Mistakes, Wrong};
use super::staple;
use super::store::StoreBlock;
use super::subnets;
use super::tls::{CertificateBlock, ClientAuthBlock, TlsBlock};
use super::upstream::WayFiles;
use super::users::Users;
use crate::net::privileges;
use crate::net::sysctl::is_without_ipv6;
use crate::units::networks::parse_list;

/// Checks the file's blocks against this machine.
pub(super) fn check(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    check_interfaces(blocks, mistakes);
    check_secrets(blocks, mistakes);
    check_access(blocks, mistakes);
    for user in blocks.worker_user.iter().chain(&blocks.events.user) {
        if let Ok(None) = privileges::user(&user.value) {
            mistakes.value(
                &user.place,
                "this machine has no such user",
                "make it with `useradd --system`, or leave the key out: then it is baton, or nobody",
            );
        }
    }
    check_store(&blocks.sessions.store, mistakes);
    access_log::check_files(blocks, mistakes);
    error_pages::check_files(blocks, mistakes);
    for program in programs(blocks) {
        check_program(program, mistakes);
    }
    for tls in blocks.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        check_tls(tls, mistakes);
    }
    for files in blocks.pools.iter().flat_map(|pool| [&pool.files, &pool.health.files]) {
        check_way(files, mistakes);
    }
    for file in blocks.pools.iter().filter_map(|pool| pool.health.password_file.as_ref()) {
        if let Err(error) = StorePassword::load(&file.value) {
            mistakes.value(&file.place, error.to_string(), error.server_remedy());
        }
    }
    for files in blocks.pools.iter().map(|pool| &pool.discovery_files) {
        check_discovery(files, mistakes);
    }
}

/// What is needed to find servers. A list that is a file may come later.
fn check_discovery(files: &DiscoveryFiles, mistakes: &Mistakes<'_>) {
    check_way(&files.way, mistakes);
    if let Some(file) = &files.token_file {
        usable(read(&file.value, FileKind::Secret), file, mistakes);
    }
    if let Some(place) = files.system_resolvers.as_ref().filter(|_| !Path::new(RESOLV_CONF).exists()) {
        mistakes.block(
            place,
            format!("this machine has no {RESOLV_CONF} that says whom to ask for names"),
            "write whom to ask: resolvers = [\"192.0.2.53:53\"]",
        );
    }
}

/// What TLS to servers needs.
fn check_way(files: &WayFiles, mistakes: &Mistakes<'_>) {
    if let Some(file) = &files.ca_file {
        usable(read_chain(&file.value), file, mistakes);
    }
    if let Some(certificate) = &files.certificate {
        check_certificate(certificate, mistakes);
    }
    if let Some(place) = files.system_roots.as_ref().filter(|_| system_roots().is_none()) {
        mistakes.block(
            place,
            "this machine has no authorities of its own to check servers against",
            "install the package ca-certificates, or set ca_file",
        );
    }
}

fn check_interfaces(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let interfaces: Vec<String> = pnet::datalink::interfaces().into_iter().map(|interface| interface.name).collect();
    let known: Vec<&str> = interfaces.iter().map(String::as_str).collect();
    let of_vip = |vip: &'_ VipBlock| {
        let of_addresses = vip.addresses.iter().filter_map(|address| address.interface.known());
        vip.interface.iter().chain(vip.advert_interface.known()).chain(of_addresses).cloned().collect::<Vec<_>>()
    };
    let of_checks = blocks.fitness.iter().filter_map(|check| match &check.subject {
        Some(SubjectBlock::Gateway { interface, .. }) => interface.clone(),
        _ => None,
    });
    for interface in blocks.vips.iter().flat_map(of_vip).chain(of_checks) {
        if !known.contains(&interface.value.as_str()) {
            mistakes.value(
                &interface.place,
                "this machine has no such interface",
                format!("it has {}", super::cross::listed(&known)),
            );
        }
    }
}

fn check_secrets(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let advert_keys = blocks.pair.advert_keys.iter().filter_map(|key| key.file.as_ref());
    for file in blocks.pair.key_file.known().into_iter().chain(advert_keys) {
        if let Err(error) = PairKey::load(&file.value) {
            mistakes.value(&file.place, error.to_string(), error.remedy());
        }
    }
    if let Some(file) = blocks.admin.as_ref().and_then(|admin| admin.token_file.known())
        && let Err(error) = AdminToken::load(&file.value)
    {
        mistakes.value(&file.place, error.to_string(), error.remedy());
    }
    for file in blocks.vips.iter().filter_map(|vip| vip.password_file.as_ref()) {
        if let Err(error) = AdvertPassword::load(&file.value) {
            mistakes.value(&file.place, error.to_string(), error.remedy());
        }
    }
}

fn check_access(blocks: &Blocks, mistakes: &Mistakes<'_>) {
    let of_routes = blocks.routes.iter().map(|route| &route.access_files);
    for files in blocks.listeners.iter().map(|listener| &listener.access_files).chain(of_routes) {
        for file in &files.lists {
            let list = read(&file.value, FileKind::Public).and_then(|bytes| {
                parse_list(&bytes).map_err(|error| {
                    Wrong::new(error.to_string(), "write one network such as \"10.0.0.0/8\" or one address a line")
                })
            });
            usable(list, file, mistakes);
        }
        for way in &files.ways {
            check_way(way, mistakes);
        }
        for file in &files.users {
            let users = read(&file.value, FileKind::Public)
                .and_then(|bytes| Users::parse(&bytes).map_err(|error| Wrong::new(error.to_string(), error.remedy)));
            usable(users, file, mistakes);
        }
    }
}

fn check_store(store: &StoreBlock, mistakes: &Mistakes<'_>) {
    if let Some(file) = &store.password_file
        && let Err(error) = StorePassword::load(&file.value)
    {
        mistakes.value(&file.place, error.to_string(), error.store_remedy());
    }
    if let Some(file) = &store.ca_file {
        check_authorities(file, mistakes);
    }
}

/// Checks a file of authorities that are trusted.
pub(super) fn check_authorities(file: &Located<PathBuf>, mistakes: &Mistakes<'_>) {
    usable(read_chain(&file.value), file, mistakes);
}

/// The programs that the file says to run.
fn programs(blocks: &Blocks) -> impl Iterator<Item = &Located<String>> {
    let of_checks = blocks.fitness.iter().filter_map(|check| match &check.subject {
        Some(SubjectBlock::Command { command }) => command.first(),
        _ => None,
    });
    of_checks.chain(&blocks.events.program).chain(blocks.pools.iter().filter_map(|pool| pool.health.program.as_ref()))
}

fn check_program(program: &Located<String>, mistakes: &Mistakes<'_>) {
    let remedy = "put the program there, or change the path";
    match std::fs::metadata(&program.value) {
        Err(error) => mistakes.value(&program.place, format!("failed to find the program: {error}"), remedy),
        Ok(metadata) if !metadata.is_file() => mistakes.value(&program.place, "is not a file", remedy),
        Ok(metadata) if metadata.mode() & 0o111 == 0 => mistakes.value(
            &program.place,
            format!("has mode {:04o}, so nobody may run it", metadata.mode() & 0o7777),
            format!("chmod 755 {}", program.value),
        ),
        Ok(_) => {}
    }
}

/// Checks that the file has a node for this machine. Says nothing while the name of a node cannot be read.
pub(super) fn check_node(blocks: &Blocks, hints: NodeHints<'_>, mistakes: &Mistakes<'_>) {
    let names: Vec<&str> = blocks.nodes.iter().flat_map(|node| &node.name).map(|name| name.value.as_str()).collect();
    if names.len() != blocks.nodes.len() {
        return;
    }
    if let Err(error) = choose_name(&names, hints) {
        mistakes.file(error.to_string(), error.remedy());
    }
}

fn check_tls(block: &TlsBlock, mistakes: &Mistakes<'_>) {
    for certificate in &block.certificates {
        check_certificate(certificate, mistakes);
    }
    if let Some(directory) = &block.directory {
        check_directory(directory, mistakes);
    }
    if let Some(Some(client_auth)) = &block.client_auth {
        check_client_auth(client_auth, mistakes);
    }
}

fn check_certificate(block: &CertificateBlock, mistakes: &Mistakes<'_>) {
    let chain = block.cert.as_ref().and_then(|file| usable(read_chain(&file.value), file, mistakes));
    let Some(file) = &block.key else { return };
    let key = usable(read_key(&file.value), file, mistakes);
    if let (Some(chain), Some(key)) = (chain, key) {
        usable(certificates::certified(chain, &key), file, mistakes);
    }
}

fn check_directory(directory: &Located<PathBuf>, mistakes: &Mistakes<'_>) {
    let listed = list_directory(&directory.value).map_err(|error| Wrong::new(error.to_string(), error.remedy()));
    let Some(files) = usable(listed, directory, mistakes) else { return };
    let (pairs, lonely) = certificates::pairs(files.iter().map(|file| file.path.as_path()));
    for unusable in lonely {
        mistakes.wrong(&directory.place, unusable.into());
    }
    if pairs.is_empty() {
        let rule = format!("{} holds no certificate", directory.value.display());
        mistakes.value(&directory.place, rule, "put NAME.crt and NAME.key into it, or NAME.pem with both");
    }
    for Certificate { cert, key } in pairs {
        let (chain, private) = (read_chain(&cert), read_key(&key));
        let chain = usable(chain, directory, mistakes);
        let private = usable(private, directory, mistakes);
        let (Some(chain), Some(private)) = (chain, private) else { continue };
        let named = |unusable: Unusable| Wrong::new(format!("{}: {}", key.display(), unusable.rule), unusable.remedy);
        usable(certificates::certified(chain, &private).map_err(named), directory, mistakes);
    }
}

fn check_client_auth(block: &ClientAuthBlock, mistakes: &Mistakes<'_>) {
    let text = |file: &Option<Located<PathBuf>>| {
        let file = file.as_ref()?;
        usable(read(&file.value, FileKind::Public), file, mistakes)
    };
    let (Some(authorities), Some(ca_file)) = (text(&block.ca_file), &block.ca_file) else { return };
    let revoked = text(&block.crl_file);
    let revoked = revoked.as_deref().zip(block.crl_file.as_ref().map(|file| file.value.as_path()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let authorities = (authorities.as_slice(), ca_file.value.as_path());
    let built = certificates::client_verifier(ClientAuthMode::Require, authorities, revoked, &provider);
    if let Err((unusable, is_of_crl)) = built {
        let file = block.crl_file.as_ref().filter(|_| is_of_crl).unwrap_or(ca_file);
        mistakes.wrong(&file.place, unusable.into());
    }
}

/// What could be read, or a mistake at the file's name.
fn usable<T>(found: Result<T, impl Into<Wrong>>, file: &Located<PathBuf>, mistakes: &Mistakes<'_>) -> Option<T> {
    found.map_err(|wrong| mistakes.wrong(&file.place, wrong.into())).ok()
}

/// As the guard reads it for the worker.
fn read(path: &Path, kind: FileKind) -> Result<Vec<u8>, Wrong> {
    read_file(path, kind).map_err(|error| Wrong::new(error.to_string(), error.remedy()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let chain = certificates::chain(&read(path, FileKind::Public)?, path)?;
    if let Some(leaf) = chain.first() {
        certificates::facts(leaf)?;
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    Ok(certificates::private_key(&read(path, FileKind::Secret)?, path)?)
}

/// What is odd on this machine and may be meant: reported, and nothing more.
pub(super) fn warnings(config: &Config, node: Option<&Node>) -> Vec<String> {
    let mut warnings = Vec::new();
    let interfaces = pnet::datalink::interfaces();
    subnets::warn(config, &subnets::of_machine(config, &interfaces), &mut warnings);
    let carries = |name: &str| config.vips.iter().any(|vip| vip.addresses.iter().any(|at| at.interface == name));
    let carriers = interfaces.iter().filter(|interface| carries(&interface.name));
    warnings.extend(carriers.filter_map(|interface| networkd::warning(&interface.name, interface.index)));
    let addresses = config.vips.iter().flat_map(|vip| &vip.addresses);
    let without = addresses.filter(|at| at.network.address().is_ipv6() && is_without_ipv6(&at.interface));
    warnings.extend(without.map(|at| {
        let (interface, address) = (&at.interface, at.network.address());
        format!(
            "IPv6 is off on {interface}, so that it cannot carry {address} and the vip cannot be held here: switch it on \
             with `sysctl net.ipv6.conf.{interface}.disable_ipv6=0`, or leave the address out"
        )
    }));
    if let Some(node) = node.filter(|_| !config.vips.is_empty()) {
        let is_here =
            |address: IpAddr| interfaces.iter().any(|at| at.ips.iter().any(|network| network.ip() == address));
        for address in node.all_addresses().filter(|address| !is_here(*address)) {
            warnings
                .push(format!("node {} has address {address}, which is on no interface of this machine", node.name));
        }
    }
    warnings.extend(config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(staple_warnings));
    warnings
}

/// The OCSP responses that would not be stapled.
fn staple_warnings(tls: &Tls) -> Vec<String> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()).cast_signed();
    let listed = tls.certificate_dir.as_deref().and_then(|directory| list_directory(directory).ok());
    let files = listed.unwrap_or_default();
    let (pairs, _lonely) = certificates::pairs(files.iter().map(|file| file.path.as_path()));
    let warnings = tls.certificates.iter().chain(&pairs).filter_map(|pair| {
        let path = staple::beside(&pair.cert);
        // What is wrong with the certificate is said elsewhere.
        let chain = path.exists().then(|| read_chain(&pair.cert).ok())??;
        let issuer = read_file(&staple::issuer_beside(&pair.cert), FileKind::Staple).ok();
        let judge = |response: Vec<u8>| staple::good_until_s(&response, &chain, issuer.as_deref());
        let file = path.display();
        match read_file(&path, FileKind::Staple).map(judge) {
            Ok(Ok(until_s)) if until_s > now_s => None,
            Ok(Ok(_)) => Some(format!("{file} has expired and is not stapled: fetch it again")),
            Ok(Err(unusable)) => Some(format!("{file} is not stapled: it {unusable}: {}", unusable.remedy)),
            Err(error) => Some(format!("{error}, so that nothing is stapled: {}", error.remedy())),
        }
    });
    warnings.collect()
}
