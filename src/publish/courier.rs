//! Requests that bring something, made again for as long as that may help.
//!
//! Knows methods, bodies, statuses and pauses. Must not know what a server's answer means.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Request, Response};
use ureq::{Body, SendBody};

use super::attend::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::HttpOptions;
use crate::fetch::http::{Client, Failure, asked_pause, header, is_passing};
use crate::fetch::source::shown;

/// An answer that is read as a whole is not longer.
const MAX_ANSWER: u64 = 16 << 20;

/// Pauses between two tries are not longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What can be read again from its beginning.
pub(super) trait Again: Sync {
    /// In bytes.
    fn length(&self) -> u64;

    fn reader(&self) -> Box<dyn Read + '_>;
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Empty,
    Bytes(&'a [u8]),
    Reader(&'a dyn Again),
}

/// One request.
pub(super) struct Ask<'a> {
    /// Completes "cannot ..." before the URL.
    pub doing: &'a str,
    pub method: &'a str,
    pub headers: &'a [(&'a str, String)],
    pub payload: Payload<'a>,
}

impl std::fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask")
            .field("doing", &self.doing)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl<'a> Ask<'a> {
    pub fn new(doing: &'a str, method: &'a str) -> Self {
        Self {
            doing,
            method,
            headers: &[],
            payload: Payload::Empty,
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header of at most a kilobyte.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }

    /// The body, as far as it is text.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Makes requests, and makes them again.
#[derive(Debug)]
pub(super) struct Courier<'a> {
    client: Client,
    options: &'a HttpOptions,
    pub work: &'a Work,
}

impl<'a> Courier<'a> {
    /// # Errors
    /// A proxy that is none; certificates that cannot be read.
    pub fn new(options: &'a HttpOptions, work: &'a Work) -> Result<Self> {
        Ok(Self {
            client: Client::new(options, &work.stopped)?,
            options,
            work,
        })
    }

    /// Asks once, and takes any answer: for what must not be done twice.
    ///
    /// # Errors
    /// No answer; [`Cancelled`](ErrorKind::Cancelled).
    pub fn ask_once(&self, url: &str, ask: &Ask<'_>) -> Result<Reply> {
        self.work.go_on()?;
        self.once(url, ask)
            .and_then(|response| self.whole(url, ask, response))
            .map_err(|failure| failure.error)
    }

    /// Asks until there is an answer that will not be another in a while. `url` is asked for each try, for its signature
    /// may be over. A server that fails for good is answered as any other.
    ///
    /// # Errors
    /// No answer; [`Cancelled`](ErrorKind::Cancelled).
    pub fn ask(&self, url: &dyn Fn() -> String, ask: &Ask<'_>) -> Result<Reply> {
        self.patiently(|| {
            let url = url();
            let response = self.once(&url, ask)?;
            let reply = self.whole(&url, ask, response)?;
            if is_passing(reply.status) {
                return Ok(Try::Again(asked_pause(&reply.headers), reply));
            }
            Ok(Try::Done(reply))
        })
    }

    /// Asks once for a body that may be long, and hands it over.
    ///
    /// # Errors
    /// No answer, or what `take` says; anything that passes is tried again.
    pub fn read<T>(
        &self,
        url: &dyn Fn() -> String,
        ask: &Ask<'_>,
        take: &mut dyn FnMut(&mut dyn Read) -> std::io::Result<T>,
    ) -> Result<Result<T, Reply>> {
        self.patiently(|| {
            let url = url();
            let response = self.once(&url, ask)?;
            let (parts, mut body) = response.into_parts();
            let mut reader = body.with_config().limit(u64::MAX).reader();
            let failed = |error: std::io::Error| self.client.failed(ask.doing, &url, error.into());
            if parts.status.is_success() {
                return Ok(Try::Done(Ok(take(&mut reader).map_err(failed)?)));
            }
            let mut bytes = Vec::new();
            reader
                .take(MAX_ANSWER)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            let reply = Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: bytes,
            };
            Ok(match is_passing(reply.status) {
                true => Try::Again(asked_pause(&reply.headers), Err(reply)),
                false => Try::Done(Err(reply)),
            })
        })
    }

    fn whole(&self, url: &str, ask: &Ask<'_>, response: Response<Body>) -> Result<Reply, Failure> {
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        body.with_config()
            .limit(u64::MAX)
            .reader()
            .take(MAX_ANSWER + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.client.failed(ask.doing, url, error.into()))?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(Failure::lasting(Error::new(
                ErrorKind::Io,
                format!(
                    "{}: the answer is longer than {MAX_ANSWER} bytes",
                    shown(url)
                ),
            )));
        }
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes,
        })
    }

    fn once(&self, url: &str, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(ask.method).uri(url);
        for (name, value) in ask.headers {
            request = request.header(*name, value);
        }
        let bad = |_| {
            Failure::lasting(Error::usage(format!(
                "cannot {} {}: no request can be made of it",
                ask.doing,
                shown(url)
            )))
        };
        match ask.payload {
            Payload::Empty => {
                let length = !matches!(ask.method, "GET" | "HEAD" | "DELETE");
                if length {
                    request = request.header("content-length", "0");
                }
                let body = if length {
                    SendBody::from_owned_reader(std::io::empty())
                } else {
                    SendBody::none()
                };
                self.client
                    .send(ask.doing, request.body(body).map_err(bad)?)
            }
            Payload::Bytes(mut bytes) => {
                request = request.header("content-length", bytes.len().to_string());
                let body = SendBody::from_reader(&mut bytes);
                self.client
                    .send(ask.doing, request.body(body).map_err(bad)?)
            }
            Payload::Reader(again) => {
                request = request.header("content-length", again.length().to_string());
                let mut reader = again.reader();
                let body = SendBody::from_reader(&mut *reader);
                self.client
                    .send(ask.doing, request.body(body).map_err(bad)?)
            }
        }
    }

    fn patiently<T>(&self, mut once: impl FnMut() -> Result<Try<T>, Failure>) -> Result<T> {
        let mut pause = self.options.retry_pause;
        let mut left = self.options.retries;
        loop {
            self.work.go_on()?;
            let asked = match once() {
                Ok(Try::Done(done)) => return Ok(done),
                Ok(Try::Again(_, last)) if left == 0 => return Ok(last),
                Ok(Try::Again(asked, _)) => asked,
                Err(failure) if !failure.passes || left == 0 => return Err(failure.error),
                Err(failure) => {
                    self.work
                        .note(format!("{}; trying again", said(&failure.error)));
                    failure.pause
                }
            };
            left -= 1;
            self.work.pause(asked.unwrap_or(pause))?;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

/// A failure and its causes in one line.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

enum Try<T> {
    Done(T),
    /// What there is if no try is left, and the pause asked for.
    Again(Option<Duration>, T),
}

/// What a server said that refused, in one line of bounded length.
pub(super) fn words(text: &str) -> String {
    const MOST: usize = 300;
    let one: Vec<&str> = text.split_whitespace().collect();
    let one = one.join(" ");
    if one.chars().count() <= MOST {
        return one;
    }
    one.chars().take(MOST).chain("...".chars()).collect()
}
