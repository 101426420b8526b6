use std::time::{Duration, Instant};

use super::*;

const PAIR_KEY: [u8; 32] = [7; 32];
const MS: Duration = Duration::from_millis(1);
const WITNESS_BOOT: u64 = 0x77;

/// A witness that has been there for a minute, and two nodes that know it.
struct Stage {
    now: Instant,
    server: Server,
    a: Client,
    b: Client,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn client(node: &str, boot: u64) -> Client {
    Client::new(Key::derived(&PAIR_KEY), name(node), name("web"), boot)
}

fn server(now: Instant, boot: u64) -> Server {
    Server::new(vec![Key::derived(&PAIR_KEY)], boot, now)
}

impl Stage {
    fn new() -> Self {
        let start = Instant::now();
        let mut stage =
            Self { now: start, server: server(start, WITNESS_BOOT), a: client("lb-a", 0xa), b: client("lb-b", 0xb) };
        stage.pass(60_000);
        stage.look();
        stage
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn look(&mut self) {
        let (now, server) = (self.now, &mut self.server);
        for client in [&mut self.a, &mut self.b] {
            let question = client.look(now);
            assert!(matches!(exchange(server, client, now, &question), Answer::Seen { .. }));
        }
    }

    fn a_asks(&mut self, ms: u64) -> Answer {
        let question = self.a.ask(self.now, Duration::from_millis(ms));
        exchange(&mut self.server, &mut self.a, self.now, &question)
    }

    fn b_asks(&mut self, ms: u64) -> Answer {
        let question = self.b.ask(self.now, Duration::from_millis(ms));
        exchange(&mut self.server, &mut self.b, self.now, &question)
    }

    fn granted(&self, ms: u64) -> Answer {
        Answer::Granted { until: self.now + Duration::from_millis(ms) }
    }
}

/// One question, its answer, and whatever that leads to, in no time.
fn exchange(server: &mut Server, client: &mut Client, now: Instant, question: &[u8]) -> Answer {
    let reply = server.handle(now, question).expect("an answer");
    assert_eq!(reply.datagram.len(), question.len());
    match client.answer(now, &reply.datagram).expect("a meaning") {
        Answer::Again(question) => exchange(server, client, now, &question),
        answer => answer,
    }
}

fn held(node: &str, left_ms: u64) -> Answer {
    Answer::Refused(Refusal::Held { holder: name(node), left: Duration::from_millis(left_ms) })
}

#[test]
fn lease_goes_to_one_node_until_it_runs_out() {
    let mut stage = Stage::new();
    assert_eq!(stage.a_asks(400), stage.granted(400));
    stage.pass(399);
    // The witness counts 400 ms and a sixty-fourth.
    assert_eq!(stage.b_asks(400), held("lb-a", 7));
    stage.pass(7);
    assert!(!stage.a.is_held(stage.now));
    assert_eq!(stage.b_asks(400), held("lb-a", 0));
    stage.pass(1);
    assert_eq!(stage.b_asks(400), stage.granted(400));
    assert_eq!(stage.a_asks(400), held("lb-b", 406));
}

#[test]
fn renewed_lease_stays() {
    let mut stage = Stage::new();
    for _ in 0..50 {
        assert_eq!(stage.a_asks(400), stage.granted(400));
        stage.pass(300);
        assert!(matches!(stage.b_asks(400), Answer::Refused(Refusal::Held { .. })));
    }
}

#[test]
fn renewal_never_shortens_a_lease() {
    let mut stage = Stage::new();
    let first = stage.granted(5000);
    assert_eq!(stage.a_asks(5000), first);
    stage.pass(1000);
    assert_eq!(stage.a_asks(100), first);
    assert_eq!(stage.b_asks(100), held("lb-a", 4078));
}

#[test]
fn lease_given_back_is_free_at_once() {
    let mut stage = Stage::new();
    stage.a_asks(5000);
    let question = stage.a.give_back(stage.now);
    assert!(!stage.a.is_held(stage.now));
    assert_eq!(exchange(&mut stage.server, &mut stage.a, stage.now, &question), Answer::Seen { holder: None });
    assert_eq!(stage.b_asks(400), stage.granted(400));
}

#[test]
fn one_node_cannot_give_back_what_the_other_holds() {
    let mut stage = Stage::new();
    stage.a_asks(5000);
    let question = stage.b.give_back(stage.now);
    let answer = exchange(&mut stage.server, &mut stage.b, stage.now, &question);
    assert_eq!(answer, Answer::Seen { holder: Some(name("lb-a")) });
    assert_eq!(stage.b_asks(400), held("lb-a", 5078));
}

#[test]
fn lease_is_cut_to_its_limits() {
    let mut stage = Stage::new();
    assert_eq!(stage.a_asks(99), stage.granted(100));
    assert_eq!(stage.a_asks(5000), stage.granted(5000));
    stage.pass(5_100);
    assert_eq!(stage.b_asks(60_000), stage.granted(5000));
}

#[test]
fn lease_counts_from_the_question_not_from_the_answer() {
    let mut stage = Stage::new();
    let asked = stage.now;
    let question = stage.a.ask(asked, 400 * MS);
    stage.pass(150);
    let reply = stage.server.handle(stage.now, &question).unwrap();
    stage.pass(150);
    assert_eq!(stage.a.answer(stage.now, &reply.datagram), Ok(Answer::Granted { until: asked + 400 * MS }));
}

#[test]
fn a_second_process_under_the_same_name_is_another_holder() {
    let mut stage = Stage::new();
    stage.a_asks(1000);
    stage.a = client("lb-a", 0xa2);
    assert_eq!(stage.a_asks(1000), held("lb-a", 1015));
}

#[test]
fn vips_and_pairs_are_lent_apart() {
    let mut stage = Stage::new();
    stage.a_asks(1000);
    let mut other_vip = Client::new(Key::derived(&PAIR_KEY), name("lb-b"), name("mail"), 0xb);
    let question = other_vip.ask(stage.now, 1000 * MS);
    let answer = exchange(&mut stage.server, &mut other_vip, stage.now, &question);
    assert_eq!(answer, Answer::Granted { until: stage.now + 1000 * MS });

    let keys = vec![Key::derived(&PAIR_KEY), Key::derived(&[8; 32])];
    let mut server = Server::new(keys, 0x78, stage.now - Duration::from_secs(60));
    let mut other_pair = Client::new(Key::derived(&[8; 32]), name("lb-b"), name("web"), 0xb);
    for client in [&mut stage.a, &mut other_pair] {
        let question = client.ask(stage.now, 1000 * MS);
        let answer = exchange(&mut server, client, stage.now, &question);
        assert_eq!(answer, Answer::Granted { until: stage.now + 1000 * MS });
    }
}

#[test]
fn first_request_is_asked_again_with_a_stamp() {
    let mut stage = Stage::new();
    let mut fresh = client("lb-a", 0xa3);
    let question = fresh.ask(stage.now, 400 * MS);
    let reply = stage.server.handle(stage.now, &question).unwrap();
    assert_eq!(reply.change, None);
    let Ok(Answer::Again(question)) = fresh.answer(stage.now, &reply.datagram) else { panic!("it must ask again") };
    stage.pass(20);
    let reply = stage.server.handle(stage.now, &question).unwrap();
    let asked_again = stage.now - 20 * MS;
    assert_eq!(fresh.answer(stage.now, &reply.datagram), Ok(Answer::Granted { until: asked_again + 400 * MS }));
}

#[test]
fn recorded_requests_do_nothing() {
    let mut stage = Stage::new();
    let asked = stage.a.ask(stage.now, 1000 * MS);
    let granted = stage.server.handle(stage.now, &asked).unwrap();
    stage.a.answer(stage.now, &granted.datagram).unwrap();
    let given_back = stage.a.give_back(stage.now);
    stage.server.handle(stage.now, &given_back).unwrap();
    // The request of a node that holds nothing any more must not keep the other one out.
    assert_eq!(stage.server.handle(stage.now, &asked).unwrap().change, None);
    assert_eq!(stage.b_asks(1000), stage.granted(1000));
    stage.pass(1_020);
    assert_eq!(stage.a_asks(1000), stage.granted(1000));
    // Nor may an old return take the lease from who holds it again.
    assert_eq!(stage.server.handle(stage.now, &given_back).unwrap().change, None);
    assert_eq!(stage.b_asks(1000), held("lb-a", 1015));
}

#[test]
fn recorded_requests_do_nothing_after_their_node_was_forgotten() {
    let mut stage = Stage::new();
    let asked = stage.a.ask(stage.now, 1000 * MS);
    stage.server.handle(stage.now, &asked).unwrap();
    // Others make the witness forget what it keeps of this node: not before the stamp is too old.
    for number in 0..4_u64 {
        stage.pass(2_600);
        let mut other = client(&format!("lb-{number}"), number + 1);
        let question = other.ask(stage.now, 100 * MS);
        exchange(&mut stage.server, &mut other, stage.now, &question);
    }
    stage.pass(200);
    let reply = stage.server.handle(stage.now, &asked).unwrap();
    assert_eq!(reply.change, None);
    assert_eq!(stage.b_asks(1000), Answer::Refused(Refusal::Full));
    stage.pass(2_600);
    assert_eq!(stage.b_asks(1000), stage.granted(1000));
}

#[test]
fn late_request_is_granted_no_more_once_its_node_gave_the_lease_back() {
    let mut stage = Stage::new();
    let late = stage.a.ask(stage.now, 1000 * MS);
    let given_back = stage.a.give_back(stage.now);
    stage.server.handle(stage.now, &given_back).unwrap();
    let reply = stage.server.handle(stage.now, &late).unwrap();
    assert_eq!(reply.change, None);
    assert_eq!(stage.a.answer(stage.now, &reply.datagram), Err(Rejection::Unasked));
    assert_eq!(stage.b_asks(1000), stage.granted(1000));
}

#[test]
fn a_return_that_came_late_is_not_repeated_once_the_lease_was_asked_for_again() {
    let mut stage = Stage::new();
    stage.pass(11_000);
    let given_back = stage.a.give_back(stage.now);
    let stale = stage.server.handle(stage.now, &given_back).unwrap();
    assert_eq!(stage.a_asks(1000), stage.granted(1000));
    assert_eq!(stage.a.answer(stage.now, &stale.datagram), Err(Rejection::Unasked));
    assert!(stage.a.is_held(stage.now));
}

#[test]
fn refusal_that_comes_late_does_not_undo_a_grant() {
    let mut stage = Stage::new();
    stage.b_asks(100);
    let early = stage.a.ask(stage.now, 1000 * MS);
    let refused = stage.server.handle(stage.now, &early).unwrap();
    stage.pass(102);
    assert_eq!(stage.a_asks(1000), stage.granted(1000));
    assert_eq!(stage.a.answer(stage.now, &refused.datagram), Err(Rejection::Unasked));
    assert!(stage.a.is_held(stage.now));
}

#[test]
fn recorded_answers_mean_nothing() {
    let mut stage = Stage::new();
    let question = stage.a.ask(stage.now, 1000 * MS);
    let granted = stage.server.handle(stage.now, &question).unwrap().datagram;
    assert!(stage.a.answer(stage.now, &granted).is_ok());
    assert_eq!(stage.a.answer(stage.now, &granted), Err(Rejection::Unasked));
    stage.pass(2000);
    let _open = stage.a.ask(stage.now, 1000 * MS);
    assert_eq!(stage.a.answer(stage.now, &granted), Err(Rejection::Unasked));
    assert!(!stage.a.is_held(stage.now));
    // The other node's answers, and those to another process of the same node, are not ours either.
    assert_eq!(stage.b.answer(stage.now, &granted), Err(Rejection::Unasked));
    let mut restarted = client("lb-a", 0xa2);
    let _open = restarted.ask(stage.now, 1000 * MS);
    assert_eq!(restarted.answer(stage.now, &granted), Err(Rejection::Unasked));
}

#[test]
fn new_witness_lends_to_the_holder_and_to_nobody_else_for_a_while() {
    let mut stage = Stage::new();
    assert_eq!(stage.a_asks(2000), stage.granted(2000));
    stage.pass(100);
    stage.server = server(stage.now, 0x78);
    let starting = |left_ms: u64| Answer::Refused(Refusal::Starting { left: Duration::from_millis(left_ms) });
    assert_eq!(stage.b_asks(2000), starting(5_100));
    assert_eq!(stage.a_asks(2000), stage.granted(2000));
    stage.pass(1);
    assert_eq!(stage.b_asks(2000), held("lb-a", 2_030));
    stage.pass(2_031);
    // The holder let it run out: it is as much a stranger as the other.
    assert_eq!(stage.a_asks(2000), starting(3_068));
    stage.pass(3_067);
    assert_eq!(stage.b_asks(2000), starting(1));
    stage.pass(1);
    assert_eq!(stage.b_asks(2000), stage.granted(2000));
}

#[test]
fn claim_made_to_the_witness_before_is_not_taken() {
    let mut stage = Stage::new();
    stage.a_asks(2000);
    let claim = stage.a.ask(stage.now, 2000 * MS);
    stage.server = server(stage.now, 0x78);
    let reply = stage.server.handle(stage.now, &claim).unwrap();
    assert!(matches!(stage.a.answer(stage.now, &reply.datagram), Ok(Answer::Again(_))));
}

#[test]
fn full_table_refuses_new_vips_and_makes_room_when_it_may() {
    let mut stage = Stage::new();
    let ask = |stage: &mut Stage, vip: usize| {
        let mut client = Client::new(Key::derived(&PAIR_KEY), name("lb-a"), name(&format!("vip-{vip}")), 1);
        let question = client.ask(stage.now, 5000 * MS);
        exchange(&mut stage.server, &mut client, stage.now, &question)
    };
    for vip in 0..1024 {
        assert_eq!(ask(&mut stage, vip), stage.granted(5000));
    }
    assert_eq!(ask(&mut stage, 1024), Answer::Refused(Refusal::Full));
    stage.pass(10_001);
    assert_eq!(ask(&mut stage, 1024), stage.granted(5000));
}

#[test]
fn changes_of_the_holder_are_told_and_renewals_are_not() {
    let mut stage = Stage::new();
    let pair = Key::derived(&PAIR_KEY).pair();
    let change = |stage: &mut Stage, question: Vec<u8>| stage.server.handle(stage.now, &question).unwrap().change;
    let question = stage.a.ask(stage.now, 100 * MS);
    let granted = |node: &str, before: Option<&str>| {
        Some(Change::Granted { pair, vip: name("web"), node: name(node), before: before.map(name) })
    };
    assert_eq!(change(&mut stage, question), granted("lb-a", None));
    let question = stage.a.ask(stage.now, 100 * MS);
    assert_eq!(change(&mut stage, question), None);
    stage.pass(102);
    let question = stage.b.ask(stage.now, 100 * MS);
    assert_eq!(change(&mut stage, question), granted("lb-b", Some("lb-a")));
    let question = stage.b.give_back(stage.now);
    let given_back = Some(Change::GivenBack { pair, vip: name("web"), node: name("lb-b") });
    assert_eq!(change(&mut stage, question), given_back);
    let question = stage.b.give_back(stage.now);
    assert_eq!(change(&mut stage, question), None);
}

#[test]
fn forgotten_questions_are_the_oldest() {
    let mut stage = Stage::new();
    let questions: Vec<_> = (0..9).map(|_| stage.a.ask(stage.now, 1000 * MS)).collect();
    let answers: Vec<_> =
        questions.iter().map(|asked| stage.server.handle(stage.now, asked).unwrap().datagram).collect();
    assert_eq!(stage.a.answer(stage.now, &answers[0]), Err(Rejection::Unasked));
    assert_eq!(stage.a.answer(stage.now, &answers[1]), Ok(stage.granted(1000)));
}

/// The two hashes are those of Python's `hmac` module, over what the table in the module page says.
#[test]
fn request_has_the_bytes_of_the_table() {
    let mut client = client("lb-a", 0x0102_0304_0506_0708);
    let datagram = client.ask(Instant::now(), 400 * MS);
    let mut expected = Vec::new();
    expected.extend(b"BTNW\x01\x01\x00\x00");
    expected.extend(hex("a8b5411220b5d4aa"));
    expected.extend(b"\x01\x02\x03\x04\x05\x06\x07\x08");
    expected.extend(b"\0\0\0\0\0\0\0\x01");
    expected.extend([0; 16]);
    expected.extend(b"\0\0\x01\x90");
    expected.extend(b"web");
    expected.extend([0; 61]);
    expected.extend(b"lb-a");
    expected.extend([0; 60]);
    expected.extend(hex("f274e5331b7fe6538f469ed5cdd15bff"));
    assert_eq!(datagram, expected);
    assert_eq!(datagram.len(), 196);
    assert_eq!(vip_of(&datagram), Name::new("web"));
    assert_eq!(vip_of(&datagram[..60]), None);
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn what_is_wrong_with_a_datagram_is_said() {
    let mut stage = Stage::new();
    let good = stage.a.ask(stage.now, 400 * MS);
    let mut rejection = |datagram: &[u8]| stage.server.handle(stage.now, datagram).unwrap_err();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    assert_eq!(rejection(&[]), Rejection::Length);
    assert_eq!(rejection(&good[..195]), Rejection::Length);
    assert_eq!(rejection(&[&good[..], &[0]].concat()), Rejection::Length);
    assert_eq!(rejection(&with(0, b'X')), Rejection::Foreign);
    assert_eq!(rejection(&with(4, 2)), Rejection::Version);
    assert_eq!(rejection(&with(8, good[8] ^ 1)), Rejection::Pair);
    for at in [5, 6, 7, 16, 24, 32, 40, 48, 52, 116, 180, 195] {
        assert_eq!(rejection(&with(at, good[at] ^ 1)), Rejection::Mac, "byte {at}");
    }
    let signed = |at: usize, byte: u8| {
        let mut bad = with(at, byte);
        bad.truncate(180);
        let mac = Key::derived(&PAIR_KEY).mac(&bad);
        bad.extend(mac);
        bad
    };
    assert_eq!(rejection(&signed(5, 0)), Rejection::Kind);
    assert_eq!(rejection(&signed(5, 129)), Rejection::Kind);
    assert_eq!(rejection(&signed(52, 0)), Rejection::Name);
    assert_eq!(rejection(&signed(52, b'\n')), Rejection::Name);
    assert_eq!(rejection(&signed(60, b'x')), Rejection::Name);
    assert_eq!(rejection(&signed(116, 0xff)), Rejection::Name);
}

#[test]
fn names_have_limits() {
    assert!(Name::new("").is_none());
    assert!(Name::new("a b").is_none());
    assert!(Name::new("A-z_0.9").is_some());
    let longest = "n".repeat(63);
    assert_eq!(Name::of_field(&Name::field(Name::new(&longest).as_ref())), Ok(Name::new(&longest)));
    assert!(Name::new(&"n".repeat(64)).is_none());
}

#[test]
fn random_bytes_and_mutations_get_no_answer() {
    let mut stage = Stage::new();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let question = stage.a.ask(stage.now, 400 * MS);
        let mut datagram = question.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..datagram.len());
            datagram[at] ^= random.u8(1..);
        }
        if random.bool() {
            datagram.truncate(random.usize(..196));
        }
        // Two flips of one byte may undo each other.
        assert!(datagram == question || stage.server.handle(stage.now, &datagram).is_err());
        assert!(stage.a.answer(stage.now, &datagram).is_err());
    }
}
