//! A request of HTTP, and whether the answer is one that is expected.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::connection::{Connection, Failure, USER_AGENT};
use super::exchange::{BYTES_MAX, Pattern, missing};
use crate::config::HttpCheck;

/// Asks, and judges the answer.
pub(super) async fn ask(
    connection: &mut Connection,
    address: SocketAddr,
    check: &HttpCheck,
    body: Option<&Pattern>,
) -> Result<String, Failure> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = Request::builder().method(check.method.as_str());
    if !check.headers.iter().any(|(name, _)| name == header::USER_AGENT.as_str()) {
        request = request.header(header::USER_AGENT, USER_AGENT);
    }
    let request = check.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let (head, ()) = request.body(()).map_err(|error| Failure::Answer(error.to_string()))?.into_parts();
    let response = connection.ask(&host, &check.path, head, Bytes::new()).await?;
    let said = judged(response.status(), check)?;
    let mut answer = response.into_body();
    if let Some(pattern) = body {
        find(pattern, &mut answer).await?;
    }
    connection.keep(answer);
    Ok(said)
}

/// Reads a body until what has to be in it is there.
async fn find(pattern: &Pattern, answer: &mut Incoming) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|error| Failure::cut(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = BYTES_MAX.saturating_sub(bytes.len());
        bytes.extend(data.iter().take(room));
        if pattern.is_in(&bytes) {
            return Ok(());
        }
        if bytes.len() >= BYTES_MAX {
            let size = BYTES_MAX / 1024;
            return Err(Failure::Answer(format!("what is expected is not in the first {size} KiB of its body")));
        }
    }
    Err(Failure::Answer(missing(&bytes)))
}

fn judged(status: StatusCode, check: &HttpCheck) -> Result<String, Failure> {
    let status = status.as_u16();
    let is_expected = check.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
    let said = format!("status {status}");
    if is_expected { Ok(said) } else { Err(Failure::Answer(said)) }
}
