//! Files by `scp` at the other end.

use std::io::Write;

use bytes::Bytes;

use super::super::Exit;
use super::super::quote;
use super::super::transfer::scp::{Message, Reader};
use super::command::read_some;
use super::conversation::{Begin, Conversation, Piece, Words};
use super::{File, Sent, Ssh, refused, too_short};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a file sent at a time.
const PIECE: usize = 256 * 1024;

/// Messages after the last one that matters.
const MOST_LAST_WORDS: usize = 16;

/// The conversation with scp.
struct Scp<'a> {
    conversation: Conversation,
    reader: Reader,
    /// Bytes that came and are not taken yet.
    ahead: Bytes,
    words: Words,
    path: &'a str,
}

/// The session ended instead of a message.
struct Over;

impl Scp<'_> {
    /// The next message.
    async fn message(&mut self) -> std::result::Result<Message, Over> {
        loop {
            if !self.ahead.is_empty() {
                let (taken, message) = self.reader.push(&self.ahead);
                self.ahead = self.ahead.slice(taken..);
                if let Some(message) = message {
                    return Ok(message);
                }
                continue;
            }
            match self.conversation.next().await {
                Some(Piece::Out(bytes)) => self.ahead = bytes,
                Some(Piece::Err(bytes)) => self.words.push(&bytes),
                None => return Err(Over),
            }
        }
    }

    /// All the guest said.
    fn said(&self) -> String {
        let rest = self.reader.rest();
        match (rest.as_str(), self.words.text()) {
            ("", words) => words,
            (rest, words) if words.is_empty() => rest.to_owned(),
            (rest, words) => format!("{rest}; {words}"),
        }
    }

    /// Before scp has said anything: whether it is there at all.
    async fn first(&mut self) -> Result<std::result::Result<Message, String>> {
        match self.message().await {
            Ok(Message::Noise(text)) => Ok(Err(format!("it says {text:?} before scp could begin"))),
            Ok(message) => Ok(Ok(message)),
            Err(Over) if self.conversation.is_cut_off() => Err(self.conversation.lost()),
            Err(Over) => Ok(Err(self.said())),
        }
    }

    /// Waits for the other end to agree.
    async fn agreed(&mut self) -> Result<()> {
        match self.message().await {
            Ok(Message::Fine) => Ok(()),
            Ok(message) => Err(self.failed(&message)),
            Err(Over) => Err(self.ended()),
        }
    }

    fn failed(&self, message: &Message) -> Error {
        match message {
            Message::Failed(words) | Message::Noise(words) => refused(self.path, words),
            _ => refused(self.path, "its scp does not keep to the protocol"),
        }
    }

    fn ended(&self) -> Error {
        match self.conversation.exit() {
            Exit::Disconnected => self.conversation.lost(),
            _ => refused(self.path, &self.said()),
        }
    }

    /// Waits for the end, which has to be a good one.
    async fn finish(&mut self) -> Result<()> {
        for _ in 0..MOST_LAST_WORDS {
            match self.message().await {
                Ok(message @ Message::Failed(_)) => return Err(self.failed(&message)),
                Ok(_) => {}
                Err(Over) => {
                    return match self.conversation.exit() {
                        Exit::Code(0) => Ok(()),
                        _ => Err(self.ended()),
                    };
                }
            }
        }
        Err(self.failed(&Message::Fine))
    }
}

impl Ssh {
    async fn scp<'a>(&self, command: &str, path: &'a str) -> Result<Scp<'a>> {
        Ok(Scp {
            conversation: self.begin(Begin::Command(command)).await?,
            reader: Reader::default(),
            ahead: Bytes::new(),
            words: Words::default(),
            path,
        })
    }

    pub(super) async fn send_by_scp(&self, file: &mut File<'_>) -> Result<Sent> {
        let (parent, name) = quote::parent_and_name(file.to);
        let name = checked_name(file.to, name)?;
        let Some(name) = name else {
            let why = "its protocol has no line breaks in names".to_owned();
            return Ok(Sent::Missing(why));
        };
        let command = format!("scp -p -d -t {}", quote::path(parent));
        let mut scp = self.scp(&command, file.to).await?;
        match scp.first().await? {
            Ok(Message::Fine) => {}
            Ok(message) => return Err(scp.failed(&message)),
            Err(why) => return Ok(Sent::Missing(why)),
        }
        let record = format!("C{:04o} {} {name}\n", file.mode, file.length);
        scp.conversation.send(record.into_bytes()).await?;
        scp.agreed().await?;
        send_bytes(&mut scp, file).await?;
        scp.conversation.send(&b"\0"[..]).await?;
        scp.agreed().await?;
        scp.conversation.end_of_input().await?;
        scp.finish().await?;
        Ok(Sent::Done)
    }

    pub(super) async fn fetch_by_scp(
        &self,
        from: &str,
        into: &mut (dyn Write + Send),
    ) -> Result<Sent> {
        let command = format!("scp -f {}", quote::path(from));
        let mut scp = self.scp(&command, from).await?;
        scp.conversation.send(&b"\0"[..]).await?;
        let mut left = match scp.first().await? {
            Ok(Message::File { length, .. }) => length,
            Ok(message) => return Err(scp.failed(&message)),
            Err(why) => return Ok(Sent::Missing(why)),
        };
        scp.conversation.send(&b"\0"[..]).await?;
        while left > 0 {
            if scp.ahead.is_empty() {
                match scp.conversation.next().await {
                    Some(Piece::Out(bytes)) => scp.ahead = bytes,
                    Some(Piece::Err(bytes)) => scp.words.push(&bytes),
                    None => return Err(scp.ended()),
                }
                continue;
            }
            let length = usize::try_from(left).map_or(scp.ahead.len(), |l| l.min(scp.ahead.len()));
            let bytes = scp.ahead.split_to(length);
            left -= length as u64;
            into.write_all(&bytes)
                .map_err(|error| Error::io("write the file that is fetched", error))?;
        }
        scp.agreed().await?;
        scp.conversation.send(&b"\0"[..]).await?;
        scp.finish().await?;
        Ok(Sent::Done)
    }
}

/// The name of the file that is sent, where scp can say it.
fn checked_name<'a>(path: &str, name: &'a str) -> Result<Option<&'a str>> {
    if path.contains('\0') {
        return Err(Error::usage("a path in the guest holds a zero byte"));
    }
    match name {
        "" | "." | ".." => Err(Error::new(
            ErrorKind::Usage,
            format!("{path:?} is no name for a file in the guest"),
        )),
        name if name.contains(['\n', '\r']) => Ok(None),
        name => Ok(Some(name)),
    }
}

/// Sends the bytes of the file; what the other end says meanwhile ends it.
async fn send_bytes(scp: &mut Scp<'_>, file: &mut File<'_>) -> Result<()> {
    let Some(writer) = scp.conversation.writer() else {
        return Err(scp.conversation.lost());
    };
    let mut left = file.length;
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let length = read_some(file.from, &mut buffer[..most])
            .map_err(|error| Error::io("read the file to send", error))?;
        if length == 0 {
            return Err(too_short(file.length, left));
        }
        left -= length as u64;
        let send = writer.data_bytes(Bytes::copy_from_slice(&buffer[..length]));
        tokio::pin!(send);
        tokio::select! {
            biased;
            sent = &mut send => sent.map_err(|_| scp.conversation.lost())?,
            message = scp.message() => {
                return Err(match message {
                    Ok(message) => scp.failed(&message),
                    Err(Over) => scp.ended(),
                });
            }
        }
    }
    Ok(())
}
