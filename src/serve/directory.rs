//! Files of a directory, and of nothing beyond it.
//!
//! No path leaves the directory: not by `..`, not by a link. Must not know HTTP.

use std::path::{Component, Path, PathBuf};

use crate::error::ErrorKind;
use crate::store::{HostFile, Locking, ReadAt, names_in};

/// What a path in a directory leads to.
#[derive(Debug)]
pub enum Looked {
    /// A file of so many bytes.
    File(HostFile, u64),
    /// A directory, with the names in it in order; those of directories end with `/`.
    Directory(Vec<String>),
    /// Nothing, or nothing that can be read.
    Missing,
    /// Something outside.
    Outside,
}

/// What `path`, relative or with slashes at its begin, leads to in `root`.
pub fn look_beneath(root: &Path, path: &str) -> Looked {
    let mut relative = PathBuf::new();
    for part in Path::new(path.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Looked::Outside;
            }
        }
    }
    let whole = root.join(&relative);
    if whole.is_dir() {
        return names(root, &whole);
    }
    // A file that QEMU has open, too, is served all the same.
    match HostFile::open_beneath(root, &relative, Locking::Ignore) {
        Ok(file) => match file.len() {
            Ok(length) => Looked::File(file, length),
            Err(_) => Looked::Missing,
        },
        Err(error) if error.kind() == ErrorKind::Refused => Looked::Outside,
        Err(_) => Looked::Missing,
    }
}

fn names(root: &Path, directory: &Path) -> Looked {
    // Links are followed only where they stay inside.
    let inside = match (root.canonicalize(), directory.canonicalize()) {
        (Ok(root), Ok(directory)) => directory.starts_with(root),
        _ => return Looked::Missing,
    };
    if !inside {
        return Looked::Outside;
    }
    let Ok(paths) = names_in(directory) else {
        return Looked::Missing;
    };
    let name = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(if path.is_dir() { name + "/" } else { name })
    };
    Looked::Directory(paths.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leaves_the_directory() {
        let bench = tempfile::tempdir().unwrap();
        let root = bench.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(bench.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("sub/ks.cfg"), "text").unwrap();
        symlink("sub/ks.cfg", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let shown = |path: &str| match look_beneath(&root, path) {
            Looked::File(_, length) => format!("file {length}"),
            Looked::Directory(names) => names.join(" "),
            Looked::Missing => "missing".to_owned(),
            Looked::Outside => "outside".to_owned(),
        };
        for (path, wanted) in [
            ("/sub/ks.cfg", "file 4"),
            ("sub//./ks.cfg", "file 4"),
            ("/inside", "file 4"),
            ("/sub", "ks.cfg"),
            ("/", "etc/ inside outside sub/ up/"),
            ("/none", "missing"),
            ("/sub/ks.cfg/x", "missing"),
            ("/../secret", "outside"),
            ("/sub/../../secret", "outside"),
            ("/outside", "outside"),
            ("/etc", "outside"),
            ("/etc/passwd", "outside"),
            ("/up", "outside"),
            ("/up/secret", "outside"),
        ] {
            assert_eq!(shown(path), wanted, "{path}");
        }
    }
}
