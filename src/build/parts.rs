//! What a machine is started with: its files, and which of them starts it.
//!
//! Knows which names they have in the directory of a run when they are kept. Must not know the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::from_disk::from_disk;
use super::http::Serving;
use super::prepared::{Prepared, QemuArgs};
use crate::error::Result;
use crate::machine::command_line::{Boot, Drive};
use crate::store::{make_private, move_anywhere, read_file, write_file, write_secret};
use crate::template::model::NetworkBoot;

/// Firmware has no more variables.
const LARGEST_VARIABLES: u64 = 64 << 20;
/// Seeds are small.
const LARGEST_SEED: u64 = 1 << 30;

/// What a machine is started with.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// The main disk.
    pub(super) main: PathBuf,
    /// Further disks.
    pub(super) additional: Vec<Drive>,
    /// The medium that installs.
    pub(super) medium: Option<PathBuf>,
    /// A CD of the template's files.
    pub(super) cd: Option<PathBuf>,
    /// A floppy disk of the template's files.
    pub(super) floppy: Option<PathBuf>,
    /// qimg's own seed.
    pub(super) seed: Option<PathBuf>,
    /// Firmware other than the machine type's own.
    pub(super) boot: Option<Boot>,
    /// Files that `qemu_args` would write, and what they write instead.
    pub(super) copies: BTreeMap<PathBuf, PathBuf>,
    /// Arguments of the template's, and those of a kernel.
    pub(super) qemu_args: QemuArgs,
    /// What there is for a boot from the network.
    pub(super) network_boot: Option<NetworkBoot>,
    /// The main disk holds a system.
    pub(super) boots_from_disk: bool,
}

impl Prepared<'_> {
    /// What the machine is started with. `again`: what a kernel installed is started.
    pub(super) fn parts(&self, again: bool) -> Parts {
        self.parts_with(self.serving.as_deref(), again)
    }

    /// What it would be started with once more after the build, when nobody serves its guest any more: from its disk, and
    /// by nothing that installs.
    pub(super) fn parts_afterwards(&self) -> Parts {
        let parts = self.parts_with(None, true);
        match self.request.build.base.is_disk {
            true => parts,
            false => parts.installed(),
        }
    }

    fn parts_with(&self, serving: Option<&Serving>, again: bool) -> Parts {
        let mut qemu_args = self.qemu_args.clone();
        if let Some(url) = serving.and_then(Serving::seed_url) {
            // All versions know this name; those before 23 take `ds=nocloud` for a seed that needs no network, and leave it.
            let told = format!("type=1,serial=ds=nocloud-net;s={url}");
            qemu_args.push(("-smbios".to_owned(), vec![told]));
        }
        if !(again && self.installs_by_kernel()) {
            qemu_args.extend(self.kernel.clone());
        }
        Parts {
            main: self.disk.clone(),
            additional: self.additional.clone(),
            medium: self.medium.clone(),
            cd: self.cd.clone(),
            floppy: self.floppy.clone(),
            seed: self.access.seed.clone(),
            boot: self.boot.clone(),
            copies: self.copies.clone(),
            qemu_args,
            network_boot: self.network_boot.clone().filter(|_| !again),
            boots_from_disk: self.request.build.base.is_disk || again || self.goes_on(),
        }
    }
}

/// How a file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Moved,
    /// It may hold secrets.
    MovedForItsOwner,
    Variables,
    Seed,
}

/// A file that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keeping {
    from: PathBuf,
    to: PathBuf,
    how: How,
}

impl Keeping {
    /// Keeps it.
    ///
    /// # Errors
    /// The host's own.
    pub(super) fn keep(&self) -> Result<()> {
        let (from, to) = (&self.from, &self.to);
        match self.how {
            How::Moved => move_anywhere(from, to),
            How::MovedForItsOwner => {
                make_private(from)?;
                move_anywhere(from, to)
            }
            How::Variables => write_file(to, &read_file(from, LARGEST_VARIABLES)?),
            How::Seed => write_secret(to, &read_file(from, LARGEST_SEED)?),
        }
    }
}

impl Parts {
    /// Without what installs: by its disk alone the machine is started.
    pub(super) fn installed(self) -> Self {
        Self {
            medium: None,
            network_boot: None,
            boots_from_disk: true,
            qemu_args: from_disk(self.qemu_args),
            ..self
        }
    }

    /// All disks, the main one first.
    pub(super) fn disks(&self) -> Vec<PathBuf> {
        let additional = self.additional.iter().map(|drive| drive.path.clone());
        std::iter::once(self.main.clone())
            .chain(additional)
            .collect()
    }

