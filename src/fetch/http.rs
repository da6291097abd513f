//! Requests by HTTP: one answer, or what kind of failure it was.
//!
//! Knows headers, statuses, redirects, proxies and certificates, and which failures are worth another try. Must not
//! know what is downloaded, nor write a file.

mod wire;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::http::header::HeaderMap;
use ureq::http::{Request, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol, ResponseExt, SendBody};

use super::source::shown;
use crate::error::{Error, ErrorKind, Result};
use crate::store::read_file;
use wire::{Names, Patience, Wire};

/// A file of certificates is not longer.
const MAX_CERTIFICATES: u64 = 16 << 20;

/// A server cannot ask for more patience between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How servers are talked to. The caller takes proxies and certificates from wherever its users expect them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// For looking a name up, and for connecting to one address.
    pub connect_timeout: Duration,
    /// Without a byte from the server; there is no limit for a whole download.
    pub silence_timeout: Duration,
    /// Redirects of one request, at most.
    pub max_redirects: u32,
    /// Further tries after failures that may pass, in a row and without progress.
    pub retries: u32,
    /// Before the second try; doubled for each further one, up to a minute.
    pub retry_pause: Duration,
    /// Proxies.
    pub proxies: Proxies,
    /// A file with the authorities that may sign servers' certificates (PEM), instead of those that browsers know.
    pub ca_file: Option<PathBuf>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            silence_timeout: Duration::from_secs(60),
            max_redirects: 10,
            retries: 5,
            retry_pause: Duration::from_secs(1),
            proxies: Proxies::default(),
            ca_file: None,
        }
    }
}

/// Proxies, as `http_proxy`, `https_proxy` and `no_proxy` hold them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http URLs: `http://[USER:PASSWORD@]HOST:PORT`.
    pub http: Option<String>,
    /// For https URLs.
    pub https: Option<String>,
    /// Hosts and domains that are reached directly, separated by commas; `*` is all.
    pub none_for: Option<String>,
}

/// Without the URLs, which may hold passwords.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("none_for", &self.none_for)
            .finish()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What is said of it.
    pub error: Error,
    /// Another try may succeed.
    pub passes: bool,
    /// The server asked for so long a pause.
    pub pause: Option<Duration>,
}

impl Failure {
    pub fn lasting(error: Error) -> Self {
        Self {
            error,
            passes: false,
            pause: None,
        }
    }

    pub fn passing(error: Error) -> Self {
        Self {
            error,
            passes: true,
            pause: None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::lasting(error)
    }
}

/// What a request asks for beside the whole file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// From this byte on, if the file still has this validator (an ETag or a date).
    pub from: Option<(u64, Option<String>)>,
    /// Nothing, if the file still has this ETag or date.
    pub unless: Validators,
}

/// What tells two states of a file apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Validators {
    /// `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

impl Validators {
    /// The one that `If-Range` may hold: a weak ETag says nothing about bytes.
    pub fn for_range(&self) -> Option<String> {
        let strong = self.etag.clone().filter(|etag| !etag.starts_with("W/"));
        strong.or_else(|| self.modified.clone())
    }

    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }
}

/// An answer whose body has not been read.
pub(crate) struct Answer {
    /// `false`: the file has not changed, and there is no body.
    pub has_body: bool,
    /// Offset of the body's first byte in the file.
    pub start: u64,
    /// Length of the whole file, if the server says it.
    pub total: Option<u64>,
    /// What tells this state of the file from another.
    pub validators: Validators,
    /// The request began encrypted, and the answer is not.
    pub downgraded: bool,
    response: Response<Body>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.response.status())
            .field("start", &self.start)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Answer {
    pub fn reader(&mut self) -> impl Read + '_ {
        self.response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .reader()
    }
}

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Client {
    plain: Agent,
    encrypted: Agent,
    stopped: Arc<AtomicBool>,
}

impl Client {
    /// A client whose requests end when `stopped` is set.
    ///
    /// # Errors
    /// A proxy that is none; certificates that cannot be read.
    pub fn new(options: &HttpOptions, stopped: &Arc<AtomicBool>) -> Result<Self> {
        let roots = roots(options)?;
        let agent = |proxy: &Option<String>| -> Result<Agent> {
            let patience = Patience {
                connect: options.connect_timeout,
                silence: options.silence_timeout,
                stopped: Arc::clone(stopped),
            };
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(options.max_redirects)
                .save_redirect_history(true)
                .user_agent(concat!("qimg/", env!("CARGO_PKG_VERSION")))
                // What is downloaded is compared and kept as it is.
                .accept_encoding("identity")
                .timeout_recv_response(Some(options.silence_timeout.saturating_mul(5)))
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .proxy(self::proxy(
                    proxy.as_deref(),
                    options.proxies.none_for.as_deref(),
                )?)
                .max_idle_connections(0)
                .build();
            let connector =
                ().chain(ConnectProxyConnector::default())
                    .chain(Wire(patience.clone()))
                    .chain(RustlsConnector::default());
            Ok(Agent::with_parts(config, connector, Names(patience)))
        };
        Ok(Self {
            plain: agent(&options.proxies.http)?,
            encrypted: agent(&options.proxies.https)?,
            stopped: Arc::clone(stopped),
        })
    }

