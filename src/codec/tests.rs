//! The promises of the codec as a whole.

use super::*;

/// Bytes that no codec shortens.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mixed = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        out.extend_from_slice(&mixed.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Deterministic bytes: words, records and noise, as in a disk image.
pub(super) fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<String> = (0..400)
        .map(|_| format!("{:x}", next() & 0xff_ffff))
        .collect();
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        match next() % 8 {
            0 => out.extend_from_slice(&next().to_le_bytes()),
            1 => out.extend_from_slice(&[0; 24]),
            2 if out.len() > 9000 => {
                let from = usize::try_from(next()).unwrap_or(0) % (out.len() - 100);
                out.extend_from_within(from..from + 40);
            }
            _ => {
                out.extend_from_slice(words[usize::try_from(next() % 400).unwrap_or(0)].as_bytes());
                out.push(b' ');
            }
        }
    }
    out.truncate(len);
    out
}

fn options(codec: CompressionType, level: u8, window: DeflateWindow) -> EncoderOptions {
    EncoderOptions {
        codec,
        level: Some(level),
        window,
    }
}

#[test]
fn every_level_round_trips() {
    let cluster = sample(65536, 1);
    let mut decoder = Decoder::new();
    let mut decoded = vec![0; cluster.len()];
    for (codec, window, greatest) in [
        (CompressionType::Zlib, DeflateWindow::Full, 12),
        (CompressionType::Zlib, DeflateWindow::FourKiB, 9),
        (CompressionType::Zstd, DeflateWindow::Full, 22),
    ] {
        for level in 1..=greatest {
            let options = options(codec, level, window);
            let mut encoder = Encoder::new(&options, cluster.len()).unwrap();
            let mut stored = b"before".to_vec();
            let len = encoder
                .encode(&cluster, cluster.len() - 1, &mut stored)
                .unwrap()
                .unwrap();
            assert_eq!(stored.len(), 6 + len);
            stored.extend_from_slice(b"a foreign tail");
            decoded.fill(0);
            decoder.decode(codec, &stored[6..], &mut decoded).unwrap();
            assert!(decoded == cluster, "{options:?}");
            decoded.fill(0);
            let end = decoder.decode_exact(codec, &stored[6..], &mut decoded);
            assert_eq!(end, Ok(Some(len)), "{options:?}");
            assert!(decoded == cluster, "{options:?}");
        }
    }
}

#[test]
fn a_cluster_that_does_not_compress_leaves_no_trace_in_the_next() {
    for (codec, window, greatest) in [
        (CompressionType::Zlib, DeflateWindow::Full, 12),
        (CompressionType::Zlib, DeflateWindow::FourKiB, 9),
        (CompressionType::Zstd, DeflateWindow::Full, 6),
    ] {
        for level in 1..=greatest {
            for size in [4096, 131_072] {
                let options = options(codec, level, window);
                let (noise, text) = (noise(size, 1), sample(size, 2));
                let mut used = Encoder::new(&options, size).unwrap();
                let mut fresh = Encoder::new(&options, size).unwrap();
                let (mut after, mut alone) = (Vec::new(), Vec::new());
                for limit in [size - 1, size / 2, 10, size - 1] {
                    let none = used.encode(&noise, limit, &mut after).unwrap();
                    assert_eq!((none, after.len()), (None, 0));
                }
                used.encode(&text, usize::MAX, &mut after).unwrap();
                fresh.encode(&text, usize::MAX, &mut alone).unwrap();
                assert!(after == alone, "{options:?}, {size} bytes");
            }
        }
    }
}