    /// The same with the names of files that are kept in `directory`; and what is to be kept for that.
    pub(super) fn kept(mut self, directory: &Path) -> (Self, Vec<Keeping>) {
        let mut all = Vec::new();
        let mut keep = |path: &mut PathBuf, name: String, how: How| {
            // A template may name the machine's own variables: they stay one file.
            let known = all.iter().find(|kept: &&Keeping| kept.from == *path);
            if let Some(to) = known.map(|kept| kept.to.clone()) {
                *path = to;
                return;
            }
            let to = directory.join(name);
            let from = std::mem::replace(path, to.clone());
            all.push(Keeping { from, to, how });
        };
        let disks = std::iter::once(&mut self.main);
        let disks = disks.chain(self.additional.iter_mut().map(|drive| &mut drive.path));
        for (number, disk) in disks.enumerate() {
            keep(disk, format!("kept-disk-{number}.qcow2"), How::Moved);
        }
        let mut variables: Vec<&mut PathBuf> = self.copies.values_mut().collect();
        if let Some(Boot::Flash(flash)) = &mut self.boot {
            variables.push(&mut flash.variables);
        }
        for (number, file) in variables.into_iter().enumerate() {
            keep(file, format!("kept-variables-{number}.fd"), How::Variables);
        }
        if let Some(cd) = &mut self.cd {
            keep(cd, "kept-files.iso".to_owned(), How::MovedForItsOwner);
        }
        if let Some(floppy) = &mut self.floppy {
            keep(floppy, "kept-floppy.img".to_owned(), How::MovedForItsOwner);
        }
        if let Some(seed) = &mut self.seed {
            keep(seed, "kept-seed.img".to_owned(), How::Seed);
        }
        (self, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::firmware::Flash;

    fn parts() -> Parts {
        let work = Path::new("/images/.d.qimg-work");
        Parts {
            main: work.join("d"),
            additional: ["d-1", "d-2"]
                .map(|name| Drive {
                    path: work.join(name),
                    format: "qcow2".to_owned(),
                })
                .to_vec(),
            medium: Some(PathBuf::from("/cache/installer.iso")),
            cd: Some(work.join("files.iso")),
            floppy: Some(work.join("floppy.img")),
            seed: Some(PathBuf::from("/runs/1/d/seed.img")),
            boot: Some(Boot::Flash(Flash {
                code: PathBuf::from("/usr/code.fd"),
                code_format: "raw".to_owned(),
                variables: work.join("artifact/efivars.fd"),
                variables_format: "raw".to_owned(),
                needs_smm: false,
            })),
            copies: BTreeMap::from([(PathBuf::from("vars.fd"), work.join("artifact/vars.fd"))]),
            qemu_args: vec![
                ("-boot".to_owned(), vec!["once=d".to_owned()]),
                ("-kernel".to_owned(), vec!["/linux".to_owned()]),
            ],
            network_boot: Some(NetworkBoot {
                directory: PathBuf::from("/tftp"),
                file: "pxelinux.0".to_owned(),
            }),
            boots_from_disk: false,
        }
    }

    #[test]
    fn a_machine_that_is_kept_names_no_file_that_goes_with_the_build() {
        let (kept, all) = parts().kept(Path::new("/runs/1/d"));
        let shown = format!("{kept:?}");
        assert!(!shown.contains("qimg-work"), "{shown}");
        let names = |of: fn(&Keeping) -> &PathBuf| -> Vec<String> {
            all.iter()
                .map(|keeping| of(keeping).display().to_string())
                .collect()
        };
        assert_eq!(
            names(|keeping| &keeping.from),
            [
                "/images/.d.qimg-work/d",
                "/images/.d.qimg-work/d-1",
                "/images/.d.qimg-work/d-2",
                "/images/.d.qimg-work/artifact/vars.fd",
                "/images/.d.qimg-work/artifact/efivars.fd",
                "/images/.d.qimg-work/files.iso",
                "/images/.d.qimg-work/floppy.img",
                "/runs/1/d/seed.img",
            ]
        );
        for (keeping, name) in all.iter().zip(names(|keeping| &keeping.to)) {
            assert!(shown.contains(&name), "{keeping:?}");
        }
        // The name of one disk begins with that of another.
        assert_eq!(kept.main, Path::new("/runs/1/d/kept-disk-0.qcow2"));
        let second = &kept.additional[0].path;
        assert_eq!(second, Path::new("/runs/1/d/kept-disk-1.qcow2"));
    }

    #[test]
    fn variables_that_a_template_names_stay_those_of_the_machine() {
        let mut parts = parts();
        let own = PathBuf::from("/images/.d.qimg-work/artifact/efivars.fd");
        parts.copies.insert(PathBuf::from("out/efivars.fd"), own);
        let (kept, _) = parts.kept(Path::new("/runs/1/d"));
        let Some(Boot::Flash(flash)) = &kept.boot else {
            panic!("{kept:?}");
        };
        assert_eq!(kept.copies[Path::new("out/efivars.fd")], flash.variables);
    }

    #[test]
    fn a_machine_that_is_kept_does_not_install_once_more() {
        let installed = parts().installed();
        assert!(installed.boots_from_disk);
        assert_eq!(installed.medium, None);
        assert_eq!(installed.network_boot, None);
        assert_eq!(installed.qemu_args, QemuArgs::new());
        // What it was given besides stays.
        assert!(installed.cd.is_some() && installed.floppy.is_some());
    }

    #[test]
    fn files_with_answers_are_kept_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let keeping = Keeping {
            from: from.path().join("files.iso"),
            to: to.path().join("kept-files.iso"),
            how: How::MovedForItsOwner,
        };
        std::fs::write(&keeping.from, "x").unwrap();
        keeping.keep().unwrap();
        let mode = keeping.to.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!keeping.from.exists());
    }
}
