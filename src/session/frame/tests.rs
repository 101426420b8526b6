use super::*;

fn record(server: Option<u16>) -> Record {
    Record {
        key: Key::from_bytes([7; 16]),
        pool: 1,
        server,
        version: Version::new(0x0102_0304_0506_0708).unwrap(),
        idle: Duration::from_millis(1_500),
        age: Duration::from_secs(3_600),
    }
}

fn decoded(bytes: &[u8]) -> Frame<'_> {
    let (frame, length) = decode(bytes).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    frame
}

fn rejected(kind: u8, contents: &[u8]) {
    let mut bytes = Vec::from(u32::try_from(contents.len()).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(contents);
    assert_eq!(decode(&bytes), Err(FrameError::Malformed(kind)), "{contents:?}");
}

#[test]
fn a_hello_has_these_bytes() {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        boot: 3,
        latest: Version::new(4).unwrap(),
        checksum: *b"checksum",
        entries: 5,
        node: "lb-a".to_owned(),
    };
    let mut bytes = Vec::new();
    put_hello(&mut bytes, &hello);
    let expected = b"\0\0\0\x2b\x01BTNS\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04checksum\0\0\0\0\0\0\0\x05\x04lb-a";
    assert_eq!(bytes, expected);
    assert_eq!(decoded(&bytes), Frame::Hello(hello));
    rejected(1, b"BTNX\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04checksum\0\0\0\0\0\0\0\x05\x04lb-a");
    rejected(1, b"BTNS\x01\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xffchecksum\0\0\0\0\0\0\0\x05\x04lb-a");
    rejected(1, b"BTNS\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04checksum\0\0\0\0\0\0\0\x05\x05lb-a");
    rejected(1, b"BTNS\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04checksum\0\0\0\0\0\0\0\x05\x03lb-a");
    rejected(1, b"BTNS\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04checksum\0\0\0\0\0\0\0\x05\x01\xff");
}

#[test]
fn entries_have_these_bytes() {
    let mut bytes = Vec::new();
    let count = put_entries(&mut bytes, 9, true, |out| {
        put_record(out, &record(Some(2)));
        put_record(out, &record(None));
    });
    assert_eq!(count, 2);
    let mut expected = b"\0\0\0\x51\x03\0\0\0\0\0\0\0\x09\x01".to_vec();
    for server in [b"\0\x02", b"\xff\xff"] {
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(b"\x01\x02\x03\x04\x05\x06\x07\x08\0\x01");
        expected.extend_from_slice(server);
        expected.extend_from_slice(b"\0\0\0\x0f\0\0\x8c\xa0");
    }
    assert_eq!(bytes, expected);
    let Frame::Entries { sequence: 9, is_snapshot: true, records } = decoded(&bytes) else { panic!("{bytes:?}") };
    let records: Vec<_> = records.iter().collect();
    assert_eq!(records, [Some(record(Some(2))), Some(record(None))]);
}

#[test]
fn entries_that_are_cut_off_too_many_or_of_no_version_are_rejected() {
    rejected(3, &[0; 9 + RECORD_BYTES - 1]);
    rejected(3, &[0; 8]);
    rejected(3, &[&[0, 0, 0, 0, 0, 0, 0, 1, 2], &[0; RECORD_BYTES][..]].concat());
    rejected(3, &vec![0; 9 + RECORD_BYTES * (RECORDS_MAX + 1)]);
    let mut bytes = Vec::new();
    put_entries(&mut bytes, 1, false, |out| put_record(out, &record(None)));
    let version = bytes.len() - RECORD_BYTES + 16;
    bytes[version..version + 8].fill(0xff);
    let Frame::Entries { records, .. } = decoded(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(records.iter().collect::<Vec<_>>(), [None]);
}

#[test]
fn nothing_to_tell_is_no_frame() {
    let mut bytes = vec![1];
    assert_eq!(put_entries(&mut bytes, 1, false, |_| {}), 0);
    assert_eq!(bytes, [1]);
}

#[test]
fn names_of_many_servers_take_several_frames() {
    let servers: Vec<String> = (0..1_000).map(|number| format!("server-{number}")).collect();
    let mut bytes = Vec::new();
    put_names(&mut bytes, 3, "app", &servers);
    let (mut rest, mut known) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (frame, length) = decode(rest).unwrap().unwrap();
        let Frame::Names(Names { pool: 3, name, first, servers }) = frame else { panic!("{frame:?}") };
        assert_eq!((name.as_str(), usize::from(first)), ("app", known.len()));
        known.extend(servers);
        rest = &rest[length..];
    }
    assert_eq!(known, servers);
    rejected(2, b"\0\x03\x03app\0\0\0\x02\x01x");
}

