//! A stream of bytes cut into lines of text, as they come.
//!
//! Knows ends of lines, carriage returns and UTF-8. Must not know where the bytes come from.

/// A line longer than this many bytes comes in pieces.
pub const LONGEST: usize = 64 * 1024;

/// Cuts one stream; holds at most [`LONGEST`] bytes.
#[derive(Debug, Default)]
pub struct Splitter {
    line: Vec<u8>,
    /// The last byte was a carriage return: whether the line goes on or is overwritten is not known yet.
    returned: bool,
}

impl Splitter {
    /// Takes the next bytes; each line that is complete goes to `take`.
    pub fn push(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(&str)) {
        while let Some(&first) = bytes.first() {
            if first == b'\n' {
                self.flush(take);
                bytes = &bytes[1..];
                continue;
            }
            if first == b'\r' {
                self.returned = true;
                bytes = &bytes[1..];
                continue;
            }
            if self.returned {
                self.line.clear();
                self.returned = false;
            }
            let end = bytes
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r'))
                .unwrap_or(bytes.len());
            let (mut text, rest) = bytes.split_at(end);
            while !text.is_empty() {
                let room = LONGEST - self.line.len();
                let (now, later) = text.split_at(room.min(text.len()));
                self.line.extend_from_slice(now);
                text = later;
                if self.line.len() == LONGEST {
                    self.give_piece(take);
                }
            }
            bytes = rest;
        }
    }

    /// The end of the stream: what stands there without an end of line is a line too.
    pub fn finish(&mut self, take: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.flush(take);
        }
        self.returned = false;
    }

    fn flush(&mut self, take: &mut dyn FnMut(&str)) {
        take(&String::from_utf8_lossy(&self.line));
        self.line.clear();
        self.returned = false;
    }

    /// All that is held, but for a character that is not complete.
    fn give_piece(&mut self, take: &mut dyn FnMut(&str)) {
        let cut = whole_characters(&self.line);
        take(&String::from_utf8_lossy(&self.line[..cut]));
        self.line.drain(..cut);
    }
}

/// The length of `bytes` without the beginning of a character at its end.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let start = (tail..bytes.len())
        .rev()
        .find(|&at| bytes[at] & 0b1100_0000 != 0b1000_0000);
    let Some(start) = start else {
        return bytes.len();
    };
    let needs = match bytes[start] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if start > 0 && bytes.len() - start < needs {
        start
    } else {
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::default();
        for piece in pieces {
            splitter.push(piece, &mut |line| lines.push(line.to_owned()));
        }
        splitter.finish(&mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_come_without_their_ends() {
        assert_eq!(cut(&[b"a\nb\r\n\nc"]), ["a", "b", "", "c"]);
        assert!(cut(&[b""]).is_empty());
    }

    #[test]
    fn a_carriage_return_overwrites_what_stood_before() {
        assert_eq!(cut(&[b"10%\r20%\r100%\n"]), ["100%"]);
        assert_eq!(cut(&[b"10%\r", b"20%\r", b"\n"]), ["20%"]);
        assert_eq!(cut(&[b"end\r"]), ["end"]);
        assert_eq!(cut(&[b"\r\r\n"]), [""]);
    }

    #[test]
    fn characters_may_come_in_halves_and_wrong_ones_are_replaced() {
        assert_eq!(cut(&[b"\xc3", b"\xa9\n"]), ["é"]);
        assert_eq!(cut(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_long_line_comes_in_pieces_of_whole_characters() {
        let text = "é".repeat(LONGEST);
        for shift in 0..3 {
            let text = format!("{}{text}", "x".repeat(shift));
            let lines = cut(&[text.as_bytes(), b"\n"]);
            assert_eq!(lines.concat(), text);
            assert!(lines.iter().all(|line| line.len() <= LONGEST), "{shift}");
            assert!(lines.len() <= 4, "{shift}");
        }
    }

    #[test]
    fn where_the_bytes_are_cut_makes_no_difference() {
        let text = "ab\rc\r\nd\u{20ac}\n\r\n\rx\r".repeat(3);
        let whole = cut(&[text.as_bytes()]);
        for at in 0..text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(cut(&[a, b]), whole, "at {at}");
        }
    }

    #[test]
    fn endless_bytes_without_a_line_hold_no_memory() {
        let mut splitter = Splitter::default();
        for _ in 0..100 {
            splitter.push(&[0xff; 10_000], &mut |_| ());
            splitter.push(&[0x80; 10_000], &mut |_| ());
        }
        assert!(splitter.line.capacity() <= 2 * LONGEST);
    }
}
