//! Bytes, freshness, recordings, and one rejection a reason.

use super::*;

const KEY: &[u8] = b"pair key";
const BOOT_A: u64 = 0xa1a1_a1a1_a1a1_a1a1;
const BOOT_B: u64 = 0xb1b1_b1b1_b1b1_b1b1;

fn node_a(boot: u64) -> Channel {
    Channel::new(KEY, "web", "lb-a", "lb-b", 0, boot)
}

fn node_b(boot: u64) -> Channel {
    Channel::new(KEY, "web", "lb-b", "lb-a", 0, boot)
}

/// A hello that can be told from others by its epoch.
fn hello(epoch: u32) -> Hello {
    Hello {
        state: State::Active,
        priority: 250,
        interval: AdvertInterval::new(Duration::from_millis(100)).unwrap(),
        epoch,
        fit: true,
        synced: false,
        claim_request: Some(0x0102_0304),
        handover_request: None,
        pools_up: 3,
        servers_up: 260,
        heard_paths: 0b101,
        config_checksum: [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
        advert_sequence: 0x6b01_87c0_0000_0000,
        advert_stamp: 0x5151_5151_5151_5151,
        heard_stamp: 0x4e4e_4e4e_4e4e_4e4e,
    }
}

fn fresh(epoch: u32) -> Result<Opened, DropReason> {
    Ok(Opened::Fresh(hello(epoch)))
}

const ANSWER: Result<Opened, DropReason> = Ok(Opened::Unproven { answer_now: true });
const WAIT: Result<Opened, DropReason> = Ok(Opened::Unproven { answer_now: false });
const REPLAYED: Result<Opened, DropReason> = Err(DropReason::Replayed);

/// Two nodes that have just established each other.
fn established() -> (Channel, Channel) {
    let (mut a, mut b) = (node_a(BOOT_A), node_b(BOOT_B));
    establish(&mut a, &mut b);
    (a, b)
}

/// `a` is heard first, `b` answers, and with the next hello each is fresh to the other.
fn establish(a: &mut Channel, b: &mut Channel) {
    assert_eq!(b.open(&a.seal(&hello(1))), ANSWER);
    assert_eq!(a.open(&b.seal(&hello(2))), fresh(2));
    assert_eq!(b.open(&a.seal(&hello(3))), fresh(3));
}

/// What lb-a sends first, as computed by Python's hmac and hashlib.
const FIRST: [u8; 115] = [
    0x42, 0x54, 0x4e, 0x48, 0x01, // magic and version
    0x6d, 0x5f, 0x4a, 0x2b, 0xe4, 0x0f, 0x43, 0xb1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, 0xa1, // boot
    0, 0, 0, 0, // challenge
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // echo
    0, 0, 0, 0, 0, 0, 0, 1, // counter
    2, 250, 0x00, 0x64, 0, 0, 0, 7, 0b0101, 0b101, // active, priority, 100 ms, epoch, flags, paths
    0, 3, 0x01, 0x04, 1, 2, 3, 4, 0, 0, 0, 0, // pools, servers, requests
    0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, // checksum
    0x6b, 0x01, 0x87, 0xc0, 0, 0, 0, 0, // sequence
    0x51, 0x51, 0x51, 0x51, 0x51, 0x51, 0x51, 0x51, // stamp
    0x4e, 0x4e, 0x4e, 0x4e, 0x4e, 0x4e, 0x4e, 0x4e, // heard stamp
    0xd3, 0xd3, 0xa4, 0x36, 0x40, 0xf3, 0xf8, 0xd8, 0xdd, 0x23, 0x17, 0x11, 0xb2, 0x6e, 0x14, 0x31,
];

#[test]
fn first_hello_has_these_bytes() {
    assert_eq!(node_a(BOOT_A).seal(&hello(7)), FIRST);
    assert_eq!(node_b(BOOT_B).open(&FIRST), ANSWER);
    assert_eq!(tag("web"), [0x6d, 0x5f, 0x4a, 0x2b, 0xe4, 0x0f, 0x43, 0xb1]);
    assert_eq!(tag_of(&FIRST), Some(tag("web")));
}

#[test]
fn second_hello_echoes_what_was_heard() {
    let (mut a, mut b) = (node_a(BOOT_A), node_b(BOOT_B));
    b.open(&a.seal(&hello(1))).unwrap();
    let answer = b.seal(&hello(2));
    assert_eq!(answer[13..21], [0xb1; 8]);
    assert_eq!(answer[25..33], [0xa1; 8]);
    assert_eq!(answer[33..37], [0, 0, 0, 0]);
    a.open(&answer).unwrap();
    // A boot has proved itself to lb-a, so that its challenge went up.
    let next = a.seal(&hello(3));
    assert_eq!(next[21..25], [0, 0, 0, 1]);
    assert_eq!(next[25..33], [0xb1; 8]);
    assert_eq!(next[37..45], [0, 0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn everything_that_a_hello_says_arrives() {
    for seed in 0..1_000 {
        let (mut a, mut b) = established();
        let mut random = fastrand::Rng::with_seed(seed);
        let hello = Hello {
            state: [State::Init, State::Backup, State::Active][random.usize(0..3)],
            priority: random.u8(..),
            interval: AdvertInterval::new(Duration::from_millis(random.u64(1..=4095) * 10)).unwrap(),
            epoch: random.u32(..),
            fit: random.bool(),
            synced: random.bool(),
            claim_request: random.bool().then(|| random.u32(..)),
            handover_request: random.bool().then(|| random.u32(..)),
            pools_up: random.u16(..),
            servers_up: random.u16(..),
            heard_paths: random.u8(..),
            config_checksum: random.u64(..).to_be_bytes(),
            advert_sequence: random.u64(..),
            advert_stamp: random.u64(..),
            heard_stamp: random.u64(..),
        };
        assert_eq!(b.open(&a.seal(&hello)), Ok(Opened::Fresh(hello)), "seed {seed}");
    }
}

#[test]
fn two_that_begin_to_speak_at_once_establish_each_other() {
    let (mut a, mut b) = (node_a(BOOT_A), node_b(BOOT_B));
    let (of_a, of_b) = (a.seal(&hello(1)), b.seal(&hello(2)));
    assert_eq!((a.open(&of_b), b.open(&of_a)), (ANSWER, ANSWER));
    let (of_a, of_b) = (a.seal(&hello(3)), b.seal(&hello(4)));
    assert_eq!((a.open(&of_b), b.open(&of_a)), (fresh(4), fresh(3)));
    let (of_a, of_b) = (a.seal(&hello(5)), b.seal(&hello(6)));
    assert_eq!((a.open(&of_b), b.open(&of_a)), (fresh(6), fresh(5)));
    assert_eq!((a.peer_boot(), b.peer_boot()), (Some(BOOT_B), Some(BOOT_A)));
}

#[test]
fn lost_answers_are_repeated_once_for_each_hello_of_our_own() {
    let (mut a, mut b) = (node_a(BOOT_A), node_b(BOOT_B));
    assert_eq!(b.open(&a.seal(&hello(1))), ANSWER);
    let _lost_answer = b.seal(&hello(2));
    assert_eq!(b.open(&a.seal(&hello(3))), WAIT);
    assert_eq!(b.open(&a.seal(&hello(4))), WAIT);
    let _lost = b.seal(&hello(5));
    assert_eq!(b.open(&a.seal(&hello(6))), ANSWER);
    assert_eq!(b.open(&a.seal(&hello(7))), WAIT);
    assert_eq!(a.open(&b.seal(&hello(8))), fresh(8));
    assert_eq!(b.open(&a.seal(&hello(9))), fresh(9));
}

#[test]
fn within_a_boot_the_counter_has_to_grow() {
    let (mut a, mut b) = established();
    let [first, second, third, fourth] = [11, 12, 13, 14].map(|epoch| a.seal(&hello(epoch)));
    assert_eq!(b.open(&second), fresh(12));
    assert_eq!(b.open(&second), REPLAYED);
    assert_eq!(b.open(&first), REPLAYED);
    assert_eq!(b.open(&fourth), fresh(14));
    assert_eq!(b.open(&third), REPLAYED);
}

#[test]
fn counter_of_an_unproven_boot_has_to_grow_too() {
    let (mut a, mut b) = (node_a(BOOT_A), node_b(BOOT_B));
    let [first, second] = [1, 2].map(|epoch| a.seal(&hello(epoch)));
    assert_eq!(b.open(&second), ANSWER);
    assert_eq!(b.open(&second), REPLAYED);
    assert_eq!(b.open(&first), REPLAYED);
}

#[test]
fn peer_that_restarts_is_established_anew_within_three_hellos() {
    let (_, mut b) = established();
    let mut a = node_a(0xa2);
    establish(&mut a, &mut b);
    assert_eq!(b.peer_boot(), Some(0xa2));
    assert_eq!(a.open(&b.seal(&hello(4))), fresh(4));
}

#[test]
fn peer_that_restarts_establishes_itself_by_our_next_hello_even_without_an_answer() {
    let (_, mut b) = established();
    let mut a = node_a(0xa2);
    assert_eq!(a.open(&b.seal(&hello(4))), ANSWER);
    assert_eq!(b.open(&a.seal(&hello(5))), fresh(5));
}

#[test]
fn recordings_prove_nothing_after_we_restarted() {
    let (mut a, mut b) = established();
    let recorded: Vec<_> = (0..10).map(|epoch| a.seal(&hello(epoch))).collect();
    for datagram in &recorded {
        assert!(matches!(b.open(datagram), Ok(Opened::Fresh(_))));
    }
    let mut restarted = node_b(0xb2);
    for datagram in &recorded {
        assert!(matches!(restarted.open(datagram), Ok(Opened::Unproven { .. })));
        restarted.seal(&hello(0));
    }
    assert_eq!(restarted.peer_boot(), None);
}

/// The peer restarted and we did not: its old hellos echo our boot, and a challenge that is used up.
#[test]
fn recordings_of_a_past_boot_of_the_peer_prove_nothing() {
    let (mut a, mut b) = established();
    let mut recorded = Vec::new();
    for epoch in 0..10 {
        recorded.push(a.seal(&hello(epoch)));
        b.open(recorded.last().unwrap()).unwrap();
        a.open(&b.seal(&hello(epoch))).unwrap();
    }
    // Hellos that never arrived: they echo the last challenge, and their counters are above any that we know.
    recorded.extend((10..20).map(|epoch| a.seal(&hello(epoch))));
    let mut restarted = node_a(0xa2);
    establish(&mut restarted, &mut b);
    for datagram in &recorded {
        assert!(matches!(b.open(datagram), Ok(Opened::Unproven { .. })));
        b.seal(&hello(0));
    }
    assert_eq!(b.peer_boot(), Some(0xa2));
    assert_eq!(b.open(&restarted.seal(&hello(21))), fresh(21));
}

#[test]
fn recordings_cost_an_answer_each_and_disturb_nobody() {
    // Hellos of twenty past boots, each of which once talked to this very process.
    let mut b = node_b(BOOT_B);
    let mut recorded = Vec::new();
    for boot in 1..=20 {
        let mut a = node_a(boot);
        establish(&mut a, &mut b);
        recorded.extend((0..3).map(|epoch| a.seal(&hello(epoch))));
    }
    let mut a = node_a(BOOT_A);
    establish(&mut a, &mut b);
    let mut random = fastrand::Rng::with_seed(1);
    for epoch in 0..1_000 {
        for _ in 0..random.usize(0..5) {
            if let Ok(opened) = b.open(&recorded[random.usize(0..recorded.len())]) {
                let Opened::Unproven { answer_now } = opened else { panic!("a recording is fresh") };
                if answer_now {
                    // It echoes somebody else, which the peer does not mind.
                    assert_eq!(a.open(&b.seal(&hello(epoch))), fresh(epoch));
                }
            }
        }
        assert_eq!(b.open(&a.seal(&hello(epoch))), fresh(epoch));
        assert_eq!(a.open(&b.seal(&hello(epoch))), fresh(epoch));
    }
    assert_eq!((a.peer_boot(), b.peer_boot()), (Some(BOOT_B), Some(BOOT_A)));
}

#[test]
fn recordings_do_not_keep_a_peer_that_restarts_from_being_heard() {
    let mut b = node_b(BOOT_B);
    let recorded: Vec<_> = (1..=20).map(|boot| node_a(boot).seal(&hello(0))).collect();
    let mut a = node_a(BOOT_A);
    establish(&mut a, &mut b);
    let mut restarted = node_a(0xa2);
    let flood = |b: &mut Channel| {
        for datagram in &recorded {
            if b.open(datagram) == ANSWER {
                b.seal(&hello(0));
            }
        }
    };
    flood(&mut b);
    assert_eq!(b.open(&restarted.seal(&hello(1))), ANSWER);
    let answer = b.seal(&hello(2));
    flood(&mut b);
    assert_eq!(restarted.open(&answer), fresh(2));
    flood(&mut b);
    assert_eq!(b.open(&restarted.seal(&hello(3))), fresh(3));
    flood(&mut b);
    assert_eq!(b.open(&restarted.seal(&hello(4))), fresh(4));
}

#[test]
fn our_own_hello_is_refused_when_it_comes_back() {
    let (mut a, _) = established();
    let own = a.seal(&hello(1));
    assert_eq!(a.open(&own), Err(DropReason::WrongHmac));
    // Also by a process that has the same boot as its peer.
    let mut twin = node_a(BOOT_B);
    let own = twin.seal(&hello(1));
    assert_eq!(twin.open(&own), Err(DropReason::WrongHmac));
}

#[test]
fn hello_is_bound_to_vip_path_names_and_key() {
    let open = |mut sender: Channel| node_b(BOOT_B).open(&sender.seal(&hello(1)));
    assert_eq!(open(Channel::new(KEY, "web", "lb-a", "lb-b", 0, BOOT_A)), ANSWER);
    assert_eq!(open(Channel::new(KEY, "mail", "lb-a", "lb-b", 0, BOOT_A)), Err(DropReason::UnknownVip));
    assert_eq!(open(Channel::new(KEY, "web", "lb-a", "lb-b", 1, BOOT_A)), Err(DropReason::WrongHmac));
    assert_eq!(open(Channel::new(KEY, "web", "lb-c", "lb-b", 0, BOOT_A)), Err(DropReason::WrongHmac));
    assert_eq!(open(Channel::new(KEY, "web", "lb-a", "lb-c", 0, BOOT_A)), Err(DropReason::WrongHmac));
    assert_eq!(open(Channel::new(KEY, "web", "lb-al", "b-b", 0, BOOT_A)), Err(DropReason::WrongHmac));
    assert_eq!(open(Channel::new(b"pair keY", "web", "lb-a", "lb-b", 0, BOOT_A)), Err(DropReason::WrongHmac));
}

#[test]
fn boot_zero_is_taken_for_one() {
    // Nobody's echo is zeros, and must not prove anything.
    let mut b = node_b(0);
    assert_eq!(b.open(&node_a(BOOT_A).seal(&hello(1))), ANSWER);
    assert_eq!(b.seal(&hello(2))[13..21], [0, 0, 0, 0, 0, 0, 0, 1]);
}

/// Puts `change`d bytes under a good HMAC of lb-a.
fn signed(datagram: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = datagram[..datagram.len() - MAC_LEN].to_vec();
    change(&mut bytes);
    let mac = mac(&node_a(BOOT_A).sending, &bytes);
    bytes.extend(mac);
    bytes
}

#[test]
fn what_a_later_release_adds_is_covered_and_ignored() {
    let (mut a, mut b) = established();
    let longer = |datagram: Vec<u8>, more: usize| signed(&datagram, |bytes| bytes.extend(vec![0xee; more]));
    let one_more = longer(a.seal(&hello(4)), 1);
    assert_eq!(b.open(&one_more), fresh(4));
    let longest = longer(a.seal(&hello(5)), 45);
    assert_eq!(longest.len(), 160);
    let mut damaged = longest.clone();
    damaged[100] ^= 1;
    assert_eq!(b.open(&damaged), Err(DropReason::WrongHmac));
    assert_eq!(b.open(&longest), fresh(5));
    let too_long = longer(a.seal(&hello(6)), 46);
    assert_eq!(b.open(&too_long), Err(DropReason::TrailingBytes));
    assert_eq!(tag_of(&too_long), None);
    // Flags that we do not know.
    let flags = signed(&a.seal(&hello(7)), |bytes| bytes[53] |= 0xf0);
    assert_eq!(b.open(&flags), fresh(7));
}

#[test]
fn shorter_datagrams_are_refused() {
    for len in 0..4 {
        assert_eq!(node_b(BOOT_B).open(&FIRST[..len]), Err(DropReason::NotHello), "{len} bytes");
    }
    for len in 4..115 {
        assert_eq!(node_b(BOOT_B).open(&FIRST[..len]), Err(DropReason::Short), "{len} bytes");
        assert_eq!(tag_of(&FIRST[..len]), None);
    }
    let without_last_byte = signed(&FIRST, |bytes| bytes.truncate(98));
    assert_eq!(node_b(BOOT_B).open(&without_last_byte), Err(DropReason::Short));
}

#[test]
fn other_datagrams_and_other_versions_are_refused() {
    let refused = |at: usize, byte: u8| node_b(BOOT_B).open(&signed(&FIRST, |bytes| bytes[at] = byte));
    assert_eq!(refused(0, b'b'), Err(DropReason::NotHello));
    assert_eq!(refused(3, b'h'), Err(DropReason::NotHello));
    assert_eq!(refused(4, 0), Err(DropReason::WrongVersion));
    assert_eq!(refused(4, 2), Err(DropReason::WrongVersion));
    assert_eq!(refused(5, 0), Err(DropReason::UnknownVip));
    assert_eq!(refused(12, 0), Err(DropReason::UnknownVip));
}

#[test]
fn genuine_hello_that_says_what_cannot_be_is_refused_and_counts_for_nothing() {
    let (mut a, mut b) = established();
    let datagram = a.seal(&hello(4));
    let says =
        |changes: &[(usize, u8)]| signed(&datagram, |bytes| changes.iter().for_each(|(at, byte)| bytes[*at] = *byte));
    assert_eq!(b.open(&says(&[(45, 3)])), Err(DropReason::BadHello));
    assert_eq!(b.open(&says(&[(45, 255)])), Err(DropReason::BadHello));
    assert_eq!(b.open(&says(&[(48, 0)])), Err(DropReason::BadHello));
    assert_eq!(b.open(&says(&[(48, 101)])), Err(DropReason::BadHello));
    // 40,960 ms.
    assert_eq!(b.open(&says(&[(47, 0xa0), (48, 0x00)])), Err(DropReason::BadHello));
    assert_eq!(b.open(&datagram), fresh(4));
}

#[test]
fn every_single_bit_counts() {
    let (mut a, b) = established();
    let datagram = a.seal(&hello(4));
    for bit in 0..99 * 8 {
        let mut damaged = datagram.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut b = b.clone();
        assert!(b.open(&damaged).is_err(), "bit {bit}");
        assert_eq!(b.open(&datagram), fresh(4), "bit {bit}");
    }
}

#[test]
fn keys_are_never_shown() {
    let shown = format!("{:?}", node_a(BOOT_A));
    assert!(shown.contains("sending: Key { algorithm: SHA256 }, receiving: Key { algorithm: SHA256 },"), "{shown}");
}

#[test]
fn stamps_tell_when_the_last_sixteen_adverts_were_sent() {
    let zero = Instant::now();
    let at = |ms| zero + Duration::from_millis(ms);
    let mut stamps = Stamps::new(u64::MAX);
    let sent: Vec<u64> = (0..17).map(|ms| stamps.next(at(ms))).collect();
    assert_eq!(sent[0], 0x8000_0000_0000_0000);
    assert_eq!(stamps.sent_at(sent[0]), None);
    assert_eq!(stamps.sent_at(sent[1]), Some(at(1)));
    assert_eq!(stamps.sent_at(sent[16]), Some(at(16)));
    assert_eq!(stamps.sent_at(sent[16] + 1), None);
    assert_eq!(stamps.sent_at(0), None);
    assert_eq!(Stamps::new(7).sent_at(sent[16]), None);
    assert_eq!(Stamps::new(0).next(zero), 1);
}