    /// Whether the caller wants all of it to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Asks for the file at `url`.
    pub fn ask(&self, url: &str, ask: &Ask) -> Result<Answer, Failure> {
        let encrypted = is_encrypted(url);
        let agent = if encrypted {
            &self.encrypted
        } else {
            &self.plain
        };
        let mut request = agent.get(url);
        if let Some((from, validator)) = &ask.from {
            request = request.header("Range", format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header("If-Range", validator);
            }
        }
        if let Some(etag) = &ask.unless.etag {
            request = request.header("If-None-Match", etag);
        } else if let Some(modified) = &ask.unless.modified {
            request = request.header("If-Modified-Since", modified);
        }
        let response = request.call().map_err(|error| self.failure(url, error))?;
        let downgraded = encrypted
            && (response.get_uri().scheme_str() != Some("https")
                || response.get_redirect_history().is_some_and(|history| {
                    history.iter().any(|uri| uri.scheme_str() != Some("https"))
                }));
        answer(url, response, downgraded, ask)
    }

    /// Makes a request of any kind, whose `doing` completes "cannot ..." before its URL; redirects are answers as others.
    pub fn send(
        &self,
        doing: &str,
        request: Request<SendBody<'_>>,
    ) -> Result<Response<Body>, Failure> {
        let url = request.uri().to_string();
        let agent = if is_encrypted(&url) {
            &self.encrypted
        } else {
            &self.plain
        };
        let request = agent
            .configure_request(request)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        agent
            .run(request)
            .map_err(|error| self.failed(doing, &url, error))
    }

    /// A small file as a whole.
    pub fn read(&self, url: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let mut answer = self.ask(url, &Ask::default())?;
        let too_long = || {
            Failure::lasting(Error::refused(
                format!("{}: is longer than {most} bytes", shown(url)),
                "name a file of checksums, not the image",
            ))
        };
        if answer.downgraded {
            return Err(Failure::lasting(Error::refused(
                format!(
                    "{}: the server leads to a place without encryption",
                    shown(url)
                ),
                "what all else is compared with must come from whom it claims to come: name another URL",
            )));
        }
        if answer.total.is_some_and(|total| total > most) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        answer
            .reader()
            .take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.broken(url, error))?;
        if bytes.len() as u64 > most {
            return Err(too_long());
        }
        Ok(bytes)
    }

    /// What is said of a body that ended early.
    pub fn broken(&self, url: &str, error: io::Error) -> Failure {
        self.failure(url, error.into())
    }

    fn failure(&self, url: &str, error: ureq::Error) -> Failure {
        self.failed("get", url, error)
    }

    /// What is said of a request that had no answer; `doing` completes "cannot ..." before its URL.
    pub fn failed(&self, doing: &str, url: &str, error: ureq::Error) -> Failure {
        if self.is_stopped() {
            return Failure::lasting(Error::cancelled());
        }
        let host = host_of(url);
        let io = |error: io::Error| Error::io(format_args!("{doing} {}", shown(url)), error);
        let said = |message: &str| {
            Error::new(
                ErrorKind::Io,
                format!("cannot {doing} {}: {message}", shown(url)),
            )
        };
        match error {
            ureq::Error::TooManyRedirects => Failure::lasting(
                said("the server redirects without end").with_remedy("name the file's own URL"),
            ),
            ureq::Error::RedirectFailed => Failure::lasting(said(
                "the server redirects to something that is no http URL",
            )),
            ureq::Error::BadUri(why) => Failure::lasting(said(&why)),
            ureq::Error::Rustls(why) => untrusted(doing, url, &host, &why.to_string()),
            ureq::Error::Tls(why) => untrusted(doing, url, &host, why),
            ureq::Error::HostNotFound => Failure::passing(said("its name has no address")),
            ureq::Error::ConnectProxyFailed(why) => {
                Failure::lasting(said(&format!("the proxy refuses: {why}")))
            }
            ureq::Error::Timeout(_) => Failure::passing(said("the server does not answer in time")),
            ureq::Error::Io(error) => match certificate_error(&error) {
                Some(why) => untrusted(doing, url, &host, &why),
                None => Failure::passing(io(error)),
            },
            // What remains is an answer that is no HTTP, perhaps for once.
            other => Failure::passing(said(&other.to_string())),
        }
    }
}

fn is_encrypted(url: &str) -> bool {
    url.get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case("https:"))
}

fn host_of(url: &str) -> String {
    let rest = shown(url);
    let rest = rest
        .split_once("://")
        .map_or(rest.as_str(), |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default().to_owned()
}

/// TLS failures travel through I/O errors, wrapped.
fn certificate_error(error: &io::Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|e| e as _);
    while let Some(error) = cause {
        let text = error.to_string();
        if text.contains("certificate") || text.contains("TLS") || text.contains("corrupt message")
        {
            return Some(text);
        }
        cause = error.source();
    }
    None
}

