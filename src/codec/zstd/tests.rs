use super::*;
use crate::codec::tests::{noise, sample};
use ::zstd::zstd_safe::{InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};
use proptest::prelude::*;

/// A frame as someone else may write it.
fn frame(data: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    for &parameter in parameters {
        context.set_parameter(parameter).unwrap();
    }
    let mut out = vec![0; compress_bound(data.len())];
    let len = context.compress2(&mut out[..], data).unwrap();
    out.truncate(len);
    out
}

/// A frame written as a stream: without a content size, with a window.
fn streamed(data: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut context = CCtx::create();
    for &parameter in parameters {
        context.set_parameter(parameter).unwrap();
    }
    let mut out = vec![0; compress_bound(data.len()) + 64];
    let mut to = OutBuffer::around(&mut out[..]);
    for (part, end) in [
        (data, ZSTD_EndDirective::ZSTD_e_continue),
        (&[], ZSTD_EndDirective::ZSTD_e_end),
    ] {
        let mut from = InBuffer::around(part);
        context.compress_stream2(&mut to, &mut from, end).unwrap();
    }
    let len = to.pos();
    out.truncate(len);
    out
}

fn skippable(len: u32) -> Vec<u8> {
    let mut out = 0x184d_2a50_u32.to_le_bytes().to_vec();
    out.extend_from_slice(&len.to_le_bytes());
    out.resize(out.len() + len as usize, 0xee);
    out
}

fn decode(stored: &[u8], len: usize) -> Result<(usize, Vec<u8>), DecodeError> {
    let mut cluster = vec![0xaa; len];
    let used = Decoder::default().decode(stored, &mut cluster)?;
    Ok((used, cluster))
}

#[test]
fn writes_one_plain_frame() {
    for level in 1..=22 {
        let cluster = sample(65536, 20);
        let mut encoder = Encoder::new(level, cluster.len()).unwrap();
        let stored = encoder.encode(&cluster, 65535).unwrap().unwrap();
        assert_eq!(stored[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        // Single segment, so that the window is the content; no checksum, no
        // dictionary id (RFC 8878, section 3.1.1.1.1).
        assert_eq!(stored[4] & 0b0010_1111, 0b0010_0000, "level {level}");
        assert_eq!(get_frame_content_size(stored).unwrap(), Some(65536));
        assert_eq!(find_frame_compressed_size(stored), Ok(stored.len()));
        assert_eq!(stream_end(stored, 65536), Some(stored.len()));
    }
}

#[test]
fn reads_frames_of_every_kind() {
    let cluster = sample(65536, 21);
    let (first, second) = cluster.split_at(40_000);
    let checksum = [CParameter::ChecksumFlag(true)];
    let far = [
        CParameter::CompressionLevel(22),
        CParameter::WindowLog(27),
        CParameter::EnableLongDistanceMatching(true),
    ];
    let cases = [
        (frame(&cluster, &[]), true),
        (frame(&cluster, &checksum), true),
        (streamed(&cluster, &[]), false),
        (streamed(&cluster, &checksum), false),
        // Claims a window of 128 MiB.
        (streamed(&cluster, &far), false),
        ([frame(first, &[]), frame(second, &checksum)].concat(), true),
        (
            [streamed(first, &checksum), frame(second, &[])].concat(),
            false,
        ),
        ([skippable(100), frame(&cluster, &[])].concat(), true),
        (
            [
                frame(first, &[]),
                skippable(0),
                frame(&[], &[]),
                frame(second, &[]),
            ]
            .concat(),
            true,
        ),
    ];
    for (index, (mut stored, sized)) in cases.into_iter().enumerate() {
        let len = stored.len();
        for tail in [&[][..], &[0; 300], b"(\xb5/\xfd foreign"] {
            stored.truncate(len);
            stored.extend_from_slice(tail);
            let (used, out) = decode(&stored, 65536).unwrap();
            assert_eq!(used, len, "case {index}");
            assert!(out == cluster, "case {index}");
            let end = stream_end(&stored, 65536);
            assert_eq!(end, sized.then_some(len), "case {index}");
        }
        let cut = decode(&stored[..len - 1], 65536);
        assert!(cut.is_err(), "case {index}");
        assert_eq!(stream_end(&stored[..len - 1], 65536), None);
    }
}

#[test]
fn frames_must_add_up_to_the_cluster() {
    let cluster = sample(65536, 22);
    let stored = frame(&cluster[..40_000], &[]);
    let early = Err(DecodeError::EndsEarly {
        got: 40_000,
        want: 65536,
    });
    assert_eq!(decode(&stored, 65536), early);
    let padded = [&stored[..], &[0; 700]].concat();
    assert_eq!(decode(&padded, 65536), early);
    assert_eq!(stream_end(&padded, 65536), None);
    let too_long = [&stored[..], &stored[..]].concat();
    assert_eq!(decode(&too_long, 65536), Err(DecodeError::TooLong));
    assert_eq!(stream_end(&too_long, 65536), None);
    assert_eq!(
        decode(&streamed(&cluster, &[]), 65535),
        Err(DecodeError::TooLong)
    );
    assert_eq!(
        decode(&[], 512),
        Err(DecodeError::EndsEarly { got: 0, want: 512 })
    );
}

#[test]
fn damage_is_an_error() {
    let cluster = noise(65536, 23);
    let mut stored = frame(&cluster, &[CParameter::ChecksumFlag(true)]);
    let last = stored.len() - 1;
    stored[last] ^= 1;
    assert!(matches!(
        decode(&stored, 65536),
        Err(DecodeError::Invalid(_))
    ));
    assert!(matches!(
        decode(&[0; 64], 512),
        Err(DecodeError::Invalid(_))
    ));
    // A skippable frame that claims 4 GiB.
    let mut endless = skippable(8);
    endless[4..8].fill(0xff);
    assert!(decode(&endless, 512).is_err());
    assert_eq!(stream_end(&endless, 512), None);
}

proptest! {
    #[test]
    fn no_input_panics_or_claims_more_than_there_is(
        mut stored in proptest::collection::vec(any::<u8>(), 0..600),
        magic: bool,
        len in 0_usize..2000,
    ) {
        if magic && stored.len() > 4 {
            stored[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
        }
        if let Ok((used, _)) = decode(&stored, len) {
            prop_assert!(used <= stored.len());
        }
        prop_assert!(stream_end(&stored, len).is_none_or(|end| end <= stored.len()));
    }

    #[test]
    fn no_damage_panics(
        seed in 1_u64..9,
        damage in proptest::collection::vec((0_usize..3000, any::<u8>()), 1..4),
    ) {
        let cluster = sample(8192, seed);
        let mut stored = frame(&cluster, &[]);
        for (at, value) in damage {
            let at = at % stored.len();
            stored[at] ^= value;
        }
        let end = stream_end(&stored, 8192);
        if let (Some(end), Ok((used, _))) = (end, decode(&stored, 8192)) {
            prop_assert_eq!(used, end);
        }
    }
}
