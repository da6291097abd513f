//! A guest that is none: it answers what it was told to, and writes down what it was asked.
//!
//! For the tests of all that works through a [`Communicator`]. Without answers of its own every command ends
//! with 0 and no output, every file is taken, and files fetched are those sent before.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Communicator, Exit, Lines, Stream};
use crate::error::{Error, ErrorKind, Result};

/// One call, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Communicator::run`].
    Run {
        /// The command.
        command: String,
        /// Its time.
        timeout: Option<Duration>,
    },
    /// [`Communicator::pipe`].
    Pipe {
        /// The command.
        command: String,
        /// All of its input.
        input: Vec<u8>,
    },
    /// [`Communicator::upload`].
    Upload {
        /// Path in the guest.
        to: String,
        /// Mode.
        mode: u32,
        /// The file.
        bytes: Vec<u8>,
    },
    /// [`Communicator::download`].
    Download {
        /// Path in the guest.
        from: String,
    },
    /// [`Communicator::disconnect`].
    Disconnect,
    /// [`Communicator::probe`].
    Probe {
        /// Its time.
        timeout: Duration,
    },
}

impl Call {
    /// What an answer is chosen by: the command, or the path in the guest.
    fn subject(&self) -> &str {
        match self {
            Self::Run { command, .. } | Self::Pipe { command, .. } => command,
            Self::Upload { to, .. } => to,
            Self::Download { from } => from,
            Self::Disconnect => "disconnect",
            Self::Probe { .. } => "probe",
        }
    }
}

/// What the guest does when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Lines of output, in order.
    pub lines: Vec<(Stream, String)>,
    /// Bytes of standard output of a pipe, or of a file that is fetched.
    pub bytes: Vec<u8>,
    /// The end of the command.
    pub exit: Exit,
    /// Fails with this instead.
    pub error: Option<(ErrorKind, String)>,
    /// Takes this long.
    pub takes: Duration,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            bytes: Vec::new(),
            exit: Exit::Code(0),
            error: None,
            takes: Duration::ZERO,
        }
    }
}

impl Answer {
    /// Ends with `code`.
    #[must_use]
    pub fn code(code: i32) -> Self {
        Self {
            exit: Exit::Code(code),
            ..Self::default()
        }
    }

    /// The connection ends meanwhile.
    #[must_use]
    pub fn disconnected() -> Self {
        Self {
            exit: Exit::Disconnected,
            ..Self::default()
        }
    }

    /// Fails with an error of `kind`.
    #[must_use]
    pub fn failed(kind: ErrorKind, message: &str) -> Self {
        Self {
            error: Some((kind, message.to_owned())),
            ..Self::default()
        }
    }

    /// Says this line of standard output before it ends.
    #[must_use]
    pub fn out(mut self, line: &str) -> Self {
        self.lines.push((Stream::Out, line.to_owned()));
        self
    }

    /// Says this line of standard error before it ends.
    #[must_use]
    pub fn err(mut self, line: &str) -> Self {
        self.lines.push((Stream::Err, line.to_owned()));
        self
    }

    /// Gives these bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes = bytes.to_vec();
        self
    }
}

#[derive(Debug, Default)]
struct State {
    answers: Vec<(String, VecDeque<Answer>)>,
    files: BTreeMap<String, Vec<u8>>,
    calls: Vec<Call>,
    unexpected: Vec<String>,
}

/// The fake; see the module.
#[derive(Debug, Default)]
pub struct Scripted {
    state: Mutex<State>,
    strict: bool,
}

impl Scripted {
    /// A guest that does whatever it is asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest that fails calls for which no answer is left.
    #[must_use]
    pub fn strict() -> Self {
        Self {
            strict: true,
            ..Self::default()
        }
    }

    /// Answers a call whose command or path contains `part`; answers of one part are used up in order, the last
    /// one stays. Parts are looked through in the order in which they were first given; `disconnect` and
    /// `probe` stand for those calls.
    #[must_use]
    pub fn on(self, part: &str, answer: Answer) -> Self {
        {
            let mut state = self.lock();
            match state.answers.iter_mut().find(|(known, _)| known == part) {
                Some((_, answers)) => answers.push_back(answer),
                None => state
                    .answers
                    .push((part.to_owned(), VecDeque::from([answer]))),
            }
        }
        self
    }

    /// Puts a file into the guest.
    #[must_use]
    pub fn with_file(self, path: &str, bytes: &[u8]) -> Self {
        self.lock().files.insert(path.to_owned(), bytes.to_vec());
        self
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The commands of all calls so far, in order.
    pub fn commands(&self) -> Vec<String> {
        let command = |call: &Call| match call {
            Call::Run { command, .. } | Call::Pipe { command, .. } => Some(command.clone()),
            _ => None,
        };
        self.lock().calls.iter().filter_map(command).collect()
    }

    /// A file in the guest.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().files.get(path).cloned()
    }

