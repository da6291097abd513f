//! SFTP, version 3, as far as sending and fetching a file needs it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a file in one request: what every server takes.
pub const PIECE: usize = 32 * 1024;

/// Larger packets are not taken from a server.
pub const LONGEST_PACKET: usize = 256 * 1024;

/// Longest handle by the protocol.
const LONGEST_HANDLE: usize = 256;

/// Longest words of a server that are kept.
const LONGEST_WORDS: usize = 1024;

const WRITE: u32 = 0x02;
const READ: u32 = 0x01;
const CREATE: u32 = 0x08;
const TRUNCATE: u32 = 0x10;
const HAS_MODE: u32 = 0x04;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Its version.
    Version(u32),
    /// How a request ended.
    Status {
        /// Number of the request.
        id: u32,
        /// Its result: 0 is success, 1 the end of the file.
        code: u32,
        /// In words.
        words: String,
    },
    /// An open file.
    Handle {
        /// Number of the request.
        id: u32,
        /// Its handle.
        handle: Bytes,
    },
    /// Bytes of a file.
    Data {
        /// Number of the request.
        id: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// Anything else.
    Other(u8),
}

/// What a server sent is not SFTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSftp(pub String);

/// Takes the next reply out of `stream`, where there is a whole one.
///
/// # Errors
/// It is too long, or not as the protocol has it.
pub fn next(stream: &mut BytesMut) -> Result<Option<Reply>, NotSftp> {
    let Some(length) = stream.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > LONGEST_PACKET {
        let said: String = String::from_utf8_lossy(&stream[..stream.len().min(80)]).into();
        return Err(NotSftp(said.trim().to_owned()));
    }
    if stream.len() < 4 + length {
        return Ok(None);
    }
    stream.advance(4);
    let mut packet = stream.split_to(length).freeze();
    let kind = packet.get_u8();
    let reply = match kind {
        2 => Some(Reply::Version(number(&mut packet).unwrap_or(0))),
        101 => status(&mut packet),
        102 => handle(&mut packet),
        103 => data(&mut packet),
        other => Some(Reply::Other(other)),
    };
    reply
        .map(Some)
        .ok_or_else(|| NotSftp(format!("a packet of kind {kind} is cut off")))
}

fn number(packet: &mut Bytes) -> Option<u32> {
    packet.try_get_u32().ok()
}

fn string(packet: &mut Bytes) -> Option<Bytes> {
    let length = number(packet)? as usize;
    (length <= packet.len()).then(|| packet.split_to(length))
}

fn status(packet: &mut Bytes) -> Option<Reply> {
    let id = number(packet)?;
    let code = number(packet)?;
    // Old servers send no words.
    let words = string(packet).unwrap_or_default();
    let words = String::from_utf8_lossy(&words[..words.len().min(LONGEST_WORDS)]).into_owned();
    Some(Reply::Status { id, code, words })
}

fn handle(packet: &mut Bytes) -> Option<Reply> {
    let id = number(packet)?;
    let handle = string(packet)?;
    (handle.len() <= LONGEST_HANDLE).then_some(Reply::Handle { id, handle })
}

fn data(packet: &mut Bytes) -> Option<Reply> {
    let id = number(packet)?;
    let bytes = string(packet)?;
    Some(Reply::Data { id, bytes })
}

fn packet(kind: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u32(0);
    bytes.put_u8(kind);
    body(&mut bytes);
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, string: &[u8]) {
    bytes.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
    bytes.put_slice(string);
}

/// The first packet.
pub fn begin() -> Bytes {
    packet(1, |bytes| bytes.put_u32(3))
}

/// Opens `path` to be written from the beginning, made with `mode` if it is new.
pub fn create(id: u32, path: &[u8], mode: u32) -> Bytes {
    packet(3, |bytes| {
        bytes.put_u32(id);
        put_string(bytes, path);
        bytes.put_u32(WRITE | CREATE | TRUNCATE);
        bytes.put_u32(HAS_MODE);
        bytes.put_u32(mode);
    })
}

/// Opens `path` to be read.
pub fn open(id: u32, path: &[u8]) -> Bytes {
    packet(3, |bytes| {
        bytes.put_u32(id);
        put_string(bytes, path);
        bytes.put_u32(READ);
        bytes.put_u32(0);
    })
}

/// Gives an open file this mode.
pub fn set_mode(id: u32, handle: &[u8], mode: u32) -> Bytes {
    packet(10, |bytes| {
        bytes.put_u32(id);
        put_string(bytes, handle);
        bytes.put_u32(HAS_MODE);
        bytes.put_u32(mode);
    })
}

/// Closes a file.
pub fn close(id: u32, handle: &[u8]) -> Bytes {
    packet(4, |bytes| {
        bytes.put_u32(id);
        put_string(bytes, handle);
    })
}

/// Reads up to [`PIECE`] bytes from `at` on.
pub fn read(id: u32, handle: &[u8], at: u64) -> Bytes {
    packet(5, |bytes| {
        bytes.put_u32(id);
        put_string(bytes, handle);
        bytes.put_u64(at);
        bytes.put_u32(PIECE as u32);
    })
}

/// What stands before the `length` bytes that are written at `at`.
pub fn write(id: u32, handle: &[u8], at: u64, length: usize, bytes: &mut BytesMut) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let handle_length = u32::try_from(handle.len()).unwrap_or(u32::MAX);
    let rest = 1 + 4 + 4 + 8 + 4;
    bytes.put_u32(length.saturating_add(handle_length).saturating_add(rest));
    bytes.put_u8(6);
    bytes.put_u32(id);
    put_string(bytes, handle);
    bytes.put_u64(at);
    bytes.put_u32(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_in_any_pieces() {
        let mut stream = BytesMut::new();
        let whole = [
            &packet(2, |bytes| bytes.put_u32(3))[..],
            &packet(102, |bytes| {
                bytes.put_u32(7);
                put_string(bytes, b"h");
            }),
            &packet(101, |bytes| {
                bytes.put_u32(8);
                bytes.put_u32(3);
                put_string(bytes, b"Permission denied");
                put_string(bytes, b"en");
            }),
        ]
        .concat();
        let mut replies = Vec::new();
        for byte in whole {
            stream.put_u8(byte);
            replies.extend(next(&mut stream).unwrap());
        }
        assert_eq!(
            replies,
            [
                Reply::Version(3),
                Reply::Handle {
                    id: 7,
                    handle: Bytes::from_static(b"h")
                },
                Reply::Status {
                    id: 8,
                    code: 3,
                    words: "Permission denied".into()
                }
            ]
        );
    }

    #[test]
    fn a_shell_that_talks_is_no_sftp_server() {
        let mut stream = BytesMut::from(&b"Welcome to Debian\n"[..]);
        assert_eq!(
            next(&mut stream),
            Err(NotSftp("Welcome to Debian".to_owned()))
        );
    }

    #[test]
    fn lengths_inside_of_packets_are_not_believed() {
        for kind in [101, 102, 103] {
            for length in 0..16 {
                let mut stream = BytesMut::from(
                    &packet(kind, |bytes| {
                        bytes.put_slice(&[0xff; 16][..length]);
                    })[..],
                );
                let _ = next(&mut stream);
            }
        }
    }

    #[test]
    fn a_write_is_as_long_as_it_says() {
        let mut bytes = BytesMut::new();
        write(1, b"abc", 5, 10, &mut bytes);
        bytes.put_slice(&[0; 10]);
        let length = u32::from_be_bytes(*bytes.first_chunk().unwrap());
        assert_eq!(length as usize, bytes.len() - 4);
    }
}
