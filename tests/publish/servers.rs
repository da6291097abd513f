//! A real S3 server, and a wire to it that looks at requests, slows them down, or cuts them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const KEY: &str = "AKIATESTKEY";
pub const SECRET: &str = "a/secret+that=nobody sees";

/// Where tests/oracles puts it.
fn program() -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            home.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"))
                .join("qimg-tests")
        });
    let program = cache.join("s3s-fs-0.14.1/bin/s3s-fs");
    assert!(
        program.exists(),
        "{} is missing: tests/oracles installs it",
        program.display()
    );
    program
}

/// The server, with its buckets in a directory.
pub struct Store {
    child: Option<Child>,
    port: u16,
    root: tempfile::TempDir,
}

impl Store {
    /// With one bucket `images`.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("images")).unwrap();
        let mut store = Self {
            child: None,
            port: free_port(),
            root,
        };
        store.start();
        store
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn object(&self, key: &str) -> PathBuf {
        self.root.path().join("images").join(key)
    }

    pub fn start(&mut self) {
        let child = Command::new(program())
            .args(["--host", "127.0.0.1", "--domain", "s3.test"])
            .args(["--port", &self.port.to_string()])
            .args(["--access-key", KEY, "--secret-key", SECRET])
            .arg(self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the S3 server does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a power failure.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The beginning of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn is_part(&self) -> bool {
        self.line.starts_with("PUT ") && self.line.contains("partNumber=")
    }
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    /// Parts that went through, as far as their answer.
    parts: AtomicUsize,
    /// Milliseconds before each request goes on.
    delay: AtomicU64,
    /// So many parts may go through.
    most_parts: AtomicUsize,
    /// The next part's bytes are changed on the way.
    corrupt: AtomicBool,
    /// The next answers are of this status, without asking the server.
    busy: AtomicUsize,
    over: AtomicBool,
}

/// What stands between qimg and a server.
pub struct Wire {
    port: u16,
    state: Arc<State>,
}

impl Wire {
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            most_parts: AtomicUsize::new(usize::MAX),
            ..State::default()
        });
        let own = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&own);
                std::thread::spawn(move || {
                    // A side that goes away ends the other one.
                    let _ = pass(stream.unwrap(), server, &state);
                });
            }
        });
        Self { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
        self.state.parts.store(0, Ordering::Relaxed);
    }

    pub fn parts(&self) -> usize {
        self.state.parts.load(Ordering::Relaxed)
    }

    pub fn delay(&self, milliseconds: u64) {
        self.state.delay.store(milliseconds, Ordering::Relaxed);
    }

    /// Whether so many parts went through, whenever it is asked.
    pub fn passed(&self, parts: usize) -> impl Fn() -> bool + Send + Sync + use<> {
        let state = Arc::clone(&self.state);
        move || state.parts.load(Ordering::Relaxed) >= parts
    }

    /// After so many parts, further ones hang until this is called again.
    pub fn let_through(&self, parts: usize) {
        self.state.most_parts.store(parts, Ordering::Relaxed);
    }

    pub fn corrupt_a_part(&self) {
        self.state.corrupt.store(true, Ordering::Relaxed);
    }

    pub fn be_busy(&self, answers: usize) {
        self.state.busy.store(answers, Ordering::Relaxed);
    }

    pub fn wait_for_parts(&self, parts: usize) {
        let began = Instant::now();
        while self.parts() < parts {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "{} parts went through",
                self.parts()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// One request and its answer.
fn pass(mut client: TcpStream, server: u16, state: &State) -> std::io::Result<()> {
    let mut head = read_head(&mut client)?;
    if head.starts_with(b"CONNECT ") {
        // As a proxy, whatever the host: names of tests have no addresses.
        client.write_all(b"HTTP/1.1 200 go on\r\n\r\n")?;
        head = read_head(&mut client)?;
    }
    let seen = parse(&head);
    state.seen.lock().unwrap().push(seen.clone());
    std::thread::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed)));
    let busy = state
        .busy
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
    if busy.is_ok() {
        let mut body = [0; 1 << 16];
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        while matches!(client.read(&mut body), Ok(1..)) {}
        return client.write_all(b"HTTP/1.1 503 Slow Down\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let is_part = seen.is_part();
    if is_part {
        let mut turn = state.parts.load(Ordering::Relaxed);
        while turn >= state.most_parts.load(Ordering::Relaxed) {
            if state.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
            turn = state.parts.load(Ordering::Relaxed);
        }
    }
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    upstream.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    let corrupt = is_part && state.corrupt.swap(false, Ordering::Relaxed);
    let up = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut corrupt = corrupt;
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            if std::mem::take(&mut corrupt) {
                buffer[0] ^= 1;
            }
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 1 << 16];
    let mut first = true;
    while let Ok(bytes @ 1..) = upstream.read(&mut buffer) {
        if first && is_part && buffer.starts_with(b"HTTP/1.1 200") {
            state.parts.fetch_add(1, Ordering::Relaxed);
        }
        first = false;
        client.write_all(&buffer[..bytes])?;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

pub fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > 1 << 16 {
            return Err(std::io::Error::other("no request"));
        }
        head.push(byte[0]);
    }
    Ok(head)
}

pub fn parse(head: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    Seen {
        line: lines.next().unwrap_or_default().to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
    }
}