fn untrusted(doing: &str, url: &str, host: &str, why: &str) -> Failure {
    let message = format!(
        "cannot {doing} {}: {host} cannot prove who it is: {why}",
        shown(url)
    );
    Failure::lasting(Error::refused(
        message,
        "if the server is yours, name the authority that signed its certificate, as a file in PEM",
    ))
}

fn proxy(url: Option<&str>, none_for: Option<&str>) -> Result<Option<Proxy>> {
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let bad = |_| {
        Error::usage(format!("the proxy '{}' is not usable", shown(url)))
            .with_remedy("write it as http://HOST:PORT")
    };
    let plain = Proxy::new(url).map_err(bad)?;
    if !matches!(plain.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(Error::unsupported(format!(
            "the proxy '{}' is not reached by HTTP",
            shown(url)
        )));
    }
    let mut builder = Proxy::builder(plain.protocol())
        .host(plain.host())
        .port(plain.port());
    if let Some(username) = plain.username() {
        builder = builder.username(username);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    for host in none_for.unwrap_or_default().split([',', ' ']) {
        if !host.is_empty() {
            builder = builder.no_proxy(host);
        }
    }
    builder.build().map(Some).map_err(bad)
}

fn roots(options: &HttpOptions) -> Result<RootCerts> {
    let Some(path) = &options.ca_file else {
        return Ok(RootCerts::WebPki);
    };
    let bytes = read_file(path, MAX_CERTIFICATES)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => {
                return Err(Error::usage(format!("holds no certificates: {error}")).at_path(path));
            }
        }
    }
    if certificates.is_empty() {
        return Err(Error::usage("holds no certificate in PEM").at_path(path));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

fn answer(
    url: &str,
    response: Response<Body>,
    downgraded: bool,
    ask: &Ask,
) -> Result<Answer, Failure> {
    let headers = response.headers();
    let text = |name: &str| header(headers, name);
    let validators = Validators {
        etag: text("etag"),
        modified: text("last-modified"),
    };
    let length: Option<u64> = text("content-length").and_then(|text| text.parse().ok());
    let status = response.status();
    let said = |message: String| {
        Error::new(
            ErrorKind::Io,
            format!("cannot get {}: {message}", shown(url)),
        )
    };
    let (has_body, start, total) = match status {
        StatusCode::OK => (true, 0, length),
        StatusCode::PARTIAL_CONTENT => {
            let range = text("content-range").and_then(|text| content_range(&text));
            let Some((start, end, total)) = range else {
                return Err(Failure::lasting(said(
                    "the server sends a part without saying which".into(),
                )));
            };
            let told = (end - start).checked_add(1);
            let fits = length.is_none() || length == told;
            if !fits || ask.from.as_ref().is_none_or(|(from, _)| *from != start) {
                return Err(Failure::lasting(said(format!(
                    "the server sends another part than was asked for: from byte {start}"
                ))));
            }
            (true, start, total)
        }
        StatusCode::NOT_MODIFIED => (false, 0, None),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let total = text("content-range").and_then(|text| {
                text.strip_prefix("bytes */")
                    .and_then(|total| total.parse().ok())
            });
            let start = ask.from.as_ref().map_or(0, |(from, _)| *from);
            (false, start, total)
        }
        _ => {
            let reason = status.canonical_reason().unwrap_or("no reason");
            let error = said(format!("the server says {} {reason}", status.as_u16()));
            let passes = is_passing(status.as_u16());
            let pause = asked_pause(headers);
            return Err(Failure {
                error,
                passes,
                pause,
            });
        }
    };
    Ok(Answer {
        has_body,
        start,
        total,
        validators,
        downgraded,
        response,
    })
}

/// Whether what a status says may be otherwise in a while.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=599)
}

/// The pause that a server asks for, within reason.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    header(headers, "retry-after")
        .and_then(|text| text.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_PAUSE))
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    // Longer ones are kept by nobody.
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= 1024).then(|| value.to_owned())
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse::<u64>().ok()?),
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_nonsense_is_not() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for text in [
            "bytes 9-5/10",
            "bytes 5-10/10",
            "5-9/10",
            "bytes */10",
            "bytes a-b/c",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn proxies_are_checked_and_their_passwords_not_shown() {
        assert!(proxy(None, None).unwrap().is_none());
        assert!(proxy(Some(""), None).unwrap().is_none());
        assert!(proxy(Some("http://user:secret@host:3128"), Some("a, .b")).is_ok());
        assert!(proxy(Some("host:3128"), None).is_ok());
        let error = proxy(Some("socks5://user:secret@host:1"), None).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let options = HttpOptions {
            proxies: Proxies {
                http: Some("http://u:secret@h".into()),
                ..Proxies::default()
            },
            ..HttpOptions::default()
        };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
