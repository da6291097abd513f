//! Loop devices: whether the kernel has a file for a block device, which somebody may have mounted.
//!
//! No lock tells of that: the kernel's own list does (`/sys/block/loop*/loop/backing_file`). A file is known by its
//! device and inode, whatever name it was given.

use std::path::PathBuf;

use rustix::fs::Stat;

/// The loop device that `file` stands behind, if there is one.
pub(super) fn holder(file: &Stat) -> Option<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").ok()?;
    devices.flatten().find_map(|device| {
        let name = device.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") {
            return None;
        }
        let backing = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let backing = backing.strip_suffix('\n').unwrap_or(&backing);
        let stat = rustix::fs::stat(backing).ok()?;
        (stat.st_dev == file.st_dev && stat.st_ino == file.st_ino)
            .then(|| PathBuf::from("/dev").join(name))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{HostFile, Locking};
    use crate::error::ErrorKind;

    #[test]
    fn a_file_behind_a_loop_device_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let device = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&path)
            .output()
            .expect("losetup must be installed");
        assert!(device.status.success(), "{device:?}");
        let device = String::from_utf8(device.stdout).unwrap();
        let refused = HostFile::open_write(&path, Locking::Check);
        let ignored = HostFile::open_write(&path, Locking::Ignore);
        let detached = Command::new("losetup")
            .args(["--detach", device.trim()])
            .status();
        assert!(detached.unwrap().success());
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.to_string().contains(device.trim()), "{error}");
        ignored.unwrap();
        HostFile::open_write(&path, Locking::Check).unwrap();
    }
}
