//! qimg beside its peers: whole commands, interleaved, on real Debian images.
//!
//! ```text
//! cargo bench --bench peers                       the test image, 5 pairs each
//! cargo bench --bench peers -- --pairs 3 IMAGE    another image
//! cargo bench --bench peers -- --markdown         a table for a README or a CI summary
//! cargo bench --bench peers -- --images           only whole images
//! cargo bench --bench peers -- --assembly         only seeds and new disks
//! cargo bench --bench peers -- --free-space       only what guest filesystems do not use
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

mod assembly;
mod codec_loop;
mod guests;
mod images;
mod pairs;
mod report;
mod settings;

use std::io::Write as _;

use pairs::Bench;
use settings::{Jobs, Settings};

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
    if bench.settings.wants(Jobs::Images) {
        bench.images()?;
    }
    if bench.settings.wants(Jobs::Assembly) {
        bench.assembly()?;
    }
    if bench.settings.wants(Jobs::FreeSpace) {
        bench.guests()?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(bench.report().as_bytes())?;
    Ok(())
}
