//! What a raw deflate stream (RFC 1951) asks of its reader: how far back it
//! refers, where it ends, how many bytes it yields.
//!
//! Knows the symbols of deflate and zlib's rules for them, but keeps no output:
//! it walks over a stream without decoding it. Must not know of libraries that
//! encode or decode, so that it can serve as a witness against them.
//!
//! A reader that inflates a cluster in pieces with the 4 KiB window that QEMU
//! writes fails on a stream that refers further back; QEMU itself, which
//! inflates in one piece, does not. [`greatest_distance`] tells them apart.

use super::DecodeError;

/// What [`walk`] found out about a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The greatest distance, in bytes, of a reference that yielded a byte
    /// within the limit; 0 when there is none.
    pub greatest_distance: u32,
    /// How many bytes of the input the stream occupies up to the end of its
    /// final block. `None` when it reaches the limit and does not end there:
    /// QEMU reads such a cluster, but where its stream ends is not to be told.
    pub stream_len: Option<usize>,
    /// How many bytes the stream yields, the limit at most.
    pub output_len: usize,
}

/// The greatest distance, in bytes, of a back reference in `stream` as far as
/// that yields its first `limit` bytes.
///
/// # Errors
///
/// As for [`walk`].
pub fn greatest_distance(stream: &[u8], limit: usize) -> Result<u32, DecodeError> {
    walk(stream, limit).map(|walk| walk.greatest_distance)
}

/// Walks over `stream` up to its end, or until it yields more than `limit`
/// bytes; foreign bytes may follow.
///
/// Takes and refuses exactly what zlib does when it inflates into a buffer of
/// `limit` bytes in one call. A stream that ends in time and yields fewer bytes
/// is sound here. The time is bounded by the lengths of both.
///
/// # Errors
///
/// [`DecodeError::EndsEarly`] when the input ends before the stream and the
/// limit, [`DecodeError::Invalid`] when the stream breaks a rule of deflate.
pub fn walk(stream: &[u8], limit: usize) -> Result<Walk, DecodeError> {
    let mut walker = Walker {
        bits: Bits {
            input: stream,
            next: 0,
            hold: 0,
            count: 0,
        },
        limit,
        output_len: 0,
        greatest_distance: 0,
    };
    let stream_len = match walker.blocks() {
        Ok(()) => Some(walker.bits.position()),
        Err(Stop::Full) => None,
        Err(Stop::Dry) if walker.output_len == limit => None,
        Err(Stop::Dry) => {
            return Err(DecodeError::EndsEarly {
                got: walker.output_len,
                want: limit,
            });
        }
        Err(Stop::Invalid(what)) => return Err(DecodeError::Invalid(what)),
    };
    Ok(Walk {
        greatest_distance: walker.greatest_distance,
        stream_len,
        output_len: walker.output_len,
    })
}

/// Why a walk stopped before the end of the final block.
enum Stop {
    /// The input ended.
    Dry,
    /// The next byte of output would exceed the limit.
    Full,
    /// The stream breaks a rule.
    Invalid(&'static str),
}

struct Walker<'a> {
    bits: Bits<'a>,
    limit: usize,
    /// At most `limit`.
    output_len: usize,
    greatest_distance: u32,
}

