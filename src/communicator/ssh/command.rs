//! Commands in the guest: their input, and their output as lines or bytes.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::super::lines::Splitter;
use super::super::{Exit, Lines, Stream};
use super::Ssh;
use super::conversation::{Begin, Piece};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of input sent at a time.
const PIECE: usize = 64 * 1024;

impl Ssh {
    pub(super) async fn run_command(
        &self,
        command: &str,
        deadline: Option<Instant>,
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        let begin = match self.options.pty {
            true => Begin::Terminal(command),
            false => Begin::Command(command),
        };
        let mut conversation = self.begin(begin).await?;
        let mut text = Text::default();
        let ended = async {
            while let Some(piece) = conversation.next().await {
                text.push(&piece, lines);
            }
        };
        let in_time = match deadline {
            None => {
                ended.await;
                true
            }
            Some(deadline) => timeout_at(deadline, ended).await.is_ok(),
        };
        text.finish(lines);
        if in_time {
            Ok(conversation.exit())
        } else {
            Err(Error::new(
                ErrorKind::TimedOut,
                "the command took longer than it was given",
            ))
        }
    }

    pub(super) async fn pipe_command(
        &self,
        command: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        let mut conversation = self.begin(Begin::Command(command)).await?;
        let writer = conversation.writer();
        let send = async {
            let Some(writer) = writer else {
                return Ok(());
            };
            let mut buffer = vec![0; PIECE];
            loop {
                let length = read_some(input, &mut buffer)
                    .map_err(|error| Error::io("read the input", error))?;
                if length == 0 {
                    break;
                }
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if writer.data_bytes(bytes).await.is_err() {
                    break;
                }
            }
            // What is closed already takes no end either.
            let _ = writer.eof().await;
            Ok::<_, Error>(())
        };
        let mut text = Text::default();
        let receive = async {
            while let Some(piece) = conversation.next().await {
                match piece {
                    Piece::Out(bytes) => output
                        .write_all(&bytes)
                        .map_err(|error| Error::io("write the output", error))?,
                    piece => text.push(&piece, lines),
                }
            }
            Ok::<_, Error>(())
        };
        {
            tokio::pin!(send, receive);
            tokio::select! {
                // A command that ends takes no more input.
                received = &mut receive => received?,
                sent = &mut send => {
                    sent?;
                    receive.await?;
                }
            }
        }
        text.finish(lines);
        Ok(conversation.exit())
    }
}

/// Reads at least a byte, unless there is none.
pub(super) fn read_some(from: &mut (dyn Read + Send), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Both streams of a command as lines.
#[derive(Default)]
struct Text {
    out: Splitter,
    err: Splitter,
}

impl Text {
    fn push(&mut self, piece: &Piece, lines: &mut Lines<'_>) {
        match piece {
            Piece::Out(bytes) => self.out.push(bytes, &mut |line| lines(Stream::Out, line)),
            Piece::Err(bytes) => self.err.push(bytes, &mut |line| lines(Stream::Err, line)),
        }
    }

    fn finish(&mut self, lines: &mut Lines<'_>) {
        self.out.finish(&mut |line| lines(Stream::Out, line));
        self.err.finish(&mut |line| lines(Stream::Err, line));
    }
}
