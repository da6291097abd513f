//! A destination is whole or untouched, whichever operation of the host fails.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::codec::{CompressionType, DeflateWindow, EncoderOptions};
use crate::convert::{self, Reuse};
use crate::image::Depth;
use crate::source::Source;
use crate::store::{Effect, Faulty, Memory, Operation};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Text, noise and zeros: every kind of write.
fn contents() -> Vec<u8> {
    let mut bytes = b"guest bytes ".repeat(20_000);
    let mut state = 1u32;
    bytes.extend((0..200_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    }));
    bytes.resize(500_224, 0);
    bytes.extend(b"more ".repeat(30_000));
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Carries `contents` to `path` through a store that fails; how many changes it was asked for.
fn write(
    path: &Path,
    options: &TargetOptions,
    compresses: bool,
    fault: Option<(u64, Effect)>,
) -> (Result<()>, u64) {
    let raw = OpenOptions {
        format: Some(Format::Raw),
        ..OpenOptions::default()
    };
    let source = Image::from_store(Arc::new(Memory::from(contents())), "source", &raw).unwrap();
    let chain = source.chain(Depth::Chain, None).unwrap();
    let staged = Staged::create(path).unwrap();
    let mut store = Faulty::new(staged.file());
    if let Some((nth, effect)) = fault {
        store = store.failing(Operation::Change, nth, effect);
    }
    let store = Arc::new(store);
    let cancel = AtomicBool::new(false);
    let encoding = EncoderOptions {
        codec: CompressionType::Zlib,
        level: Some(1),
        window: DeflateWindow::Full,
    };
    let how = convert::Options {
        threads: 2,
        encoding: compresses.then_some(encoding),
        reuse: Reuse::Copy,
        overlay: false,
        sparse: 4096,
        share: false,
        cancel: &cancel,
    };
    let size = chain.virtual_size();
    let result = Target::begin(
        staged,
        Arc::clone(&store) as _,
        path,
        size,
        options,
        compresses,
    )
    .and_then(|mut target| {
        convert::convert(&chain, target.writer(), &how, &mut |_| {})?;
        target.finish()
    })
    .map(drop);
    (result, store.count().changes)
}

#[test]
fn whichever_change_fails_the_destination_is_what_it_was() {
    for (format, compresses, preallocation) in [
        (Format::Raw, false, Preallocation::Off),
        (Format::Raw, false, Preallocation::Falloc),
        (Format::Qcow2, false, Preallocation::Off),
        (Format::Qcow2, false, Preallocation::Full),
        (Format::Qcow2, true, Preallocation::Off),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let options = TargetOptions {
            format,
            qcow2: Qcow2Options {
                cluster_size: 4096,
                preallocation,
                ..Qcow2Options::default()
            },
            existing: false,
            sync: Sync::None,
            locking: Locking::Check,
        };
        let (result, changes) = write(&path, &options, compresses, None);
        result.unwrap();
        assert!(changes > 2, "{format} {changes}");
        let whole = std::fs::read(&path).unwrap();
        for nth in 0..changes {
            for effect in [
                Effect::Fail(EIO),
                Effect::Short(100, ENOSPC),
                Effect::Die(EIO),
            ] {
                std::fs::write(&path, "old").unwrap();
                let (result, _) = write(&path, &options, compresses, Some((nth, effect)));
                let error = result.expect_err("a lost write must not pass");
                assert_eq!(
                    error.kind(),
                    crate::ErrorKind::Io,
                    "{nth} {effect:?}: {error}"
                );
                assert_eq!(std::fs::read(&path).unwrap(), b"old", "{nth} {effect:?}");
                assert_eq!(directory.path().read_dir().unwrap().count(), 1);
            }
        }
        write(
            &path,
            &options,
            compresses,
            Some((changes, Effect::Fail(EIO))),
        )
        .0
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
