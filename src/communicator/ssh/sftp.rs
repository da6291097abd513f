//! Files by the sftp subsystem.

use std::collections::VecDeque;
use std::io::Write;

use bytes::{Bytes, BytesMut};

use super::super::Exit;
use super::super::transfer::sftp::{self, NotSftp, PIECE, Reply};
use super::command::read_some;
use super::conversation::{Begin, Conversation, Piece, Words};
use super::{File, Sent, Ssh, refused, too_short};
use crate::error::{Error, ErrorKind, Result};

/// Requests under way at a time.
const AHEAD: usize = 64;

/// A server that has begun; it is kept from one file to the next.
pub(super) struct Server {
    conversation: Conversation,
    stream: BytesMut,
    words: Words,
    next: u32,
    /// It takes and says nothing more.
    ended: bool,
}

/// One file on a server.
struct Sftp<'a> {
    server: Server,
    path: &'a str,
    /// The server has done other files before.
    used: bool,
}

/// The number of a request and what came of it, in words.
fn mismatch() -> NotSftp {
    NotSftp("its sftp server does not keep to the protocol".to_owned())
}

impl Server {
    /// The next reply; none once the session is over.
    async fn reply(&mut self) -> std::result::Result<Option<Reply>, NotSftp> {
        loop {
            if let Some(reply) = sftp::next(&mut self.stream)? {
                return Ok(Some(reply));
            }
            match self.conversation.next().await {
                // Beside it there is less than a packet.
                Some(Piece::Out(bytes)) => self.stream.extend_from_slice(&bytes),
                Some(Piece::Err(bytes)) => self.words.push(&bytes),
                None => {
                    self.ended = true;
                    return Ok(None);
                }
            }
        }
    }

    /// A number for a request.
    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    async fn send(&mut self, request: Bytes) -> Result<()> {
        let sent = self.conversation.send(request).await;
        self.ended |= sent.is_err();
        sent
    }
}

impl Sftp<'_> {
    /// The reply to a request; the session must not end.
    async fn answer(&mut self) -> Result<Reply> {
        match self.server.reply().await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(self.ended()),
            Err(NotSftp(why)) => Err(refused(self.path, &why)),
        }
    }

    fn ended(&self) -> Error {
        match self.server.conversation.exit() {
            Exit::Disconnected => self.server.conversation.lost(),
            _ => refused(self.path, &self.server.words.text()),
        }
    }

    /// The status of the request `id`, which has to be success.
    async fn succeeded(&mut self, id: u32) -> Result<()> {
        match self.answer().await? {
            Reply::Status {
                id: of,
                code,
                words,
            } if of == id => match code {
                0 => Ok(()),
                code => Err(self.failed(code, &words)),
            },
            _ => Err(refused(self.path, &mismatch().0)),
        }
    }

    fn failed(&self, code: u32, words: &str) -> Error {
        let known = match code {
            2 => "no such file or directory",
            3 => "permission denied",
            8 => "its sftp server cannot do this",
            _ => "failure",
        };
        // `Failure` is all that OpenSSH says of a full disk or a directory in the way.
        let words = match words {
            "" => known.to_owned(),
            words => words.to_owned(),
        };
        refused(self.path, &words)
    }

    /// Opens the file.
    async fn open(&mut self, request: impl FnOnce(u32) -> Bytes) -> Result<Bytes> {
        let id = self.server.number();
        self.server.send(request(id)).await?;
        match self.answer().await? {
            Reply::Handle { id: of, handle } if of == id => Ok(handle),
            Reply::Status {
                id: of,
                code,
                words,
            } if of == id && code != 0 => Err(self.failed(code, &words)),
            _ => Err(refused(self.path, &mismatch().0)),
        }
    }

    async fn close(&mut self, handle: &Bytes) -> Result<()> {
        let id = self.server.number();
        self.server.send(sftp::close(id, handle)).await?;
        self.succeeded(id).await
    }
}

