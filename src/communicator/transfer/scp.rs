//! What the other end of `scp -t` and `scp -f` says.

/// Longest line that is taken from the other end.
pub const LONGEST_LINE: usize = 4 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Byte 0: go on.
    Fine,
    /// Bytes 1 and 2: it went wrong, in the other end's words.
    Failed(String),
    /// `C`: a file follows.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        length: u64,
    },
    /// `D`, `E`, `T`: what only a recursive copy has, or times.
    Other(u8),
    /// Not the protocol: something in the guest talks before, or instead of, scp.
    Noise(String),
}

/// Takes messages out of a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
}

impl Reader {
    /// The next message and how many of `bytes` belong to it; all of them where it is not complete.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Option<Message>) {
        if self.line.is_empty() && bytes.first() == Some(&0) {
            return (1, Some(Message::Fine));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        let room = LONGEST_LINE - self.line.len();
        self.line.extend_from_slice(&bytes[..taken.min(room)]);
        if end.is_none() && self.line.len() < LONGEST_LINE {
            return (taken, None);
        }
        let line = std::mem::take(&mut self.line);
        (taken, Some(parse(line.trim_ascii_end())))
    }

    /// What has come of a message that is not complete.
    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.line).trim().to_owned()
    }
}

fn parse(line: &[u8]) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match line.split_first() {
        Some((1 | 2, words)) => Message::Failed(text(words)),
        Some((b'C', rest)) => file(rest).unwrap_or_else(|| Message::Noise(text(line))),
        Some((kind @ (b'D' | b'E' | b'T'), rest))
            if rest.iter().take(1).all(u8::is_ascii_digit) =>
        {
            Message::Other(*kind)
        }
        _ => Message::Noise(text(line)),
    }
}

/// `0644 1234 name`
fn file(rest: &[u8]) -> Option<Message> {
    let rest = std::str::from_utf8(rest.get(..rest.len().min(64))?)
        .or_else(|error| std::str::from_utf8(&rest[..error.valid_up_to()]))
        .ok()?;
    let mut words = rest.splitn(3, ' ');
    let mode = words.next()?;
    let length = words.next()?;
    words.next()?;
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(mode) && digits(length) && mode.len() <= 5) {
        return None;
    }
    Some(Message::File {
        mode: u32::from_str_radix(mode, 8).ok()? & 0o7777,
        length: length.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<Message> {
        let mut reader = Reader::default();
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (taken, message) = reader.push(bytes);
            messages.extend(message);
            bytes = &bytes[taken..];
        }
        messages
    }

    #[test]
    fn messages_of_scp_are_told_apart_from_noise() {
        assert_eq!(
            all(b"\0\x01scp: /x: No such file or directory\nC0755 12 a b\nhello\n\0"),
            [
                Message::Fine,
                Message::Failed("scp: /x: No such file or directory".into()),
                Message::File {
                    mode: 0o755,
                    length: 12
                },
                Message::Noise("hello".into()),
                Message::Fine,
            ]
        );
        assert_eq!(all(b"Debian GNU\n"), [Message::Noise("Debian GNU".into())]);
        assert_eq!(
            all(b"D0755 0 d\nE\n"),
            [Message::Other(b'D'), Message::Other(b'E')]
        );
    }

    #[test]
    fn lengths_beyond_numbers_are_noise() {
        let line = b"C0644 99999999999999999999999 x\n";
        assert!(matches!(all(line)[0], Message::Noise(_)));
        assert!(matches!(all(b"C0644 -1 x\n")[0], Message::Noise(_)));
        assert!(matches!(all(b"C9999 1 x\n")[0], Message::Noise(_)));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut reader = Reader::default();
        let mut messages = 0;
        for _ in 0..100 {
            let (taken, message) = reader.push(&[b'x'; 1000]);
            assert_eq!(taken, 1000);
            messages += u32::from(message.is_some());
        }
        assert!(messages > 10);
        assert!(reader.line.len() < LONGEST_LINE);
    }
}
