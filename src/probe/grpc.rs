//! grpc.health.v1.Health/Check (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};

use super::exchange::shown;
use super::http::{HEAD_BYTES_MAX, USER_AGENT};
use crate::proxy::server_io::ServerStream;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// An answer has two bytes and a head of five.
const BODY_BYTES_MAX: usize = 4096;

/// Asks for a service.
pub(super) async fn ask(stream: ServerStream, service: &str, host: &str) -> Result<String, String> {
    let scheme = if stream.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(PATH).build();
    let request = Request::post(uri.map_err(|error| error.to_string())?)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(())
        .map_err(|error| error.to_string())?;
    let no_answer = |error: h2::Error| format!("no HTTP/2 answer: {error}");
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(no_answer)?;
    let asking = async {
        let (response, mut body) = sender.send_request(request, false).map_err(no_answer)?;
        body.send_data(message(service), true).map_err(no_answer)?;
        let response = response.await.map_err(no_answer)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        // Where there is nothing but an error, it stands in the head.
        if let Some(refused) = refusal(response.headers()) {
            return Err(refused);
        }
        let mut answer = response.into_body();
        let mut bytes = Vec::new();
        while let Some(piece) = answer.data().await {
            let piece = piece.map_err(no_answer)?;
            let _ignored = answer.flow_control().release_capacity(piece.len());
            bytes.extend_from_slice(&piece);
            if bytes.len() > BODY_BYTES_MAX {
                return Err(format!("its answer has more than {BODY_BYTES_MAX} bytes"));
            }
        }
        let trailers = answer.trailers().await.map_err(no_answer)?;
        if let Some(refused) = trailers.as_ref().and_then(refusal) {
            return Err(refused);
        }
        judged(&bytes)
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        _ended = connection => asking.await,
    }
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
