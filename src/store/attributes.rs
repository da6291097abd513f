//! What a file keeps when its contents are replaced: owner, mode, extended attributes.
//!
//! Knows host metadata only. Must not know why a file is replaced.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// Hashes and signatures of the old contents; wrong for the new ones.
const OF_CONTENTS: [&[u8]; 2] = [b"security.ima", b"security.evm"];

/// The access list that a directory's default may have given the new file.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// Gives `to` the owner, mode and extended attributes (access lists, security labels) of `from`.
///
/// What the caller may not set, or the file system does not keep, is left out. `to` is then
/// never open to more users than `from` was.
///
/// # Errors
/// When the host fails for any other reason.
pub(super) fn carry_over(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let old = rustix::fs::fstat(from)?;
    let new = rustix::fs::fstat(to)?;

    let mut mode = old.st_mode & 0o7777;
    let group = (old.st_gid != new.st_gid).then(|| Gid::from_raw(old.st_gid));
    if group.is_some() && !permitted(rustix::fs::fchown(to, None, group))? {
        // The group bits would now admit another group: no more than everybody gets.
        mode = (mode & !0o2070) | ((mode & 0o007) << 3);
    }
    let owner = (old.st_uid != new.st_uid).then(|| Uid::from_raw(old.st_uid));
    if owner.is_some() && !permitted(rustix::fs::fchown(to, owner, None))? {
        mode &= !0o4000;
    }
    permitted(rustix::fs::fchmod(to, Mode::from_raw_mode(mode)))?;

    let names = attribute_names(from)?;
    if !names.iter().any(|name| name == ACCESS_LIST) {
        // Absent is what is wanted.
        let _ = rustix::fs::fremovexattr(to, ACCESS_LIST);
    }
    for name in names {
        if OF_CONTENTS.contains(&name.as_slice()) {
            continue;
        }
        let Some(value) = attribute(from, &name)? else {
            continue;
        };
        permitted(rustix::fs::fsetxattr(
            to,
            name.as_slice(),
            &value,
            XattrFlags::empty(),
        ))?;
    }
    Ok(())
}

/// Whether it was done; what is not allowed or not supported is no failure.
pub(super) fn permitted(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}

fn attribute_names(file: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let list = sized(
        || rustix::fs::flistxattr_query(&file),
        |buffer| rustix::fs::flistxattr(&file, buffer),
    )?;
    let names = list.unwrap_or_default();
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// The value, unless it is gone or not for us to read.
fn attribute(file: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    sized(
        || rustix::fs::fgetxattr_query(&file, name),
        |buffer| rustix::fs::fgetxattr(&file, name, buffer),
    )
}

/// Asks for the size, then for that many bytes, until both answers agree.
fn sized(
    query: impl Fn() -> Result<usize>,
    read: impl Fn(&mut [u8]) -> Result<usize>,
) -> Result<Option<Vec<u8>>> {
    loop {
        let answer = query().and_then(|size| {
            let mut buffer = vec![0; size];
            if size > 0 {
                let read = read(buffer.as_mut_slice())?;
                buffer.truncate(read);
            }
            Ok(buffer)
        });
        match answer {
            Ok(buffer) => return Ok(Some(buffer)),
            // It grew in between.
            Err(Errno::RANGE) => {}
            Err(
                Errno::NODATA
                | Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::INVAL,
            ) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;
    use crate::store::HostFile;

    #[test]
    fn mode_owner_and_attributes_come_along() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let from = HostFile::create_new(&old).unwrap();
        let to = HostFile::create_new(&new).unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o640)).unwrap();
        let empty = XattrFlags::empty();
        rustix::fs::fsetxattr(&from, "user.origin", b"template 7", empty).unwrap();
        rustix::fs::fsetxattr(&from, "user.empty", b"", empty).unwrap();
        // Only root can give files away; for others this stays their own file.
        let gave_away = chown(&old, Some(12), Some(34)).is_ok();

        carry_over(&from, &to).unwrap();

        let metadata = std::fs::metadata(&new).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        if gave_away {
            assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
        }
        assert_eq!(
            attribute(&to, b"user.origin").unwrap().unwrap(),
            b"template 7"
        );
        assert_eq!(attribute(&to, b"user.empty").unwrap().unwrap(), b"");
        assert_eq!(attribute(&to, b"user.absent").unwrap(), None);
    }

    #[test]
    fn access_lists_come_along() {
        let dir = tempfile::tempdir().unwrap();
        let from = HostFile::create_new(dir.path().join("old")).unwrap();
        let to = HostFile::create_new(dir.path().join("new")).unwrap();
        // Version 2; owner rw, user 12 r, group none, mask r, others none.
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (0x01u16, 6u16, u32::MAX),
            (0x02, 4, 12),
            (0x04, 0, u32::MAX),
            (0x10, 4, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        rustix::fs::fsetxattr(&from, ACCESS_LIST, &list, XattrFlags::empty()).unwrap();
        carry_over(&from, &to).unwrap();
        assert_eq!(attribute(&to, ACCESS_LIST).unwrap().unwrap(), list);

        // And an access list that only the new file has goes away.
        rustix::fs::fremovexattr(&from, ACCESS_LIST).unwrap();
        carry_over(&from, &to).unwrap();
        assert_eq!(attribute(&to, ACCESS_LIST).unwrap(), None);
    }
}
