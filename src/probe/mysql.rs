//! MySQL and MariaDB: the greeting, and where a user is given a login and a question
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>).

use aws_lc_rs::digest;

use super::database::{Answer, Database};
use super::exchange::{Exchange, no_sense, shown};
use crate::config::Role;

const PACKET_BYTES_MAX: usize = 16 * 1024;
/// Packets in an answer.
const PACKETS_MAX: usize = 16;
/// `CLIENT_LONG_PASSWORD`, `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x0008_0000;
/// utf8mb4_general_ci.
const CHARACTER_SET: u8 = 45;
const COM_QUERY: u8 = 3;
const COM_PING: u8 = 14;

const NATIVE: &[u8] = b"mysql_native_password";
const CACHING: &[u8] = b"caching_sha2_password";

/// What a server says first.
pub(super) struct Greeting {
    pub(super) version: String,
    nonce: Vec<u8>,
    plugin: Vec<u8>,
}

/// Reads the greeting.
pub(super) async fn greeting(exchange: &mut Exchange) -> Result<Greeting, String> {
    let (_, payload) = packet(exchange).await?;
    if payload.first() == Some(&0xff) {
        return Err(refusal(&payload));
    }
    parse_greeting(&payload).ok_or_else(|| no_sense(&payload))
}

fn parse_greeting(payload: &[u8]) -> Option<Greeting> {
    let rest = payload.strip_prefix(&[10])?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let version = String::from_utf8_lossy(rest.get(..end.min(60))?).into_owned();
    let rest = rest.get(end + 1 + 4..)?;
    let (first, rest) = rest.split_at_checked(8)?;
    // A filler, capabilities, character set, status, capabilities, length, ten reserved.
    let rest = rest.get(1 + 2 + 1 + 2 + 2 + 1 + 10..)?;
    let (second, rest) = rest.split_at_checked(12)?;
    let plugin = rest.get(1..)?.split(|byte| *byte == 0).next()?;
    Some(Greeting { version, nonce: [first, second].concat(), plugin: plugin.to_vec() })
}

/// Logs in.
pub(super) async fn log_in(
    exchange: &mut Exchange,
    greeting: &Greeting,
    user: &str,
    password: Option<&str>,
) -> Result<(), String> {
    let password = password.unwrap_or_default();
    let mut answer = Vec::new();
    answer.extend(CAPABILITIES.to_le_bytes());
    answer.extend((PACKET_BYTES_MAX as u32).to_le_bytes());
    answer.push(CHARACTER_SET);
    answer.extend([0; 23]);
    answer.extend(user.bytes().filter(|byte| *byte != 0));
    answer.push(0);
    let proof = proof(&greeting.plugin, &greeting.nonce, password).unwrap_or_default();
    answer.push(u8::try_from(proof.len()).unwrap_or_default());
    answer.extend(&proof);
    answer.extend(&greeting.plugin);
    answer.push(0);
    send(exchange, 1, &answer).await?;
    for _ in 0..PACKETS_MAX {
        let (sequence, payload) = packet(exchange).await?;
        match payload.split_first() {
            Some((0, _)) => return Ok(()),
            Some((0xff, _)) => return Err(refusal(&payload)),
            Some((0xfe, rest)) => {
                let mut parts = rest.splitn(2, |byte| *byte == 0);
                let (plugin, nonce) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
                let proof = proof_of(plugin, nonce, password)?;
                send(exchange, sequence.wrapping_add(1), &proof).await?;
            }
            // The password is in the server's cache.
            Some((1, [3])) => {}
            Some((1, [4])) => {
                return Err("MySQL wants the password itself, which is not sent in clear text: \
                            give the user mysql_native_password, or none"
                    .to_owned());
            }
            _ => return Err(no_sense(&payload)),
        }
    }
    Err("MySQL does not come to the end of the login".to_owned())
}

fn proof_of(plugin: &[u8], nonce: &[u8], password: &str) -> Result<Vec<u8>, String> {
    let unknown = || format!("MySQL asks for authentication {}, which health checks do not have", shown(plugin));
    proof(plugin, nonce, password).ok_or_else(unknown)
}

fn proof(plugin: &[u8], nonce: &[u8], password: &str) -> Option<Vec<u8>> {
    let mixed = |one: &[u8], other: &[u8]| one.iter().zip(other).map(|(one, other)| one ^ other).collect();
    if ![NATIVE, CACHING].contains(&plugin) {
        return None;
    }
    if password.is_empty() {
        return Some(Vec::new());
    }
    if plugin == NATIVE {
        let hash = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
        let once = hash(password.as_bytes());
        let twice = hash(once.as_ref());
        Some(mixed(once.as_ref(), hash(&[nonce, twice.as_ref()].concat()).as_ref()))
    } else {
        let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
        let once = hash(password.as_bytes());
        let twice = hash(once.as_ref());
        Some(mixed(once.as_ref(), hash(&[twice.as_ref(), nonce].concat()).as_ref()))
    }
}

/// Asks how it is, once logged in.
pub(super) async fn ask(exchange: &mut Exchange, wanted: Role) -> Result<Answer, String> {
    if wanted == Role::Any {
        send(exchange, 0, &[COM_PING]).await?;
        let (_, payload) = packet(exchange).await?;
        return match payload.first() {
            Some(0) => Ok(Answer { database: Database::Mysql, role: None, remark: None }),
            Some(0xff) => Err(refusal(&payload)),
            _ => Err(no_sense(&payload)),
        };
    }
    send(exchange, 0, &[&[COM_QUERY], &b"select @@global.read_only"[..]].concat()).await?;
    let mut role = None;
    let mut ends = 0;
    for _ in 0..PACKETS_MAX {
        let (_, payload) = packet(exchange).await?;
        match payload.as_slice() {
            [0xff, ..] => return Err(refusal(&payload)),
            // The columns end like this, and so do the rows.
            [0xfe, ..] if payload.len() < 9 => ends += 1,
            [1, b'0'] => role = Some(Role::Primary),
            [1, b'1'] => role = Some(Role::Replica),
            _ => {}
        }
        if ends == 2 {
            let role = Some(role.ok_or("MySQL does not say whether it is read-only")?);
            return Ok(Answer { database: Database::Mysql, role, remark: None });
        }
    }
    Err("MySQL does not come to the end of its answer".to_owned())
}

async fn send(exchange: &mut Exchange, sequence: u8, payload: &[u8]) -> Result<(), String> {
    let [len @ .., _] = u32::try_from(payload.len()).unwrap_or_default().to_le_bytes();
    exchange.send(&[&len[..], &[sequence], payload].concat()).await
}

async fn packet(exchange: &mut Exchange) -> Result<(u8, Vec<u8>), String> {
    let head: [u8; 4] = exchange.array().await?;
    let [low, middle, high, sequence] = head;
    let len = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if len == 0 || len > PACKET_BYTES_MAX {
        return Err(no_sense(&head));
    }
    Ok((sequence, exchange.take(len).await?))
}

/// An error has a code, and mostly the mark of a state of SQL.
fn refusal(payload: &[u8]) -> String {
    let said = payload.get(3..).unwrap_or_default();
    let said = if said.first() == Some(&b'#') { said.get(6..).unwrap_or_default() } else { said };
    format!("MySQL says {}", shown(said))
}
