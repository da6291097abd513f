//! The jobs of images: qimg beside qemu-img.

use crate::Outcome;
use crate::pairs::{Bench, Output, read_through, run_quiet};

impl Bench {
    /// Measures them all.
    pub fn images(&mut self) -> Outcome<()> {
        let source = self.settings.image.display().to_string();
        read_through(&self.settings.image)?;
        let qemu = "qemu-img convert -c -W -m 16 -O qcow2";
        let zstd = "qemu-img convert -c -W -m 16 -O qcow2 -o compression_type=zstd";
        let s = source.as_str();

        self.pair(
            "compress, zlib",
            "compress --exact --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.keep("zlib.qcow2", "qemu-zlib.qcow2")?;
        let zlib = self.path("zlib.qcow2").display().to_string();
        self.pair(
            "compress, zlib, synced",
            "compress --exact {s} {o}",
            &format!("{qemu} -t writeback {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress, zlib, level 1",
            "compress --exact --level 1 --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress, zstd",
            "compress --exact --codec zstd --no-sync {s} {o}",
            &format!("{zstd} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.keep("zstd.qcow2", "qemu-zstd.qcow2")?;
        self.pair(
            "compress, zstd, 2 MiB clusters (peer: 64 KiB)",
            "compress --exact --codec zstd --cluster-size 2M --no-sync {s} {o}",
            &format!("{zstd} {{s}} {{o}}"),
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "compress again what is zlib already",
            "compress --exact --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &zlib,
            Output::Qcow2,
        )?;
        let peer_zlib = self.path("qemu-zlib.qcow2").display().to_string();
        self.pair(
            "compress again qemu-img's own zlib output",
            "compress --exact --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &peer_zlib,
            Output::Qcow2,
        )?;
        self.pair(
            "compressed to raw",
            "convert --no-sync -O raw {s} {o}",
            "qemu-img convert -W -m 16 -O raw {s} {o}",
            &zlib,
            Output::Raw,
        )?;
        self.pair(
            "compare, compressed with plain",
            "compare {s} {p}",
            "qemu-img compare {s} {p}",
            &zlib,
            Output::None,
        )?;
        self.pair(
            "plain qcow2 to qcow2",
            "convert --no-sync -O qcow2 {s} {o}",
            "qemu-img convert -W -m 16 -O qcow2 {s} {o}",
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "plain qcow2 to qcow2, synced",
            "convert -O qcow2 {s} {o}",
            "qemu-img convert -W -m 16 -t writeback -O qcow2 {s} {o}",
            s,
            Output::Qcow2,
        )?;
        self.pair(
            "plain qcow2 to raw",
            "convert --no-sync -O raw {s} {o}",
            "qemu-img convert -W -m 16 -O raw {s} {o}",
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
            "compress --exact --cluster-size 64k --no-sync {s} {o}",
            &format!("{qemu} {{s}} {{o}}"),
            &large.display().to_string(),
            Output::Qcow2,
        )?;
        self.pair("info", "info {s}", "qemu-img info {s}", &zlib, Output::None)?;
        self.pair(
            "map",
            "map --output=json {s}",
            "qemu-img map --output=json {s}",
            &zlib,
            Output::None,
        )?;
        self.pair(
            "check",
            "check {s}",
            "qemu-img check {s}",
            &zlib,
            Output::None,
        )?;
        if let Some(map) = self.settings.map_image.clone() {
            let map = map.display().to_string();
            self.pair(
                "info, 1 TiB",
                "info {s}",
                "qemu-img info {s}",
                &map,
                Output::None,
            )?;
            self.pair(
                "map, 1 TiB, a million clusters",
                "map --output=json {s}",
                "qemu-img map --output=json {s}",
                &map,
                Output::None,
            )?;
            self.pair(
                "check, 1 TiB, a million clusters",
                "check {s}",
                "qemu-img check {s}",
                &map,
                Output::None,
            )?;
        }
        self.codec_loops(&[s.into(), zlib.into()])
    }
}
