//! Clients of HTTP/2 that keep to the rules and mean harm: each is told to go, or costs little, and nobody else notices.

use std::time::{Duration, Instant};

use crate::baton::{Baton, Settings};
use crate::h2_wire::*;
use crate::server::Server;

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

/// Sends this over and over, while another client is served, until the program ends the connection. What it said.
fn flood(baton: &Baton, client: &mut H2, part: impl Fn(u32) -> Vec<u8>) -> Vec<Event> {
    let mut neighbour = baton.client();
    let deadline = Instant::now() + crate::PATIENCE;
    for number in 0_u32.. {
        assert!(Instant::now() < deadline, "after {number} parts the connection is still open");
        let batch: Vec<_> = (0..50).flat_map(|index| part(number * 50 + index)).collect();
        if !client.try_send(&batch) {
            break;
        }
        if number % 20 == 0 {
            assert_eq!(neighbour.get("/").text(), "ok");
        }
    }
    assert_eq!(neighbour.get("/").text(), "ok");
    client.rest()
}

/// The flood ends with ENHANCE_YOUR_CALM. Where the client goes on sending behind that, a reset may overtake the word.
fn calmed(setting: Settings, open: impl Fn(&mut H2), part: impl Fn(u32) -> Vec<u8>) {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &setting);
    let mut client = H2::connect(baton.address());
    open(&mut client);
    let before = baton.worker_memory();
    let events = flood(&baton, &mut client, part);
    let codes: Vec<_> = events.iter().filter(|event| matches!(event, Event::Goaway(_))).collect();
    assert!(codes.iter().all(|event| **event == Event::Goaway(ENHANCE_YOUR_CALM)), "{codes:?}");
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
}

/// The word itself, to a client that sends no more than it takes.
fn told_to_calm_down(server: &Server, sent: &[u8]) {
    let baton = Baton::before(&[server]);
    let mut client = H2::connect(baton.address());
    client.try_send(sent);
    let events = client.rest();
    assert!(events.contains(&Event::Goaway(ENHANCE_YOUR_CALM)), "{events:?}");
    assert_eq!(baton.client().get("/").text(), "ok");
}

#[test]
fn flood_of_pings() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    calmed(Settings::default(), |_| {}, |_| ping.clone());
    told_to_calm_down(&Server::saying("ok"), &ping.repeat(3000));
}

#[test]
fn flood_of_settings() {
    let settings = settings_frame(&[(4, 65_535)]);
    calmed(Settings::default(), |_| {}, |_| settings.clone());
    told_to_calm_down(&Server::saying("ok"), &settings.repeat(600));
}

#[test]
fn flood_of_priorities() {
    let priority = |number: u32| frame(PRIORITY, 0, 2 * (number % 1000) + 1, &[0, 0, 0, 0, 1]);
    calmed(Settings::default(), |_| {}, priority);
    told_to_calm_down(&Server::saying("ok"), &(0..2500).flat_map(priority).collect::<Vec<_>>());
}

#[test]
fn flood_of_window_updates() {
    let update = window_update(0, 1);
    calmed(Settings::default(), |_| {}, |_| update.clone());
    told_to_calm_down(&Server::saying("ok"), &update.repeat(3000));
}

#[test]
fn flood_of_unknown_frames() {
    let unknown = frame(0xfa, 0, 0, &[]);
    calmed(Settings::default(), |_| {}, |_| unknown.clone());
    told_to_calm_down(&Server::saying("ok"), &unknown.repeat(3000));
}

#[test]
fn flood_of_empty_data() {
    let empty = frame(DATA, 0, 1, &[]);
    calmed(Settings::default(), |client| client.send(&headers(1, 0, POST)), |_| empty.clone());
    told_to_calm_down(&Server::saying("ok"), &[headers(1, 0, POST), empty.repeat(1000)].concat());
}

