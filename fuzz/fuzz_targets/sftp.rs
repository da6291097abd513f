//! Replies of an sftp server: where their bytes are cut makes no difference, and no length in them is believed.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use qimg::fuzzing::sftp::{LONGEST_PACKET, NotSftp, Reply, next};

fn all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Reply>, bool) {
    let mut stream = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        stream.extend_from_slice(piece);
        loop {
            match next(&mut stream) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(NotSftp(why)) => {
                    assert!(why.len() <= 400);
                    return (replies, true);
                }
            }
        }
        assert!(stream.len() < LONGEST_PACKET + 4);
    }
    (replies, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let whole = all([bytes]);
    assert_eq!(all(bytes.chunks(usize::from(size).max(1))), whole);
});
