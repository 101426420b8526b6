//! PostgreSQL: a login and `select pg_is_in_recovery()` (protocol 3.0,
//! <https://www.postgresql.org/docs/current/protocol-flow.html>).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::database::{Answer, Database};
use super::exchange::{Exchange, no_sense, shown};
use super::scram::Scram;
use crate::config::Role;
use crate::proxy::upstream::dial::{Dialer, OnBehalf};
use crate::proxy::upstream::tls::Within;

const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Messages in one answer: a login tells some dozen parameters.
const MESSAGES_MAX: usize = 128;
/// The request for TLS (section 55.2.10).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const PROTOCOL: [u8; 4] = [0, 3, 0, 0];
const QUESTION: &[u8] = b"select pg_is_in_recovery()\0";

/// Connects. TLS is asked for in clear text first.
pub(super) async fn dial(dialer: &Dialer, address: SocketAddr) -> Result<Exchange, String> {
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    let mut stream = dialer.dial_in_clear(address, OnBehalf::Ourselves).await.map_err(|error| error.reason)?;
    if dialer.has_tls() {
        stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
        match stream.read_u8().await.map_err(broken)? {
            b'S' => {}
            b'N' => return Err("PostgreSQL has no TLS: write tls = false, or turn its ssl on".to_owned()),
            other => return Err(no_sense(&[other])),
        }
    }
    let stream = dialer.encrypt(stream, address, Within::Tcp).await.map_err(|error| error.reason)?;
    Ok(Exchange::new(stream))
}

/// Logs in. False where a password is asked for and there is none, which is a sign of life.
pub(super) async fn log_in(
    exchange: &mut Exchange,
    user: &str,
    database: &str,
    password: Option<&str>,
) -> Result<bool, String> {
    exchange.send(&startup(user, database)).await?;
    let mut scram = None;
    for _ in 0..MESSAGES_MAX {
        let (kind, payload) = message(exchange).await?;
        match kind {
            b'R' => {
                let (code, rest) = payload.split_first_chunk::<4>().ok_or_else(|| no_sense(&payload))?;
                let code = u32::from_be_bytes(*code);
                if code == 0 {
                    continue;
                }
                let Some(password) = password else { return Ok(false) };
                if let Some(answer) = authenticate(code, rest, password, &mut scram)? {
                    exchange.send(&framed(b'p', &answer)).await?;
                }
            }
            b'Z' => return Ok(true),
            b'E' => return Err(refusal(&payload)),
            b'S' | b'K' | b'N' | b'v' => {}
            _ => return Err(no_sense(&payload)),
        }
    }
    Err("PostgreSQL does not come to the end of the login".to_owned())
}

/// What is answered to a request for authentication; `None` when it needs no answer.
fn authenticate(code: u32, rest: &[u8], password: &str, scram: &mut Option<Scram>) -> Result<Option<Vec<u8>>, String> {
    match code {
        3 => Ok(Some([password.as_bytes(), b"\0"].concat())),
        10 => {
            if !rest.split(|byte| *byte == 0).any(|mechanism| mechanism == Scram::MECHANISM.as_bytes()) {
                return Err(format!("PostgreSQL offers no {}", Scram::MECHANISM));
            }
            let begun = scram.insert(Scram::new()?);
            let first = begun.first();
            let len = u32::try_from(first.len()).unwrap_or_default().to_be_bytes();
            Ok(Some([Scram::MECHANISM.as_bytes(), b"\0", &len, first.as_bytes()].concat()))
        }
        11 => {
            let begun = scram.as_mut().ok_or_else(|| no_sense(rest))?;
            Ok(Some(begun.answer(rest, password)?.into_bytes()))
        }
        12 => {
            let begun = scram.as_ref().ok_or_else(|| no_sense(rest))?;
            if begun.is_proven(rest) {
                Ok(None)
            } else {
                Err("PostgreSQL does not know the password itself".to_owned())
            }
        }
        5 => Err("PostgreSQL asks for an MD5 password: set password_encryption = scram-sha-256 there".to_owned()),
        _ => Err(format!("PostgreSQL asks for authentication {code}, which health checks do not have")),
    }
}

/// Asks for the role, once logged in.
pub(super) async fn ask(exchange: &mut Exchange) -> Result<Answer, String> {
    exchange.send(&framed(b'Q', QUESTION)).await?;
    let mut role = None;
    for _ in 0..MESSAGES_MAX {
        let (kind, payload) = message(exchange).await?;
        match kind {
            b'D' => role = Some(role_of(&payload).ok_or_else(|| no_sense(&payload))?),
            b'Z' => {
                let role = Some(role.ok_or("PostgreSQL does not say whether it is in recovery")?);
                return Ok(Answer { database: Database::Postgres, role, remark: None });
            }
            b'E' => return Err(refusal(&payload)),
            b'T' | b'C' | b'S' | b'N' => {}
            _ => return Err(no_sense(&payload)),
        }
    }
    Err("PostgreSQL does not come to the end of its answer".to_owned())
}

/// One column of one byte.
fn role_of(row: &[u8]) -> Option<Role> {
    match row {
        [0, 1, 0, 0, 0, 1, b't'] => Some(Role::Replica),
        [0, 1, 0, 0, 0, 1, b'f'] => Some(Role::Primary),
        _ => None,
    }
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let pairs = ["user", user, "database", database, "application_name", "baton health check"];
    let mut text = PROTOCOL.to_vec();
    for word in pairs {
        text.extend(word.as_bytes());
        text.push(0);
    }
    text.push(0);
    let len = u32::try_from(text.len() + 4).unwrap_or_default().to_be_bytes();
    [&len[..], &text].concat()
}

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 4).unwrap_or_default().to_be_bytes();
    [&[kind], &len[..], payload].concat()
}

async fn message(exchange: &mut Exchange) -> Result<(u8, Vec<u8>), String> {
    let head: [u8; 5] = exchange.array().await?;
    let [kind, len @ ..] = head;
    let len = (u32::from_be_bytes(len) as usize).checked_sub(4).filter(|len| *len <= MESSAGE_BYTES_MAX);
    let len = len.filter(|_| kind.is_ascii_alphabetic()).ok_or_else(|| no_sense(&head))?;
    Ok((kind, exchange.take(len).await?))
}

/// The message of an error (section 55.8).
fn refusal(payload: &[u8]) -> String {
    let mut fields = payload.split(|byte| *byte == 0);
    let said = fields.find_map(|field| field.strip_prefix(b"M")).unwrap_or(payload);
    format!("PostgreSQL says {}", shown(said))
}