#[test]
fn flood_of_continuation() {
    let begun = frame(HEADERS, END_STREAM, 1, &block(GET));
    let more = frame(CONTINUATION, 0, 1, &block(&[("x", "y")]));
    calmed(Settings::default(), |client| client.send(&begun), |_| more.clone());
    told_to_calm_down(&Server::saying("ok"), &[begun.clone(), more.repeat(20)].concat());
    // Empty ones too.
    let empty = frame(CONTINUATION, 0, 1, &[]);
    told_to_calm_down(&Server::saying("ok"), &[begun, empty.repeat(1000)].concat());
}

#[test]
fn requests_that_are_taken_back_at_once() {
    let part = |number: u32| [get(2 * number + 1), reset(2 * number + 1, CANCEL)].concat();
    calmed(Settings::default(), |_| {}, part);
    told_to_calm_down(&Server::saying("ok"), &(0..300).flat_map(part).collect::<Vec<_>>());
}

#[test]
fn requests_that_are_taken_back_when_they_are_with_a_server() {
    // It never answers: each request is there until it is taken back.
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_end()
    });
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    // Ten of them come back each second, so that a machine which is slow needs more.
    for number in 0..2000 {
        client.send(&get(2 * number + 1));
        server.wait_until("the server has it", |record| record.requests.len() > number as usize);
        client.send(&reset(2 * number + 1, CANCEL));
        server.wait_until("the server is let go", |record| record.connections[number as usize].is_ended);
        if number >= 200 {
            client.send(&frame(PING, 0, 0, &[0; 8]));
            let events = client.wait_for("an answer", |event| matches!(event, Event::Pong | Event::Goaway(_)));
            if let Some(Event::Goaway(code)) = events.last() {
                assert_eq!(*code, ENHANCE_YOUR_CALM);
                return;
            }
        }
    }
    panic!("the connection is still open");
}

#[test]
fn list_of_fields_that_is_too_large_is_answered_431() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    // 40 KiB in three frames.
    let fields: Vec<_> = (0..10).map(|number| (format!("x-{number}"), "x".repeat(4000))).collect();
    let block = [block(GET), crate::h2_wire::block(&fields)].concat();
    let mut client = H2::connect(baton.address());
    let parts: Vec<_> = block.chunks(16_000).collect();
    let last = parts.len() - 1;
    for (index, part) in parts.iter().enumerate() {
        let (kind, flags) = if index == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        client.send(&frame(kind, flags | if index == last { END_HEADERS } else { 0 }, 1, part));
    }
    client.wait_for("431", |event| matches!(event, Event::Head(1, Some(431), _)));
    client.send(&frame(PING, 0, 0, &[0; 8]));
    client.wait_for("the connection lives", |event| *event == Event::Pong);
    assert!(server.connections().is_empty());
}

#[test]
fn too_many_fields_and_too_long_targets_are_answered_as_on_http1() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let mut client = H2::connect(baton.address());
    let fields = with(GET, &vec![("x", "y"); 101]);
    client.send(&headers(1, END_STREAM, &fields));
    assert_eq!(client.response(1).0, 431);
    let path = format!("/{}", "x".repeat(8 * 1024));
    let mut client = H2::connect(baton.address());
    client.send(&headers(1, END_STREAM, &[GET[0], GET[1], (":path", &path), GET[3]]));
    assert_eq!(client.response(1).0, 414);
    assert!(server.connections().is_empty());
}

#[test]
fn small_block_that_unpacks_to_a_large_list_ends_the_connection() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let before = baton.worker_memory();
    // One entry of 4000 bytes in the dynamic table, and a thousand references to it of a byte each.
    let entry = [&[0x40, 1, b'x'][..], &integer(3900, 7), &[b'y'; 3900]].concat();
    let bomb = [block(GET), entry, vec![0xbe; 8000]].concat();
    let mut client = H2::connect(baton.address());
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    let events = client.rest();
    assert!(events.contains(&Event::Goaway(ENHANCE_YOUR_CALM)), "{events:?}");
    assert!(server.connections().is_empty());
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 8 << 20, "grew by {grown} bytes");
}

