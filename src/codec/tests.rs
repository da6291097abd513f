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

fn zlib(window: DeflateWindow) -> EncoderOptions {
    options(CompressionType::Zlib, 6, window)
}

fn encoded(options: &EncoderOptions, cluster: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = Encoder::new(options, cluster.len())
        .unwrap()
        .encode(cluster, usize::MAX, &mut out)
        .unwrap();
    assert_eq!(len, Some(out.len()));
    out
}

fn decoded(
    codec: CompressionType,
    stored: &[u8],
    len: usize,
) -> Result<(Option<usize>, Vec<u8>), DecodeError> {
    let mut decoder = Decoder::new();
    let mut cluster = vec![0xaa; len];
    let exact = decoder.decode_exact(codec, stored, &mut cluster)?;
    let mut again = vec![0x55; len];
    decoder.decode(codec, stored, &mut again)?;
    assert!(cluster == again);
    Ok((exact, cluster))
}

#[test]
fn names_and_header_bytes() {
    for (codec, name, byte) in [
        (CompressionType::Zlib, "zlib", 0),
        (CompressionType::Zstd, "zstd", 1),
    ] {
        assert_eq!(codec.to_string(), name);
        assert_eq!(name.parse::<CompressionType>().unwrap(), codec);
        assert_eq!(codec.to_header(), byte);
        assert_eq!(CompressionType::from_header(byte), Some(codec));
    }
    assert_eq!(CompressionType::from_header(2), None);
    let error = "lz4".parse::<CompressionType>().unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Usage);
}

#[test]
fn levels_out_of_range_are_usage_errors() {
    for (codec, window, greatest) in [
        (CompressionType::Zlib, DeflateWindow::Full, 12),
        (CompressionType::Zlib, DeflateWindow::FourKiB, 9),
        (CompressionType::Zstd, DeflateWindow::FourKiB, 22),
    ] {
        for level in [0, greatest + 1, 255] {
            let error = Encoder::new(&options(codec, level, window), 65536).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage);
        }
        let mut default = options(codec, 1, window);
        default.level = None;
        let expected = if codec == CompressionType::Zlib { 6 } else { 4 };
        assert_eq!(default.effective_level().unwrap(), expected);
    }
}

#[test]
fn a_part_of_a_cluster_is_not_encoded() {
    let mut encoder = Encoder::new(&zlib(DeflateWindow::Full), 65536).unwrap();
    let error = encoder
        .encode(&[0; 512], 65535, &mut Vec::new())
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Usage);
}

#[test]
fn the_limit_is_exact_and_changes_no_byte() {
    let noise = noise(65536, 7);
    // Compresses by little: where a codec short of room would give up.
    let mut tight = noise.clone();
    tight[60000..63000].fill(0);
    let sample = sample(65536, 8);
    for options in [
        zlib(DeflateWindow::Full),
        options(CompressionType::Zlib, 12, DeflateWindow::Full),
        zlib(DeflateWindow::FourKiB),
        options(CompressionType::Zlib, 3, DeflateWindow::FourKiB),
        options(CompressionType::Zstd, 1, DeflateWindow::Full),
        options(CompressionType::Zstd, 4, DeflateWindow::Full),
        options(CompressionType::Zstd, 9, DeflateWindow::Full),
    ] {
        let mut encoder = Encoder::new(&options, 65536).unwrap();
        let mut out = b"kept".to_vec();
        assert_eq!(encoder.encode(&noise, 65535, &mut out).unwrap(), None);
        assert_eq!(out, b"kept");
        for cluster in [&sample, &tight] {
            let expected = encoded(&options, cluster);
            assert!(expected.len() < 65536, "{options:?}");
            let len = expected.len();
            out.clear();
            assert_eq!(encoder.encode(cluster, len - 1, &mut out).unwrap(), None);
            assert_eq!(encoder.encode(cluster, 0, &mut out).unwrap(), None);
            assert!(out.is_empty());
            let at_limit = encoder.encode(cluster, len, &mut out).unwrap();
            assert_eq!(at_limit, Some(len), "{options:?}");
            assert!(out == expected, "{options:?}");
        }
    }
}

