//! One download: begun, gone on with, compared.
//!
//! Knows parts of files, when to go on and when to begin again, and when to give up. Must not know what becomes of the
//! file, nor speak HTTP itself.

use std::io::Read;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cache::{Place, forget, read_record, write_record};
use super::http::{Answer, Ask, Client, Failure, HttpOptions, Validators};
use super::source::shown;
use super::{Event, Hashing, Step};
use crate::communicator::Stop;
use crate::digest::{Digest, DigestKind, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{HostFile, Locking, ReadAt, WriteAt, free_bytes, look};

/// What is read and written at once.
const PIECE: usize = 256 << 10;

/// After so many bytes they are made to survive a power loss.
const SYNC_EVERY: u64 = 32 << 20;

/// So many bytes are progress: patience begins anew.
const PROGRESS: u64 = 1 << 20;

/// Space that stays free where a server does not say how much it sends.
const RESERVE: u64 = 256 << 20;

/// No download takes more tries, whatever progress there is.
const MAX_TRIES: u32 = 1000;

/// Between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Of which state of the file a part is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// As messages may say it.
    pub url: String,
    #[serde(flatten)]
    pub validators: Validators,
    /// Length of the whole file.
    #[serde(default)]
    pub total: Option<u64>,
    /// So many bytes survive a power loss.
    #[serde(default)]
    pub synced: u64,
}

/// What is wanted.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub url: &'a str,
    pub place: &'a Place,
    /// What it must come to.
    pub expected: Option<&'a Digest>,
    /// Which digests to make.
    pub kinds: &'a [DigestKind],
    /// It must not be longer.
    pub most: u64,
    /// Nothing is wanted if the file is still this one.
    pub unless: &'a Validators,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The file is still the one that is known.
    Unchanged,
    /// It is in its place, whole, synced and as expected.
    Whole {
        digests: Vec<Digest>,
        validators: Validators,
    },
}

/// Downloads a file. The caller holds the place.
pub(super) fn download(
    client: &Client,
    options: &HttpOptions,
    order: &Order<'_>,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let mut transfer = Transfer::begin(client, order, tell)?;
    let result = transfer.run(options, stop, tell);
    if transfer.at == 0 || matches!(result, Ok(Outcome::Unchanged)) {
        // Nobody can go on with nothing.
        forget(order.place)?;
    }
    result
}

/// Waits, unless the caller wants all of it to end.
pub(super) fn sleep(time: Duration, stop: &Stop) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        if stop() {
            return Err(Error::cancelled());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

struct Transfer<'a> {
    client: &'a Client,
    order: &'a Order<'a>,
    file: HostFile,
    begun: Begun,
    digester: Digester,
    /// So many bytes are in the file, and in the digests.
    at: u64,
    /// The file was put together from more than one answer.
    joined: bool,
    /// It did not come to what it should, and was begun again for that.
    again: bool,
    told: Instant,
}

impl<'a> Transfer<'a> {
    /// Takes up what is in its place.
    fn begin(
        client: &'a Client,
        order: &'a Order<'a>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let part = &order.place.part;
        let begun: Option<Begun> = read_record(&order.place.record);
        let file = match look(part)? {
            Some(_) => HostFile::open_write(part, Locking::Ignore)?,
            None => HostFile::create_new(part)?,
        };
        let begun = begun.unwrap_or_default();
        let usable = if order.expected.is_some() {
            // Whatever is wrong with it shows in the end.
            file.len()?
        } else if begun.validators.for_range().is_some() {
            file.len()?.min(begun.synced)
        } else {
            0
        };
        if usable < file.len()? {
            file.set_len(usable)?;
        }
        let mut transfer = Self {
            client,
            order,
            file,
            begun,
            digester: Digester::new(order.kinds),
            at: 0,
            joined: usable > 0,
            again: false,
            told: Instant::now(),
        };
        transfer.take_up(usable, tell)?;
        Ok(transfer)
    }