/// The path as the server takes it, which begins at home; none where only a shell knows.
fn server_path(path: &str) -> Option<&str> {
    match path.strip_prefix('~') {
        None => Some(path),
        Some("" | "/") => Some("."),
        Some(rest) => rest.strip_prefix('/'),
    }
}

impl Ssh {
    /// Begins with the server, where there is one.
    async fn sftp<'a>(&self, path: &'a str) -> Result<std::result::Result<Sftp<'a>, String>> {
        if path.contains('\0') {
            return Err(Error::usage("a path in the guest holds a zero byte"));
        }
        let kept = self.sftp_server.lock().await.take();
        if let Some(server) = kept.filter(|server| !server.conversation.is_cut_off()) {
            let used = true;
            return Ok(Ok(Sftp { server, path, used }));
        }
        let conversation = match self.begin(Begin::Subsystem("sftp")).await {
            Ok(conversation) => conversation,
            Err(error) if error.kind() == ErrorKind::Guest => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut server = Server {
            conversation,
            stream: BytesMut::new(),
            words: Words::default(),
            next: 0,
            ended: false,
        };
        // A server that is not there ends before it takes this.
        let sent = server.send(sftp::begin()).await;
        match (sent, server.reply().await) {
            (Ok(()), Ok(Some(Reply::Version(_)))) => {
                let used = false;
                Ok(Ok(Sftp { server, path, used }))
            }
            (_, Ok(None)) if server.conversation.is_cut_off() => Err(server.conversation.lost()),
            (_, Ok(_)) => Ok(Err(server.words.text())),
            (_, Err(NotSftp(why))) => Ok(Err(format!("it says {why:?} before sftp could begin"))),
        }
    }

    /// Opens a file on the server, on a new one if the one that was kept has ended.
    async fn sftp_file<'a>(
        &self,
        path: &'a str,
        request: impl Fn(u32) -> Bytes,
    ) -> Result<std::result::Result<(Sftp<'a>, Bytes), String>> {
        loop {
            let mut sftp = match self.sftp(path).await? {
                Ok(sftp) => sftp,
                Err(why) => return Ok(Err(why)),
            };
            match sftp.open(&request).await {
                Ok(handle) => return Ok(Ok((sftp, handle))),
                Err(_) if sftp.used && sftp.server.ended => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn send_by_sftp(&self, file: &mut File<'_>) -> Result<Sent> {
        let Some(path) = server_path(file.to) else {
            return Ok(Sent::Missing("it does not know other users' homes".into()));
        };
        let mode = file.mode;
        let request = |id| sftp::create(id, path.as_bytes(), mode);
        let (mut sftp, handle) = match self.sftp_file(file.to, request).await? {
            Ok(opened) => opened,
            Err(why) => return Ok(Sent::Missing(why)),
        };
        // The mode first: what the file holds is nobody else's before.
        let id = sftp.server.number();
        let request = sftp::set_mode(id, &handle, file.mode);
        sftp.server.send(request).await?;
        sftp.succeeded(id).await?;
        write_all(&mut sftp, &handle, file).await?;
        sftp.close(&handle).await?;
        *self.sftp_server.lock().await = Some(sftp.server);
        Ok(Sent::Done)
    }

    pub(super) async fn fetch_by_sftp(
        &self,
        from: &str,
        into: &mut (dyn Write + Send),
    ) -> Result<Sent> {
        let Some(path) = server_path(from) else {
            return Ok(Sent::Missing("it does not know other users' homes".into()));
        };
        let request = |id| sftp::open(id, path.as_bytes());
        let (mut sftp, handle) = match self.sftp_file(from, request).await? {
            Ok(opened) => opened,
            Err(why) => return Ok(Sent::Missing(why)),
        };
        read_all(&mut sftp, &handle, into).await?;
        sftp.close(&handle).await?;
        *self.sftp_server.lock().await = Some(sftp.server);
        Ok(Sent::Done)
    }
}

/// Writes the file with many requests under way; servers answer in order.
async fn write_all(sftp: &mut Sftp<'_>, handle: &Bytes, file: &mut File<'_>) -> Result<()> {
    let Some(writer) = sftp.server.conversation.writer() else {
        return Err(sftp.server.conversation.lost());
    };
    let mut at = 0;
    let mut waiting = VecDeque::with_capacity(AHEAD);
    let mut buffer = vec![0; PIECE];
    while at < file.length || !waiting.is_empty() {
        if at < file.length && waiting.len() < AHEAD {
            let most = usize::try_from(file.length - at).map_or(PIECE, |left| left.min(PIECE));
            let length = read_some(file.from, &mut buffer[..most])
                .map_err(|error| Error::io("read the file to send", error))?;
            if length == 0 {
                return Err(too_short(file.length, file.length - at));
            }
            let id = sftp.server.number();
            let mut request = BytesMut::with_capacity(length + 64);
            sftp::write(id, handle, at, length, &mut request);
            request.extend_from_slice(&buffer[..length]);
            at += length as u64;
            waiting.push_back(id);
            let send = writer.data_bytes(request.freeze());
            tokio::pin!(send);
            loop {
                tokio::select! {
                    biased;
                    sent = &mut send => {
                        sent.map_err(|_| sftp.server.conversation.lost())?;
                        break;
                    }
                    // The server may not take more before its answers are taken.
                    taken = take_status(sftp, &mut waiting) => taken?,
                }
            }
        } else {
            take_status(sftp, &mut waiting).await?;
        }
    }
    Ok(())
}

async fn take_status(sftp: &mut Sftp<'_>, waiting: &mut VecDeque<u32>) -> Result<()> {
    let reply = sftp.answer().await?;
    match (reply, waiting.pop_front()) {
        (Reply::Status { id, code: 0, .. }, Some(waited)) if id == waited => Ok(()),
        (Reply::Status { code, words, .. }, Some(_)) if code != 0 => Err(sftp.failed(code, &words)),
        _ => Err(refused(sftp.path, &mismatch().0)),
    }
}

/// Reads the file with many requests under way, until the server says that it ends.
async fn read_all(
    sftp: &mut Sftp<'_>,
    handle: &Bytes,
    into: &mut (dyn Write + Send),
) -> Result<()> {
    // Where each request under way begins.
    let mut waiting: VecDeque<(u32, u64)> = VecDeque::with_capacity(AHEAD);
    let mut asked = 0;
    let mut at = 0;
    let mut ended = false;
    // Few at first: most files are small.
    let mut most = 2;
    while !ended || !waiting.is_empty() {
        while !ended && waiting.len() < most {
            let id = sftp.server.number();
            sftp.server.send(sftp::read(id, handle, asked)).await?;
            waiting.push_back((id, asked));
            asked += PIECE as u64;
        }
        let reply = sftp.answer().await?;
        let Some((waited, from)) = waiting.pop_front() else {
            break;
        };
        match reply {
            Reply::Data { id, bytes } if id == waited && bytes.len() <= PIECE => {
                if from != at || ended {
                    // What was asked for beyond a short answer is asked for again.
                    continue;
                }
                into.write_all(&bytes)
                    .map_err(|error| Error::io("write the file that is fetched", error))?;
                at += bytes.len() as u64;
                if bytes.is_empty() {
                    return Err(refused(sftp.path, &mismatch().0));
                }
                if bytes.len() < PIECE {
                    asked = at;
                }
                most = AHEAD.min(most * 2);
            }
            Reply::Status { id, code: 1, .. } if id == waited => {
                // The end, if it is that of what comes next; else only of what lay beyond a short answer.
                ended |= from == at;
            }
            Reply::Status { id, code, words } if id == waited && code != 0 => {
                return Err(sftp.failed(code, &words));
            }
            _ => return Err(refused(sftp.path, &mismatch().0)),
        }
    }
    Ok(())
}
