//! Two programs in turn at the same job: their outputs checked, the medians of their costs kept.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::settings::Settings;
use crate::{Outcome, QIMG};

/// One command's cost.
#[derive(Clone, Copy)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// Of all threads, in the program and in the kernel.
    pub cpu: Duration,
}

/// A row of the table.
pub struct Row {
    /// The job.
    pub what: String,
    /// Median of qimg's costs.
    pub qimg: Cost,
    /// Median of the peer's.
    pub peer: Option<Cost>,
    /// Bytes of qimg's output and the peer's.
    pub sizes: Option<(u64, u64)>,
    /// What else there is to say.
    pub note: String,
}

/// A run of the benchmark.
pub struct Bench {
    /// What to measure.
    pub settings: Settings,
    /// Where outputs go.
    pub work: PathBuf,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// How an output is checked.
#[derive(Clone, Copy)]
pub enum Output {
    /// A sound qcow2 image that holds what the source holds.
    Qcow2,
    /// A raw image that holds what the source holds.
    Raw,
    /// A sound qcow2 image whose root filesystem is sound.
    Sparsified,
    /// None to be checked.
    None,
}

impl Bench {
    /// Where the output `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Runs both programs in turn, checks the first outputs, and keeps the medians. `peer` begins with the program.
    pub fn pair(
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
            let (program, line) = peer.split_once(' ').unwrap_or((peer, ""));
            let peer_cost = self.measure(program, line, source, &theirs)?;
            costs.1.push(peer_cost);
            if turn == 0 {
                self.verify(source, &ours, output)?;
                if matches!(output, Output::Sparsified) {
                    self.verify(source, &theirs, output)?;
                }
                if !matches!(output, Output::None) {
                    sizes = Some((ours.metadata()?.len(), theirs.metadata()?.len()));
                }
            }
            if turn >= 2 && peer_cost.wall > Duration::from_secs(40) {
                // A median of three is enough where a run takes this long.
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

    /// Runs `program` once; `{s}`, `{o}` and `{p}` in `line` stand for source, output and the plain image.
    pub fn measure(&self, program: &str, line: &str, source: &str, output: &Path) -> Outcome<Cost> {
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
            // Without hardware help, as everywhere here.
            .env("LIBGUESTFS_BACKEND", "direct")
            .env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
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
            Output::Sparsified => {
                run_quiet("qemu-img", &["check", "-q", &output])?;
                let raw = self.path("verified.raw").display().to_string();
                run_quiet("qemu-img", &["convert", "-O", "raw", &output, &raw])?;
                // The root partition of the test images lies at 128 MiB.
                let root = format!("{raw}?offset={}", 128 << 20);
                let sound = run_quiet("e2fsck", &["-fn", &root]);
                std::fs::remove_file(&raw)?;
                sound
            }
            Output::Raw => run_quiet("qemu-img", &["compare", "-q", "-F", "raw", source, &output]),
        }
    }

    /// Keeps the last outputs under names of their own.
    pub fn keep(&self, ours: &str, theirs: &str) -> Outcome<()> {
        std::fs::rename(self.path("ours"), self.path(ours))?;
        std::fs::rename(self.path("theirs"), self.path(theirs))?;
        Ok(())
    }
}

/// The middle one, wall time and CPU time apart.
pub fn median(mut costs: Vec<Cost>) -> Cost {
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

/// Runs a program that must succeed.
pub fn run_quiet(program: &str, args: &[&str]) -> Outcome<()> {
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
pub fn read_through(path: &Path) -> Outcome<()> {
    std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
    Ok(())
}
