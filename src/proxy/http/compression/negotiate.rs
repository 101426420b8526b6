//! Which content coding a response gets, by what the client accepts, what is offered, and what the response is.
//!
//! A core: heads in, a decision out. Called by `compression`.

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::config::{Coding, Compression};

/// Weights in thousandths (RFC 9110 section 12.4.2).
type Weight = u16;

/// What a client accepts (RFC 9110 section 12.5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    zstd: Weight,
    brotli: Weight,
    gzip: Weight,
    /// Without any coding, where the client says something of that.
    identity: Option<Weight>,
}

impl Accepted {
    /// Reads Accept-Encoding. A client that does not send it gets no coding; what cannot be read is not accepted.
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut found, mut rest) = ([None; 4], None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for element in values.flat_map(|value| value.split(',')) {
            let mut parts = element.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let Some(weight) = weight(parts) else { continue };
            match index(name) {
                Some(index) => found.iter_mut().skip(index).take(1).for_each(|slot| *slot = Some(weight)),
                None if name == "*" => rest = Some(weight),
                None => {}
            }
        }
        let [zstd, brotli, gzip, identity] = found;
        let weight = |own: Option<Weight>| own.or(rest).unwrap_or(0);
        Self { zstd: weight(zstd), brotli: weight(brotli), gzip: weight(gzip), identity }
    }

    /// The coding that the client likes best; of several, the one that is offered first. `None` where it likes none, or
    /// none better.
    pub fn best(&self, offered: &[Coding]) -> Option<Coding> {
        let weight = |coding: &Coding| match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        // The last of several that are equal, of the reversed list.
        let best = offered.iter().rev().max_by_key(|coding| weight(coding)).copied()?;
        let weight = weight(&best);
        (weight > 0 && self.identity.is_none_or(|identity| identity <= weight)).then_some(best)
    }
}

fn index(name: &str) -> Option<usize> {
    let names = [&["zstd"][..], &["br"], &["gzip", "x-gzip"], &["identity"]];
    names.iter().position(|names| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// The weight among the parameters of an element; all of it where there is none, `None` where it is malformed.
fn weight<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<Weight> {
    let mut weight = 1000;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("q") {
            weight = thousandths(value.trim())?;
        }
    }
    Some(weight)
}

/// `0`, `0.5`, `1.000`: one digit, and three more at most.
fn thousandths(text: &str) -> Option<Weight> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().map(|byte| Weight::from(byte - b'0')).chain(std::iter::repeat(0));
    let fraction = digits.take(3).fold(0, |sum, digit| sum * 10 + digit);
    let weight = if whole == "1" { 1000 + fraction } else { fraction };
    (weight <= 1000).then_some(weight)
}

/// What is done with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is of no kind that is compressed.
    Leave,
    /// Nothing but to say that other clients may get something else.
    Vary,
    /// It gets a coding.
    Encode(Coding),
}

/// What is done with a response of this head.
pub fn decide(compression: &Compression, accepted: &Accepted, status: StatusCode, headers: &HeaderMap) -> Decision {
    if !may_be_encoded(compression, status, headers) {
        return Decision::Leave;
    }
    accepted.best(&compression.algorithms).map_or(Decision::Vary, Decision::Encode)
}

/// What a checksum over the body is in; it would not be right any more.
const CHECKSUMS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

fn may_be_encoded(compression: &Compression, status: StatusCode, headers: &HeaderMap) -> bool {
    let has_whole_body = !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    has_whole_body
        && length.is_none_or(|length| length >= u64::from(compression.min_bytes))
        && is_of_type(compression, headers)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
        && !forbids_transforming(headers)
        && !CHECKSUMS.iter().any(|name| headers.contains_key(HeaderName::from_static(name)))
}

fn is_of_type(compression: &Compression, headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    // Its messages are compressed by those who speak it, or not at all.
    if essence.len() >= 16 && essence.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("application/grpc")) {
        return false;
    }
    compression.types.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(kind) => essence.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)),
        None => essence.eq_ignore_ascii_case(wanted),
    })
}

/// Cache-Control: no-transform (RFC 9111 section 5.2.2.6).
fn forbids_transforming(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
}

#[cfg(test)]
mod tests;