/// Encodes in order, backwards and shuffled, with one encoder throughout.
fn assert_history_leaves_no_trace(options: &EncoderOptions, clusters: &[Vec<u8>]) {
    let expected: Vec<_> = clusters.iter().map(|c| encoded(options, c)).collect();
    let mut encoder = Encoder::new(options, clusters[0].len()).unwrap();
    let count = clusters.len();
    let order = (0..count)
        .chain((0..count).rev())
        .chain((0..2 * count).map(|i| (i * 7 + i * i * 5) % count));
    let mut out = Vec::new();
    for (step, index) in order.enumerate() {
        out.clear();
        if step < count {
            // A refused cluster is history, too.
            let refused = encoder.encode(&clusters[index], 100, &mut out).unwrap();
            assert_eq!(refused, None);
        }
        encoder
            .encode(&clusters[index], usize::MAX, &mut out)
            .unwrap();
        assert!(out == expected[index], "{options:?} at cluster {index}");
    }
}

fn mixed_clusters(count: usize, size: usize) -> Vec<Vec<u8>> {
    (0_u64..)
        .take(count)
        .map(|seed| match seed % 5 {
            0 => noise(size, seed + 1),
            // As its neighbour, moved: stale entries that nearly match.
            1 => {
                let mut cluster = sample(size, seed + 1);
                cluster.rotate_left(size / 3);
                cluster
            }
            2 => sample(size, seed),
            3 => [sample(size / 2, seed), noise(size / 2, seed)].concat(),
            _ => sample(size, seed + 1),
        })
        .collect()
}

fn all_options() -> impl Iterator<Item = EncoderOptions> {
    let zlib = (1..=12).map(|level| options(CompressionType::Zlib, level, DeflateWindow::Full));
    let narrow = (1..=9).map(|level| options(CompressionType::Zlib, level, DeflateWindow::FourKiB));
    let zstd = (1..=22).map(|level| options(CompressionType::Zstd, level, DeflateWindow::Full));
    zlib.chain(narrow).chain(zstd)
}

#[test]
fn history_leaves_no_trace_at_any_level() {
    let clusters = mixed_clusters(5, 65536);
    for options in all_options() {
        // The slow levels get fewer; the long test makes up for it.
        let slow = options.level > Some(9);
        assert_history_leaves_no_trace(&options, &clusters[..if slow { 2 } else { 5 }]);
    }
}

#[test]
fn history_leaves_no_trace_at_any_cluster_size() {
    for cluster_bits in 9..=21 {
        let size = 1_usize << cluster_bits;
        let clusters = mixed_clusters(((2 << 20) / size).clamp(3, 20), size);
        for level in 1..=4 {
            let options = options(CompressionType::Zstd, level, DeflateWindow::Full);
            assert_history_leaves_no_trace(&options, &clusters);
        }
    }
}

#[test]
fn history_leaves_no_trace_over_many_clusters() {
    // Of all levels together this takes minutes.
    let counts = if std::env::var_os("QIMG_NIGHTLY").is_some() {
        [(60, 10, 65536), (5, 2, 2 << 20)]
    } else {
        [(6, 2, 65536), (2, 1, 2 << 18)]
    };
    for (count, few, size) in counts {
        let clusters = mixed_clusters(count, size);
        for options in all_options() {
            let slow = options.level > Some(9);
            assert_history_leaves_no_trace(&options, &clusters[..if slow { few } else { count }]);
        }
    }
}

/// Inflates as readers do that take the output in pieces, CPython's
/// `zlib.decompressobj(-12)` among them. (zlib-rs keeps 32 KiB whatever window
/// it is asked for, so that only the distances tell what others can read.)
fn inflate_in_pieces(stored: &[u8], len: usize) -> Result<Vec<u8>, flate2::DecompressError> {
    let mut inflate = flate2::Decompress::new_with_window_bits(false, 12);
    let (mut out, mut used) = (Vec::new(), 0);
    for _ in 0..len.div_ceil(1024) {
        let mut piece = [0; 1024];
        let (read, written) = (inflate.total_in(), inflate.total_out());
        inflate.decompress(&stored[used..], &mut piece, flate2::FlushDecompress::None)?;
        used += usize::try_from(inflate.total_in() - read).unwrap();
        let written = usize::try_from(inflate.total_out() - written).unwrap();
        out.extend_from_slice(&piece[..written]);
    }
    Ok(out)
}

