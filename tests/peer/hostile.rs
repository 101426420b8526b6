//! Who has the key and behaves badly all the same: a broken release, or a node that somebody else has taken over.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton::peer::identity::Identity;
use baton::session::facts::FactKey;
use baton::session::frame::{self, FRAME_BYTES_MAX, Hello};
use baton::session::version::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::client;

use crate::rig::{KEY, Node, PATIENCE, assert_in_service, pair, resident};

/// What the process may grow by, whatever comes.
const GROWTH_MAX: usize = 24 * 1024 * 1024;

/// Held by who measures memory, which all tests of this process share.
static MEMORY: Mutex<()> = Mutex::new(());

/// Runs a conversation of the second node with the first.
fn as_second<T>(first: &Node, say: impl AsyncFnOnce(&mut client::TlsStream<TcpStream>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        // Little room, so that one that does not read is soon full.
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(first.at).await.unwrap();
        let connector = Identity::derive(KEY, "lb-b", "lb-a").unwrap().connector().unwrap();
        let mut stream = connector.connect(Identity::server_name(first.at.ip()), stream).await.unwrap();
        let said = tokio::time::timeout(PATIENCE, say(&mut stream)).await;
        said.expect("the conversation ends in time")
    })
}

/// Says these bytes, and waits until the node has hung up.
fn say(first: &Node, bytes: &[u8]) {
    as_second(first, async |stream| {
        // It may hang up before all is said.
        let _written = stream.write_all(bytes).await;
        let _flushed = stream.flush().await;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await.is_ok_and(|len| len > 0) {}
    });
}

fn hello(version: u8) -> Vec<u8> {
    let hello = Hello {
        version_min: version,
        version_max: version,
        boot: 7,
        latest: Version::default(),
        checksum: [0; 8],
        entries: 0,
        node: "lb-b".to_owned(),
    };
    let mut bytes = Vec::new();
    frame::put_hello(&mut bytes, &hello);
    bytes
}

/// The real peer comes, and is served.
fn assert_serves_the_peer(first: &Node) {
    let second = Node::second(KEY, first.at);
    second.wait_until_synced();
    assert_in_service(first, &second, "now to work");
}

#[test]
fn garbage_after_the_handshake_is_cut_off() {
    let first = Node::first(KEY);
    say(&first, &[0xff; 4096]);
    let told = first.wait_until_refused("malformed_frame", 1);
    assert!(told.contains("a frame of 4294967295 bytes is too long"), "{told}");
    say(&first, b"GET / HTTP/1.1\r\n\r\n");
    first.wait_until_refused("malformed_frame", 2);
    assert_serves_the_peer(&first);
}

#[test]
fn a_frame_that_is_too_long_is_cut_off_before_it_is_read() {
    let first = Node::first(KEY);
    let mut bytes = hello(1);
    bytes.extend(u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes());
    bytes.push(3);
    say(&first, &bytes);
    let told = first.wait_until_refused("malformed_frame", 1);
    assert!(told.contains("a frame of 262145 bytes is too long"), "{told}");
    assert_serves_the_peer(&first);
}

#[test]
fn an_unknown_version_is_refused() {
    let first = Node::first(KEY);
    say(&first, &hello(200));
    first.wait_until_refused("unknown_version", 1);
    assert_serves_the_peer(&first);
}

#[test]
fn silence_after_the_handshake_is_cut_off() {
    let first = Node::first(KEY);
    say(&first, b"");
    first.wait_until_refused("silent", 1);
    assert_serves_the_peer(&first);
}

#[test]
fn a_frame_that_never_ends_is_cut_off() {
    let first = Node::first(KEY);
    let mut bytes = hello(1);
    bytes.extend(u32::try_from(FRAME_BYTES_MAX).unwrap().to_be_bytes());
    bytes.push(3);
    say(&first, &bytes);
    first.wait_until_refused("silent", 1);
    assert_serves_the_peer(&first);
}

#[test]
fn a_flood_of_bytes_takes_no_memory() {
    let _measuring = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Node::first(KEY);
    let before = resident();
    // The longest frame over and over: of entries, of a pool that there is not.
    let mut frames = hello(1);
    let mut entries = Vec::new();
    for sequence in 1..=512 {
        frame::put_entries(&mut entries, sequence, false, |out| {
            out.resize(out.len() + frame::RECORD_BYTES * frame::RECORDS_MAX, 0)
        });
    }
    frames.append(&mut entries);
    frames.push(0xff);
    frames.extend([0xff; 64]);
    let of_test = frames.len();
    say(&first, &frames);
    first.wait_until_refused("malformed_frame", 1);
    let growth = resident().saturating_sub(before);
    assert!(growth < of_test * 2 + GROWTH_MAX, "{growth} bytes more than before");
    assert_serves_the_peer(&first);
}

/// It is sent no more than the network takes, and then nothing; the node goes on.
#[test]
fn a_peer_that_does_not_read_is_cut_off_and_costs_no_memory() {
    let _measuring = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Node::first(KEY);
    for server in 0..4_000 {
        let key = FactKey::Admin { pool: "app".to_owned(), server: server.to_string() };
        assert!(first.sessions.tell(key, vec![b'x'; 4_000]));
    }
    let before = resident();
    as_second(&first, async |stream| {
        stream.write_all(&hello(1)).await.unwrap();
        // Speaks, so that it is not taken for dead, and reads nothing.
        let mut keep_alive = Vec::new();
        frame::put_handled(&mut keep_alive, 0);
        while stream.write_all(&keep_alive).await.is_ok() && stream.flush().await.is_ok() {
            assert!(resident().saturating_sub(before) < GROWTH_MAX);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let told = first.wait_until_refused("too_slow", 1);
    assert!(told.contains("it did not read what waited for it within 3 s"), "{told}");
    assert_serves_the_peer(&first);
}

/// As long as it goes on, each of the two takes the other's place; when it is over, all is well.
#[test]
fn a_second_holder_of_the_key_cannot_keep_the_peer_out() {
    let (first, second) = pair();
    for _ in 0..5 {
        say(&first, &[0xff; 64]);
    }
    second.wait_until_synced();
    first.wait_until_synced();
    assert_in_service(&first, &second, "after all that");
}

/// The other way round: the node that connects is not the one to be told lies either.
#[test]
fn the_node_that_connects_cuts_off_as_well() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    let liar = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let acceptor = Identity::derive(KEY, "lb-a", "lb-b").unwrap().acceptor().unwrap();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(&[0xff; 64]).await.unwrap();
                stream.flush().await.unwrap();
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await.is_ok_and(|len| len > 0) {}
            }
        });
    });
    let second = Node::second(KEY, at);
    second.wait_until_refused("malformed_frame", 2);
    liar.join().unwrap();
    assert!(second.status().disconnects >= 2);
}
