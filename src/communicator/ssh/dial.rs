//! From nothing to a login: one attempt, in two steps that can be told apart.
//!
//! [`greet`] connects and waits for the server to say its name, which is the only sign of life that means
//! anything; [`Greeted::log_in`] exchanges keys and proves who we are.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{self, Handle};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::wait::State;
use super::guard::{Facts, Guard, Trust, unlocked};
use super::login;
use super::options::{Destination, Options};
use crate::error::Result;

/// What a server may say before its name.
const LONGEST_GREETING: usize = 8 * 1024;

/// What a server may send until the login is through: keys, banners, questions.
const LONGEST_LOGIN: usize = 1024 * 1024;

/// A logged-in connection.
pub(super) struct Link {
    pub(super) handle: Handle<Guard>,
    pub(super) facts: Arc<Mutex<Facts>>,
    /// The way to the server is part of another connection, which lives as long.
    pub(super) through: Option<Arc<Link>>,
    closer: Option<Closer>,
}

impl Link {
    /// Whether it can still be used, as far as known.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed() && self.through.as_ref().is_none_or(|link| link.is_open())
    }

    /// Why it ended, in the server's words if it had any.
    pub(super) fn farewell(&self) -> String {
        unlocked(&self.facts, |facts| facts.farewell.clone()).unwrap_or_default()
    }
}

/// Ends a TCP connection however much its session would still like to say.
struct Closer(std::net::TcpStream);

impl Drop for Closer {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Any stream of bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A server that has said its name.
pub(super) struct Greeted {
    stream: Box<dyn Stream>,
    /// What was read, for the session to read again.
    read: Vec<u8>,
    closer: Option<Closer>,
    through: Option<Arc<Link>>,
    /// The server's name.
    pub(super) banner: String,
}

/// Connects to `to` and waits for its banner. There is no limit of time: to let go of it ends it.
pub(super) async fn greet(
    to: &Destination,
    through: Option<Arc<Link>>,
) -> std::result::Result<Greeted, State> {
    let (mut stream, closer): (Box<dyn Stream>, _) = match &through {
        None => {
            let (stream, closer) = connect(&to.host, to.port).await?;
            (Box::new(stream), Some(closer))
        }
        Some(link) => {
            let channel = link
                .handle
                .channel_open_direct_tcpip(&to.host, u32::from(to.port), "127.0.0.1", 0)
                .await;
            let channel = channel.map_err(|error| match error {
                russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::ConnectFailed) => {
                    State::NotListening
                }
                russh::Error::ChannelOpenFailure(reason) => State::Unreachable {
                    why: format!("the bastion does not let us through ({reason:?})"),
                },
                error => State::Bastion(Box::new(State::Lost {
                    why: error.to_string(),
                })),
            })?;
            (Box::new(channel.into_stream()), None)
        }
    };
    let (read, banner) = read_banner(&mut stream).await?;
    Ok(Greeted {
        stream,
        read,
        closer,
        through,
        banner,
    })
}

async fn connect(host: &str, port: u16) -> std::result::Result<(TcpStream, Closer), State> {
    let connected = match host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    let unreachable = |error: io::Error| State::Unreachable {
        why: error.to_string(),
    };
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => State::NotListening,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => State::Closed,
        _ => unreachable(error),
    })?;
    // Small messages wait for nothing; without it they are only slower.
    let _ = stream.set_nodelay(true);
    let stream = stream.into_std().map_err(unreachable)?;
    let closer = Closer(stream.try_clone().map_err(unreachable)?);
    let stream = TcpStream::from_std(stream).map_err(unreachable)?;
    Ok((stream, closer))
}

/// All bytes read, and the line in them that is the server's name.
async fn read_banner(
    stream: &mut (dyn Stream + '_),
) -> std::result::Result<(Vec<u8>, String), State> {
    let mut read = Vec::with_capacity(256);
    let mut from = 0;
    loop {
        let room = LONGEST_GREETING - read.len();
        let mut piece = [0; 256];
        let length = match stream.read(&mut piece[..room.min(256)]).await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(State::Silent),
            Err(_) => 0,
        };
        read.extend_from_slice(&piece[..length]);
        while let Some(end) = read[from..].iter().position(|byte| *byte == b'\n') {
            let line = read[from..from + end].trim_ascii_end();
            if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
                let banner = String::from_utf8_lossy(&line[..line.len().min(255)]).into_owned();
                return Ok((read, banner));
            }
            if line.starts_with(b"SSH-") {
                return Err(not_ssh(line));
            }
            from += end + 1;
        }
        if length == 0 || read.len() >= LONGEST_GREETING {
            return Err(match read.is_empty() {
                true => State::Closed,
                false => not_ssh(&read),
            });
        }
    }
}

