use std::net::Ipv4Addr;

use super::*;

/// 2026-11-21 22:43:14.000001 UTC.
const TIME_US: u64 = 1_795_300_994_000_001;

fn entry<'a>() -> Entry<'a> {
    Entry {
        time_us: TIME_US,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        request_id: b"",
        user: b"",
        listener: "https",
        request: Asked {
            line: b"",
            method: b"GET",
            host: b"shop.example",
            target: b"/a?b=c",
            protocol: "HTTP/1.1",
            referer: b"",
            user_agent: b"curl/8.5.0",
        },
        status: 200,
        bytes_in: 0,
        bytes_out: 1234,
        route: "",
        pool: "app",
        server: "app1",
        chosen_by: "session",
        retries: 0,
        retried_for: "",
        hedge: "",
        tls: "TLSv1.3",
        sni: "shop.example",
        phases: Phases {
            head_us: None,
            queue_us: None,
            connect_us: Some(90),
            first_byte_us: Some(800),
            total_us: 1000,
        },
        ended: "complete",
        reason: "",
    }
}

fn line(format: LogFormat, entry: &Entry<'_>) -> String {
    let mut line = Vec::new();
    write(format, entry, &mut line);
    String::from_utf8(line).unwrap()
}

fn quoted(value: &[u8]) -> String {
    let mut inside = Vec::new();
    quote(value, &mut inside);
    String::from_utf8(inside).unwrap()
}

#[test]
fn json_has_what_is_known_and_nothing_else() {
    assert_eq!(
        line(LogFormat::Json, &entry()),
        "{\"time\":\"2026-11-21T22:43:14.000001Z\",\"client\":\"192.0.2.7\",\"listener\":\"https\",\"method\":\"GET\",\
         \"host\":\"shop.example\",\"path\":\"/a?b=c\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes_in\":0,\
         \"bytes_out\":1234,\"user_agent\":\"curl/8.5.0\",\"pool\":\"app\",\"server\":\"app1\",\"chosen_by\":\"session\",\
         \"tls\":\"TLSv1.3\",\"sni\":\"shop.example\",\"connect_us\":90,\"first_byte_us\":800,\"total_us\":1000,\
         \"ended\":\"complete\"}\n"
    );
}

#[test]
fn combined_is_what_nginx_and_apache_write() {
    assert_eq!(
        line(LogFormat::Combined, &entry()),
        "192.0.2.7 - - [21/Nov/2026:22:43:14 +0000] \"GET /a?b=c HTTP/1.1\" 200 1234 \"-\" \"curl/8.5.0\"\n"
    );
    let named = Entry { user: b"ann lee\"", request: Asked { referer: b"http://a/", ..entry().request }, ..entry() };
    assert_eq!(
        line(LogFormat::Combined, &named),
        "192.0.2.7 - ann\\x20lee\\x22 [21/Nov/2026:22:43:14 +0000] \"GET /a?b=c HTTP/1.1\" 200 1234 \"http://a/\" \
         \"curl/8.5.0\"\n"
    );
}

#[test]
fn a_request_that_could_not_be_read_is_its_first_line_or_a_dash() {
    let asked = Asked { line: b"\x16\x03\x01 \"\xff", ..Asked::default() };
    let refused = Entry { request: asked, status: 400, bytes_out: 0, ..entry() };
    assert_eq!(
        line(LogFormat::Combined, &refused),
        "192.0.2.7 - - [21/Nov/2026:22:43:14 +0000] \"\\x16\\x03\\x01 \\x22\\xFF\" 400 0 \"-\" \"-\"\n"
    );
    assert!(
        line(LogFormat::Json, &refused).contains(",\"request_line\":\"\\u0016\\u0003\\u0001 \\\"\\u00ff\",\"status\":")
    );
    let refused = Entry { request: Asked::default(), status: 400, bytes_out: 0, ..entry() };
    assert_eq!(
        line(LogFormat::Combined, &refused),
        "192.0.2.7 - - [21/Nov/2026:22:43:14 +0000] \"-\" 400 0 \"-\" \"-\"\n"
    );
    let of_tcp = Entry { request: Asked::default(), status: 0, ..entry() };
    assert!(line(LogFormat::Combined, &of_tcp).contains("\"-\" 000 1234"));
    assert!(!line(LogFormat::Json, &of_tcp).contains("\"status\""));
}

#[test]
fn nothing_that_a_client_sends_ends_a_field_or_a_line() {
    let agent = b"a\" 200 1 \"-\" \"x\"\r\n{\"status\":500}\t\\\x00\x7f\xc3\xa4\xff";
    let hostile = Entry { request: Asked { user_agent: agent, ..entry().request }, ..entry() };
    let combined = line(LogFormat::Combined, &hostile);
    assert!(combined.ends_with(
        "\"-\" \"a\\x22 200 1 \\x22-\\x22 \\x22x\\x22\\x0D\\x0A{\\x22status\\x22:500}\\x09\\x5C\\x00\\x7F\\xC3\\xA4\\xFF\"\n"
    ));
    assert_eq!(combined.matches('\n').count(), 1);
    let json = line(LogFormat::Json, &hostile);
    assert_eq!(json.matches('\n').count(), 1);
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["user_agent"], "a\" 200 1 \"-\" \"x\"\r\n{\"status\":500}\t\\\u{0}\u{7f}ä\u{ff}");
    assert_eq!(read["status"], 200);
}

#[test]
fn json_strings_are_json_for_every_byte_and_every_character_of_two_bytes() {
    for byte in 0..=255_u8 {
        let read: String = serde_json::from_str(&format!("\"{}\"", quoted(&[byte]))).unwrap();
        assert_eq!(read, char::from(byte).to_string(), "{byte}");
    }
    for character in '\u{80}'..='\u{7ff}' {
        let read: String = serde_json::from_str(&format!("\"{}\"", quoted(character.to_string().as_bytes()))).unwrap();
        assert_eq!(read, character.to_string());
    }
    assert_eq!(quoted("\u{2028}€\u{1f600}".as_bytes()), "\\u2028€\u{1f600}");
    // A character cut off.
    assert_eq!(quoted(b"\xe2\x82"), "\\u00e2\\u0082");
    assert_eq!(quoted(b"\x1b[31m"), "\\u001b[31m");
}

#[test]
fn times_and_numbers_have_all_their_digits() {
    let text = |write: fn(u64, &mut Vec<u8>), value| {
        let mut line = Vec::new();
        write(value, &mut line);
        String::from_utf8(line).unwrap()
    };
    assert_eq!(text(decimal, 0), "0");
    assert_eq!(text(decimal, 1090), "1090");
    assert_eq!(text(decimal, u64::MAX), "18446744073709551615");
    assert_eq!(text(rfc3339, 0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(text(rfc3339, 951_827_696_123_456), "2000-02-29T12:34:56.123456Z");
    assert_eq!(text(common_time, 951_827_696_123_456), "29/Feb/2000:12:34:56 +0000");
}