#[test]
fn facts_of_each_kind_come_back_as_they_went() {
    let text = |text: &str| text.to_owned();
    let keys = [
        FactKey::Admin { pool: text("app"), server: text("one") },
        FactKey::Health { node: text("lb-a"), pool: text("app"), server: text("one") },
        FactKey::Outcomes { node: text("lb-a"), pool: text("app"), server: text("one") },
        FactKey::TicketKeys,
    ];
    for key in keys {
        let (version, mut bytes) = (Version::new(5).unwrap(), Vec::new());
        put_fact(&mut bytes, 8, &key, version, b"value");
        assert_eq!(decoded(&bytes), Frame::Fact { sequence: 8, key, version, value: b"value" });
    }
    rejected(4, b"\0\0\0\0\0\0\0\x01\x09\0\0\0\0\0\0\0\x01");
    rejected(4, &[&b"\0\0\0\0\0\0\0\x01\x03\0\0\0\0\0\0\0\x01"[..], &[0; VALUE_BYTES_MAX + 1]].concat());
}

#[test]
fn the_small_ones_come_back_as_they_went() {
    let mut bytes = Vec::new();
    put_snapshot_end(&mut bytes, 1);
    assert_eq!(decoded(&bytes), Frame::SnapshotEnd { sequence: 1 });
    bytes.clear();
    put_handled(&mut bytes, 2);
    assert_eq!(bytes, b"\0\0\0\x08\x06\0\0\0\0\0\0\0\x02");
    assert_eq!(decoded(&bytes), Frame::Handled { sequence: 2 });
    bytes.clear();
    put_goodbye(&mut bytes, &"é".repeat(200));
    let Frame::Goodbye { reason } = decoded(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(reason, "é".repeat(127));
    rejected(6, &[0; 7]);
    rejected(6, &[0; 9]);
}

#[test]
fn a_frame_that_is_too_long_or_of_no_kind_is_refused_before_it_is_there() {
    assert_eq!(decode(b"\0\x04\0"), Ok(None));
    assert_eq!(decode(b"\0\x04\0\x01"), Err(FrameError::TooLong(262_145)));
    assert_eq!(decode(b"\0\0\0\0\x63"), Err(FrameError::UnknownKind(0x63)));
    for end in 0..13 {
        assert_eq!(decode(&b"\0\0\0\x08\x06\0\0\0\0\0\0\0\x02"[..end]), Ok(None), "{end}");
    }
}

#[test]
fn counters_and_limits_have_these_bytes() {
    let record = CounterRecord {
        key: Key::from_bytes([7; 16]),
        limit: 1,
        life: 2,
        total: 300,
        peer_life: 4,
        peer_total: 5,
        missing: 600_000,
    };
    let mut bytes = Vec::new();
    assert_eq!(put_counters(&mut bytes, 9, |out| put_counter(out, &record)), 1);
    let mut expected = b"\0\0\0\x2a\x09\0\0\0\0\0\0\0\x09".to_vec();
    expected.extend_from_slice(&[7; 16]);
    expected.extend_from_slice(b"\0\x01\0\x02\0\0\x01\x2c\0\x04\0\0\0\x05\0\x09\x27\xc0");
    assert_eq!(bytes, expected);
    let Frame::Counters { sequence: 9, records } = decoded(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(records.iter().collect::<Vec<_>>(), [Some(record)]);
    // No life is 0.
    bytes[31..33].fill(0);
    let Frame::Counters { records, .. } = decoded(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(records.iter().collect::<Vec<_>>(), [None]);
    assert_eq!(put_counters(&mut bytes, 9, |_| {}), 0);
    rejected(9, &[0; 7]);
    rejected(9, &[0; 8 + COUNTER_BYTES + 1]);
    rejected(9, &vec![0; 8 + COUNTER_BYTES * (RECORDS_MAX + 1)]);
    bytes.clear();
    put_limits(&mut bytes, &["web".to_owned(), "api".to_owned()]);
    assert_eq!(bytes, b"\0\0\0\x0c\x08\0\0\0\x02\x03web\x03api");
    let names = vec!["web".to_owned(), "api".to_owned()];
    assert_eq!(decoded(&bytes), Frame::Limits(Limits { first: 0, names }));
    rejected(8, b"\0\0\0\x02\x03web");
}
