//! The jobs of guest filesystems: qimg beside virt-sparsify, which mounts them in a machine of its own, and beside qemu-img,
//! which keeps every deleted file.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::pairs::{Bench, Output, Row, read_through};
use crate::{Outcome, QIMG};

impl Bench {
    /// Measures what there are images for.
    pub fn guests(&mut self) -> Outcome<()> {
        if let Some(used) = self.settings.used_image.clone() {
            read_through(&used)?;
            let used = used.display().to_string();
            self.sparsify(&used)?;
        }
        for disk in self.settings.large_disks.clone() {
            self.free_maps(&disk)?;
        }
        Ok(())
    }

    fn sparsify(&mut self, used: &str) -> Outcome<()> {
        let qemu = "qemu-img convert -c -W -m 16 -O qcow2";
        for (codec, options) in [("zlib", ""), ("zstd", " -o compression_type=zstd")] {
            let ours = format!("compress --codec {codec} --no-sync {{s}} {{o}}");
            self.pair(
                &format!("a used disk, {codec} (qemu-img {codec})"),
                &ours,
                &format!("{qemu}{options} {{s}} {{o}}"),
                used,
                Output::Sparsified,
            )?;
            if is_installed("virt-sparsify") {
                self.pair(
                    &format!("a used disk, {codec} (virt-sparsify, zlib)"),
                    &ours,
                    "virt-sparsify --quiet --compress --tmp=/var/tmp {s} {o}",
                    used,
                    Output::Sparsified,
                )?;
            } else {
                writeln!(
                    std::io::stderr(),
                    "not measured: virt-sparsify, which is not here"
                )?;
            }
        }
        Ok(())
    }

    /// The time and the memory to read the free maps of a large disk.
    fn free_maps(&mut self, disk: &Path) -> Outcome<()> {
        let name = disk
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let memory = self.path("memory");
        let line = format!("-f %M -o {} {QIMG} inspect {{s}}", memory.display());
        let source = disk.display().to_string();
        let mut costs = Vec::new();
        for _ in 0..self.settings.pairs {
            costs.push(self.measure("/usr/bin/time", &line, &source, &memory)?);
        }
        let peak: u64 = std::fs::read_to_string(&memory)?.trim().parse()?;
        writeln!(std::io::stderr(), "measured: {name}")?;
        self.rows.push(Row {
            what: format!("free map, {name}"),
            qimg: crate::pairs::median(costs),
            peer: None,
            sizes: None,
            note: format!("peak {} MiB", peak / 1024),
        });
        Ok(())
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status();
    found.is_ok_and(|status| status.success())
}
