//! qimg beside qemu-img: whole commands, interleaved, on a real Debian image.
//!
//! ```text
//! cargo bench --bench peers                       the test image, 5 pairs each
//! cargo bench --bench peers -- --pairs 3 IMAGE    another image
//! cargo bench --bench peers -- --markdown         a table for a README or a CI summary
//! cargo bench --bench peers -- --smoke            the sample image, one pair: does it still run
//! ```
//!
//! Every output is checked (`qemu-img check`, `qemu-img compare`) before its
//! time counts. qemu-img runs with its best flags, `-W -m 16`. Sources are in
//! the page cache. The bare codec loop is what no engine can beat: the same
//! clusters through the same codecs, on all cores, from memory to memory.

#![expect(
    clippy::disallowed_types,
    reason = "only the library opens images in one place"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use qimg::codec::{CompressionType, Decoder, DeflateWindow, Encoder, EncoderOptions};
use qimg::image::{Depth, Image, OpenOptions};
use qimg::source::Source;
use qimg::zero::is_zero;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const QIMG: &str = env!("CARGO_BIN_EXE_qimg");

fn main() -> Outcome<()> {
    let settings = Settings::from_args()?;
    let work = tempfile::Builder::new()
        .prefix("qimg-bench-")
        .tempdir_in(&settings.scratch)?;
    let mut bench = Bench {
        settings,
        work: work.path().to_owned(),
        rows: Vec::new(),
    };
    bench.run()?;
    let mut out = std::io::stdout().lock();
    out.write_all(bench.report().as_bytes())?;
    Ok(())
}

struct Settings {
    image: PathBuf,
    map_image: Option<PathBuf>,
    scratch: PathBuf,
    pairs: usize,
    markdown: bool,
}

impl Settings {
    fn from_args() -> Outcome<Self> {
        let mut settings = Self {
            image: PathBuf::new(),
            map_image: None,
            scratch: std::env::var_os("QIMG_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into),
            pairs: 5,
            markdown: false,
        };
        let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
            || {
                let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
                let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
                base.or(home).unwrap_or_default().join("qimg-tests")
            },
            PathBuf::from,
        );
        let mut smoke = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Given by cargo itself.
                "--bench" => {}
                "--smoke" => smoke = true,
                "--markdown" => settings.markdown = true,
                "--pairs" => {
                    settings.pairs = args.next().ok_or("--pairs takes a number")?.parse()?;
                }
                image => settings.image = image.into(),
            }
        }
        if smoke {
            settings.pairs = 1;
            settings.image = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sample.qcow2");
        } else {
            settings.map_image = Some(cache.join("map.qcow2")).filter(|image| image.exists());
        }
        if settings.image.as_os_str().is_empty() {
            settings.image = cache.join("debian-12.qcow2");
        }
        if !settings.image.exists() {
            return Err(format!(
                "{} is missing: tests/guest/debian-image makes it",
                settings.image.display()
            )
            .into());
        }
        Ok(settings)
    }
}

/// One command's cost.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

struct Row {
    what: String,
    qimg: Cost,
    peer: Option<Cost>,
    /// Bytes of qimg's output and the peer's.
    sizes: Option<(u64, u64)>,
    note: String,
}

struct Bench {
    settings: Settings,
    work: PathBuf,
    rows: Vec<Row>,
}

