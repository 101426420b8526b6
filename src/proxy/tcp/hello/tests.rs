use super::*;

mod golden;

const SESSION: &str = "20e7260f6a98353acecc1bbd5bdf057002abb21112f44d0b4a85d6b3468d9a97";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn read<H: Hello>(bytes: &[u8]) -> Progress<H> {
    HelloReader::default().feed(bytes)
}

fn client(bytes: &[u8]) -> ClientHello {
    match read(bytes) {
        Progress::Complete(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn server(bytes: &[u8]) -> ServerHello {
    match read(bytes) {
        Progress::Complete(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// The message of a flight in one record, without that record's header.
fn message(flight: &[u8]) -> Vec<u8> {
    flight[5..].to_vec()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

#[test]
fn client_of_tls_12_is_read() {
    let first = client(&bytes(golden::CLIENT_TLS12));
    assert_eq!(
        first,
        ClientHello { server_name: Some("shop.example.com".to_owned()), session_id: Vec::new(), is_id_random: false }
    );
    let again = client(&bytes(golden::CLIENT_TLS12_AGAIN));
    assert_eq!(again.server_name.as_deref(), Some("shop.example.com"));
    assert_eq!(again.session_id, bytes(SESSION));
    assert_eq!(client(&bytes(golden::CLIENT_NAMELESS)).server_name, None);
}

#[test]
fn client_of_tls_13_is_read() {
    for hello in [golden::CLIENT_TLS13, golden::CLIENT_CURL] {
        let hello = client(&bytes(hello));
        assert_eq!((hello.server_name.as_deref(), hello.session_id.len()), (Some("shop.example.com"), 32));
    }
}

#[test]
fn server_of_tls_12_names_the_session_that_its_client_comes_back_with() {
    for hello in [golden::SERVER_TLS12, golden::SERVER_TLS12_AGAIN] {
        let hello = server(&bytes(hello));
        assert_eq!(hello, ServerHello { session_id: bytes(SESSION), is_tls13: false });
        assert_eq!(hello.resumable_id(), Some(&bytes(SESSION)[..]));
    }
    assert_eq!(ServerHello { session_id: Vec::new(), is_tls13: false }.resumable_id(), None);
}

#[test]
fn server_of_tls_13_echoes_what_its_client_made_up_and_names_no_session() {
    let hello = server(&bytes(golden::SERVER_TLS13));
    assert!(hello.is_tls13);
    assert_eq!(hello.session_id, client(&bytes(golden::CLIENT_TLS13)).session_id);
    assert_eq!(hello.resumable_id(), None);
}

#[test]
fn it_does_not_matter_in_how_many_reads_it_comes() {
    let flight = bytes(golden::CLIENT_TLS12_AGAIN);
    for len in 1..flight.len() {
        let mut reader = HelloReader::<ClientHello>::default();
        assert_eq!(reader.feed(&flight[..len]), Progress::More, "{len} bytes");
        assert_eq!(reader.feed(&flight[len..]), Progress::Complete(client(&flight)), "{len} bytes");
    }
    let mut reader = HelloReader::<ClientHello>::default();
    let (last, rest) = flight.split_last().unwrap();
    for byte in rest {
        assert_eq!(reader.feed(&[*byte]), Progress::More);
    }
    assert_eq!(reader.feed(&[*last]), Progress::Complete(client(&flight)));
}

#[test]
fn it_does_not_matter_in_how_many_records_it_comes() {
    let flight = bytes(golden::CLIENT_TLS13);
    let message = message(&flight);
    for len in [1, 3, 4, 5, 38, 100] {
        let records: Vec<u8> = message.chunks(len).flat_map(record).collect();
        assert_eq!(client(&records), client(&flight), "{len} bytes a record");
    }
}

#[test]
fn what_comes_behind_is_not_looked_at() {
    let flight = bytes(golden::SERVER_TLS12);
    assert_eq!(server(&[&flight[..], b"anything"].concat()), server(&flight));
    let together = record(&[&message(&flight)[..], &[11, 0, 0, 0]].concat());
    assert_eq!(server(&together), server(&flight));
}

#[test]
fn what_is_no_handshake_is_refused_at_its_first_byte() {
    assert_eq!(read::<ClientHello>(b"G"), Progress::Refused(Rejection::NotTls));
    // An alert.
    assert_eq!(read::<ServerHello>(&[21]), Progress::Refused(Rejection::NotTls));
    assert_eq!(read::<ClientHello>(&[22, 2]), Progress::Refused(Rejection::NotTls));
    // SSL 2 (RFC 6101 appendix E).
    assert_eq!(read::<ClientHello>(&[0x80, 0x2e, 1, 3, 1]), Progress::Refused(Rejection::NotTls));
    assert_eq!(read::<ClientHello>(&[]), Progress::More);
}

#[test]
fn another_message_is_refused() {
    assert_eq!(read::<ClientHello>(&bytes(golden::SERVER_TLS12)), Progress::Refused(Rejection::OtherMessage));
    assert_eq!(read::<ServerHello>(&bytes(golden::CLIENT_TLS12)), Progress::Refused(Rejection::OtherMessage));
}

#[test]
fn a_record_is_not_empty_and_not_longer_than_allowed() {
    assert_eq!(read::<ClientHello>(&[22, 3, 1, 0, 0]), Progress::Refused(Rejection::Malformed));
    assert_eq!(read::<ClientHello>(&[22, 3, 1, 0x40, 0x00]), Progress::More);
    assert_eq!(read::<ClientHello>(&[22, 3, 1, 0x40, 0x01]), Progress::Refused(Rejection::Malformed));
}

#[test]
fn a_message_has_16_kib_at_most() {
    // 16380 = 0x3ffc, with the header 16384.
    assert_eq!(read::<ClientHello>(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc]), Progress::More);
    let longer = read::<ClientHello>(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfd]);
    assert_eq!(longer, Progress::Refused(Rejection::TooLong(16385)));
    let longest = read::<ClientHello>(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
    assert_eq!(longest, Progress::Refused(Rejection::TooLong(16 * 1024 * 1024 + 3)));
}

/// A ClientHello with this session id, these cipher suites, compression methods and extensions, each as they stand.
fn made(parts: [&[u8]; 4]) -> Progress<ClientHello> {
    let body = [&[3, 3][..], &[7; 32], &parts.concat()].concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    read(&record(&[&[1][..], &len[1..], &body].concat()))
}

const NO_SESSION: &[u8] = &[0];
const SUITES: &[u8] = &[0, 2, 0x13, 0x01];
const COMPRESSION: &[u8] = &[1, 0];

/// The extensions with one server_name of this content.
fn named(content: &[u8]) -> Progress<ClientHello> {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let extension = [&[0, 0][..], &len(content), content].concat();
    made([NO_SESSION, SUITES, COMPRESSION, &[&len(&extension)[..], &extension].concat()])
}

fn of(server_name: Option<&str>, session_id: &[u8]) -> Progress<ClientHello> {
    let (server_name, session_id) = (server_name.map(str::to_owned), session_id.to_vec());
    Progress::Complete(ClientHello { server_name, session_id, is_id_random: false })
}

#[test]
fn extensions_may_be_missing() {
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[]]), of(None, &[]));
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[0, 0]]), of(None, &[]));
    assert_eq!(made([&[1, 9], SUITES, COMPRESSION, &[]]), of(None, &[9]));
}

