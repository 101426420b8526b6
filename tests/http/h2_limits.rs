//! Limits of a listener that clients of HTTP/2 have to keep as those of HTTP/1 do: how large a head may be, and how fast a
//! response has to be taken.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::baton::{Baton, Settings};
use crate::h2_wire::*;
use crate::limits::wait_for_refusals;
use crate::server::Server;

fn listener(keys: &str) -> Settings {
    Settings { listener: keys.to_owned(), ..Settings::default() }
}

/// A GET of `path` with these fields, in as many frames as it needs.
fn long_get(stream: u32, path: &str, fields: &[(String, String)]) -> Vec<u8> {
    let head = block(&[GET[0], GET[1], (":path", path), GET[3]]);
    let block = [head, block(fields)].concat();
    let last = block.len().div_ceil(16_000) - 1;
    let frames = block.chunks(16_000).enumerate().map(|(index, part)| {
        let (kind, flags) = if index == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        frame(kind, flags | if index == last { END_HEADERS } else { 0 }, stream, part)
    });
    frames.flatten().collect()
}

/// The size of lists of fields that the program announces.
fn header_list_bytes_max(baton: &Baton) -> u32 {
    let mut client = H2::raw(baton.address());
    client.send(&[PREFACE, &settings_frame(&[])].concat());
    let events = client.wait_for("SETTINGS", |event| matches!(event, Event::Settings(_)));
    let Some(Event::Settings(settings)) = events.last() else { panic!("it was waited for") };
    settings.iter().find(|(key, _)| *key == 6).expect("SETTINGS_MAX_HEADER_LIST_SIZE is announced").1
}

#[test]
fn large_heads_are_taken_over_http2_where_they_may_be() {
    let server = Server::saying("ok");
    let limits = "head_bytes_max = \"128KiB\"\nheaders_max = 300\nuri_bytes_max = 60000";
    let baton = Baton::with(&[&server], &listener(limits));
    assert_eq!(header_list_bytes_max(&baton), 131_072 + 305 * 32);
    let mut client = H2::connect(baton.address());
    let field = |number| (format!("x-{number}"), "v".repeat(200));
    let mut fields: Vec<_> = (0..299).map(field).collect();
    let path = format!("/{}", "p".repeat(50_000));
    client.send(&long_get(1, &path, &fields));
    assert_eq!(client.response(1), (200, "ok".to_owned()));
    assert!(server.request().start.len() > 50_000);
    fields.push(field(299));
    client.send(&long_get(3, "/", &fields));
    client.wait_for("431 for one field too many", |event| matches!(event, Event::Head(3, Some(431), _)));
    // Its stream alone was refused.
    client.send(&frame(PING, 0, 0, &[0; 8]));
    client.wait_for("the connection lives", |event| *event == Event::Pong);
}

