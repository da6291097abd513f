//! An HTTP server on loopback that answers as a test wants it: properly, slowly, cut off, or with lies.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Request {
    /// As in the first line.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many came before it, of any path.
    pub number: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of `Range: bytes=N-`.
    pub fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// A connection.
pub trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

pub type Handler = dyn Fn(&Request, &mut dyn Wire) + Send + Sync;

pub struct Server {
    port: u16,
    scheme: &'static str,
    over: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn new(handler: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(handler), None)
    }

    /// Serves `bytes` under any path, properly.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self::new(move |request, wire| file(request, wire, &bytes, Some("\"1\"")))
    }

    /// With TLS, by the certificate and key in these files.
    pub fn encrypted(
        certificate: &Path,
        key: &Path,
        handler: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::start(Arc::new(handler), Some(Arc::new(config)))
    }

    fn start(handler: Arc<Handler>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (done, seen, count) = (
            Arc::clone(&over),
            Arc::clone(&requests),
            AtomicUsize::new(0),
        );
        let count = Arc::new(count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let (handler, tls) = (Arc::clone(&handler), tls.clone());
                let (seen, count) = (Arc::clone(&seen), Arc::clone(&count));
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    stream
                        .set_read_timeout(Some(Duration::from_secs(20)))
                        .unwrap();
                    match tls {
                        None => answer(stream, &*handler, &seen, &count),
                        Some(config) => {
                            let session = rustls::ServerConnection::new(config).unwrap();
                            let stream = rustls::StreamOwned::new(session, stream);
                            answer(stream, &*handler, &seen, &count);
                        }
                    }
                });
            }
        });
        Self {
            port,
            scheme,
            over,
            requests,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/{path}", self.scheme, self.port)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(
    mut stream: impl Wire,
    handler: &Handler,
    seen: &Mutex<Vec<Request>>,
    count: &AtomicUsize,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) if head.len() < 65536 => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let number = count.fetch_add(1, Ordering::Relaxed);
    let request = Request {
        path,
        headers,
        number,
    };
    seen.lock().unwrap().push(request.clone());
    handler(&request, &mut stream);
    let _ = stream.flush();
}

/// A status line, headers and an empty line.
pub fn head(wire: &mut dyn Wire, status: &str, headers: &[(&str, String)]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let _ = wire.write_all(text.as_bytes());
}

/// A status and no body.
pub fn status(wire: &mut dyn Wire, status: &str) {
    head(wire, status, &[("Content-Length", "0".into())]);
}

/// A file, as good servers serve it: with ranges and their conditions.
pub fn file(request: &Request, wire: &mut dyn Wire, bytes: &[u8], etag: Option<&str>) {
    if etag.is_some() && request.header("if-none-match") == etag {
        return status(wire, "304 Not Modified");
    }
    let mut headers = vec![("Accept-Ranges", "bytes".to_owned())];
    headers.extend(etag.map(|etag| ("ETag", etag.to_owned())));
    let still = request
        .header("if-range")
        .is_none_or(|known| Some(known) == etag);
    match request.from().filter(|_| still) {
        Some(from) if from >= bytes.len() => {
            headers.push(("Content-Range", format!("bytes */{}", bytes.len())));
            headers.push(("Content-Length", "0".into()));
            head(wire, "416 Range Not Satisfiable", &headers);
        }
        Some(from) => {
            let last = bytes.len() - 1;
            headers.push((
                "Content-Range",
                format!("bytes {from}-{last}/{}", bytes.len()),
            ));
            headers.push(("Content-Length", (bytes.len() - from).to_string()));
            head(wire, "206 Partial Content", &headers);
            let _ = wire.write_all(&bytes[from..]);
        }
        None => {
            headers.push(("Content-Length", bytes.len().to_string()));
            head(wire, "200 OK", &headers);
            let _ = wire.write_all(bytes);
        }
    }
}
