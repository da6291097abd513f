//! A seed over HTTP, for guests that are told its address by their kernel's command line or by SMBIOS.
//!
//! Knows as much of HTTP/1.1 (RFC 9112) as a client needs that gets small files. Takes hostile requests: their length,
//! number and time are bounded, and no path leads to anything but the files that it was given.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::File;
use crate::error::{Error, Result};

/// Where a guest sees its host's loopback through QEMU's user networking.
const HOST_IN_GUEST: &str = "10.0.2.2";
const VENDOR_DATA: &str = "vendor-data";
/// A request's head at most.
const MAX_HEAD: usize = 16 << 10;
/// For a whole request, and for each step of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time.
const MAX_CLIENTS: usize = 32;
/// How often a request to stop is looked for.
const POLL: Duration = Duration::from_millis(20);

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
    pub length: usize,
}

/// Serves the files of a seed.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    files: Vec<File>,
}

impl Server {
    /// Listens at `address`; port 0 takes any that is free. Where no vendor-data is given, an empty one is served: cloud-init
    /// asks for it ten times, a second apart, when there is none.
    ///
    /// # Errors
    /// The address is in use, or not this host's.
    pub fn bind(address: SocketAddr, mut files: Vec<File>) -> Result<Self> {
        if files.iter().all(|file| file.name != VENDOR_DATA) {
            files.push(File {
                name: VENDOR_DATA.to_owned(),
                bytes: Vec::new(),
            });
        }
        let failed = |error| Error::io(format_args!("listen at {address}"), error);
        let listener = TcpListener::bind(address).map_err(failed)?;
        // A call that waits for a guest would not notice that it is to end.
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            files,
        })
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

    /// Answers until `stop` is raised, or `enough` says so after an answer; calls `told` for each answer.
    ///
    /// # Errors
    /// The host fails to accept connections.
    pub fn run(&self, stop: &AtomicBool, told: &(dyn Fn(&Answered) -> bool + Sync)) -> Result<()> {
        let clients = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            while !stop.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
                match self.listener.accept() {
                    Ok((stream, client)) if clients.load(Ordering::Relaxed) < MAX_CLIENTS => {
                        clients.fetch_add(1, Ordering::Relaxed);
                        let (clients, done) = (&clients, &done);
                        scope.spawn(move || {
                            // A client that goes away is its own affair.
                            if let Ok(answered) = self.answer(&stream, client)
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

    fn answer(&self, stream: &TcpStream, client: SocketAddr) -> io::Result<Answered> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = read_head(stream)?;
        let response = respond(&self.files, head.as_deref());
        let mut out = stream;
        out.write_all(&response.head)?;
        out.write_all(response.body)?;
        out.flush()?;
        stream.shutdown(std::net::Shutdown::Write)?;
        // What the client sent beyond its head would turn the end into a reset.
        stream.set_read_timeout(Some(POLL))?;
        let mut rest = [0; 1024];
        for _ in 0..16 {
            match out.read(&mut rest) {
                Ok(1..) => {}
                _ => break,
            }
        }
        let head = head.unwrap_or_default();
        let first = head
            .split(|&byte| byte == b'\r' || byte == b'\n')
            .next()
            .unwrap_or_default();
        Ok(Answered {
            client,
            request: String::from_utf8_lossy(first).chars().take(200).collect(),
            status: response.status,
            length: response.body.len(),
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

/// A request up to the empty line; `None` where it is too long or does not come.
fn read_head(mut stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > MAX_HEAD {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(length) => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n")
            || head.windows(2).any(|end| end == b"\n\n")
        {
            return Ok(Some(head));
        }
    }
}

struct Response<'f> {
    status: u16,
    head: Vec<u8>,
    body: &'f [u8],
}

/// The answer to a request's head.
fn respond<'f>(files: &'f [File], head: Option<&[u8]>) -> Response<'f> {
    let head = head.unwrap_or_default();
    let first = head
        .split(|&byte| byte == b'\r' || byte == b'\n')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let mut words = first.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let known =
        version.is_some_and(|version| version.starts_with("HTTP/1.")) && words.next().is_none();
    let (status, words, body): (u16, &str, &[u8]) = match (method, target) {
        (Some("GET" | "HEAD"), Some(target)) if known => match file(files, target) {
            Some(file) => (200, "OK", &file.bytes),
            None => (404, "Not Found", b"no such file in this seed\n"),
        },
        (Some(_), Some(_)) if known => (405, "Method Not Allowed", b"GET and HEAD alone\n"),
        _ => (400, "Bad Request", b"no request of HTTP/1.1\n"),
    };
    let allow = if status == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let text = format!(
        "HTTP/1.1 {status} {words}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if method == Some("HEAD") { &[] } else { body };
    Response {
        status,
        head: text.into_bytes(),
        body,
    }
}

/// The file that a target names: the name alone, with slashes before it and a query behind it.
fn file<'f>(files: &'f [File], target: &str) -> Option<&'f File> {
    let path = match target.strip_prefix("http://") {
        Some(absolute) => absolute.split_once('/').map_or("", |(_, path)| path),
        None => target,
    };
    let name = path
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .trim_start_matches('/');
    files.iter().find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<File> {
        vec![File {
            name: "user-data".into(),
            bytes: b"#cloud-config\n".to_vec(),
        }]
    }

    fn ask(request: &str) -> (u16, String, Vec<u8>) {
        let files = files();
        let response = respond(&files, Some(request.as_bytes()));
        (
            response.status,
            String::from_utf8(response.head).unwrap(),
            response.body.to_vec(),
        )
    }

    #[test]
    fn only_the_files_of_the_seed_are_there() {
        let (status, head, body) = ask("GET /user-data HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((status, body.as_slice()), (200, &b"#cloud-config\n"[..]));
        assert!(head.contains("Content-Length: 14\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(ask("GET //user-data?x=1 HTTP/1.0\r\n\r\n").0, 200);
        let (status, head, body) = ask("HEAD /user-data HTTP/1.1\r\n\r\n");
        assert!(status == 200 && head.contains("Content-Length: 14\r\n") && body.is_empty());
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404),
            ("GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
            ("GET /user-data/ HTTP/1.1\r\n\r\n", 404),
            ("POST /user-data HTTP/1.1\r\n\r\n", 405),
            ("GET /user-data\r\n\r\n", 400),
            ("\x16\x03\x01", 400),
            ("", 400),
        ] {
            assert_eq!(ask(request).0, status, "{request:?}");
        }
    }

    #[test]
    fn it_serves_until_it_is_told_to_stop() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), files()).unwrap();
        assert!(server.guest_url().starts_with("http://10.0.2.2:"));
        let stop = AtomicBool::new(false);
        let seen = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                server.run(&stop, &|answered| {
                    seen.lock()
                        .unwrap()
                        .push((answered.request.clone(), answered.status));
                    false
                })
            });
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream
                .write_all(b"GET /user-data HTTP/1.1\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(
                text.starts_with("HTTP/1.1 200 OK\r\n")
                    && text.ends_with("\r\n\r\n#cloud-config\n")
            );
            // One that says nothing does not keep it.
            drop(TcpStream::connect(server.address()).unwrap());
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            *seen.lock().unwrap(),
            [("GET /user-data HTTP/1.1".to_owned(), 200)]
        );
    }
}
