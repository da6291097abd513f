//! A server that takes HTTP PUT: WebDAV, a repository of artifacts, a link signed for an upload.
//!
//! Knows one request, and reading back. Must not know what the server makes of it.

use serde::Serialize;

use super::attend::{Event, attended};
use super::courier::{Ask, Courier, Payload, words};
use super::original::Original;
use crate::communicator::Stop;
use crate::digest::{DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::HttpOptions;
use crate::fetch::source::shown;
use crate::seed::base64;

/// What is sent where.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `https://HOST/PATH`; what stands behind `?` is never shown.
    pub url: String,
    /// The header `Authorization`: never shown.
    pub authorization: Option<String>,
    /// `application/octet-stream` where nobody says otherwise.
    pub content_type: Option<String>,
    /// Read it back as a whole, and compare.
    pub read_back: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("url", &shown(&self.url))
            .field("authorization", &self.authorization.is_some())
            .field("content_type", &self.content_type)
            .field("read_back", &self.read_back)
            .finish()
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sent {
    /// Without what stands behind `?`.
    pub url: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    /// In hexadecimal digits.
    pub md5: String,
    /// It was read back and compared.
    pub read_back: bool,
}

/// Sends `original` as one body, with its digests as headers (`Content-MD5`; `Repr-Digest` of RFC 9530).
///
/// # Errors
/// The server does not answer or refuses; what is there is not what was sent; [`Cancelled`](ErrorKind::Cancelled).
pub fn send(
    original: &Original,
    request: &Request,
    http: &HttpOptions,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Sent> {
    attended(stop, tell, |work| {
        let courier = Courier::new(http, work)?;
        let place = shown(&request.url);
        let content_type = request.content_type.clone();
        let mut headers = vec![
            (
                "content-type",
                content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            ),
            ("content-md5", base64::encode(original.md5().bytes())),
            (
                "repr-digest",
                format!("sha-256=:{}:", base64::encode(original.sha256().bytes())),
            ),
        ];
        let authorization = request
            .authorization
            .clone()
            .map(|value| ("authorization", value));
        headers.extend(authorization.clone());
        let length = original.length();
        work.begin(format!("send to {place}"), length);
        let all = original.stretch(0, length, work);
        let ask = Ask {
            headers: &headers,
            payload: Payload::Reader(&all),
            ..Ask::new("put", "PUT")
        };
        let reply = courier.ask(&|| request.url.clone(), &ask)?;
        if !reply.is_success() {
            return Err(refused("put", &place, reply.status, &reply.text()));
        }
        work.advance(length);
        if request.read_back {
            work.begin(format!("read back {place}"), length);
            let headers: Vec<_> = authorization.into_iter().collect();
            let ask = Ask {
                headers: &headers,
                ..Ask::new("read back", "GET")
            };
            let digests = courier.read(&|| request.url.clone(), &ask, &mut |reader| {
                let mut digester = Digester::new(&[DigestKind::Sha256]);
                let mut buffer = vec![0; 1 << 17];
                let mut read: u64 = 0;
                loop {
                    let bytes = reader.read(&mut buffer)?;
                    read += bytes as u64;
                    digester.update(buffer.get(..bytes).unwrap_or_default());
                    if bytes == 0 || read > length {
                        return Ok(digester.finish());
                    }
                }
            })?;
            let digests = digests
                .map_err(|reply| refused("read back", &place, reply.status, &reply.text()))?;
            if digests.first() != Some(original.sha256()) {
                let text = format!("{place}: the server holds something else than what was sent");
                return Err(
                    Error::new(ErrorKind::Io, text).with_remedy("run the same command again")
                );
            }
            work.advance(length);
        }
        Ok(Sent {
            url: place,
            size: length,
            sha256: original.sha256().hex(),
            md5: original.md5().hex(),
            read_back: request.read_back,
        })
    })
}

fn refused(doing: &str, place: &str, status: u16, text: &str) -> Error {
    let said = match text.trim_start().starts_with('<') {
        // A page says nothing that fits in a line.
        true => String::new(),
        false => words(text),
    };
    let colon = if said.is_empty() { "" } else { ": " };
    let error = Error::new(
        ErrorKind::Io,
        format!("cannot {doing} {place}: the server says {status}{colon}{said}"),
    );
    match status {
        401 | 403 => error
            .with_remedy("say who you are: QIMG_PUT_AUTHORIZATION holds the header Authorization"),
        300..=399 => error.with_remedy("name the place that the server leads to"),
        405 | 501 => error.with_remedy("the server takes no PUT there"),
        _ => error,
    }
}