#[test]
fn the_narrow_window_suits_readers_that_inflate_in_pieces() {
    let cluster = sample(65536, 9);
    for level in 1..=9 {
        let options = options(CompressionType::Zlib, level, DeflateWindow::FourKiB);
        let stored = encoded(&options, &cluster);
        let inflated = inflate_in_pieces(&stored, cluster.len()).unwrap();
        assert!(inflated == cluster, "level {level}");
        let distance = window::greatest_distance(&stored, cluster.len()).unwrap();
        assert!(distance <= 4096, "level {level}");
    }
    let stored = encoded(&zlib(DeflateWindow::Full), &cluster);
    assert!(window::greatest_distance(&stored, cluster.len()).unwrap() > 4096);
}

#[test]
fn deflate_is_read_up_to_the_end_of_the_cluster() {
    let codec = CompressionType::Zlib;
    let cluster = sample(65536, 10);
    let stored = encoded(&zlib(DeflateWindow::Full), &cluster);
    let len = stored.len();
    assert_eq!(
        decoded(codec, &stored, 65536),
        Ok((Some(len), cluster.clone()))
    );
    // More than a cluster: the rest is not asked for.
    let (end, first) = decoded(codec, &stored, 4096).unwrap();
    assert!(end.is_none() && first == cluster[..4096]);
    // All of the cluster, but no end of the block.
    let (end, all) = decoded(codec, &stored[..len - 1], 65536).unwrap_or((None, cluster.clone()));
    assert!(end.is_none() && all == cluster);
    let open = [0, 4, 0, 0xfb, 0xff, 1, 2, 3, 4];
    assert_eq!(decoded(codec, &open, 4), Ok((None, vec![1, 2, 3, 4])));

    let dry = |got, want| Err(DecodeError::EndsEarly { got, want });
    assert_eq!(decoded(codec, &stored, 65537), dry(65536, 65537));
    assert_eq!(decoded(codec, &open, 5), dry(4, 5));
    assert_eq!(decoded(codec, &[], 5), dry(0, 5));
    for broken in [&[7_u8, 0, 0][..], &[0, 4, 0, 0, 0, 1], &[0xff; 40]] {
        let result = decoded(codec, broken, 5);
        assert!(matches!(result, Err(DecodeError::Invalid(_))), "{result:?}");
    }
}

#[test]
fn an_error_does_not_spoil_the_decoder() {
    let cluster = sample(65536, 11);
    let mut decoder = Decoder::new();
    let mut out = vec![0; 65536];
    for codec in [CompressionType::Zlib, CompressionType::Zstd] {
        let stored = encoded(&options(codec, 1, DeflateWindow::Full), &cluster);
        for at in [0, 1, 5, 20, 300, 4000] {
            let mut broken = stored.clone();
            broken[at] ^= 0x5a;
            let _ = decoder.decode(codec, &broken, &mut out);
            let _ = decoder.decode_exact(codec, &stored[..at], &mut out);
            decoder.decode(codec, &stored, &mut out).unwrap();
            assert!(out == cluster);
            let end = decoder.decode_exact(codec, &stored, &mut out);
            assert_eq!(end, Ok(Some(stored.len())));
        }
    }
}

#[test]
fn errors_read_as_sentences_in_lower_case() {
    for (error, text) in [
        (
            DecodeError::EndsEarly { got: 1, want: 2 },
            "the compressed stream ends after 1 of 2 bytes",
        ),
        (
            DecodeError::Invalid("unknown block type"),
            "the compressed stream is invalid: unknown block type",
        ),
        (
            DecodeError::TooLong,
            "the compressed stream yields more than one cluster",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
