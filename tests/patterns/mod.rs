//! Bytes to fill disks with: the same in every run.

/// xorshift64: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Bytes that no codec makes smaller.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length).collect()
    }

    /// Bytes that every codec makes smaller.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 12] = [
            "cluster", "offset", "guest", "host", "table", "zero", "extent", "of", "a", "the",
            "image\n", "snapshot",
        ];
        let mut text = Vec::with_capacity(length + 32);
        while text.len() < length {
            text.extend_from_slice(WORDS[self.below(WORDS.len())].as_bytes());
            text.push(b' ');
            if self.below(8) == 0 {
                text.extend_from_slice(format!("{:x}", self.next()).as_bytes());
            }
        }
        text.truncate(length);
        text
    }
}
