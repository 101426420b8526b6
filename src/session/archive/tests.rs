use super::*;

fn names() -> Vec<PoolNames> {
    let pool = |pool: &str, servers: &[&str]| PoolNames {
        pool: pool.to_owned(),
        servers: servers.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![pool("app", &["a1", "a2"]), pool("api", &["b1"])]
}

fn record(byte: u8, pool: u16, server: Option<u16>, version: u64, idle_ms: u64, age_ms: u64) -> Record {
    Record {
        key: Key::from_bytes([byte; 16]),
        pool,
        server,
        version: Version::new(version).unwrap(),
        idle: Duration::from_millis(idle_ms),
        age: Duration::from_millis(age_ms),
    }
}

fn records() -> Vec<Record> {
    vec![record(1, 0, Some(1), 8, 200, 1_000), record(2, 1, Some(0), 10, 0, 0), record(3, 0, None, 12, 300, 300)]
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(Duration::from_millis(0x0102_0304_0506), &names(), &mut bytes);
    records.iter().for_each(|record| encoder.record(record, &mut bytes));
    encoder.finish(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Record>, Damage> {
    let mut decoder = Decoder::new();
    let mut records = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.feed(piece, |decoder, record| {
            assert_eq!(decoder.pools().len(), 2, "names come before records");
            records.push(record);
        })?;
    }
    assert_eq!(decoder.count(), records.len() as u64);
    let written_at = decoder.written_at();
    decoder.finish()?;
    assert_eq!(written_at, Duration::from_millis(0x0102_0304_0506));
    Ok(records)
}

#[test]
fn an_archive_has_the_stated_bytes() {
    let bytes = encoded(&[record(7, 0, Some(1), 0x0203, 500, 1_000)]);
    let mut expected = b"BATONSES\x00\x01".to_vec();
    expected.extend([0, 0, 1, 2, 3, 4, 5, 6]);
    expected.extend(b"\x00\x02\x03app\x00\x02\x02a1\x02a2\x03api\x00\x01\x02b1");
    expected.push(1);
    expected.extend([7; 16]);
    expected.extend(b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x05\x00\x00\x00\x0a");
    expected.extend(b"\x00\x00\x00\x00\x00\x00\x00\x00\x01");
    let (content, checksum) = bytes.split_at(bytes.len() - 32);
    assert_eq!(content, expected);
    assert_eq!(checksum, aws_lc_rs::digest::digest(&SHA256, &expected).as_ref());
    assert_eq!(ENTRY_LEN_BYTES, 37);
}

#[test]
fn what_was_written_is_read_again_in_pieces_of_any_size() {
    let bytes = encoded(&records());
    for piece in [1, 2, 7, 36, 37, 38, 64, bytes.len()] {
        assert_eq!(decoded(&bytes, piece), Ok(records()), "in pieces of {piece}");
        let mut decoder = Decoder::new();
        bytes.chunks(piece).for_each(|piece| decoder.feed(piece, |_, _| {}).unwrap());
        assert_eq!(decoder.pools(), names());
    }
    assert_eq!(decoded(&encoded(&[]), 5), Ok(Vec::new()));
}

#[test]
fn every_cut_is_seen() {
    let bytes = encoded(&records());
    for end in 0..bytes.len() {
        assert_eq!(decoded(&bytes[..end], 50), Err(Damage::CutOff), "at {end}");
    }
}

#[test]
fn every_changed_byte_is_seen() {
    let bytes = encoded(&records());
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            assert!(decoded(&changed, 64).is_err(), "at {at}");
        }
    }
}

#[test]
fn damage_is_told_apart() {
    let good = encoded(&records());
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        decoded(&bytes, 64).unwrap_err()
    };
    assert_eq!(changed(0, b"NOTSESSN"), Damage::Foreign);
    assert_eq!(decoded(b"hi", 2), Err(Damage::Foreign));
    assert_eq!(changed(8, &[0, 2]), Damage::UnknownFormat(2));
    assert_eq!(changed(18, &[0xff, 0xff]), Damage::Malformed);
    let first_record = good.len() - 41 - 3 * 37;
    assert_eq!(changed(first_record, &[2]), Damage::Malformed);
    assert_eq!(changed(first_record + 17, &[0, 9]), Damage::Malformed, "a pool that is not there");
    assert_eq!(changed(first_record + 19, &[0, 9]), Damage::Malformed, "a server that is not there");
    assert_eq!(changed(first_record + 21, &[0xff; 8]), Damage::Malformed, "a version that is never written");
    assert_eq!(changed(first_record + 3, &[9]), Damage::WrongChecksum);
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(decoded(&longer, 64), Err(Damage::TrailingBytes));
    let mut miscounted = good[..good.len() - 32].to_vec();
    *miscounted.last_mut().unwrap() = 4;
    let checksum = aws_lc_rs::digest::digest(&SHA256, &miscounted);
    miscounted.extend(checksum.as_ref());
    assert_eq!(decoded(&miscounted, 64), Err(Damage::WrongCount));
}

#[test]
fn records_follow_their_names_into_another_configuration() {
    let archived = names();
    let mut current = vec![PoolNames { pool: "new".to_owned(), servers: vec!["n".to_owned()] }, archived[0].clone()];
    current[1].servers = vec!["a2".to_owned(), "a3".to_owned()];
    let mapping = Mapping::new(&archived, &current);
    let passed = Duration::from_secs(60);
    let moved = mapping.apply(record(1, 0, Some(1), 8, 200, 1_000), passed);
    assert_eq!(moved, Some(record(1, 1, Some(0), 8, 60_200, 61_000)));
    assert_eq!(mapping.apply(record(1, 0, Some(0), 8, 0, 0), passed), None, "a server that is no more");
    assert_eq!(mapping.apply(record(1, 1, Some(0), 8, 0, 0), passed), None, "a pool that is no more");
    let tombstone = mapping.apply(record(1, 0, None, 8, 0, 0), passed);
    assert_eq!(tombstone, Some(record(1, 1, None, 8, 60_000, 60_000)));
}
