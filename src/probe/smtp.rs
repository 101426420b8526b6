//! A mail server: its greeting, EHLO, QUIT (RFC 5321).

use std::net::IpAddr;

use super::exchange::{Exchange, no_sense, shown};

/// Lines of an answer: EHLO lists what the server can do.
const LINES_MAX: usize = 64;

pub(super) async fn ask(exchange: &mut Exchange) -> Result<String, String> {
    let greeting = answer(exchange, 220).await?;
    // The address as a name (section 4.1.3), which needs no DNS.
    let name = match exchange.local_address().map(|address| address.ip()) {
        Some(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Some(IpAddr::V4(address)) => format!("[{address}]"),
        None => "[127.0.0.1]".to_owned(),
    };
    exchange.send(format!("EHLO {name}\r\n").as_bytes()).await?;
    answer(exchange, 250).await?;
    // Whoever closes without it may be written down as rude.
    exchange.send(b"QUIT\r\n").await?;
    Ok(format!("SMTP says {}", shown(&greeting)))
}

/// The last line of an answer of this code.
async fn answer(exchange: &mut Exchange, wanted: u16) -> Result<Vec<u8>, String> {
    for _ in 0..LINES_MAX {
        let line = exchange.line().await?;
        let (digits, rest) = line.split_at_checked(3).ok_or_else(|| no_sense(&line))?;
        let code = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
        match code {
            Some(code) if code == wanted && rest.first() == Some(&b'-') => {}
            Some(code) if code == wanted => return Ok(line),
            Some(_) => return Err(format!("SMTP says {}", shown(&line))),
            None => return Err(no_sense(&line)),
        }
    }
    Err("SMTP does not come to the end of its answer".to_owned())
}
