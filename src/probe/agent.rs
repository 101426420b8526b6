//! Asks the agent beside a server how that is, in the words of HAProxy's agent check: `up`, `down`, `drain`, `maint`, `ready`,
//! `stopped`, `fail`, `75%`, several of them in one line.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::exchange::{Exchange, no_sense};
use super::{Watched, apart, udp};
use crate::config::Agent;
use crate::proxy::server::{AgentState, AgentWord};
use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Socket;

/// More would overload a server that is asked to take more than its weight.
const PERCENT_MAX: u16 = 256;
/// Times in a row that an agent says nothing, after which what it said is forgotten where that is wished.
const SILENCE_MAX: u32 = 3;

/// Asks the agent of one server again and again.
pub(super) async fn watch(watched: Watched, agent: Agent) -> Option<()> {
    let (pool, server, config) = (&watched.pool, &watched.server, watched.config()?);
    let address = SocketAddr::new(agent.address.unwrap_or_else(|| config.address.ip()), agent.port);
    let mut silent = 0_u32;
    loop {
        let next = Instant::now() + apart(agent.interval);
        let asked = timeout(agent.timeout, ask(address, &agent.send)).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", agent.timeout.as_millis())));
        let before = server.agent();
        match asked {
            Ok(line) => {
                silent = 0;
                server.set_agent(words(&line).fold(before, AgentState::followed));
            }
            Err(reason) => {
                silent = silent.saturating_add(1);
                if silent == 1 {
                    warn!(
                        pool = pool.config.name,
                        server = config.name,
                        reason,
                        "the agent of a server does not answer"
                    );
                }
                if agent.forgets && silent == SILENCE_MAX {
                    server.set_agent(AgentState::default());
                }
            }
        }
        let after = server.agent();
        if after != before {
            info!(pool = pool.config.name, server = config.name, says = %after, "the agent of a server says so");
        }
        tokio::time::sleep_until(next).await;
    }
}

/// The first line of what an agent says.
async fn ask(address: SocketAddr, send: &[u8]) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| udp::connect_failed(&error))?;
    let mut exchange = Exchange::new(ServerStream::Plain(Socket::new(stream)));
    if !send.is_empty() {
        exchange.send(send).await?;
    }
    let line = exchange.line_or_all().await?;
    if words(&line).next().is_none() { Err(no_sense(&line)) } else { Ok(line) }
}

/// The words of a line that are known. Others are passed over, as HAProxy does, and so is what follows a `#`.
fn words(line: &[u8]) -> impl Iterator<Item = AgentWord> {
    let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let words = line.split(|byte| b" \t,\r\n".contains(byte));
    words.filter_map(|word| std::str::from_utf8(word).ok()).filter_map(known)
}

fn known(word: &str) -> Option<AgentWord> {
    if let Some(percent) = word.strip_suffix('%') {
        let digits = Some(percent).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let percent = digits.and_then(|text| text.parse::<u16>().ok()).filter(|percent| *percent <= PERCENT_MAX);
        return percent.map(AgentWord::Percent);
    }
    match word.to_ascii_lowercase().as_str() {
        "up" => Some(AgentWord::Up),
        "down" | "stopped" | "fail" => Some(AgentWord::Down),
        "ready" => Some(AgentWord::Ready),
        "drain" => Some(AgentWord::Drain),
        "maint" => Some(AgentWord::Maint),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        words(line.as_bytes()).fold(AgentState::default(), AgentState::followed).to_string()
    }

    #[test]
    fn words_are_those_of_haproxy() {
        assert_eq!(said("75%\n"), "75%");
        assert_eq!(said("0%\r\n"), "0%");
        assert_eq!(said("256%"), "256%");
        assert_eq!(said("257%"), "100%");
        assert_eq!(said("down # disk is full, up\n"), "down");
        assert_eq!(said("fail"), "down");
        assert_eq!(said("stopped"), "down");
        assert_eq!(said("drain, 50%"), "drain 50%");
        assert_eq!(said("maint\tdown"), "maint down");
        assert_eq!(said("maint ready UP"), "100%");
        assert_eq!(said("maxconn:30 up 10%"), "10%");
        assert_eq!(said("-5% +5% 5.5% %"), "100%");
    }

    #[test]
    fn what_is_not_said_stays() {
        let drained = words(b"drain 20%").fold(AgentState::default(), AgentState::followed);
        let after = words(b"30%").fold(drained, AgentState::followed);
        assert_eq!(after.to_string(), "drain 30%");
        assert_eq!(words(b"up").fold(after, AgentState::followed).to_string(), "drain 30%");
        assert_eq!(words(b"ready").fold(after, AgentState::followed).to_string(), "30%");
    }

    #[test]
    fn garbage_has_no_words() {
        assert_eq!(words(b"\xff\xfe\x00 SSH-2.0-OpenSSH").count(), 0);
        assert_eq!(words(b"").count(), 0);
    }
}