/// How an output is checked.
#[derive(Clone, Copy)]
enum Output {
    Qcow2,
    Raw,
    None,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn run(&mut self) -> Outcome<()> {
        let source = self.settings.image.display().to_string();
        read_through(&self.settings.image)?;
        let qemu = "convert -c -W -m 16 -O qcow2";
        let zstd = "convert -c -W -m 16 -O qcow2 -o compression_type=zstd";
        let s = source.as_str();

        self.pair(
            "compress, zlib",
            "compress --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.keep("zlib.qcow2", "qemu-zlib.qcow2")?;
        let zlib = self.path("zlib.qcow2").display().to_string();
        self.pair(
            "compress, zlib, synced",
            "compress {s} {o}",
            &format!("{qemu} -t writeback {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress, zlib, level 1",
            "compress --level 1 --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress, zstd",
            "compress --codec zstd --no-sync {s} {o}",
            &format!("{zstd} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.keep("zstd.qcow2", "qemu-zstd.qcow2")?;
        self.pair(
            "compress, zstd, 2 MiB clusters (peer: 64 KiB)",
            "compress --codec zstd --cluster-size 2M --no-sync {s} {o}",
            &format!("{zstd} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress again what is zlib already",
            "compress --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &zlib,
            Output::Qcow2,
        )?;
        let peer_zlib = self.path("qemu-zlib.qcow2").display().to_string();
        self.pair(
            "compress again qemu-img's own zlib output",
            "compress --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &peer_zlib,
            Output::Qcow2,
        )?;
        self.pair(
            "compressed to raw",
            "convert --no-sync -O raw {s} {o}",
            "convert -W -m 16 -O raw {s} {o}",
            &zlib,
            Output::Raw,
        )?;
        self.pair(
            "compare, compressed with plain",
            "compare {s} {p}",
            "compare {s} {p}",
            &zlib,
            Output::None,
        )?;
        self.pair(
            "plain qcow2 to qcow2",
            "convert --no-sync -O qcow2 {s} {o}",
            "convert -W -m 16 -O qcow2 {s} {o}",
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "plain qcow2 to qcow2, synced",
            "convert -O qcow2 {s} {o}",
            "convert -W -m 16 -t writeback -O qcow2 {s} {o}",
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "plain qcow2 to raw",
            "convert --no-sync -O raw {s} {o}",
            "convert -W -m 16 -O raw {s} {o}",
            s,
            Output::Raw,
        )?;
        let large = self.path("large-clusters.qcow2");
        run_quiet(
            "qemu-img",
            &[
                "convert",
                "-c",
                "-W",
                "-O",
                "qcow2",
                "-o",
                "cluster_size=2M",
                s,
                &large.display().to_string(),
            ],
        )?;
        self.pair(
            "2 MiB zlib clusters to 64 KiB",
            "compress --cluster-size 64k --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &large.display().to_string(),
            Output::Qcow2,
        )?;
        self.pair("info", "info {s}", "info {s}", &zlib, Output::None)?;
        self.pair(
            "map",
            "map --output=json {s}",
            "map --output=json {s}",
            &zlib,
            Output::None,
        )?;
        self.pair("check", "check {s}", "check {s}", &zlib, Output::None)?;
        if let Some(map) = self.settings.map_image.clone() {
            let map = map.display().to_string();
            self.pair("info, 1 TiB", "info {s}", "info {s}", &map, Output::None)?;
            self.pair(
                "map, 1 TiB, a million clusters",
                "map --output=json {s}",
                "map --output=json {s}",
                &map,
                Output::None,
            )?;
            self.pair(
                "check, 1 TiB, a million clusters",
                "check {s}",
                "check {s}",
                &map,
                Output::None,
            )?;
        }
        self.codec_loops(&[s.into(), zlib.into()])
    }

    /// Runs both programs in turn, checks the first outputs, and keeps the medians.
    fn pair(
        &mut self,
        what: &str,
        qimg: &str,
        peer: &str,
        source: &str,
        output: Output,
    ) -> Outcome<()> {
        let (ours, theirs) = (self.path("ours"), self.path("theirs"));
        let mut costs = (Vec::new(), Vec::new());
        let mut sizes = None;
        for turn in 0..self.settings.pairs {
            for file in [&ours, &theirs] {
                let _ = std::fs::remove_file(file);
            }
            costs.0.push(self.measure(QIMG, qimg, source, &ours)?);
            let peer_cost = self.measure("qemu-img", peer, source, &theirs)?;
            costs.1.push(peer_cost);
            if turn == 0 {
                self.verify(source, &ours, output)?;
                if !matches!(output, Output::None) {
                    sizes = Some((ours.metadata()?.len(), theirs.metadata()?.len()));
                }
            }
            if peer_cost.wall > Duration::from_secs(40) {
                // The difference is beyond any noise.
                break;
            }
        }
        // A run takes minutes: one that is cut short has said something.
        writeln!(std::io::stderr(), "measured: {what}")?;
        self.rows.push(Row {
            what: what.to_owned(),
            qimg: median(costs.0),
            peer: Some(median(costs.1)),
            sizes,
            note: String::new(),
        });
        Ok(())
    }

    fn measure(&self, program: &str, line: &str, source: &str, output: &Path) -> Outcome<Cost> {
        let plain = self.settings.image.display().to_string();
        let output = output.display().to_string();
        let args = line.split(' ').map(|word| match word {
            "{s}" => source,
            "{o}" => &output,
            "{p}" => &plain,
            word => word,
        });
        let before = children_cpu()?;
        let start = Instant::now();
        let mut command = Command::new(program);
        let status = command
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let wall = start.elapsed();
        let cpu = children_cpu()?.saturating_sub(before);
        if !status.success() {
            return Err(format!("{program} {line}: {status}").into());
        }
        Ok(Cost { wall, cpu })
    }

    fn verify(&self, source: &str, output: &Path, kind: Output) -> Outcome<()> {
        let output = output.display().to_string();
        match kind {
            Output::None => Ok(()),
            Output::Qcow2 => {
                run_quiet("qemu-img", &["check", "-q", &output])?;
                run_quiet("qemu-img", &["compare", "-q", source, &output])
            }
            Output::Raw => run_quiet("qemu-img", &["compare", "-q", "-F", "raw", source, &output]),
        }
    }

    /// Keeps the last outputs under names of their own.
    fn keep(&self, ours: &str, theirs: &str) -> Outcome<()> {
        std::fs::rename(self.path("ours"), self.path(ours))?;
        std::fs::rename(self.path("theirs"), self.path(theirs))?;
        Ok(())
    }

    /// The engine's time beside that of its codecs alone.
    fn codec_loops(&mut self, sources: &[PathBuf]) -> Outcome<()> {
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
                let line = format!("compress --codec {codec} --no-sync {{s}} {{o}}");
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

    fn report(&self) -> String {
        let mut out = String::new();
        let markdown = self.settings.markdown;
        let line = |out: &mut String, cells: [&str; 7]| {
            let row = if markdown {
                format!("| {} |\n", cells.join(" | "))
            } else {
                let [what, a, b, c, d, e, f] = cells;
                format!("{what:48} {a:>9} {b:>9} {c:>9} {d:>9} {e:>9}  {f}\n")
            };
            out.push_str(&row);
        };
        let head = ["", "qimg s", "peer s", "faster", "less CPU", "size", "note"];
        line(&mut out, head);
        if markdown {
            line(
                &mut out,
                ["---", "---:", "---:", "---:", "---:", "---:", "---"],
            );
        }
        for row in &self.rows {
            let seconds = |cost: Cost| format!("{:.3}", cost.wall.as_secs_f64());
            let ratio = |a: Duration, b: Duration| {
                format!("{:.2}x", a.as_secs_f64() / b.as_secs_f64().max(1e-6))
            };
            let (peer, faster, less) = row.peer.map_or_else(Default::default, |peer| {
                (
                    seconds(peer),
                    ratio(peer.wall, row.qimg.wall),
                    ratio(peer.cpu, row.qimg.cpu),
                )
            });
            let size = row.sizes.map_or_else(String::new, |(ours, theirs)| {
                format!("{:.4}", ours as f64 / theirs as f64)
            });
            line(
                &mut out,
                [
                    &row.what,
                    &seconds(row.qimg),
                    &peer,
                    &faster,
                    &less,
                    &size,
                    &row.note,
                ],
            );
        }
        out
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

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.wall);
    let middle = costs[costs.len() / 2];
    costs.sort_by_key(|cost| cost.cpu);
    Cost {
        wall: middle.wall,
        cpu: costs[costs.len() / 2].cpu,
    }
}

fn children_cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(
            u64::try_from(value.tv_sec() * 1_000_000 + value.tv_usec()).unwrap_or(0),
        )
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

fn run_quiet(program: &str, args: &[&str]) -> Outcome<()> {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program} {args:?}: {status}").into())
    }
}

/// Brings a file into the page cache.
fn read_through(path: &Path) -> Outcome<()> {
    std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
    Ok(())
}
