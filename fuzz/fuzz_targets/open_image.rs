//! Whole images: whatever the bytes, everything that reads them ends soon with an answer or an error, and what can be
//! read comes out of a conversion unchanged.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use qimg::codec::{CompressionType, DeflateWindow, EncoderOptions};
use qimg::convert::{Options, Reuse, convert};
use qimg::extent::ExtentKind;
use qimg::image::options::Qcow2Options;
use qimg::image::{Chain, Depth, Format, Image, OpenOptions, Target, TargetOptions};
use qimg::source::Source;
use qimg::store::{Locking, Memory, Sync};

/// Extents looked at: a small file may have tables that describe millions.
const MOST_EXTENTS: usize = 256;
/// Disks up to this size are read and converted as a whole.
const SMALL_DISK: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = open(bytes.to_vec()) else {
        return;
    };
    let _ = (
        image.backing_file(),
        image.bitmap_count(),
        image.qcow2_options(),
    );
    if image.snapshot_count() > 0
        && let Ok(chain) = image.chain(Depth::Top, Some("1"))
    {
        look_at(&chain);
    }
    let Ok(chain) = image.chain(Depth::Top, None) else {
        return;
    };
    look_at(&chain);
    if chain.virtual_size() <= SMALL_DISK && !chain.is_partial() {
        carry_over(&image, &chain);
    }
});

fn open(bytes: Vec<u8>) -> qimg::Result<Image> {
    let options = OpenOptions {
        format: Some(Format::Qcow2),
        ..OpenOptions::default()
    };
    Image::from_store(Arc::new(Memory::from(bytes)), "fuzz.qcow2", &options)
}

fn look_at(chain: &Chain) {
    let size = chain.virtual_size();
    let mut reader = chain.reader();
    let mut buffer = vec![0; 96 << 10];
    let mut at = 0;
    for _ in 0..MOST_EXTENTS {
        if at >= size {
            break;
        }
        let Ok(extent) = chain.extent_at(at..size) else {
            // The next cluster may be sound.
            at = (at / chain.cluster_size() + 1).saturating_mul(chain.cluster_size());
            continue;
        };
        assert_eq!(extent.start, at);
        assert!(extent.length > 0 && extent.length <= size - at);
        let length = extent.length.min(buffer.len() as u64);
        let _ = reader.read_at(at, &mut buffer[..length as usize]);
        let _ = reader.read_at(extent.end() - length, &mut buffer[..length as usize]);
        if matches!(extent.kind, ExtentKind::Compressed(_)) {
            let cluster = chain.cluster_size();
            let end = extent.end().min(at / cluster * cluster + (1 << 20));
            let (mut out, mut streams) = (Vec::new(), Vec::new());
            if reader.read_streams(at..end, &mut out, &mut streams).is_ok() {
                for stream in &streams {
                    assert!(stream.start + stream.length <= out.len());
                    assert!(stream.neighbour.is_none_or(|length| length < stream.length));
                }
            }
        }
        at = extent.end();
    }
    // Across the borders of clusters and extents.
    for at in [0, size / 2, size.saturating_sub(buffer.len() as u64)] {
        let length = (size - at).min(buffer.len() as u64);
        let _ = reader.read_at(at, &mut buffer[..length as usize]);
    }
}

fn carry_over(image: &Image, chain: &Chain) {
    let mut contents = vec![0; chain.virtual_size() as usize];
    let readable = chain.reader().read_at(0, &mut contents).is_ok();
    let like_it = Qcow2Options {
        backing: None,
        data_file: None,
        data_file_raw: false,
        ..image.qcow2_options().unwrap()
    };
    let encoding = EncoderOptions {
        codec: image.compression_type().unwrap_or(CompressionType::Zlib),
        level: Some(1),
        window: DeflateWindow::Full,
    };
    for encoding in [Some(encoding), None] {
        match rewrite(chain, &like_it, encoding) {
            Err(error) => assert!(!readable, "readable, but not to be converted: {error:?}"),
            Ok(bytes) if readable => {
                let copy = open(bytes).unwrap();
                let copy = copy.chain(Depth::Chain, None).unwrap();
                let mut copied = vec![0; contents.len()];
                copy.reader().read_at(0, &mut copied).unwrap();
                assert!(copied == contents, "the copy differs");
            }
            Ok(_) => {}
        }
    }
}

fn rewrite(
    chain: &Chain,
    options: &Qcow2Options,
    encoding: Option<EncoderOptions>,
) -> qimg::Result<Vec<u8>> {
    let store = Memory::new();
    let target = TargetOptions {
        format: Format::Qcow2,
        qcow2: options.clone(),
        existing: false,
        sync: Sync::None,
        locking: Locking::Ignore,
    };
    let size = chain.virtual_size();
    let mut target = Target::in_store(Arc::new(store.clone()), size, &target, encoding.is_some())?;
    let options = Options {
        threads: 1,
        encoding,
        reuse: Reuse::Copy,
        overlay: false,
        sparse: 4096,
        share: false,
        cancel: &AtomicBool::new(false),
    };
    convert(chain, target.writer(), &options, &mut |_| {})?;
    target.finish()?;
    Ok(store.to_vec())
}
