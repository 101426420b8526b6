//! A handshake of TLS, and how long the server's certificate is good for.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Stream;
use crate::proxy::upstream::dial::{Dialer, OnBehalf};

const DAY_S: i64 = 24 * 3600;

/// What was found, and whether that is good.
pub(super) async fn ask(
    dialer: &Dialer,
    address: SocketAddr,
    expires_within: Option<Duration>,
    fails: bool,
) -> Result<String, String> {
    let stream = dialer.dial_for_bytes(address, OnBehalf::Ourselves).await.map_err(|error| error.reason)?;
    let not_after_s = not_after(&stream).ok_or("the server's certificate cannot be read")?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()).cast_signed();
    judged(not_after_s - now_s, expires_within, fails)
}

fn judged(left_s: i64, expires_within: Option<Duration>, fails: bool) -> Result<String, String> {
    let left = match left_s / DAY_S {
        _ if left_s < 0 => "its certificate has expired".to_owned(),
        0 => "its certificate expires in less than a day".to_owned(),
        1 => "its certificate expires in 1 day".to_owned(),
        days => format!("its certificate expires in {days} days"),
    };
    let is_close = expires_within.is_some_and(|within| left_s < i64::try_from(within.as_secs()).unwrap_or(i64::MAX));
    match (is_close, fails) {
        (false, _) => Ok("TLS handshake".to_owned()),
        (true, false) => Ok(format!("TLS handshake; warning: {left}")),
        (true, true) => Err(left),
    }
}

/// Seconds since 1970.
fn not_after(stream: &ServerStream) -> Option<i64> {
    let Stream::Tls(stream) = stream else { return None };
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_close_to_its_end_below_the_limit_and_not_at_it() {
        let within = Some(Duration::from_secs(10 * 86_400));
        assert_eq!(judged(10 * 86_400, within, true), Ok("TLS handshake".to_owned()));
        assert_eq!(judged(10 * 86_400 - 1, within, true), Err("its certificate expires in 9 days".to_owned()));
        let warning = "TLS handshake; warning: its certificate expires in less than a day";
        assert_eq!(judged(86_399, within, false), Ok(warning.to_owned()));
        assert_eq!(judged(86_400, within, true), Err("its certificate expires in 1 day".to_owned()));
        assert_eq!(judged(-1, within, true), Err("its certificate has expired".to_owned()));
        assert_eq!(judged(-1, None, true), Ok("TLS handshake".to_owned()));
    }
}
