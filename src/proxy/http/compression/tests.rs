use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn a_head_becomes_that_of_what_is_encoded() {
    let mut headers = map(&[("etag", "\"x\""), ("content-length", "5"), ("accept-ranges", "bytes"), ("x-kept", "1")]);
    encoded(&mut headers, Coding::Brotli);
    assert_eq!(headers, map(&[("etag", "W/\"x\""), ("x-kept", "1"), ("content-encoding", "br")]));
    let mut headers = map(&[("etag", "W/\"x\"")]);
    encoded(&mut headers, Coding::Gzip);
    assert_eq!(headers, map(&[("etag", "W/\"x\""), ("content-encoding", "gzip")]));
}

#[test]
fn vary_is_said_once() {
    let after = |before: &[(&'static str, &'static str)]| {
        let mut headers = map(before);
        vary(&mut headers);
        headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(after(&[]), ["Accept-Encoding"]);
    assert_eq!(after(&[("vary", "Origin")]), ["Origin", "Accept-Encoding"]);
    assert_eq!(after(&[("vary", "Origin, accept-encoding")]), ["Origin, accept-encoding"]);
    assert_eq!(after(&[("vary", "*")]), ["*"]);
}

#[test]
fn memory_is_given_back_and_has_an_end() {
    let memory = Memory::default();
    let shares: Vec<_> = std::iter::from_fn(|| Share::take(&memory, 32 * 1024 * 1024)).collect();
    assert_eq!(shares.len(), 4);
    drop(shares);
    assert_eq!(memory.get(), 0);
}