#[test]
fn heads_over_http2_are_refused_as_small_as_the_listener_has_it() {
    let server = Server::saying("ok");
    let limits = "head_bytes_max = 1024\nheaders_max = 5\nuri_bytes_max = 100";
    let baton = Baton::with(&[&server], &listener(limits));
    assert_eq!(header_list_bytes_max(&baton), 1024 + 10 * 32);
    let ask = |path: &str, fields: &[(&str, &str)]| {
        let mut client = H2::connect(baton.address());
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        client.send(&long_get(1, path, &fields));
        let events = client.wait_for("a head", |event| matches!(event, Event::Head(1, ..)));
        client.send(&frame(PING, 0, 0, &[0; 8]));
        client.wait_for("the connection lives", |event| *event == Event::Pong);
        events.iter().find_map(|event| if let Event::Head(1, status, _) = event { *status } else { None })
    };
    assert_eq!(ask(&format!("/{}", "p".repeat(99)), &[]), Some(200));
    assert_eq!(ask(&format!("/{}", "p".repeat(100)), &[]), Some(414));
    // Host counts as well, whatever it is called.
    assert_eq!(ask("/", &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]), Some(200));
    assert_eq!(ask("/", &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")]), Some(431));
    // "GET / HTTP/1.1", "host: a.example" and "a: ", each with the end of its line, are 38 bytes.
    assert_eq!(ask("/", &[("a", &"v".repeat(986))]), Some(200));
    assert_eq!(ask("/", &[("a", &"v".repeat(987))]), Some(431));
    // Beyond what is announced.
    assert_eq!(ask("/", &[("a", &"v".repeat(1400))]), Some(431));
}

/// A server of bodies of this length.
fn sender_of(len: usize) -> Server {
    Server::unrecorded(move |exchange| {
        loop {
            exchange.request()?;
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"))?;
            exchange.send(vec![b'r'; len])?;
        }
    })
}

#[test]
fn stream_whose_window_opens_too_slowly_is_reset_and_its_connection_lives() {
    let server = sender_of(64 << 20);
    let limits = "response_rate_min = 1000000\nrate_min_grace = \"300ms\"\nidle_timeout = \"1h\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    let deadline = Instant::now() + PATIENCE;
    // It is never idle: a twentieth of the rate.
    loop {
        match client.event(Duration::from_millis(20)) {
            Some(Event::Reset(1, code)) => break assert_eq!(code, CANCEL),
            Some(Event::Closed) => panic!("the connection ends"),
            Some(_) => {}
            None => client.send(&[window_update(0, 1000), window_update(1, 1000)].concat()),
        }
        assert!(Instant::now() < deadline, "it goes on");
    }
    wait_for_refusals(&baton, "response_too_slow", 1);
    client.send(&frame(PING, 0, 0, &[0; 8]));
    client.wait_for("the connection lives", |event| *event == Event::Pong);
}

#[test]
fn streams_that_share_the_rate_get_all_of_their_responses() {
    const LEN: usize = 200_000;
    const STREAMS: u32 = 20;
    let server = sender_of(LEN);
    // Each stream takes half of the rate, and all of them together ten times as much: a busy machine may be slower.
    let limits = "response_rate_min = 50000\nrate_min_grace = \"1500ms\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = H2::connect(baton.address());
    let started = Instant::now();
    client.send(&(0..STREAMS).flat_map(|number| get(2 * number + 1)).collect::<Vec<_>>());
    let (mut read, mut ended) = (0, 0);
    while ended < STREAMS {
        match client.event(PATIENCE) {
            Some(Event::Data(stream, data, is_end)) => {
                read += data.len();
                ended += u32::from(is_end);
                let len = u32::try_from(data.len()).expect("a frame is short");
                if len > 0 {
                    client.send(&[window_update(0, len), window_update(stream, len)].concat());
                }
                std::thread::sleep(Duration::from_micros(data.len() as u64 * 2));
            }
            Some(Event::Head(..) | Event::Other(_) | Event::Settings(_)) => {}
            other => panic!("{other:?} after {read} bytes"),
        }
    }
    assert_eq!(read, STREAMS as usize * LEN);
    assert!(started.elapsed() > Duration::from_secs(7), "{:?}: no stream was below the rate", started.elapsed());
    wait_for_refusals(&baton, "response_too_slow", 0);
}

#[test]
fn client_of_http2_that_reads_too_slowly_is_closed() {
    let server = sender_of(64 << 20);
    let limits = "response_rate_min = 100000000\nrate_min_grace = \"300ms\"\nidle_timeout = \"1h\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = H2::with_settings(baton.address(), &[(4, 0x7fff_ffff)]);
    client.send(&[window_update(0, 0x7fff_0000), get(1)].concat());
    let deadline = Instant::now() + PATIENCE;
    let mut read = 0;
    // Its windows are open; it is the kernel that has no room.
    loop {
        match client.event(PATIENCE) {
            Some(Event::Closed) => break,
            Some(Event::Data(1, data, is_end)) => {
                read += data.len();
                assert!(!is_end, "it got all of it");
            }
            Some(_) => {}
            None => panic!("nothing comes after {read} bytes"),
        }
        assert!(Instant::now() < deadline, "it goes on after {read} bytes");
        std::thread::sleep(Duration::from_millis(5));
    }
    wait_for_refusals(&baton, "response_too_slow", 1);
}

#[test]
fn end_of_a_response_that_is_taken_too_slowly_ends_its_connection() {
    let server = sender_of(32 << 10);
    let limits = "response_rate_min = 10000\nrate_min_grace = \"300ms\"\nidle_timeout = \"300ms\"";
    let baton = Baton::with(&[&server], &listener(limits));
    let mut client = H2::with_settings(baton.address(), &[(4, 0)]);
    // All of it is read from the server as soon as one byte may go.
    client.send(&[get(1), window_update(1, 1)].concat());
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.event(Duration::from_millis(50)) {
            Some(Event::Closed) => break,
            Some(_) => {}
            None => drop(client.try_send(&window_update(1, 10))),
        }
        assert!(Instant::now() < deadline, "it goes on");
    }
    wait_for_refusals(&baton, "response_too_slow", 1);
}

#[test]
fn idle_connection_of_http2_goes_on_under_the_next_configuration() {
    let server = Server::saying("ok");
    let baton = Baton::with(&[&server], &listener("head_timeout = \"1h\""));
    let mut client = H2::connect(baton.address());
    client.send(&get(1));
    assert_eq!(client.response(1), (200, "ok".to_owned()));
    let pool =
        format!("[[pool]]\nname = \"app\"\nservers = [{{ name = \"app1\", address = \"{}\" }}]", server.address());
    let worker = "[worker]\nthreads = 1";
    baton.write_config("pool = \"app\"\nhead_timeout = \"300ms\"", &format!("{pool}\n{worker}\n"));
    baton.done(&["reload"]);
    // The head of a frame of fields, and nothing behind it.
    client.send(&get(3)[..9]);
    let events = client.rest();
    assert!(events.contains(&Event::Goaway(0)), "{events:?}");
}
