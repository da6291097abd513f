//! The bare codec loop: what no engine can beat.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use qimg::codec::{CompressionType, Decoder, DeflateWindow, Encoder, EncoderOptions};
use qimg::image::{Depth, Image, OpenOptions};
use qimg::source::Source;
use qimg::zero::is_zero;

use crate::pairs::{Bench, Cost, Row, median};
use crate::{Outcome, QIMG};

impl Bench {
    /// The engine's time beside that of its codecs alone.
    pub fn codec_loops(&mut self, sources: &[PathBuf]) -> Outcome<()> {
        for source in sources {
            for codec in [CompressionType::Zlib, CompressionType::Zstd] {
                let compressed = Image::open(source, &OpenOptions::default())?
                    .chain(Depth::Chain, None)?
                    .extent_at(0..1 << 20)?
                    .kind
                    != qimg::extent::ExtentKind::Data
                    && source != &self.settings.image;
                if compressed && codec == CompressionType::Zlib {
                    // Streams that fit are copied: there is no codec to compare with.
                    continue;
                }
                let clusters = load(source, compressed)?;
                let name = source.display().to_string();
                let line = format!("compress --exact --codec {codec} --no-sync {{s}} {{o}}");
                let output = self.path("ours");
                let mut costs = (Vec::new(), Vec::new());
                for _ in 0..self.settings.pairs {
                    let _ = std::fs::remove_file(&output);
                    costs.0.push(self.measure(QIMG, &line, &name, &output)?);
                    costs.1.push(codec_loop(&clusters, codec)?);
                }
                let (engine, bare) = (median(costs.0), median(costs.1));
                self.rows.push(Row {
                    what: format!(
                        "engine beside the bare codec loop, {} to {codec}",
                        if compressed { "zlib" } else { "plain" }
                    ),
                    qimg: engine,
                    peer: Some(bare),
                    sizes: None,
                    note: format!(
                        "engine / loop = {:.3}",
                        engine.wall.as_secs_f64() / bare.wall.as_secs_f64()
                    ),
                });
            }
        }
        Ok(())
    }
}

/// The non-zero clusters of an image: decoded, or as the streams that they are stored as.
fn load(path: &Path, as_streams: bool) -> Outcome<Vec<Vec<u8>>> {
    const CLUSTER: usize = 1 << 16;
    let chain = Image::open(path, &OpenOptions::default())?.chain(Depth::Chain, None)?;
    let mut reader = chain.reader();
    let mut clusters = Vec::new();
    let end = chain.virtual_size();
    let mut guest = 0;
    while guest < end {
        let length = (end - guest).min(CLUSTER as u64);
        let extent = chain.extent_at(guest..guest + length)?;
        if as_streams && matches!(extent.kind, qimg::extent::ExtentKind::Compressed(_)) {
            let (mut bytes, mut streams) = (Vec::new(), Vec::new());
            reader.read_streams(guest..guest + length, &mut bytes, &mut streams)?;
            clusters.push(bytes);
        } else {
            let mut cluster = vec![0; CLUSTER];
            reader.read_at(guest, &mut cluster[..usize::try_from(length)?])?;
            if !is_zero(&cluster) {
                clusters.push(cluster);
            }
        }
        guest += length;
    }
    Ok(clusters)
}

/// Encodes every cluster on all cores, decoding it first where it is a stream.
fn codec_loop(clusters: &[Vec<u8>], codec: CompressionType) -> Outcome<Cost> {
    const CLUSTER: usize = 1 << 16;
    let threads = std::thread::available_parallelism()?.get();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let options = EncoderOptions {
                    codec,
                    level: None,
                    window: DeflateWindow::Full,
                };
                let (Ok(mut encoder), mut decoder) =
                    (Encoder::new(&options, CLUSTER), Decoder::new())
                else {
                    return;
                };
                let (mut cluster, mut out) = (vec![0; CLUSTER], Vec::new());
                while let Some(stored) = clusters.get(next.fetch_add(1, Ordering::Relaxed)) {
                    out.clear();
                    let plain = if stored.len() == CLUSTER {
                        &stored[..]
                    } else if decoder
                        .decode(CompressionType::Zlib, stored, &mut cluster)
                        .is_ok()
                    {
                        &cluster[..]
                    } else {
                        continue;
                    };
                    let _ = std::hint::black_box(encoder.encode(plain, CLUSTER - 1, &mut out));
                }
            });
        }
    });
    let wall = start.elapsed();
    Ok(Cost {
        wall,
        cpu: wall * u32::try_from(threads)?,
    })
}
