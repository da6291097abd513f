//! The jobs of seeds and new disks: qimg beside cloud-localds, and beside a plain copy of the bytes.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::Outcome;
use crate::pairs::{Bench, Output, run_quiet};

/// Bytes of the part of a disk of 4 GiB.
const PART: u64 = (4 << 30) - (64 << 20);
/// As much as shows that it still works.
const SMALL_PART: u64 = 64 << 20;
/// Where the disk's only part lies: the default alignment.
const START: u64 = 1 << 20;

impl Bench {
    /// Measures them all.
    pub fn assembly(&mut self) -> Outcome<()> {
        self.seeds()?;
        self.disks()
    }

    fn seeds(&mut self) -> Outcome<()> {
        let user_data = self.path("user-data");
        std::fs::write(&user_data, "#cloud-config\nruncmd: [ls]\n")?;
        let s = user_data.display().to_string();
        for filesystem in ["iso", "vfat"] {
            self.pair(
                &format!("seed, {filesystem} (cloud-localds)"),
                &format!("seed -f {filesystem} {{s}} -o {{o}}"),
                &format!("cloud-localds -f {filesystem} {{o}} {{s}}"),
                &s,
                Output::None,
            )?;
            let ours = self.path("ours").display().to_string();
            run_quiet("blkid", &["-p", "-n", "iso9660,vfat", &ours])?;
        }
        Ok(())
    }

    fn disks(&mut self) -> Outcome<()> {
        let part = self.path("part.raw");
        let length = if self.settings.smoke {
            SMALL_PART
        } else {
            PART
        };
        for (what, data) in [("one tenth data", 10), ("all data", 1)] {
            write_part(&part, length, data)?;
            let s = part.display().to_string();
            let description = self.path("disk.toml");
            std::fs::write(
                &description,
                format!(
                    "size = \"4G\"\n[[partition]]\ntype = \"linux\"\nimage = \"{s}\"\nformat = \"raw\"\nsize = \"rest\"\n"
                ),
            )?;
            self.pair(
                &format!("disk of 4 GiB from a part, {what} (cp)"),
                &format!(
                    "disk create --from {} -O raw --no-sync {{o}}",
                    description.display()
                ),
                "cp --sparse=auto {s} {o}",
                &s,
                Output::None,
            )?;
            let ours = self.path("ours").display().to_string();
            run_quiet("sgdisk", &["--verify", &ours])?;
            let (skip, length) = (format!("{START}:0"), length.to_string());
            run_quiet(
                "cmp",
                &["--ignore-initial", &skip, "--bytes", &length, &ours, &s],
            )?;
        }
        std::fs::remove_file(&part)?;
        Ok(())
    }
}

/// A file of which one MiB in `every` is data, the rest holes; it ends up in the page cache.
fn write_part(path: &Path, length: u64, every: u64) -> Outcome<()> {
    let file = File::create(path)?;
    file.set_len(length)?;
    let mut block = vec![0_u8; 1 << 20];
    for (at, byte) in block.iter_mut().enumerate() {
        *byte = u8::try_from(at % 251)?;
    }
    for mib in (0..length >> 20).step_by(usize::try_from(every)?) {
        block[..8].copy_from_slice(&mib.to_be_bytes());
        file.write_all_at(&block, mib << 20)?;
    }
    (&file).flush()?;
    file.sync_all()?;
    Ok(())
}