#[test]
fn a_field_that_does_not_fit_is_malformed() {
    let malformed = Progress::Refused(Rejection::Malformed);
    let long_id = [&[33][..], &[9; 33]].concat();
    assert_eq!(made([&long_id, SUITES, COMPRESSION, &[]]), malformed);
    assert_eq!(made([NO_SESSION, &[0, 0], COMPRESSION, &[]]), malformed);
    assert_eq!(made([NO_SESSION, &[0, 3, 1, 2, 3], COMPRESSION, &[]]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, &[0], &[]]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, &[], &[]]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[0]]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[0, 0, 0]]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[0, 4, 0, 9, 0, 1]]), malformed);
    // server_name twice.
    let name = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[&[0, 20][..], &name, &name].concat()]), malformed);
    assert_eq!(made([NO_SESSION, SUITES, COMPRESSION, &[&[0, 10][..], &name].concat()]), of(Some("a"), &[]));
}

#[test]
fn a_server_name_is_one_host_name() {
    let malformed = Progress::Refused(Rejection::Malformed);
    assert_eq!(named(&[0, 4, 0, 0, 1, b'A']), of(Some("a"), &[]));
    assert_eq!(named(&[]), malformed);
    assert_eq!(named(&[0, 0]), malformed);
    assert_eq!(named(&[0, 3, 0, 0, 0]), malformed);
    assert_eq!(named(&[0, 4, 1, 0, 1, b'a']), malformed);
    assert_eq!(named(&[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']), malformed);
    assert_eq!(named(&[0, 4, 0, 0, 1, b'a', 0]), malformed);
    assert_eq!(named(&[0, 5, 0, 0, 2, 0xc3, 0xa4]), malformed);
    assert_eq!(named(&[0, 4, 0, 0, 1, b' ']), malformed);
    assert_eq!(named(&[0, 4, 0, 0, 1, 0]), malformed);
    let long = |len: u8| [&[1, 2, 0, 0, 255][..], &vec![b'a'; 255]].concat().split_off(usize::from(255 - len));
    assert_eq!(named(&long(255)), of(Some(&"a".repeat(255)), &[]));
    let longer = [&[1, 3, 0, 1, 0][..], &[b'a'; 256]].concat();
    assert_eq!(named(&longer), malformed);
}

#[test]
fn a_server_that_chooses_before_tls_13_by_extension_is_taken_at_its_word() {
    let mut flight = bytes(golden::SERVER_TLS13);
    let at = flight.windows(6).position(|window| window == [0, 0x2b, 0, 2, 3, 4]).unwrap();
    flight[at + 5] = 3;
    assert!(!server(&flight).is_tls13);
    flight[at + 5] = 5;
    assert!(server(&flight).is_tls13);
}

/// Any bytes at all, in any pieces: no panic, no memory beyond the limit, and the same result however they are cut.
#[test]
fn mutated_hellos_do_no_harm() {
    let flights = [
        golden::CLIENT_TLS12,
        golden::CLIENT_TLS12_AGAIN,
        golden::CLIENT_TLS13,
        golden::CLIENT_NAMELESS,
        golden::CLIENT_CURL,
        golden::SERVER_TLS12,
        golden::SERVER_TLS13,
    ]
    .map(bytes);
    let mut complete = 0;
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut flight = flights[random.usize(..flights.len())].clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..flight.len());
            match random.u8(..5) {
                0 => flight[at] = random.u8(..),
                1 => flight[at] = [0, 1, 0xff, 0x80][random.usize(..4)],
                2 => flight.insert(at, random.u8(..)),
                3 if flight.len() > 1 => drop(flight.remove(at)),
                _ => flight.truncate(at + 1),
            }
        }
        complete += usize::from(in_pieces::<ClientHello>(&flight, &mut random, seed));
        complete += usize::from(in_pieces::<ServerHello>(&flight, &mut random, seed));
    }
    assert!((1000..39_000).contains(&complete), "{complete}: are these mutations of any use?");
}

