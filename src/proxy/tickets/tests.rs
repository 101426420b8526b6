use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const START: Duration = Duration::from_secs(1_790_000_000);

/// Keys of a node that made one at a time.
fn tickets_made_at(times: &[Duration]) -> Arc<Tickets> {
    let tickets = Arc::new(Tickets::default());
    for &time in times {
        assert!(tickets.rotate_if_due(time, true));
    }
    tickets
}

fn listener(tickets: &Arc<Tickets>) -> Arc<dyn ProducesTickets> {
    tickets.of_listener("https", b"")
}

fn key_count(tickets: &Tickets) -> usize {
    tickets.read().0.len()
}

#[test]
fn a_ticket_is_read_by_the_node_that_wrote_it_and_by_one_that_adopted_its_keys_and_by_no_other() {
    let (one, other) = (tickets_made_at(&[START]), Arc::new(Tickets::default()));
    let ticket = listener(&one).encrypt(b"state").unwrap();
    assert_eq!(ticket.len(), 16 + 12 + 5 + 16);
    assert_eq!(listener(&one).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
    assert_eq!(listener(&other).decrypt(&ticket), None);
    assert_eq!(listener(&tickets_made_at(&[START])).decrypt(&ticket), None);
    assert_eq!(other.adopt(&one.export(), START), Ok(Adopted::Same));
    assert_eq!(listener(&other).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
}

#[test]
fn a_ticket_begins_with_the_id_of_its_key_and_no_two_are_alike() {
    let tickets = tickets_made_at(&[START]);
    let (first, second) =
        (listener(&tickets).encrypt(b"state").unwrap(), listener(&tickets).encrypt(b"state").unwrap());
    assert_eq!(first[..16], tickets.read().0[0].id);
    assert_eq!(first[..16], second[..16]);
    assert_ne!(first[16..28], second[16..28]);
    assert_ne!(first[28..33], second[28..33]);
}

#[test]
fn a_ticket_of_one_listener_is_nothing_to_another() {
    let tickets = tickets_made_at(&[START]);
    let ticket = tickets.of_listener("https", b"").encrypt(b"state").unwrap();
    assert_eq!(tickets.of_listener("other", b"").decrypt(&ticket), None);
    assert_eq!(tickets.of_listener("", b"").decrypt(&ticket), None);
    assert_eq!(tickets.of_listener("https", b"other terms").decrypt(&ticket), None);
}

#[test]
fn a_ticket_that_was_tampered_with_or_cut_off_is_refused() {
    let tickets = tickets_made_at(&[START]);
    let ticket = listener(&tickets).encrypt(b"state").unwrap();
    for position in 0..ticket.len() {
        let mut tampered = ticket.clone();
        tampered[position] ^= 1;
        assert_eq!(listener(&tickets).decrypt(&tampered), None, "byte {position}");
        assert_eq!(listener(&tickets).decrypt(&ticket[..position]), None, "{position} bytes");
    }
    assert_eq!(listener(&tickets).decrypt(&[ticket, vec![0]].concat()), None);
}

#[test]
fn without_a_key_there_are_no_tickets() {
    let tickets = Arc::new(Tickets::default());
    assert!(!tickets.rotate_if_due(START, false));
    assert!(!listener(&tickets).enabled());
    assert_eq!(listener(&tickets).encrypt(b"state"), None);
    assert!(tickets.export().is_empty());
    assert!(tickets.rotate_if_due(START, true));
    assert!(listener(&tickets).enabled());
}

#[test]
fn the_active_node_makes_a_key_every_8_hours_and_the_standby_none() {
    let tickets = tickets_made_at(&[START]);
    let last = START + 8 * HOUR - Duration::from_secs(1);
    assert!(!tickets.rotate_if_due(last, true));
    assert!(!tickets.rotate_if_due(START + 100 * HOUR, false));
    assert!(tickets.rotate_if_due(START + 8 * HOUR, true));
    assert!(!tickets.rotate_if_due(START + 8 * HOUR, true));
}

#[test]
fn an_old_key_decrypts_until_24_hours_after_it_was_made() {
    let tickets = tickets_made_at(&[START]);
    let ticket = listener(&tickets).encrypt(b"state").unwrap();
    for hours in [8, 16] {
        assert!(tickets.rotate_if_due(START + hours * HOUR, true));
        assert_eq!(listener(&tickets).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_ne!(listener(&tickets).encrypt(b"state").unwrap()[..16], ticket[..16]);
    }
    tickets.rotate_if_due(START + 24 * HOUR - Duration::from_secs(1), true);
    assert_eq!(listener(&tickets).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
    tickets.rotate_if_due(START + 24 * HOUR, true);
    assert_eq!(listener(&tickets).decrypt(&ticket), None);
    assert_eq!(key_count(&tickets), 3);
    assert_eq!(listener(&tickets).lifetime(), 16 * 3600);
}

#[test]
fn the_newest_key_never_expires() {
    let tickets = tickets_made_at(&[START]);
    let ticket = listener(&tickets).encrypt(b"state").unwrap();
    tickets.rotate_if_due(START + 1000 * HOUR, false);
    assert_eq!(listener(&tickets).decrypt(&ticket).as_deref(), Some(&b"state"[..]));
}

#[test]
fn nodes_that_made_keys_apart_agree_on_one_and_read_all() {
    let (one, other) = (tickets_made_at(&[START, START + 8 * HOUR]), tickets_made_at(&[START + 9 * HOUR]));
    let ticket_of_one = listener(&one).encrypt(b"one").unwrap();
    let ticket_of_other = listener(&other).encrypt(b"other").unwrap();
    let now = START + 10 * HOUR;
    assert_eq!(other.adopt(&one.export(), now), Ok(Adopted::Ahead));
    assert_eq!(one.adopt(&other.export(), now), Ok(Adopted::Same));
    assert_eq!(one.export(), other.export());
    for tickets in [&one, &other] {
        assert_eq!(key_count(tickets), 3);
        assert_eq!(listener(tickets).decrypt(&ticket_of_one).as_deref(), Some(&b"one"[..]));
        assert_eq!(listener(tickets).decrypt(&ticket_of_other).as_deref(), Some(&b"other"[..]));
        // One rotated once more, so its newest key is the newer one.
        assert_eq!(listener(tickets).encrypt(b"").unwrap()[..16], ticket_of_one[..16]);
    }
}

#[test]
fn keys_are_merged_alike_in_both_directions_and_twice_as_once() {
    let (one, other) = (tickets_made_at(&[START]), tickets_made_at(&[START]));
    let (of_one, of_other) = (one.export(), other.export());
    assert_eq!(one.adopt(&of_other, START), Ok(Adopted::Ahead));
    assert_eq!(other.adopt(&of_one, START), Ok(Adopted::Ahead));
    assert_eq!(one.export(), other.export());
    assert_eq!(one.adopt(&other.export(), START), Ok(Adopted::Same));
    assert_eq!(key_count(&one), 2);
}

#[test]
fn a_set_has_six_keys_at_most_and_the_newest_stay() {
    let times: Vec<_> = (0..4).map(|turn| START + turn * 8 * HOUR).collect();
    let now = START + 25 * HOUR;
    let veteran = tickets_made_at(&times);
    assert_eq!(key_count(&veteran), 3);
    let newest = veteran.read().0[0].id;
    for _ in 0..5 {
        // A node that is started again and again, each time with a key of its own.
        veteran.adopt(&tickets_made_at(&[now]).export(), now).unwrap();
    }
    let keys = veteran.read();
    assert_eq!(keys.0.len(), 6);
    assert_eq!(keys.0[0].id, newest);
    assert_eq!(keys.0.iter().map(|key| key.generation).collect::<Vec<_>>(), [4, 3, 2, 1, 1, 1]);
}

#[test]
fn a_clock_that_is_ahead_holds_up_no_rotation_on_the_other_node() {
    let ahead = tickets_made_at(&[START + 1000 * HOUR]);
    let tickets = Arc::new(Tickets::default());
    assert_eq!(tickets.adopt(&ahead.export(), START), Ok(Adopted::Ahead));
    assert_eq!(ahead.adopt(&tickets.export(), START + 1000 * HOUR), Ok(Adopted::Same));
    assert!(!tickets.rotate_if_due(START + 7 * HOUR, true));
    assert!(tickets.rotate_if_due(START + 8 * HOUR, true));
}

#[test]
fn an_encoded_set_has_its_format_and_then_each_key() {
    let tickets = Tickets::default();
    let encoded =
        [&[1][..], &[0, 0, 0, 0, 0, 0, 0, 9], &[0, 0, 0, 0, 0x6a, 0xb1, 0x3b, 0x80], &[0xaa; 16], &[0xbb; 32]].concat();
    assert_eq!(tickets.adopt(&encoded, START), Ok(Adopted::Same));
    assert_eq!(tickets.export(), encoded);
    let keys = tickets.read();
    assert_eq!((keys.0[0].generation, keys.0[0].made_at_s), (9, 1_790_000_000));
    assert_eq!((keys.0[0].id, *keys.0[0].secret.0), ([0xaa; 16], [0xbb; 32]));
}

#[test]
fn bytes_that_are_no_set_are_refused_and_change_nothing() {
    let set = tickets_made_at(&[START]).export();
    let tickets = tickets_made_at(&[START]);
    let before = tickets.export();
    for len in 1..set.len() {
        assert_eq!(tickets.adopt(&set[..len], START), Err(AdoptError::Length { len_bytes: len }));
    }
    assert_eq!(tickets.adopt(&[], START), Err(AdoptError::Length { len_bytes: 0 }));
    let longer = [&set[..], &[0]].concat();
    assert_eq!(tickets.adopt(&longer, START), Err(AdoptError::Length { len_bytes: 66 }));
    let seven = [&[1][..], &set[1..].repeat(7)].concat();
    assert_eq!(tickets.adopt(&seven, START), Err(AdoptError::Length { len_bytes: 449 }));
    let newer = [&[2][..], &set[1..]].concat();
    assert_eq!(tickets.adopt(&newer, START), Err(AdoptError::Format(2)));
    let endless = [&[1][..], &u64::MAX.to_be_bytes(), &set[9..]].concat();
    assert_eq!(tickets.adopt(&endless, START), Err(AdoptError::Generation(u64::MAX)));
    assert_eq!(tickets.export(), before);
}

#[test]
fn no_secret_is_shown_by_debug() {
    let tickets = Arc::new(Tickets::default());
    tickets.adopt(&[&[1][..], &[0; 16], &[0xaa; 16], &[0xbb; 32]].concat(), START).unwrap();
    let shown = format!("{tickets:?} {:?}", listener(&tickets));
    assert!(shown.contains("generation: 0"), "{shown}");
    // 187 and 170 in decimal.
    assert!(!shown.contains("187") && !shown.contains("170"), "{shown}");
}

/// Whatever a peer or a client sends: no panic, and no more keys than there may be.
#[test]
fn mutated_sets_and_tickets_do_no_harm() {
    let tickets = tickets_made_at(&[START, START + 8 * HOUR]);
    let (set, ticket) = (tickets.export(), listener(&tickets).encrypt(b"state").unwrap());
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut mutated = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = !bytes[at],
                1 => bytes.insert(at, random.u8(..)),
                2 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
            bytes
        };
        let other = Tickets::default();
        let adopted = other.adopt(&mutated(&set), START);
        assert_eq!(adopted.is_err(), other.export().is_empty(), "seed {seed}");
        assert!(key_count(&other) <= 6, "seed {seed}");
        assert_eq!(listener(&tickets).decrypt(&mutated(&ticket)), None, "seed {seed}");
    }
}