    /// Calls for which a [`Scripted::strict`] guest had no answer.
    pub fn unexpected(&self) -> Vec<String> {
        self.lock().unexpected.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, call: Call) -> Result<Option<Answer>> {
        let mut state = self.lock();
        let subject = call.subject().to_owned();
        state.calls.push(call);
        let known = state
            .answers
            .iter_mut()
            .find(|(part, _)| subject.contains(part.as_str()));
        let answer = match known {
            Some((_, answers)) if answers.len() > 1 => answers.pop_front(),
            Some((_, answers)) => answers.front().cloned(),
            None if self.strict => {
                let message = format!("the scripted guest has no answer to: {subject}");
                state.unexpected.push(subject);
                return Err(Error::usage(message));
            }
            None => None,
        };
        drop(state);
        if let Some(answer) = &answer {
            std::thread::sleep(answer.takes);
            if let Some((kind, message)) = &answer.error {
                return Err(Error::new(*kind, message.clone()));
            }
        }
        Ok(answer)
    }
}

fn say(answer: &Answer, lines: &mut Lines<'_>) {
    for (stream, line) in &answer.lines {
        lines(*stream, line);
    }
}

impl Communicator for Scripted {
    fn run(&self, command: &str, timeout: Option<Duration>, lines: &mut Lines<'_>) -> Result<Exit> {
        let command = command.to_owned();
        let answer = self.answer(Call::Run { command, timeout })?;
        let answer = answer.unwrap_or_default();
        if timeout.is_some_and(|timeout| answer.takes > timeout) {
            return Err(Error::new(
                ErrorKind::TimedOut,
                "the command took longer than it was given",
            ));
        }
        say(&answer, lines);
        Ok(answer.exit)
    }

    fn pipe(
        &self,
        command: &str,
        input: &mut (dyn Read + Send),
        output: &mut (dyn Write + Send),
        lines: &mut Lines<'_>,
    ) -> Result<Exit> {
        let mut bytes = Vec::new();
        let read = input.read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read the input", error))?;
        let command = command.to_owned();
        let input = bytes;
        let answer = self
            .answer(Call::Pipe { command, input })?
            .unwrap_or_default();
        let written = output.write_all(&answer.bytes);
        written.map_err(|error| Error::io("write the output", error))?;
        say(&answer, lines);
        Ok(answer.exit)
    }

    fn upload(&self, from: &mut (dyn Read + Send), length: u64, to: &str, mode: u32) -> Result<()> {
        let mut bytes = Vec::new();
        let read = from.take(length).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read the file to send", error))?;
        if (bytes.len() as u64) < length {
            return Err(Error::new(
                ErrorKind::Io,
                "the file to send ended before its length",
            ));
        }
        let to = to.to_owned();
        let call = Call::Upload {
            to: to.clone(),
            mode,
            bytes: bytes.clone(),
        };
        self.answer(call)?;
        self.lock().files.insert(to, bytes);
        Ok(())
    }

    fn download(&self, from: &str, into: &mut (dyn Write + Send)) -> Result<()> {
        let from = from.to_owned();
        let answer = self.answer(Call::Download { from: from.clone() })?;
        let bytes = match (answer, self.file(&from)) {
            (Some(answer), _) => answer.bytes,
            (None, Some(file)) => file,
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Guest,
                    format!("the guest refuses {from}: no such file or directory"),
                ));
            }
        };
        let written = into.write_all(&bytes);
        written.map_err(|error| Error::io("write the file that was fetched", error))
    }

    fn disconnect(&self) {
        // There is nothing that could fail here.
        let _ = self.answer(Call::Disconnect);
    }

    fn probe(&self, timeout: Duration) -> Result<()> {
        self.answer(Call::Probe { timeout }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_used_in_order_and_the_last_one_stays() {
        let guest = Scripted::new()
            .on("reboot", Answer::disconnected())
            .on("id", Answer::code(1).err("who?"))
            .on("id", Answer::code(0).out("root"));
        let mut said = Vec::new();
        let mut run = |command| {
            guest
                .run(command, None, &mut |stream, line| {
                    said.push((stream, line.to_owned()));
                })
                .unwrap()
        };
        assert_eq!(run("sudo reboot"), Exit::Disconnected);
        assert_eq!(run("id"), Exit::Code(1));
        assert_eq!(run("id"), Exit::Code(0));
        assert_eq!(run("id"), Exit::Code(0));
        assert_eq!(run("true"), Exit::Code(0));
        assert_eq!(said[0], (Stream::Err, "who?".to_owned()));
        assert_eq!(said.len(), 3);
        assert_eq!(guest.commands(), ["sudo reboot", "id", "id", "id", "true"]);
    }

    #[test]
    fn files_that_were_sent_can_be_fetched() {
        let guest = Scripted::strict().on("/tmp/x", Answer::default());
        guest.upload(&mut &b"abc"[..], 3, "/tmp/x", 0o755).unwrap();
        assert_eq!(guest.file("/tmp/x").unwrap(), b"abc");
        assert!(guest.upload(&mut &b"ab"[..], 3, "/tmp/x", 0o755).is_err());
        assert!(guest.probe(Duration::ZERO).is_err());
        assert_eq!(guest.unexpected(), ["probe"]);
    }
}
