//! grpc.health.v1.Health/Check (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;

use super::connection::{Connection, Failure, USER_AGENT};
use super::exchange::shown;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// An answer has two bytes and a head of five.
const BODY_BYTES_MAX: usize = 4096;

/// Asks for a service.
pub(super) async fn ask(
    connection: &mut Connection,
    address: SocketAddr,
    service: &str,
    host: Option<&str>,
) -> Result<String, Failure> {
    if !connection.is_http2() {
        return Err(Failure::Answer("the server does not agree to HTTP/2".to_owned()));
    }
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = Request::post("/")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(());
    let (head, ()) = request.map_err(|error| Failure::Answer(error.to_string()))?.into_parts();
    let response = connection.ask(&host, PATH, head, message(service)).await?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Answer(format!("status {}", response.status().as_u16())));
    }
    // Where there is nothing but an error, it stands in the head.
    if let Some(refused) = refusal(response.headers()) {
        return Err(Failure::Answer(refused));
    }
    let mut answer = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|error| Failure::cut(&error))?;
        if let Some(refused) = frame.trailers_ref().and_then(refusal) {
            return Err(Failure::Answer(refused));
        }
        bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Failure::Answer(format!("its answer has more than {BODY_BYTES_MAX} bytes")));
        }
    }
    connection.keep(answer);
    judged(&bytes).map_err(Failure::Answer)
}

/// `service` is field 1 of the request.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        // A name has at most 256 bytes: a number of one byte or two.
        match u8::try_from(service.len()) {
            Ok(len) if len < 0x80 => message.push(len),
            _ => message.extend([(service.len() & 0x7f) as u8 | 0x80, (service.len() >> 7) as u8]),
        }
        message.extend(service.as_bytes());
    }
    let len = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    [&[0][..], &len, &message].concat().into()
}

fn refusal(fields: &HeaderMap) -> Option<String> {
    let status = fields.get("grpc-status")?.as_bytes();
    if status == b"0" {
        return None;
    }
    let said = fields.get("grpc-message").map(|message| format!(" {}", shown(message.as_bytes()))).unwrap_or_default();
    Some(format!("gRPC status {}{said}", String::from_utf8_lossy(status)))
}

/// `status` is field 1 of the answer: UNKNOWN is the default, SERVING is 1.
fn judged(bytes: &[u8]) -> Result<String, String> {
    let status = match bytes {
        [0, 0, 0, 0, 0] => 0,
        [0, 0, 0, 0, 2, 0x08, status] => *status,
        _ => return Err("its answer is none of gRPC".to_owned()),
    };
    match status {
        1 => Ok("SERVING".to_owned()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("status {other} of its service")),
    }
}