impl Walker<'_> {
    /// Every block takes at least three bits, so this comes to an end even
    /// when none of them yields a byte.
    fn blocks(&mut self) -> Result<(), Stop> {
        loop {
            let last = self.bits.take(1)? == 1;
            match self.bits.take(2)? {
                0 => self.stored()?,
                1 => {
                    let (literals, distances) = fixed_codes()?;
                    self.symbols(&literals, &distances)?;
                }
                2 => {
                    let (literals, distances) = self.dynamic_codes()?;
                    self.symbols(&literals, &distances)?;
                }
                _ => return Err(Stop::Invalid("unknown block type")),
            }
            if last {
                return Ok(());
            }
        }
    }

    fn stored(&mut self) -> Result<(), Stop> {
        self.bits.align();
        let len = self.bits.take(16)?;
        if self.bits.take(16)? != len ^ 0xffff {
            return Err(Stop::Invalid("the length of a stored block"));
        }
        let len = len as usize;
        let left = self.limit - self.output_len;
        let skipped = self.bits.skip(len.min(left));
        self.output_len += skipped;
        if skipped == len {
            Ok(())
        } else if skipped == left {
            Err(Stop::Full)
        } else {
            Err(Stop::Dry)
        }
    }

    /// The two codes at the head of a dynamic block, section 3.2.7.
    fn dynamic_codes(&mut self) -> Result<(Code, Code), Stop> {
        let literal_count = self.bits.take(5)? as usize + 257;
        let distance_count = self.bits.take(5)? as usize + 1;
        let length_count = self.bits.take(4)? as usize + 4;
        if literal_count > LITERALS || distance_count > DISTANCES {
            return Err(Stop::Invalid("too many symbols"));
        }
        let mut lengths = [0_u8; 19];
        for &symbol in &LENGTH_ORDER[..length_count] {
            lengths[symbol] = self.bits.take(3)? as u8;
        }
        let Some(code) = Code::new(&lengths).filter(|code| code.complete) else {
            return Err(Stop::Invalid("the code of the code lengths"));
        };

        let mut lengths = [0_u8; LITERALS + DISTANCES];
        let lengths = &mut lengths[..literal_count + distance_count];
        let mut at = 0;
        while at < lengths.len() {
            let symbol = code.read(&mut self.bits)?;
            let (value, times) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => match at.checked_sub(1) {
                    Some(previous) => (lengths[previous], 3 + self.bits.take(2)?),
                    None => return Err(Stop::Invalid("a repetition of no code length")),
                },
                17 => (0, 3 + self.bits.take(3)?),
                _ => (0, 11 + self.bits.take(7)?),
            };
            let end = at + times as usize;
            match lengths.get_mut(at..end) {
                Some(run) => run.fill(value),
                None => return Err(Stop::Invalid("too many code lengths")),
            }
            at = end;
        }
        let (literals, distances) = lengths.split_at(literal_count);
        if literals[END_OF_BLOCK] == 0 {
            return Err(Stop::Invalid("no code for the end of a block"));
        }
        let literals = Code::new(literals).filter(Code::is_usable);
        let distances = Code::new(distances).filter(Code::is_usable);
        literals
            .zip(distances)
            .ok_or(Stop::Invalid("the code of the literals or distances"))
    }

    fn symbols(&mut self, literals: &Code, distances: &Code) -> Result<(), Stop> {
        loop {
            let symbol = usize::from(literals.read(&mut self.bits)?);
            if symbol < END_OF_BLOCK {
                if self.output_len == self.limit {
                    return Err(Stop::Full);
                }
                self.output_len += 1;
                continue;
            }
            if symbol == END_OF_BLOCK {
                return Ok(());
            }
            let Some(&(base, extra)) = LENGTH_SYMBOLS.get(symbol - END_OF_BLOCK - 1) else {
                return Err(Stop::Invalid("unknown length symbol"));
            };
            let length = u32::from(base) + self.bits.take(extra.into())?;
            let symbol = usize::from(distances.read(&mut self.bits)?);
            let Some(&(base, extra)) = DISTANCE_SYMBOLS.get(symbol) else {
                return Err(Stop::Invalid("unknown distance symbol"));
            };
            let distance = u32::from(base) + self.bits.take(extra.into())?;
            // In zlib's order: a distance is judged once there is room to copy.
            if self.output_len == self.limit {
                return Err(Stop::Full);
            }
            if distance as usize > self.output_len {
                return Err(Stop::Invalid("a reference to before the cluster"));
            }
            self.greatest_distance = self.greatest_distance.max(distance);
            let left = self.limit - self.output_len;
            if length as usize > left {
                self.output_len = self.limit;
                return Err(Stop::Full);
            }
            self.output_len += length as usize;
        }
    }
}

/// The input as bits, the least significant of each byte first.
struct Bits<'a> {
    input: &'a [u8],
    /// The first byte that is not wholly in `hold`.
    next: usize,
    /// The next `count` bits of the input, lowest first. Bits above them are
    /// either zero or what the input goes on with.
    hold: u64,
    count: u32,
}