#[test]
fn client_that_opens_no_window_is_given_up_and_holds_little() {
    let body = "x".repeat(1 << 20);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let baton = Baton::with(&[&server], &listener("idle_timeout = \"500ms\""));
    let before = baton.worker_memory();
    let mut client = H2::with_settings(baton.address(), &[(4, 0)]);
    client.send(&(0..100).flat_map(|number| get(2 * number + 1)).collect::<Vec<_>>());
    for _ in 0..100 {
        client.wait_for("a stream is given up", |event| matches!(event, Event::Reset(_, CANCEL)));
    }
    let grown = baton.worker_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
    // The connection is idle then, and ends.
    client.rest();
}

#[test]
fn client_that_reads_nothing_is_given_up() {
    let body = "x".repeat(1 << 20);
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let baton = Baton::with(&[&server], &listener("idle_timeout = \"500ms\"\nconnections_max = 1"));
    let mut client = H2::with_settings(baton.address(), &[(4, 0x7fff_ffff)]);
    client.send(&[window_update(0, 0x7fff_0000), (0..50).flat_map(|number| get(2 * number + 1)).collect()].concat());
    // The only connection there may be is free again for the next client.
    assert_eq!(baton.client().get("/").status(), 200);
    drop(client);
}

#[test]
fn idle_connection_is_told_to_go() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("idle_timeout = \"300ms\""));
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    assert_eq!(client.response(1), (200, "ok".to_owned()));
    let begun = Instant::now();
    let events = client.rest();
    assert!(events.contains(&Event::Goaway(0)), "{events:?}");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
}

#[test]
fn field_block_that_stops_or_trickles_ends_with_the_time_for_a_head() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout = \"300ms\""));
    let mut client = H2::connect(baton.address());
    let request = get(1);
    let begun = Instant::now();
    for byte in &request[..request.len() - 1] {
        if !client.try_send(&[*byte]) {
            break;
        }
        if let Some(event) = client.event(Duration::from_millis(30))
            && event != Event::Other(WINDOW_UPDATE)
        {
            assert_eq!(event, Event::Goaway(0));
            break;
        }
    }
    client.rest();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(server.connections().is_empty());
}

#[test]
fn body_that_stops_ends_its_stream_alone() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("idle_timeout = \"300ms\""));
    let mut client = H2::connect(baton.address());
    client.send(&[headers(1, 0, POST), frame(DATA, 0, 1, b"x")].concat());
    assert_eq!(client.response(1).0, 408);
}

#[test]
fn drain_lets_streams_end_and_tells_the_client() {
    let server = Server::start(|exchange| {
        exchange.request()?;
        exchange.wait_for_signal()?;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let mut baton = Baton::before(&[&server]);
    let mut idle = H2::connect(baton.address());
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    server.wait_until("the server has it", |record| record.requests.len() == 1);
    baton.terminate();
    idle.wait_for("GOAWAY", |event| *event == Event::Goaway(0));
    client.wait_for("GOAWAY", |event| *event == Event::Goaway(0));
    server.signal();
    assert_eq!(client.response(1), (200, "ok".to_owned()));
    assert_eq!(baton.wait().code(), Some(0));
}

#[test]
fn half_a_second_of_floods_does_not_keep_others_waiting() {
    let server = Server::saying("ok");
    let baton = Baton::before(&[&server]);
    let address = baton.address();
    let flooders: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
                let end = Instant::now() + Duration::from_millis(500);
                while Instant::now() < end {
                    let mut client = H2::connect(address);
                    while client.try_send(&pings) && Instant::now() < end {}
                }
            })
        })
        .collect();
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut client = baton.client();
    while begun.elapsed() < Duration::from_millis(500) {
        let asked = Instant::now();
        assert_eq!(client.get("/").text(), "ok");
        slowest = slowest.max(asked.elapsed());
    }
    flooders.into_iter().for_each(|flooder| flooder.join().expect("it does not panic"));
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
