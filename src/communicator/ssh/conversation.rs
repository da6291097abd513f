//! One session on a connection: a command or a subsystem, its bytes in both directions, and its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::time::timeout;

use super::super::Exit;
use super::dial::Link;
use crate::error::{Error, ErrorKind, Result};

/// After a command has ended, what it started may hold its output open without end: it is not waited for longer.
const LINGER: Duration = Duration::from_secs(5);

/// Of what is said on standard error, as much is kept for messages.
const LONGEST_WORDS: usize = 4 * 1024;

/// Longest name of a signal that is passed on.
const LONGEST_SIGNAL: usize = 64;

/// What a session is to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin<'a> {
    /// A command.
    Command(&'a str),
    /// A command with a terminal.
    Terminal(&'a str),
    /// A subsystem.
    Subsystem(&'a str),
}

/// Bytes from the other end.
#[derive(Debug)]
pub(super) enum Piece {
    /// Of standard output.
    Out(Bytes),
    /// Of standard error.
    Err(Bytes),
}

/// The session.
pub(super) struct Conversation {
    read: ChannelReadHalf,
    write: Option<Arc<ChannelWriteHalf<Msg>>>,
    exit: Option<Exit>,
    over: bool,
    link: Arc<Link>,
}

impl Conversation {
    /// Begins what `begin` says on a session that is open.
    pub(super) async fn start(
        link: Arc<Link>,
        channel: Channel<Msg>,
        begin: Begin<'_>,
        forward_agent: bool,
    ) -> Result<Self> {
        let (read, write) = channel.split();
        let mut this = Self {
            read,
            write: Some(Arc::new(write)),
            exit: None,
            over: false,
            link,
        };
        // All is asked at once, and answered in order.
        let mut asked = Vec::new();
        let sent = this.ask(begin, forward_agent, &mut asked).await;
        sent.map_err(|_| this.lost())?;
        for what in asked {
            let answered = loop {
                match this.read.wait().await {
                    Some(ChannelMsg::Success) => break true,
                    Some(ChannelMsg::Failure) => break false,
                    Some(ChannelMsg::Close) | None => return Err(this.lost()),
                    Some(_) => {}
                }
            };
            // Without an agent the command goes on, as with every other client.
            if !answered && what != "an agent" {
                let message = format!("the guest refuses {what}");
                return Err(Error::new(ErrorKind::Guest, message));
            }
        }
        Ok(this)
    }

    async fn ask(
        &self,
        begin: Begin<'_>,
        forward_agent: bool,
        asked: &mut Vec<&'static str>,
    ) -> std::result::Result<(), russh::Error> {
        let Some(write) = &self.write else {
            return Ok(());
        };
        if forward_agent {
            write.agent_forward(true).await?;
            asked.push("an agent");
        }
        match begin {
            Begin::Command(command) => {
                write.exec(true, command).await?;
                asked.push("to run a command");
            }
            Begin::Terminal(command) => {
                let modes = [(Pty::ECHO, 0)];
                write
                    .request_pty(true, "xterm", 80, 40, 0, 0, &modes)
                    .await?;
                asked.push("a terminal");
                write.exec(true, command).await?;
                asked.push("to run a command");
            }
            Begin::Subsystem(name) => {
                write.request_subsystem(true, name).await?;
                asked.push("the subsystem");
            }
        }
        Ok(())
    }

    /// The next bytes; none once the session is over.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        while !self.over {
            let message = if self.exit.is_some() {
                timeout(LINGER, self.read.wait()).await.unwrap_or(None)
            } else {
                self.read.wait().await
            };
            match message {
                Some(ChannelMsg::Data { data }) => return Some(Piece::Out(data)),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => return Some(Piece::Err(data)),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    let code = i32::try_from(exit_status).unwrap_or(i32::MAX);
                    self.exit = Some(Exit::Code(code));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    self.exit = Some(Exit::Signal(signal(&signal_name)));
                }
                Some(ChannelMsg::Close) | None => self.over = true,
                Some(_) => {}
            }
        }
        None
    }

    /// How it ended, once it is over.
    pub(super) fn exit(&self) -> Exit {
        self.exit.clone().unwrap_or(Exit::Disconnected)
    }

    /// A way to send while reading.
    pub(super) fn writer(&self) -> Option<Arc<ChannelWriteHalf<Msg>>> {
        self.write.clone()
    }

    /// Sends bytes, as the other end takes them. What comes meanwhile has to be read by somebody else.
    pub(super) async fn send(&self, bytes: impl Into<Bytes>) -> Result<()> {
        match &self.write {
            Some(write) => write.data_bytes(bytes).await.map_err(|_| self.lost()),
            None => Err(self.lost()),
        }
    }

    /// Says that nothing more is sent.
    pub(super) async fn end_of_input(&self) -> Result<()> {
        match &self.write {
            Some(write) => write.eof().await.map_err(|_| self.lost()),
            None => Ok(()),
        }
    }

    /// Whether it is the connection that has ended, not only this session.
    pub(super) fn is_cut_off(&self) -> bool {
        !self.link.is_open()
    }

    /// The connection is gone.
    pub(super) fn lost(&self) -> Error {
        lost(&self.link.farewell())
    }
}

/// The error of a connection that has ended.
pub(super) fn lost(words: &str) -> Error {
    let message = match words {
        "" => "the connection to the guest was lost".to_owned(),
        words => format!("the connection to the guest was lost: {words}"),
    };
    Error::new(ErrorKind::Connection, message)
}

fn signal(signal: &Sig) -> String {
    let name = match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    };
    name.chars().take(LONGEST_SIGNAL).collect()
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let Some(write) = self.write.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let ended = self.over || self.exit.is_some();
            runtime.spawn(async move {
                if !ended {
                    // Servers that know no signals close what the command writes to.
                    let _ = write.signal(Sig::TERM).await;
                }
                let _ = write.close().await;
            });
        }
    }
}

/// What a program said on standard error, shortened, as one line.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<u8>);

impl Words {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = LONGEST_WORDS - self.0.len();
        self.0.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let lines: Vec<&str> = text
            .split(['\n', '\r'])
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join("; ")
    }
}
