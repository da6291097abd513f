//! What to measure, as asked for on the command line.

use std::path::{Path, PathBuf};

use crate::Outcome;

/// What may be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Jobs {
    /// Of whole images.
    Images,
    /// Of seeds and new disks.
    Assembly,
    /// Of what guest filesystems do not use.
    FreeSpace,
}

pub struct Settings {
    pub image: PathBuf,
    pub map_image: Option<PathBuf>,
    /// A Debian after some use, for what guest filesystems do not use.
    pub used_image: Option<PathBuf>,
    /// Large disks, as mkfs made them and half full.
    pub large_disks: Vec<PathBuf>,
    /// Measure these jobs alone.
    pub only: Option<Jobs>,
    /// Not for the numbers: do the benchmarks still run.
    pub smoke: bool,
    pub scratch: PathBuf,
    pub pairs: usize,
    pub markdown: bool,
}

impl Settings {
    /// Reads the arguments.
    pub fn from_args() -> Outcome<Self> {
        let mut settings = Self {
            image: PathBuf::new(),
            map_image: None,
            used_image: None,
            large_disks: Vec::new(),
            only: None,
            smoke: false,
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
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Given by cargo itself.
                "--bench" => {}
                "--smoke" => settings.smoke = true,
                "--images" => settings.only = Some(Jobs::Images),
                "--assembly" => settings.only = Some(Jobs::Assembly),
                "--free-space" => settings.only = Some(Jobs::FreeSpace),
                "--markdown" => settings.markdown = true,
                "--pairs" => {
                    settings.pairs = args.next().ok_or("--pairs takes a number")?.parse()?;
                }
                image => settings.image = image.into(),
            }
        }
        if settings.smoke {
            settings.pairs = 1;
            settings.image = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sample.qcow2");
        } else {
            let cached = |name: &str| Some(cache.join(name)).filter(|image| image.exists());
            settings.map_image = cached("map.qcow2");
            settings.used_image = cached("used.qcow2");
            let disks = ["ext4", "ext4-half", "xfs", "xfs-half"];
            settings.large_disks = disks
                .iter()
                .filter_map(|name| cached(&format!("tebibyte-{name}.raw")))
                .collect();
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

    /// Whether these jobs are to be measured.
    pub fn wants(&self, jobs: Jobs) -> bool {
        self.only.is_none_or(|only| only == jobs)
    }
}
