use super::*;
use crate::codec::tests::{noise, sample};
use crate::codec::{CompressionType, Decoder, DeflateWindow, Encoder, EncoderOptions};
use proptest::prelude::*;

fn deflate(cluster: &[u8], level: u8, window: DeflateWindow) -> Vec<u8> {
    let options = EncoderOptions {
        codec: CompressionType::Zlib,
        level: Some(level),
        window,
    };
    let mut out = Vec::new();
    Encoder::new(&options, cluster.len())
        .unwrap()
        .encode(cluster, usize::MAX, &mut out)
        .unwrap();
    out
}

#[test]
fn the_end_and_the_reach_of_real_streams() {
    for cluster in [sample(65536, 3), sample(2 << 20, 4), vec![0; 65536]] {
        for level in 1..=12 {
            let mut stream = deflate(&cluster, level, DeflateWindow::Full);
            let len = stream.len();
            stream.extend_from_slice(&[0xff; 9]);
            let found = walk(&stream, cluster.len()).unwrap();
            assert_eq!(found.stream_len, Some(len));
            assert_eq!(found.output_len, cluster.len());
            assert!(found.greatest_distance <= 32768);
            assert!(found.greatest_distance > 4096 || cluster[..9] == [0; 9]);
        }
        for level in 1..=9 {
            let stream = deflate(&cluster, level, DeflateWindow::FourKiB);
            let found = walk(&stream, cluster.len()).unwrap();
            assert_eq!(found.stream_len, Some(stream.len()));
            assert!(found.greatest_distance <= 4096);
        }
    }
}

#[test]
fn the_distance_is_the_one_in_use() {
    for distance in [1, 2, 100, 4096, 4097, 32000] {
        let mut cluster = noise(distance, 5);
        cluster.extend_from_within(..distance.min(258));
        if distance == 1 {
            cluster.resize(300, cluster[0]);
        }
        let stream = deflate(&cluster, 12, DeflateWindow::Full);
        assert_eq!(
            greatest_distance(&stream, cluster.len()),
            Ok(if distance == 2 { 0 } else { distance as u32 })
        );
        // The last reference lies beyond a limit before it.
        assert_eq!(greatest_distance(&stream, distance.min(2)), Ok(0));
    }
}

#[test]
fn no_references_no_distance() {
    let noise = noise(65536, 6);
    assert_eq!(
        greatest_distance(&deflate(&noise, 6, DeflateWindow::Full), 65536),
        Ok(0)
    );
}

#[test]
fn stored_blocks_count_and_are_bounded() {
    let mut stream = vec![0, 3, 0, 0xfc, 0xff, 1, 2, 3, 1, 2, 0, 0xfd, 0xff, 4, 5];
    let sound = |stream_len, output_len| {
        Ok(Walk {
            greatest_distance: 0,
            stream_len,
            output_len,
        })
    };
    let dry = |got, want| Err(DecodeError::EndsEarly { got, want });
    assert_eq!(walk(&stream, 5), sound(Some(15), 5));
    assert_eq!(walk(&stream, 9), sound(Some(15), 5));
    assert_eq!(walk(&stream, 4), sound(None, 4));
    assert_eq!(walk(&stream[..14], 5), dry(4, 5));
    assert_eq!(walk(&stream[..14], 4), sound(None, 4));
    assert_eq!(walk(&stream[..8], 3), sound(None, 3));
    assert_eq!(walk(&[], 3), dry(0, 3));
    assert_eq!(walk(&[], 0), sound(None, 0));
    stream[11] = 0;
    assert!(matches!(walk(&stream, 5), Err(DecodeError::Invalid(_))));
}

/// The walk agrees with zlib-rs about what is sound, and where it ends.
fn assert_agrees(stream: &[u8], limit: usize) {
    let mut cluster = vec![0; limit];
    let decoded = Decoder::new().decode_exact(CompressionType::Zlib, stream, &mut cluster);
    let walked = walk(stream, limit);
    match (&decoded, &walked) {
        (Ok(end), Ok(walk)) => {
            assert_eq!((*end, limit), (walk.stream_len, walk.output_len));
        }
        (Err(DecodeError::EndsEarly { got, .. }), Ok(walk)) => {
            assert_eq!(*got, walk.output_len);
        }
        (Err(DecodeError::EndsEarly { .. }), Err(DecodeError::EndsEarly { .. }))
        | (Err(DecodeError::Invalid(_)), Err(DecodeError::Invalid(_))) => {}
        _ => panic!("{decoded:?} but {walked:?} of {stream:x?} up to {limit}"),
    }
}

#[test]
fn a_distance_is_not_judged_without_room_to_copy() {
    assert_agrees(&[130, 0, 0, 0], 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_zlib_on_garbage(
        stream in proptest::collection::vec(any::<u8>(), 0..200),
        limit in 0_usize..400,
    ) {
        assert_agrees(&stream, limit);
    }

    #[test]
    fn agrees_with_zlib_on_damaged_streams(
        seed in 1_u64..20,
        level in 1_u8..=12,
        narrow: bool,
        limit in 1_usize..6000,
        damage in proptest::collection::vec((0_usize..600, any::<u8>()), 0..3),
        cut in 0_usize..4000,
    ) {
        let cluster = sample(5000, seed);
        let (level, window) = if narrow {
            (level.min(9), DeflateWindow::FourKiB)
        } else {
            (level, DeflateWindow::Full)
        };
        let mut stream = deflate(&cluster, level, window);
        for (at, value) in damage {
            let at = at % stream.len();
            stream[at] ^= value;
        }
        stream.truncate(cut.max(1));
        assert_agrees(&stream, limit);
        assert_agrees(&stream, 5000);
    }
}