    /// Asks again and again, for as long as there is hope.
    fn run(
        &mut self,
        options: &HttpOptions,
        stop: &Stop,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome> {
        let mut furthest = self.at;
        let mut in_a_row = 0;
        let mut pause = options.retry_pause;
        for _ in 0..MAX_TRIES {
            let failure = match self.attempt(tell) {
                Ok(Some(())) => match self.compare()? {
                    Some(digests) => {
                        let validators = self.begun.validators.clone();
                        return Ok(Outcome::Whole {
                            digests,
                            validators,
                        });
                    }
                    // Two states of the file were put together: once more, from the beginning.
                    None => continue,
                },
                Ok(None) => return Ok(Outcome::Unchanged),
                Err(failure) => failure,
            };
            // A disk that is full refuses this as well; what failed first tells more.
            let settled = self.settle();
            if self.client.is_stopped() {
                return Err(Error::cancelled());
            }
            if self.at >= furthest.saturating_add(PROGRESS) {
                in_a_row = 0;
                pause = options.retry_pause;
            }
            furthest = furthest.max(self.at);
            in_a_row += 1;
            if !failure.passes || in_a_row > options.retries {
                return Err(failure.error);
            }
            settled?;
            let wait = failure.pause.unwrap_or(pause).max(pause);
            tell(Event::Failed {
                source: &shown(self.order.url),
                error: &failure.error,
                again: Some(wait),
            });
            sleep(wait, stop)?;
            pause = pause.saturating_mul(2).min(Duration::from_secs(60));
        }
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "cannot get {}: {MAX_TRIES} tries were in vain",
                shown(self.order.url)
            ),
        ))
    }

    fn take_up(&mut self, length: u64, tell: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let mut piece = vec![0; PIECE];
        while self.at < length {
            if self.client.is_stopped() {
                return Err(Error::cancelled());
            }
            let left = usize::try_from(length - self.at).unwrap_or(PIECE);
            let piece = &mut piece[..left.min(PIECE)];
            self.file.read_exact_at(piece, self.at)?;
            self.digester.update(piece);
            self.at += piece.len() as u64;
            self.report(Step::Hash(Hashing::Resume), Some(length), tell);
        }
        Ok(())
    }

    fn begin_again(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.digester = Digester::new(self.order.kinds);
        self.at = 0;
        self.joined = false;
        self.begun = Begun::default();
        Ok(())
    }

    /// Asks for what is missing, and takes it: the file is whole then; or has not changed.
    fn attempt(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<Option<()>, Failure> {
        let changed = |url: &str| {
            Failure::passing(Error::new(
                ErrorKind::Io,
                format!("{}: changed between two parts of it", shown(url)),
            ))
        };
        let ask = Ask {
            from: (self.at > 0).then(|| (self.at, self.begun.validators.for_range())),
            unless: if self.at > 0 {
                Validators::default()
            } else {
                self.order.unless.clone()
            },
        };
        let mut answer = self.client.ask(self.order.url, &ask)?;
        if !answer.has_body {
            if ask.from.is_none() {
                return Ok(None);
            }
            // The part is the whole already, or longer than it.
            if answer.total == Some(self.at) {
                return Ok(Some(()));
            }
            self.begin_again()?;
            return Err(changed(self.order.url));
        }
        if answer.downgraded && self.order.expected.is_none() {
            return Err(Failure::lasting(Error::refused(
                format!(
                    "{}: the server leads to a place without encryption",
                    shown(self.order.url)
                ),
                "give the image's checksum, or the URL that it leads to",
            )));
        }
        if answer.start == 0 {
            // All of it, whatever was asked for: the server knows no parts, or the file is another one.
            self.begin_again()?;
        } else {
            let other = |one: &Option<u64>, other: &Option<u64>| {
                one.is_some() && other.is_some() && one != other
            };
            if other(&self.begun.total, &answer.total) {
                self.begin_again()?;
                return Err(changed(self.order.url));
            }
            self.joined = true;
        }
        self.begun.url = shown(self.order.url);
        self.begun.validators = answer.validators.clone();
        self.begun.total = answer.total;
        self.check_size(answer.total)?;
        write_record(&self.order.place.record, &self.begun)?;
        self.take(&mut answer, tell)?;
        match answer.total {
            Some(total) if self.at != total => Err(Failure::passing(
                self.said(&format!("ended after {} of {total} bytes", self.at)),
            )),
            _ => Ok(Some(())),
        }
    }

    fn take(
        &mut self,
        answer: &mut Answer,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Failure> {
        let total = answer.total;
        let mut reader = answer.reader();
        let mut piece = vec![0; PIECE];
        let mut checked = self.at;
        loop {
            let mut end = None;
            let filled = match reader.read(&mut piece) {
                Ok(0) => {
                    end = Some(Ok(()));
                    0
                }
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
                Err(error) => {
                    end = Some(Err(error));
                    0
                }
            };
            self.file.write_all_at(&piece[..filled], self.at)?;
            self.digester.update(&piece[..filled]);
            self.at += filled as u64;
            self.report(Step::Download, total, tell);
            match end {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => {
                    let failure = self.client.broken(self.order.url, error);
                    return Err(match total {
                        Some(total) if failure.passes => Failure {
                            error: self.said(&format!("ended after {} of {total} bytes", self.at)),
                            ..failure
                        },
                        _ => failure,
                    });
                }
                None => {}
            }
            if self.client.is_stopped() {
                return Err(Failure::lasting(Error::cancelled()));
            }
            if self.at > self.order.most || total.is_some_and(|total| self.at > total) {
                return Err(self.too_long());
            }
            if self.at - checked >= SYNC_EVERY {
                checked = self.at;
                self.settle()?;
                if total.is_none() && free_bytes(&self.order.place.part)? < RESERVE {
                    return Err(Failure::lasting(self.said(
                        "the server sends without end, and there is no space for more",
                    )));
                }
            }
        }
    }

    fn check_size(&self, total: Option<u64>) -> Result<(), Failure> {
        let Some(total) = total else {
            return Ok(());
        };
        if total > self.order.most {
            return Err(self.too_long());
        }
        let needed = total.saturating_sub(self.at);
        let free = free_bytes(&self.order.place.part)?;
        if needed > free {
            return Err(Failure::lasting(
                Error::new(
                    ErrorKind::Io,
                    format!("{needed} bytes are to come, and there is space for {free}"),
                )
                .at_path(&self.order.place.part)
                .with_remedy("make space, prune the cache, or put it elsewhere"),
            ));
        }
        Ok(())
    }

    fn too_long(&self) -> Failure {
        let most = self.order.most;
        Failure::lasting(Error::refused(
            format!("{}: is longer than {most} bytes", shown(self.order.url)),
            "is it the URL of an image?",
        ))
    }

    fn said(&self, message: &str) -> Error {
        Error::new(
            ErrorKind::Io,
            format!("cannot get {}: {message}", shown(self.order.url)),
        )
    }

    /// What has come so far survives a power loss, and is known to.
    fn settle(&mut self) -> Result<()> {
        self.file.sync()?;
        self.begun.synced = self.at;
        write_record(&self.order.place.record, &self.begun)
    }

    /// The digests of the whole; none, where it must be begun again.
    fn compare(&mut self) -> Result<Option<Vec<Digest>>> {
        self.file.sync()?;
        let digests = self.digester.clone().finish();
        let Some(expected) = self.order.expected else {
            return Ok(Some(digests));
        };
        if digests.contains(expected) {
            return Ok(Some(digests));
        }
        if self.joined && !self.again {
            self.again = true;
            self.begin_again()?;
            return Ok(None);
        }
        forget(self.order.place)?;
        Err(mismatch(&shown(self.order.url), expected, &digests))
    }

    fn report(&mut self, step: Step, total: Option<u64>, tell: &mut dyn FnMut(Event<'_>)) {
        let last = total == Some(self.at);
        if last || self.told.elapsed() >= REPORT_EVERY {
            self.told = Instant::now();
            tell(Event::Progress {
                step,
                done: self.at,
                total,
            });
        }
    }
}

/// What is said of a file that does not come to what it should.
pub(super) fn mismatch(what: &str, expected: &Digest, digests: &[Digest]) -> Error {
    let found = digests
        .iter()
        .find(|digest| digest.kind() == expected.kind())
        .map_or_else(String::new, ToString::to_string);
    Error::refused(
        format!("{what}: comes to {found}, not to {expected}"),
        "the image was changed, damaged or replaced by a newer one: get its checksum anew from where you trust it",
    )
}
