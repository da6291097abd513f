//! Connections that end when they are told to: resolving, connecting, reading and writing all look at a flag.
//!
//! Knows sockets and time. Must not know HTTP or TLS, which lie above.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

/// How often the flag is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a connection may do nothing, and the flag that ends it at once.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Resolving, and connecting to one address.
    pub connect: Duration,
    /// Without a byte either way.
    pub silence: Duration,
    /// Set: everything ends.
    pub stopped: Arc<AtomicBool>,
}

impl Patience {
    fn check(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "interrupted"));
        }
        Ok(())
    }

    /// What `work` comes to, on a thread of its own, which is left alone when nobody waits for it any more.
    fn wait_for<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("qimg-connect".into())
            .spawn(move || sender.send(work()))?;
        let started = Instant::now();
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other(what)),
                Err(RecvTimeoutError::Timeout) => self.check()?,
            }
            if started.elapsed() >= self.connect {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("{what} took more than {} s", self.connect.as_secs_f32()),
                ));
            }
        }
    }
}

/// Finds addresses.
pub(super) struct Names(pub Patience);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (uri, config) = (uri.clone(), config.clone());
        let found = self.0.wait_for("looking its name up", move || {
            DefaultResolver::default()
                .resolve(&uri, &config, timeout)
                .map_err(Error::into_io)
        })?;
        Ok(found)
    }
}

/// Makes TCP connections.
#[derive(Debug)]
pub(super) struct Wire(pub Patience);

impl<In: Transport> Connector<In> for Wire {
    type Out = Either<In, Connection>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let mut failure = io::Error::new(ErrorKind::NotFound, "it has no address");
        for address in &details.addrs {
            match self.connect_to(*address) {
                Ok(stream) => {
                    let buffers = LazyBuffers::new(
                        details.config.input_buffer_size(),
                        details.config.output_buffer_size(),
                    );
                    return Ok(Some(Either::B(Connection {
                        stream,
                        buffers,
                        patience: self.0.clone(),
                    })));
                }
                Err(error) => failure = error,
            }
            self.0.check()?;
        }
        Err(failure.into())
    }
}

impl Wire {
    fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let limit = self.0.connect;
        let stream = self.0.wait_for("connecting", move || {
            TcpStream::connect_timeout(&address, limit)
        })?;
        stream.set_nodelay(true)?;
        // Short, so that the flag is seen.
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(stream)
    }
}

/// A TCP connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
    patience: Patience,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.stream).finish()
    }
}

impl Connection {
    /// Repeats `step` for as long as it says that it would have to wait.
    fn patiently<T>(
        patience: &Patience,
        timeout: NextTimeout,
        mut step: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let silence = timeout
            .not_zero()
            .map_or(patience.silence, |left| patience.silence.min(*left));
        loop {
            match step() {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                result => return Ok(result?),
            }
            patience.check()?;
            if started.elapsed() >= silence {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("nothing came for {} s", silence.as_secs_f32().ceil()),
                )
                .into());
            }
        }
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut left = &self.buffers.output()[..amount];
        while !left.is_empty() {
            let written = Self::patiently(&self.patience, timeout, || self.stream.write(left))?;
            if written == 0 {
                return Err(io::Error::from(ErrorKind::WriteZero).into());
            }
            left = &left[written..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.patience.check()?;
        let input = self.buffers.input_append_buf();
        let read = Self::patiently(&self.patience, timeout, || self.stream.read(input))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        // Each request has a connection of its own.
        false
    }
}
