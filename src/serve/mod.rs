//! A small HTTP server for guests: what a seed holds, what an installer fetches.
//!
//! Knows as much of HTTP/1.1 (RFC 9112) as a client needs that gets files: GET and HEAD, one answer a connection. Takes
//! hostile requests: their length, number and time are bounded. What there is, a [`Site`] says; must not know what it is
//! for.

mod directory;
pub mod request;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::store::{HostFile, SequentialReader};
use request::{Asked, first_line, understand};

pub use directory::{Looked, look_beneath};

/// Where a guest sees its host's loopback through QEMU's user networking.
pub const HOST_IN_GUEST: &str = "10.0.2.2";
/// A request's head at most.
const MAX_HEAD: usize = 16 << 10;
/// For a whole request, and for a client to take the next piece of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time.
const MAX_CLIENTS: usize = 32;
/// How often a request to stop is looked for.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of an answer that are sent at once.
const PIECE: usize = 64 << 10;

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// These bytes, of this kind (a media type).
    Bytes(Vec<u8>, &'static str),
    /// A file of so many bytes.
    File(HostFile, u64),
    /// Nothing; perhaps this path was meant.
    Missing(Option<String>),
    /// Something that nobody may have.
    Forbidden,
}

/// What a server has.
pub trait Site: Send + Sync {
    /// What `path`, which begins with `/`, leads to.
    fn find(&self, path: &str) -> Found;
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Who asked.
    pub client: SocketAddr,
    /// The first line, as it came: escape it before printing.
    pub request: String,
    /// The status.
    pub status: u16,
    /// Bytes of the body.
    pub length: u64,
    /// The path that was probably meant, where there is none of that name.
    pub near: Option<String>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens at `address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// The address is in use, or not this host's.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error| Error::io(format_args!("listen at {address}"), error);
        let listener = TcpListener::bind(address).map_err(failed)?;
        // A call that waits for a guest would not notice that it is to end.
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL under which a guest reaches it: through QEMU's user networking where it listens on loopback, or everywhere.
    pub fn guest_url(&self) -> String {
        let ip = self.address.ip();
        let port = self.address.port();
        match ip {
            _ if ip.is_loopback() || ip.is_unspecified() => {
                format!("http://{HOST_IN_GUEST}:{port}/")
            }
            IpAddr::V4(ip) => format!("http://{ip}:{port}/"),
            IpAddr::V6(ip) => format!("http://[{ip}]:{port}/"),
        }
    }

    /// Answers from `site` until `stop` is raised, or `told`, which is called for each answer, says that it is enough.
    ///
    /// # Errors
    /// The host fails to accept connections.
    pub fn run(
        &self,
        site: &dyn Site,
        stop: &AtomicBool,
        told: &(dyn Fn(&Answered) -> bool + Sync),
    ) -> Result<()> {
        let clients = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        let over = || stop.load(Ordering::Relaxed) || done.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            while !over() {
                match self.listener.accept() {
                    Ok((stream, client)) if clients.load(Ordering::Relaxed) < MAX_CLIENTS => {
                        clients.fetch_add(1, Ordering::Relaxed);
                        let (clients, done, over) = (&clients, &done, &over);
                        scope.spawn(move || {
                            // A client that goes away is its own affair.
                            if let Ok(answered) = answer(site, &stream, client, over)
                                && told(&answered)
                            {
                                done.store(true, Ordering::Relaxed);
                            }
                            clients.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                    // More clients than are served at a time are turned away.
                    Ok(_) => {}
                    Err(error) if is_passing(&error) => std::thread::sleep(POLL),
                    Err(error) => return Err(Error::io("accept a connection", error)),
                }
            }
            Ok(())
        })
    }
}

/// What ends by itself: nobody is there, or the one who was has gone.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset)
        // No descriptor or memory is left at the moment.
        || matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

fn answer(
    site: &dyn Site,
    mut stream: &TcpStream,
    client: SocketAddr,
    over: &(dyn Fn() -> bool + Sync),
) -> io::Result<Answered> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(POLL))?;
    let head = read_head(stream, over)?;
    let response = respond(site, head.as_deref());
    send(stream, &response.head, over)?;
    match response.body {
        Body::None => {}
        Body::Bytes(bytes) => send(stream, &bytes, over)?,
        Body::File(file, length) => {
            let mut reader = SequentialReader::new(file).map_err(io::Error::other)?;
            let mut left = length;
            let mut piece = vec![0; PIECE];
            while left > 0 {
                let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                let wanted = piece.get_mut(..most).unwrap_or_default();
                let read = reader.read(wanted)?;
                if read == 0 {
                    // It was cut meanwhile: a short answer says so.
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                send(stream, piece.get(..read).unwrap_or_default(), over)?;
                left -= read as u64;
            }
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // What the client sent beyond its head would turn the end into a reset.
    stream.set_read_timeout(Some(POLL))?;
    let mut rest = [0; 1024];
    for _ in 0..16 {
        match stream.read(&mut rest) {
            Ok(1..) => {}
            _ => break,
        }
    }
    let head = head.unwrap_or_default();
    let first = String::from_utf8_lossy(first_line(&head));
    Ok(Answered {
        client,
        request: first.chars().take(200).collect(),
        status: response.status,
        length: response.length,
        near: response.near,
    })
}

/// Sends all of `bytes`, however slowly the client takes them, as long as it takes any.
fn send(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    over: &(dyn Fn() -> bool + Sync),
) -> io::Result<()> {
    let mut until = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                bytes = bytes.get(sent..).unwrap_or_default();
                until = Instant::now() + PATIENCE;
            }
            Err(error) if is_timeout(&error) => {
                if over() || Instant::now() > until {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// A request up to the empty line; `None` where it is too long or does not come.
fn read_head(
    mut stream: &TcpStream,
    over: &(dyn Fn() -> bool + Sync),
) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    stream.set_read_timeout(Some(POLL))?;
    loop {
        if Instant::now() > until || head.len() > MAX_HEAD || over() {
            return Ok(None);
        }
        match stream.read(&mut piece) {
            Ok(0) if head.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(None),
            Ok(length) => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n")
            || head.windows(2).any(|end| end == b"\n\n")
        {
            return Ok(Some(head));
        }
    }
}

enum Body {
    None,
    Bytes(Vec<u8>),
    File(HostFile, u64),
}

struct Response {
    status: u16,
    head: Vec<u8>,
    body: Body,
    /// Bytes of the body.
    length: u64,
    near: Option<String>,
}

/// The answer to a request's head.
fn respond(site: &dyn Site, head: Option<&[u8]>) -> Response {
    const TEXT: &str = "text/plain; charset=utf-8";
    let plain = |text: String| Body::Bytes(text.into_bytes());
    let asked = understand(head.unwrap_or_default());
    let only_head = matches!(asked, Asked::Path { head: true, .. });
    let mut near = None;
    let (status, words, kind, body) = match asked {
        Asked::Path { path, .. } => match site.find(&path) {
            Found::Bytes(bytes, kind) => (200, "OK", kind, Body::Bytes(bytes)),
            Found::File(file, length) => (
                200,
                "OK",
                "application/octet-stream",
                Body::File(file, length),
            ),
            Found::Missing(meant) => {
                let hint = meant
                    .as_ref()
                    .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                near = meant;
                let text = format!("there is no such file{hint}\n");
                (404, "Not Found", TEXT, plain(text))
            }
            Found::Forbidden => {
                let text = "this is nobody's to have\n".to_owned();
                (403, "Forbidden", TEXT, plain(text))
            }
        },
        Asked::Method => {
            let text = "GET and HEAD alone\n".to_owned();
            (405, "Method Not Allowed", TEXT, plain(text))
        }
        Asked::Nothing => {
            let text = "no request of HTTP/1.1\n".to_owned();
            (400, "Bad Request", TEXT, plain(text))
        }
    };
    let length = match &body {
        Body::None => 0,
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::File(_, length) => *length,
    };
    let allow = if status == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let text = format!(
        "HTTP/1.1 {status} {words}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    );
    Response {
        status,
        head: text.into_bytes(),
        length: if only_head { 0 } else { length },
        body: if only_head { Body::None } else { body },
        near,
    }
}

#[cfg(test)]
mod tests;