impl Bits<'_> {
    /// Makes at least 56 bits ready, or all that are left.
    #[inline]
    fn refill(&mut self) {
        let rest = &self.input[self.next..];
        if let Some(&bytes) = rest.first_chunk::<8>() {
            self.hold |= u64::from_le_bytes(bytes) << self.count;
            let taken = (63 - self.count) / 8;
            self.next += taken as usize;
            self.count += taken * 8;
            return;
        }
        for &byte in rest {
            if self.count > 55 {
                return;
            }
            self.hold |= u64::from(byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    /// The next `len` bits, 16 at most, as a number.
    #[inline]
    fn take(&mut self, len: u32) -> Result<u32, Stop> {
        if self.count < len {
            self.refill();
        }
        let value = self.hold & ((1 << len) - 1);
        self.consume(len)?;
        Ok(value as u32)
    }

    #[inline]
    fn consume(&mut self, len: u32) -> Result<(), Stop> {
        if self.count < len {
            return Err(Stop::Dry);
        }
        self.hold >>= len;
        self.count -= len;
        Ok(())
    }

    /// Drops what is left of a byte that was begun.
    fn align(&mut self) {
        self.hold >>= self.count % 8;
        self.count -= self.count % 8;
    }

    /// Skips up to `len` bytes and returns how many there were; the bits are
    /// aligned.
    fn skip(&mut self, len: usize) -> usize {
        let from = self.position();
        let skipped = len.min(self.input.len() - from);
        self.next = from + skipped;
        self.hold = 0;
        self.count = 0;
        skipped
    }

    /// The first byte of which no bit was consumed.
    fn position(&self) -> usize {
        self.next - (self.count / 8) as usize
    }
}

const LITERALS: usize = 286;
const DISTANCES: usize = 30;
const END_OF_BLOCK: usize = 256;
const LONGEST: usize = 15;
/// Codes up to this length take a single look into a table.
const FAST: usize = 10;

/// A canonical Huffman code, section 3.2.2.
struct Code {
    /// By the next [`FAST`] bits of input: symbol * 16 + length, 0 for none.
    fast: [u16; 1 << FAST],
    /// How many codes there are of each length.
    counts: [u16; LONGEST + 1],
    /// The symbols by length, then by value.
    symbols: [u16; 288],
    longest: usize,
    /// Whether every sequence of bits begins with a code.
    complete: bool,
}

impl Code {
    /// The code with these lengths, 0 for a symbol without a code; `None` when
    /// they are more than a code has room for.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0_u16; LONGEST + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        let longest = (1..=LONGEST).rev().find(|&n| counts[n] > 0).unwrap_or(0);
        let mut room = 1_i32;
        let (mut first_code, mut first_index) = ([0_u16; LONGEST + 2], [0_u16; LONGEST + 2]);
        for length in 1..=LONGEST {
            let count = counts[length];
            room = room * 2 - i32::from(count);
            if room < 0 {
                return None;
            }
            first_code[length + 1] = (first_code[length] + count) << 1;
            first_index[length + 1] = first_index[length] + count;
        }

        let mut code = Self {
            fast: [0; 1 << FAST],
            counts,
            symbols: [0; 288],
            longest,
            complete: room == 0,
        };
        for (symbol, &length) in (0_u16..).zip(lengths) {
            let length = usize::from(length);
            if length == 0 {
                continue;
            }
            code.symbols[usize::from(first_index[length])] = symbol;
            first_index[length] += 1;
            let bits = first_code[length];
            first_code[length] += 1;
            if length <= FAST {
                let start = usize::from(bits.reverse_bits() >> (16 - length));
                for entry in code.fast[start..].iter_mut().step_by(1 << length) {
                    *entry = symbol << 4 | length as u16;
                }
            }
        }
        Some(code)
    }

    /// zlib's rule: a code is complete, or has one symbol of one bit or none.
    fn is_usable(&self) -> bool {
        self.complete || self.longest <= 1
    }

    /// The next symbol.
    #[inline]
    fn read(&self, bits: &mut Bits<'_>) -> Result<u16, Stop> {
        if bits.count < LONGEST as u32 {
            bits.refill();
        }
        let entry = self.fast[bits.hold as usize % (1 << FAST)];
        if entry != 0 {
            bits.consume(u32::from(entry & 15))?;
            return Ok(entry >> 4);
        }
        self.read_long(bits)
    }

    /// Reads bit by bit a code that is longer than the table knows, or none.
    #[cold]
    fn read_long(&self, bits: &mut Bits<'_>) -> Result<u16, Stop> {
        let (mut code, mut first, mut index) = (0_u16, 0_u16, 0_u16);
        for length in 1..=self.longest.max(1) {
            if bits.count < length as u32 {
                return Err(Stop::Dry);
            }
            code |= (bits.hold >> (length - 1) & 1) as u16;
            let count = self.counts[length];
            if code - first < count {
                bits.consume(length as u32)?;
                return Ok(self.symbols[usize::from(index + (code - first))]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Stop::Invalid("bits that are no code"))
    }
}

/// The codes of a block of type 1, section 3.2.6.
fn fixed_codes() -> Result<(Code, Code), Stop> {
    let mut lengths = [8_u8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Code::new(&lengths)
        .zip(Code::new(&[5; 32]))
        .ok_or(Stop::Invalid("the fixed codes"))
}

/// The order in which a dynamic block lists the lengths of its first code.
const LENGTH_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// Least length and number of extra bits, from symbol 257 on, section 3.2.5.
#[rustfmt::skip]
const LENGTH_SYMBOLS: [(u16, u8); 29] = [
    (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0),
    (11, 1), (13, 1), (15, 1), (17, 1), (19, 2), (23, 2), (27, 2), (31, 2),
    (35, 3), (43, 3), (51, 3), (59, 3), (67, 4), (83, 4), (99, 4), (115, 4),
    (131, 5), (163, 5), (195, 5), (227, 5), (258, 0),
];

/// Least distance and number of extra bits, section 3.2.5.
#[rustfmt::skip]
const DISTANCE_SYMBOLS: [(u16, u8); DISTANCES] = [
    (1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (7, 1), (9, 2), (13, 2), (17, 3), (25, 3),
    (33, 4), (49, 4), (65, 5), (97, 5), (129, 6), (193, 6), (257, 7), (385, 7),
    (513, 8), (769, 8), (1025, 9), (1537, 9), (2049, 10), (3073, 10),
    (4097, 11), (6145, 11), (8193, 12), (12289, 12), (16385, 13), (24577, 13),
];

#[cfg(test)]
mod tests;
