//! The file of checksums that a template names: got, its signature looked at, its line found.
//!
//! Knows where signatures lie beside such files. Must not know how lines and signatures are written.

use std::path::Path;

use super::checksum::{Checksum, MAX_LIST, list};
use super::http::{Client, Failure};
use super::signature::{self, Signature};
use super::source::Source;
use super::{Event, Options};
use crate::communicator::Stop;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{look, read_file};

/// What signatures are called beside what they sign.
const SIGNATURES: [&str; 4] = [".gpg", ".sign", ".asc", ".sig"];

/// A signature, or a file of keys, is not longer.
const MAX_SIGNATURE: u64 = 1 << 20;
const MAX_KEYS: u64 = 16 << 20;

/// What images are compared with.
#[derive(Debug)]
pub(super) struct Lists<'a> {
    checksum: Checksum,
    keys: Option<(&'a Path, Vec<u8>)>,
    /// The list, once it has been read.
    list: Option<(Vec<list::Line>, Signature)>,
}

impl<'a> Lists<'a> {
    /// # Errors
    /// The keys cannot be read, or there is nothing that they could have signed.
    pub fn new(checksum: Checksum, key: Option<&'a Path>) -> Result<Self> {
        if key.is_some() && !matches!(checksum, Checksum::File(_)) {
            return Err(Error::usage(
                "a key is given, but no file of checksums that it could have signed",
            )
            .with_remedy("name one: the checksum is file:PATH-OR-URL then"));
        }
        let keys = key
            .map(|path| Ok((path, read_file(path, MAX_KEYS)?)))
            .transpose()?;
        Ok(Self {
            checksum,
            keys,
            list: None,
        })
    }

    /// What the image at `source` must come to, and what is known of whoever says so.
    pub fn expected(
        &mut self,
        source: &Source,
        client: &Client,
        options: &Options,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Option<Digest>, Signature)> {
        let place = match &self.checksum {
            Checksum::None => return Ok((None, Signature::NoList)),
            Checksum::Digest(digest) => return Ok((Some(digest.clone()), Signature::NoList)),
            Checksum::File(place) => place.clone(),
        };
        let (lines, signature) = match &mut self.list {
            Some(list) => list,
            list => {
                let reader = Reader {
                    client,
                    options,
                    stop,
                };
                let read = reader.read(&place, self.keys.as_ref(), tell)?;
                list.insert(read)
            }
        };
        let name = source
            .file_name()
            .ok_or_else(|| Error::usage(format!("{source}: names no file")))?;
        let relative = source.relative_to(&place);
        let digest = list::digest_of(lines, &name, relative.as_deref())
            .map_err(|error| named(error, &place))?;
        Ok((Some(digest), signature.clone()))
    }
}

struct Reader<'a> {
    client: &'a Client,
    options: &'a Options,
    stop: &'a Stop,
}

impl Reader<'_> {
    fn read(
        &self,
        place: &Source,
        keys: Option<&(&Path, Vec<u8>)>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Vec<list::Line>, Signature)> {
        let bytes = self.bytes(place, MAX_LIST, tell)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            named(
                Error::usage("is no text, and so no file of checksums"),
                place,
            )
        })?;
        let signed = signature::signed_text(text).map_err(|error| named(error, place))?;
        let signature = match (&signed, keys) {
            (Some(_), None) => Signature::Unverified,
            (None, None) => Signature::Unsigned,
            (Some(signed), Some((path, keys))) => {
                signature::verify(keys, signed.signature.as_bytes(), &signed.canonical())
                    .map_err(|error| unsound(&error, place, path))?
            }
            (None, Some((path, keys))) => {
                let signature = self.beside(place, path, tell)?;
                signature::verify(keys, &signature, &bytes)
                    .map_err(|error| unsound(&error, place, path))?
            }
        };
        // Nothing outside of what is signed counts.
        let lines = signed.map_or_else(|| list::read(text), |signed| list::read(&signed.text));
        Ok((lines, signature))
    }

    /// The signature that lies beside a list, under one of the usual names.
    fn beside(
        &self,
        place: &Source,
        key: &Path,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<u8>> {
        for suffix in SIGNATURES {
            let place = place.with_suffix(suffix);
            match &place {
                Source::Path(path) if look(path)?.is_none() => {}
                Source::Path(path) => return read_file(path, MAX_SIGNATURE),
                Source::Http(url) => match self.client.read(url, MAX_SIGNATURE) {
                    Ok(bytes) => return Ok(bytes),
                    Err(failure) if failure.passes => {
                        return self.bytes(&place, MAX_SIGNATURE, tell);
                    }
                    Err(failure) if failure.error.kind() == ErrorKind::Cancelled => {
                        return Err(failure.error);
                    }
                    // Under that name there is none.
                    Err(_) => {}
                },
            }
        }
        Err(named(
            Error::refused(
                format!(
                    "is not signed: there is no signature in it or beside it ({}), and {} must have signed it",
                    SIGNATURES.join(", "),
                    key.display()
                ),
                "name the file of checksums that is signed, or give no key",
            ),
            place,
        ))
    }

    fn bytes(&self, place: &Source, most: u64, tell: &mut dyn FnMut(Event<'_>)) -> Result<Vec<u8>> {
        let url = match place {
            Source::Path(path) => return read_file(path, most),
            Source::Http(url) => url,
        };
        let mut pause = self.options.http.retry_pause;
        let mut left = self.options.http.retries;
        loop {
            let failure = match self.client.read(url, most) {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => failure,
            };
            if !failure.passes || left == 0 {
                return Err(failure.error);
            }
            left -= 1;
            self.pause(&failure, pause, place, tell)?;
            pause = pause.saturating_mul(2);
        }
    }

    fn pause(
        &self,
        failure: &Failure,
        pause: std::time::Duration,
        place: &Source,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let pause = failure.pause.unwrap_or(pause).max(pause);
        tell(Event::Failed {
            source: &place.to_string(),
            error: &failure.error,
            again: Some(pause),
        });
        super::transfer::sleep(pause, self.stop)
    }
}

fn named(error: Error, place: &Source) -> Error {
    match place {
        Source::Path(path) => error.at_path(path),
        Source::Http(_) => {
            let named = Error::new(error.kind(), format!("{place}: {error}"));
            match error.remedy() {
                Some(remedy) => named.with_remedy(remedy.to_owned()),
                None => named,
            }
        }
    }
}

fn unsound(error: &Error, place: &Source, key: &Path) -> Error {
    named(
        Error::refused(
            format!(
                "its signature does not hold for the keys in {}: {error}",
                key.display()
            ),
            "get the key from whom you trust, and the file of checksums anew",
        ),
        place,
    )
}