/// Whether it is one, in whatever pieces.
fn in_pieces<H: Hello + PartialEq + std::fmt::Debug>(flight: &[u8], random: &mut fastrand::Rng, seed: u64) -> bool {
    let whole = read::<H>(flight);
    let mut reader = HelloReader::<H>::default();
    let mut rest = flight;
    let mut pieces = Progress::More;
    while pieces == Progress::More && !rest.is_empty() {
        let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(64)));
        pieces = reader.feed(piece);
        rest = after;
        assert!(reader.message.len() <= MESSAGE_BYTES_MAX && reader.header.len() <= 5, "seed {seed}");
    }
    assert_eq!(pieces, whole, "seed {seed}");
    matches!(whole, Progress::Complete(_))
}

#[test]
fn a_client_may_resume_by_its_id_unless_that_can_only_be_random() {
    const ID: &[u8] = &[9; 32];
    let hello = |extensions: &[u8]| {
        let len = u16::try_from(extensions.len()).unwrap().to_be_bytes();
        made([&[&[32], ID].concat(), SUITES, COMPRESSION, &[&len, extensions].concat()])
    };
    let resumable = |extensions: &[u8]| match hello(extensions) {
        Progress::Complete(hello) => hello.resumable_id().map(<[u8]>::to_vec),
        other => panic!("{other:?}"),
    };
    // No list of versions, TLS 1.3 and 1.2, TLS 1.0 alone.
    assert_eq!(resumable(&[]).as_deref(), Some(ID));
    assert_eq!(resumable(&[0, 43, 0, 5, 4, 3, 4, 3, 3]).as_deref(), Some(ID));
    assert_eq!(resumable(&[0, 43, 0, 3, 2, 3, 1]).as_deref(), Some(ID));
    // TLS 1.3 alone, and beside a version that means nothing.
    assert_eq!(resumable(&[0, 43, 0, 3, 2, 3, 4]), None);
    assert_eq!(resumable(&[0, 43, 0, 5, 4, 0x0a, 0x0a, 3, 4]), None);
    // TLS 1.3 and 1.2, and a session of TLS 1.3.
    assert_eq!(resumable(&[0, 43, 0, 5, 4, 3, 4, 3, 3, 0, 41, 0, 1, 0]), None);
    for malformed in [&[0, 43, 0, 0][..], &[0, 43, 0, 1, 0], &[0, 43, 0, 2, 1, 3], &[0, 43, 0, 4, 2, 3, 4, 0]] {
        assert_eq!(hello(malformed), Progress::Refused(Rejection::Malformed), "{malformed:?}");
    }
    let none = ClientHello { server_name: None, session_id: Vec::new(), is_id_random: false };
    assert_eq!(none.resumable_id(), None);
}
