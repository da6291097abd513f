//! Byte sizes as people write them: `10G`, `64k`, and back.
//!
//! Knows qemu-img's suffixes (powers of 1024) and its rounding; knows nothing
//! of images.

#[cfg(feature = "build")]
pub mod duration;

use crate::error::{Error, Result};

/// A size in bytes that was written by a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Reads `123`, `64k`, `1.5G`; suffixes `b k K M G T P E` are powers of 1024, as in qemu-img.
    ///
    /// # Errors
    /// [`Usage`](crate::error::ErrorKind::Usage) when the text is no size or exceeds 63 bits.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("'{text}' is not a size"))
                .with_remedy("write bytes, or a number with k, M, G, T, P or E (powers of 1024)")
        };
        let digits_end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits_end);
        let shift = match suffix {
            "" | "b" | "B" => 0,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            "t" | "T" => 40,
            "p" | "P" => 50,
            "e" | "E" => 60,
            _ => return Err(bad()),
        };
        let (whole, fraction) = match number.split_once('.') {
            None => (number, ""),
            Some((_, fraction)) if shift == 0 || fraction.is_empty() => return Err(bad()),
            Some((whole, fraction)) => (whole, fraction),
        };
        if fraction.len() > 18 || fraction.contains('.') {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let mut bytes = u128::from(whole) << shift;
        if !fraction.is_empty() {
            let numerator: u128 = fraction.parse().map_err(|_| bad())?;
            let denominator = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
            bytes += (numerator << shift) / denominator;
        }
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= i64::MAX as u64 => Ok(Self(bytes)),
            _ => Err(bad()),
        }
    }
}

impl std::str::FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl std::fmt::Display for ByteSize {
    /// Three significant digits with a binary unit, as qemu-img prints: `4 MiB`, `1.5 GiB`, `196 KiB`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        // The unit is the first in which the value stays below 1000, as in qemu-img.
        let mut unit = 0;
        let mut divisor = 1u64;
        while unit < UNITS.len() - 1 && self.0 as f64 / divisor as f64 >= 1000.0 {
            unit += 1;
            divisor <<= 10;
        }
        let value = self.0 as f64 / divisor as f64;
        // %0.3g: three significant digits, trailing zeros dropped.
        if value >= 999.5 {
            return write!(f, "1e+03 {}", UNITS[unit]);
        }
        let decimals = if value >= 99.95 {
            0
        } else if value >= 9.995 {
            1
        } else if value >= 0.9995 {
            2
        } else {
            3
        };
        let mut text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        }
        write!(f, "{text} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_qemu_img_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64k", 65536),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
            ("7E", 7 << 60),
        ] {
            assert_eq!(ByteSize::parse(text).unwrap(), ByteSize(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1x",
            "1.5",
            "1..5G",
            "8E",
            "1.G",
            "99999999999999999999",
        ] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_three_significant_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (200_704, "196 KiB"),
            (4 << 20, "4 MiB"),
            (3 << 29, "1.5 GiB"),
            (1023 << 20, "0.999 GiB"),
            (1_023_488, "1e+03 KiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
