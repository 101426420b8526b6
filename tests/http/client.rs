//! A client: a raw socket that sends what a test tells it to.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;
use crate::wire::{Kind, Message, Wire};

/// A connection to the program.
pub struct Client(Wire);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&address, PATIENCE).expect("the listener accepts"))
    }

    /// The client's end of a connection that is made already.
    pub fn of(stream: TcpStream) -> Self {
        Self(Wire::new(stream, |_| {}))
    }

    /// From an address of the client's own.
    pub fn connect_from(own: SocketAddr, address: SocketAddr) -> Self {
        Self::try_connect_from(own, address).expect("the listener accepts")
    }

    /// The same where the listener may reset the connection as soon as it is there.
    pub fn try_connect_from(own: SocketAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
        socket.bind(&own.into()).expect("all of 127.0.0.0/8 is this machine's");
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok(Self(Wire::new(socket.into(), |_| {})))
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).expect("the connection is open");
        self.response()
    }

    /// Reads one response, an interim one included.
    pub fn response(&mut self) -> Message {
        self.message(Kind::Response).expect("a response comes")
    }

    /// Sends a GET without further fields and reads its response.
    pub fn get(&mut self, path: &str) -> Message {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
    }

    /// Waits until the program closes, having sent nothing more.
    pub fn expect_closed(&mut self) {
        match self.rest() {
            Ok(rest) => assert!(rest.is_empty(), "more came before the end: {}", rest.escape_ascii()),
            // Closed while something that we sent was still unread.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}
