//! Files by nothing but a shell and `cat`: what even the smallest guest has.

use std::io::{self, Read, Write};

use super::super::quote;
use super::super::{Exit, Stream};
use super::{File, Sent, Ssh, refused, too_short};
use crate::error::Result;

/// Stands before a file that is fetched: what a guest's shell says by itself comes before it.
const MARK: &[u8] = b"the file follows\n";

/// As much may a guest's shell say by itself.
const LONGEST_NOISE: usize = 64 * 1024;

/// Longest text of errors that is kept.
const LONGEST_WORDS: usize = 4 * 1024;

impl Ssh {
    pub(super) async fn send_by_shell(&self, file: &mut File<'_>) -> Result<Sent> {
        let path = quote::path(file.to);
        // Nobody else reads a file before it has its mode.
        let command = format!("umask 077; cat > {path} && chmod {:04o} {path}", file.mode);
        let mut exact = Exact {
            from: file.from,
            left: file.length,
            ended: false,
        };
        let mut words = String::new();
        let mut noise = AfterMark::silent();
        let exit = self
            .pipe_command(&command, &mut exact, &mut noise, &mut |stream, line| {
                keep(&mut words, stream, line);
            })
            .await;
        let left = exact.left;
        match exit {
            Err(_) if exact.ended => Err(too_short(file.length, left)),
            Err(error) => Err(error),
            Ok(Exit::Code(0)) if left == 0 => Ok(Sent::Done),
            Ok(Exit::Disconnected) => Err(super::conversation::lost(&words)),
            Ok(_) => Err(refused(file.to, &words)),
        }
    }

    pub(super) async fn fetch_by_shell(
        &self,
        from: &str,
        into: &mut (dyn Write + Send),
    ) -> Result<Sent> {
        let path = quote::path(from);
        let command = format!("echo 'the file follows'; exec cat {path}");
        let mut words = String::new();
        let mut after = AfterMark {
            into: Some(into),
            seen: Vec::new(),
            found: false,
        };
        let exit = self
            .pipe_command(
                &command,
                &mut io::empty(),
                &mut after,
                &mut |stream, line| {
                    keep(&mut words, stream, line);
                },
            )
            .await?;
        match exit {
            Exit::Code(0) if after.found => Ok(Sent::Done),
            Exit::Disconnected => Err(super::conversation::lost(&words)),
            _ => Err(refused(from, &words)),
        }
    }
}

fn keep(words: &mut String, stream: Stream, line: &str) {
    if stream == Stream::Err && words.len() + line.len() < LONGEST_WORDS && !line.is_empty() {
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(line.trim());
    }
}

/// Exactly so many bytes: fewer are an error, more are left.
struct Exact<'a> {
    from: &'a mut (dyn Read + Send),
    left: u64,
    /// There were fewer.
    ended: bool,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let length = self.from.read(&mut buffer[..most])?;
        if length == 0 {
            self.ended = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// Passes on what comes after the mark; without anywhere to pass it on, nothing is to come.
struct AfterMark<'a> {
    into: Option<&'a mut (dyn Write + Send)>,
    seen: Vec<u8>,
    found: bool,
}

impl AfterMark<'_> {
    fn silent() -> Self {
        Self {
            into: None,
            seen: Vec::new(),
            found: false,
        }
    }
}

impl Write for AfterMark<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let (true, Some(into)) = (self.found, &mut self.into) {
            return into.write(bytes);
        }
        self.seen.extend_from_slice(bytes);
        let at = self.seen.windows(MARK.len()).position(|part| part == MARK);
        if let (Some(at), Some(into)) = (at, &mut self.into) {
            self.found = true;
            into.write_all(&self.seen[at + MARK.len()..])?;
            self.seen = Vec::new();
        } else if self.seen.len() > LONGEST_NOISE {
            return Err(io::Error::other("the guest's shell talks without end"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.as_mut().map_or(Ok(()), |into| into.flush())
    }
}
