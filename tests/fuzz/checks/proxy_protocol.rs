//! The PROXY protocol: what the first bytes of a connection say of whose it is.

use baton::proxy::proxy_protocol::{HEADER_BYTES_MAX, decode};

/// Bytes to begin with; those of version 2 as HAProxy wrote them.
pub const SAMPLES: &[&[u8]] = &[
    b"PROXY TCP4 127.0.0.1 127.0.0.1 40001 29200\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 ::1 ::1 42274 29204\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\x9c\x41\x72\x11GET /",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1f\x7f\0\0\x01\x7f\0\0\x01\x9c\x41\x72\x12\x03\0\x04\xaa\x70\x9c\x15\x05\0\x09req-29771",
];

/// Pieces that mean something.
pub const SPLINTERS: &[&[u8]] = &[
    b"PROXY ",
    b"TCP4",
    b"TCP6",
    b"UNKNOWN",
    b" ",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\x20",
    b"\x21",
    b"\x11",
    b"\x31",
    b"\xff",
    b"\x03\0\x04",
    b"\x20\0\x05\x01\0\0\0\0",
    b"1.2.3.4",
    b"0",
    b"65535",
];

/// What must hold for any bytes, however they are cut.
pub fn check(data: &[u8]) {
    let mut said = None;
    for cut in 0..=data.len().min(HEADER_BYTES_MAX) {
        let found = decode(&data[..cut]);
        if let Ok(Some(header)) = found {
            assert!(header.len_bytes <= cut, "more than there is");
        }
        match said {
            None if found == Ok(None) => {}
            None => said = Some(found),
            Some(said) => assert_eq!(said, found, "more bytes do not change what was said"),
        }
    }
}
