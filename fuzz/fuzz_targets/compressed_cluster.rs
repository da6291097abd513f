//! Compressed clusters: every decoder of this crate gives the same verdict and the same bytes as zlib does.
#![no_main]

use flate2::{Decompress, FlushDecompress, Status};
use libfuzzer_sys::fuzz_target;
use qimg::codec::{CompressionType, DecodeError, Decoder, window};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, stored)) = input.split_first() else {
        return;
    };
    // Few sizes, so that streams of a corpus fit: what decodes to 4 KiB decodes to 512 bytes under zlib's rule.
    let size = 512usize << (kind >> 1 & 7);
    if kind & 1 == 0 {
        zlib(stored, size);
    } else {
        zstd(stored, size);
    }
});

fn zlib(stored: &[u8], size: usize) {
    let codec = CompressionType::Zlib;
    let mut decoder = Decoder::new();
    let oracle = inflate(stored, size);
    let mut cluster = vec![0xaa; size];
    let decoded = decoder.decode(codec, stored, &mut cluster);
    let mut exact = vec![0x55; size];
    let length = decoder.decode_exact(codec, stored, &mut exact);
    assert_eq!(length.is_ok(), oracle.is_some(), "{length:?}");
    let mut whole = vec![0x33; size];
    let terminated = decoder.decode_terminated(codec, stored, &mut whole);
    let walk = window::walk(stored, size);
    // libdeflate gives a meaning to the symbols that deflate leaves without one.
    if let Err(DecodeError::Invalid("unknown length symbol" | "unknown distance symbol")) = walk {
        assert!(oracle.is_none());
        return;
    }
    assert_eq!(decoded.is_ok(), oracle.is_some(), "{decoded:?}");
    let Some((bytes, end)) = oracle else {
        assert!(!terminated);
        match walk {
            // A stream that ends too early is sound to the walk.
            Ok(walk) => assert!(walk.output_len < size),
            Err(DecodeError::TooLong) => panic!("a walk is never too long"),
            Err(_) => {}
        }
        return;
    };
    assert_eq!(cluster, bytes);
    assert_eq!(exact, bytes);
    assert_eq!(length, Ok(end));
    let walk = walk.unwrap();
    assert_eq!((walk.output_len, walk.stream_len), (size, end));
    assert!(walk.greatest_distance <= 32768 && (walk.greatest_distance as usize) < size.max(1));
    if terminated {
        assert_eq!(whole, bytes);
        assert!(end.is_some(), "seen to end, and zlib does not see it");
    }
    if let Some(end) = end {
        assert!(terminated, "an honest stream is not recognised");
        let mut again = vec![0; size];
        assert!(decoder.decode_terminated(codec, &stored[..end], &mut again));
        assert_eq!(again, bytes);
        assert!(!decoder.decode_terminated(codec, &stored[..end - 1], &mut again));
    }
}

/// What zlib makes of it in one call, as QEMU calls it: the cluster, and the stream's length if it ends.
fn inflate(stored: &[u8], size: usize) -> Option<(Vec<u8>, Option<usize>)> {
    let mut inflate = Decompress::new(false);
    let mut bytes = vec![0; size];
    let status = inflate
        .decompress(stored, &mut bytes, FlushDecompress::Finish)
        .ok()?;
    let end = (status == Status::StreamEnd).then_some(inflate.total_in() as usize);
    (inflate.total_out() as usize == size).then_some((bytes, end))
}

fn zstd(stored: &[u8], size: usize) {
    let codec = CompressionType::Zstd;
    let mut decoder = Decoder::new();
    let mut cluster = vec![0xaa; size];
    let decoded = decoder.decode(codec, stored, &mut cluster);
    let mut exact = vec![0x55; size];
    let length = decoder.decode_exact(codec, stored, &mut exact);
    assert_eq!(decoded.is_ok(), length.is_ok());
    let end = decoder.stream_end(codec, stored, size);
    let mut whole = vec![0; size];
    let terminated = decoder.decode_terminated(codec, stored, &mut whole);
    assert_eq!(terminated, decoded.is_ok());
    let Ok(length) = length else {
        return;
    };
    let length = length.expect("zstd frames have an end");
    assert_eq!(cluster, exact);
    assert_eq!(cluster, whole);
    if let Some(end) = end {
        assert_eq!(end, length, "the outline tells another end");
    }
    let mut again = vec![0; size];
    assert_eq!(
        decoder.decode_exact(codec, &stored[..length], &mut again),
        Ok(Some(length))
    );
    assert_eq!(again, cluster);
}
