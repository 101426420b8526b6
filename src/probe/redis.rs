//! Redis and Valkey: PING, and which role it has (the protocol RESP, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use super::database::{Answer, Database};
use super::exchange::{Exchange, no_sense, shown};
use crate::config::Role;

/// A text of `INFO replication`; it has a line for each replica.
const INFO_BYTES_MAX: usize = 32 * 1024;

/// Logs in, on a connection that is new.
pub(super) async fn log_in(exchange: &mut Exchange, user: Option<&str>, password: Option<&str>) -> Result<(), String> {
    let Some(password) = password else { return Ok(()) };
    let words: Vec<&str> = [Some("AUTH"), user, Some(password)].into_iter().flatten().collect();
    exchange.send(&command(&words)).await?;
    simple(exchange, b"OK").await
}

/// Asks how it is.
pub(super) async fn ask(exchange: &mut Exchange, wanted: Role) -> Result<Answer, String> {
    exchange.send(&command(&["PING"])).await?;
    simple(exchange, b"PONG").await?;
    if wanted == Role::Any {
        return Ok(Answer { database: Database::Redis, role: None, remark: None });
    }
    exchange.send(&command(&["INFO", "replication"])).await?;
    let info = bulk(exchange).await?;
    let has = |line: &[u8]| info.split(|byte| *byte == b'\n').any(|found| found.trim_ascii() == line);
    // Redis calls a replica by its former name there.
    let role = match (has(b"role:master"), has(b"role:slave")) {
        (true, false) => Role::Primary,
        (false, true) => Role::Replica,
        _ => return Err(no_sense(&info)),
    };
    let remark = has(b"master_link_status:down").then_some("its link to the primary is down");
    Ok(Answer { database: Database::Redis, role: Some(role), remark })
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    text
}

async fn simple(exchange: &mut Exchange, wanted: &[u8]) -> Result<(), String> {
    let line = exchange.line().await?;
    match line.split_first() {
        Some((b'+', said)) if said == wanted => Ok(()),
        Some((b'-', said)) => Err(refusal(said)),
        _ => Err(no_sense(&line)),
    }
}

async fn bulk(exchange: &mut Exchange) -> Result<Vec<u8>, String> {
    let line = exchange.line().await?;
    let len = match line.split_first() {
        Some((b'$', len)) => std::str::from_utf8(len).ok().and_then(|len| len.parse::<usize>().ok()),
        Some((b'-', said)) => return Err(refusal(said)),
        _ => None,
    };
    let len = len.filter(|len| *len <= INFO_BYTES_MAX).ok_or_else(|| no_sense(&line))?;
    let mut text = exchange.take(len + 2).await?;
    text.truncate(len);
    Ok(text)
}

fn refusal(said: &[u8]) -> String {
    format!("Redis says {}", shown(said))
}