fn not_ssh(bytes: &[u8]) -> State {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    let text = text.trim().to_owned();
    // What OpenSSH says instead of its name when there are too many logins, or too many failed ones.
    let turned_away = ["Exceeded MaxStartups", "Not allowed at this time"];
    match turned_away.iter().any(|words| text.starts_with(words)) {
        true => State::TurnedAway { text },
        false => State::NotSsh { text },
    }
}

impl Greeted {
    /// Exchanges keys and logs in, all within `patience`; `tell` hears of the step between.
    pub(super) async fn log_in(
        self,
        to: &Destination,
        options: &Options,
        trust: &Arc<Trust>,
        agent: Option<&std::path::Path>,
        patience: Duration,
        tell: &dyn Fn(State),
    ) -> std::result::Result<Link, State> {
        let started = tokio::time::Instant::now();
        let guard = Guard::new(trust, agent.map(ToOwned::to_owned));
        let facts = Arc::clone(&guard.facts);
        let config = config(options, trust).map_err(|error| State::KeyExchangeFailed {
            why: error.to_string(),
        })?;
        let through_login = Arc::new(AtomicBool::new(false));
        let stream = Replayed {
            inner: self.stream,
            read: self.read,
            at: 0,
            login: Arc::clone(&through_login),
            left: LONGEST_LOGIN,
        };
        let begun = timeout(
            patience,
            client::connect_stream(Arc::new(config), stream, guard),
        );
        let mut handle = match begun.await {
            Err(_) => return Err(State::KeyExchangeStuck),
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => {
                let wrong = unlocked(&facts, |facts| facts.wrong_key.take());
                return Err(match wrong {
                    Some((expected, shown)) => State::HostKeyDiffers { expected, shown },
                    None => State::KeyExchangeFailed { why: why(&error) },
                });
            }
        };
        tell(State::LoggingIn);
        let rest = patience.saturating_sub(started.elapsed());
        let logged_in = timeout(rest, login::log_in(&mut handle, to, &facts));
        match logged_in.await {
            Err(_) => Err(State::Lost {
                why: "it went silent".to_owned(),
            }),
            Ok(Err(state)) => Err(state),
            Ok(Ok(())) => {
                through_login.store(true, Ordering::Release);
                Ok(Link {
                    handle,
                    facts,
                    through: self.through,
                    closer: self.closer,
                })
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The session says goodbye by itself when nobody holds it any more. A server that does not take that in is
        // left after a moment.
        if let (Some(closer), Ok(runtime)) =
            (self.closer.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(closer);
            });
        }
    }
}

/// What the session needs to know.
fn config(options: &Options, trust: &Trust) -> Result<client::Config> {
    Ok(client::Config {
        preferred: options.preferred(trust.algorithm().as_ref())?,
        keepalive_interval: options.keep_alive,
        keepalive_max: options.keep_alive.map_or(0, unanswered),
        // The server may send so much before it hears from us again.
        window_size: 8 * 1024 * 1024,
        maximum_packet_size: 32 * 1024,
        // Messages that wait for a slow reader, of at most one packet each: 2 MiB.
        channel_buffer_size: 64,
        ..client::Config::default()
    })
}

/// Signs of life without an answer, after which a connection is lost. A guest without an accelerator may be busy
/// with itself for a long time.
fn unanswered(interval: Duration) -> usize {
    let seconds = interval.as_secs().max(1);
    usize::try_from(60 / seconds).map_or(3, |times| times.max(3))
}

/// A failed key exchange in words.
fn why(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let kind = match kind {
                russh::AlgorithmKind::Kex => "key exchange algorithm",
                russh::AlgorithmKind::Key => "host key algorithm",
                russh::AlgorithmKind::Cipher => "cipher",
                russh::AlgorithmKind::Compression => "compression",
                russh::AlgorithmKind::Mac => "message authentication code",
            };
            let list = |names: &[String]| {
                let few: Vec<&str> = names.iter().take(16).map(String::as_str).collect();
                few.join(", ").chars().take(500).collect::<String>()
            };
            format!(
                "no {kind} in common: the server has {}, here there is {}",
                list(theirs),
                list(ours)
            )
        }
        russh::Error::Disconnect | russh::Error::HUP => "the server ended it".to_owned(),
        russh::Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ended it".to_owned()
        }
        error => error.to_string(),
    }
}

/// A stream whose first bytes were read already, and which does not bring more than enough before the login.
struct Replayed {
    inner: Box<dyn Stream>,
    read: Vec<u8>,
    at: usize,
    login: Arc<AtomicBool>,
    left: usize,
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.read.len() {
            let length = buffer.remaining().min(self.read.len() - self.at);
            buffer.put_slice(&self.read[self.at..self.at + length]);
            self.at += length;
            if self.at == self.read.len() {
                self.read = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.left > 0 {
            self.left = self.left.saturating_sub(buffer.filled().len() - before);
            if self.login.load(Ordering::Acquire) {
                self.left = 0;
            } else if self.left == 0 {
                let message = "the server sends without end before the login";
                return Poll::Ready(Err(io::Error::other(message)));
            }
        }
        polled
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
