//! Paths: where the names in one lead, through directories and symbolic links.
//!
//! The one place that knows `/`, `.`, `..` and what a link does to a path, for all trees; as path_resolution(7) has
//! it, with the tree's root for the root and for the current directory. Knows nothing of formats.

use crate::error::{Error, ErrorKind, Escaped, Result};
use crate::fs::tree::{FileKind, MAX_LINK, Metadata, Node, Tree};

/// Most symbolic links on the way: Linux's `MAXSYMLINKS`.
const MOST_LINKS: usize = 40;
/// The longest path: Linux's `PATH_MAX`.
const LONGEST_PATH: usize = MAX_LINK as usize;
/// The longest name: 255 units of UTF-16 as UTF-8, which VFAT can hold; elsewhere 255 bytes are the most.
const LONGEST_NAME: usize = 3 * 255;

/// What becomes of a symbolic link that is the last name of a path. All others are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// It leads to its target.
    Follow,
    /// It is what is found, as by lstat(2), unless a slash follows it.
    Keep,
}

/// What is at a path.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its number in its tree.
    pub node: Node,
    /// What it says of itself.
    pub metadata: Metadata,
}

impl Found {
    fn at(tree: &dyn Tree, node: Node) -> Result<Self> {
        Ok(Self {
            node,
            metadata: tree.metadata(node)?,
        })
    }

    fn is(self, kind: FileKind) -> bool {
        self.metadata.kind == kind
    }
}

/// What is at `path`; `None` when nothing is, or when something on the way is no directory.
///
/// Relative paths are from the root too, and an empty one is the root. Nothing leads out of the tree: `..` of the root
/// is the root, and targets that begin with a slash begin there.
///
/// # Errors
/// The path or a name in it is too long; more than 40 symbolic links are on the way; whatever the tree fails with.
pub fn resolve(tree: &dyn Tree, path: &[u8], last: LastLink) -> Result<Option<Found>> {
    if path.len() > LONGEST_PATH {
        return Err(Error::usage(format!(
            "a path of {} bytes is longer than {LONGEST_PATH}",
            path.len()
        )));
    }
    let root = Found::at(tree, tree.root())?;
    // From the root to where the walk is.
    let mut way = vec![root];
    // What is left of the path, and of every link's target on top of what was left before it.
    let mut rests = vec![path.to_vec()];
    let mut links = 0;
    while let Some(mut rest) = rests.pop() {
        let Some((name, tail)) = first_name(&rest) else {
            // A slash at its end asks for a directory.
            let here = way.last().copied().unwrap_or(root);
            if !rest.is_empty() && !here.is(FileKind::Directory) {
                return Ok(None);
            }
            continue;
        };
        let here = way.last().copied().unwrap_or(root);
        if !here.is(FileKind::Directory) {
            return Ok(None);
        }
        match name.as_slice() {
            b"." => {}
            b".." => {
                if way.len() > 1 {
                    way.pop();
                }
            }
            _ if name.len() > LONGEST_NAME => {
                return Err(Error::usage(format!(
                    "a name of {} bytes is longer than {LONGEST_NAME}",
                    name.len()
                )));
            }
            _ => {
                let Some(node) = tree.lookup(here.node, &name)? else {
                    return Ok(None);
                };
                let found = Found::at(tree, node)?;
                let is_last = tail == rest.len() && rests.is_empty();
                if found.is(FileKind::Symlink) && !(is_last && last == LastLink::Keep) {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::new(
                            ErrorKind::Unsupported,
                            format!(
                                "more than {MOST_LINKS} symbolic links on the way to '{}'",
                                Escaped(&String::from_utf8_lossy(path))
                            ),
                        ));
                    }
                    let target = tree.read_link(node)?;
                    if target.is_empty() {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    rest.drain(..tail);
                    if !rest.is_empty() {
                        rests.push(rest);
                    }
                    rests.push(target);
                    continue;
                }
                way.push(found);
            }
        }
        rest.drain(..tail);
        if !rest.is_empty() {
            rests.push(rest);
        }
    }
    Ok(way.pop())
}

/// The first name in `path`, and where what follows it begins; `None` when there are only slashes.
fn first_name(path: &[u8]) -> Option<(Vec<u8>, usize)> {
    let start = path.iter().position(|&byte| byte != b'/')?;
    let name = path.get(start..)?.split(|&byte| byte == b'/').next()?;
    Some((name.to_vec(), start + name.len()))
}

#[cfg(test)]
mod tests {
    use std::ops::{ControlFlow, Range};

    use super::*;
    use crate::fs::tree::{DirEntry, Piece};

    /// Node, parent, name, and a target for links; files have names with a dot.
    const NODES: [(u64, u64, &str, Option<&str>); 16] = [
        (1, 0, "usr", None),
        (2, 1, "lib", None),
        (3, 2, "os.release", None),
        (4, 0, "lib", Some("usr/lib")),
        (5, 0, "etc", None),
        (6, 5, "os.release", Some("../usr/lib/os.release")),
        (7, 5, "absolute", Some("/etc/os.release")),
        (8, 5, "out", Some("../../../../../usr/./lib//")),
        (9, 0, "loop", Some("loop")),
        (10, 0, "a", Some("b/x")),
        (11, 0, "b", Some("/a")),
        (12, 5, "dangling", Some("nothing/here")),
        (13, 5, "empty", Some("")),
        (14, 5, "file-as-directory", Some("/etc/os.release/")),
        (15, 0, "root", Some("/")),
        (16, 5, "dot", Some(".")),
    ];

    struct Fake;

    impl Tree for Fake {
        fn format(&self) -> &'static str {
            "fake"
        }

        fn root(&self) -> Node {
            Node(0)
        }

        fn metadata(&self, node: Node) -> Result<Metadata> {
            let kind = match NODES.iter().find(|(number, ..)| *number == node.0) {
                Some((.., Some(_))) => FileKind::Symlink,
                Some((_, _, name, None)) if name.contains('.') => FileKind::File,
                _ => FileKind::Directory,
            };
            Ok(Metadata {
                kind,
                permissions: 0,
                uid: 0,
                gid: 0,
                size: 0,
                links: 1,
                inode: node.0,
                accessed: None,
                modified: None,
                changed: None,
                created: None,
                device: None,
            })
        }

        fn read_dir(
            &self,
            node: Node,
            each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
        ) -> Result<()> {
            for (number, parent, name, _) in NODES {
                if parent == node.0 {
                    let _ = each(DirEntry {
                        name: name.as_bytes(),
                        node: Node(number),
                        kind: None,
                    });
                }
            }
            Ok(())
        }

        fn read_link(&self, node: Node) -> Result<Vec<u8>> {
            let found = NODES.iter().find(|(number, ..)| *number == node.0);
            Ok(found.unwrap().3.unwrap().into())
        }

        fn read_file(
            &self,
            _: Node,
            _: Range<u64>,
            _: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
        ) -> Result<()> {
            unreachable!("paths have no contents")
        }
    }

    fn at(path: &str, last: LastLink) -> Option<u64> {
        let found = resolve(&Fake, path.as_bytes(), last).unwrap();
        found.map(|found| found.node.0)
    }

    #[test]
    fn paths_lead_where_linux_says() {
        for (path, followed, kept) in [
            ("", Some(0), Some(0)),
            ("/", Some(0), Some(0)),
            ("///", Some(0), Some(0)),
            ("..", Some(0), Some(0)),
            ("/../.././usr", Some(1), Some(1)),
            ("usr//lib/", Some(2), Some(2)),
            ("/lib", Some(2), Some(4)),
            ("/lib/", Some(2), Some(2)),
            ("/lib/.", Some(2), Some(2)),
            ("/lib/..", Some(1), Some(1)),
            ("/lib/os.release", Some(3), Some(3)),
            ("/lib/os.release/", None, None),
            ("/lib/os.release/.", None, None),
            ("/lib/os.release/..", None, None),
            ("/etc/os.release", Some(3), Some(6)),
            ("/etc/os.release/", None, None),
            ("/etc/absolute", Some(3), Some(7)),
            ("/etc/out", Some(2), Some(8)),
            ("/etc/out/os.release", Some(3), Some(3)),
            ("/etc/dangling", None, Some(12)),
            ("/etc/empty", None, Some(13)),
            ("/etc/file-as-directory", None, Some(14)),
            ("/root/root/etc/dot/../root/usr", Some(1), Some(1)),
            ("/nothing", None, None),
            ("/nothing/..", None, None),
            ("/usr/Lib", None, None),
        ] {
            assert_eq!(at(path, LastLink::Follow), followed, "{path}");
            assert_eq!(at(path, LastLink::Keep), kept, "{path}");
        }
    }

    #[test]
    fn links_in_a_circle_are_an_error_that_says_so() {
        for path in ["/loop", "/a", "/b", "/loop/x"] {
            let error = resolve(&Fake, path.as_bytes(), LastLink::Follow).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("more than 40 symbolic links on the way to '{path}'")
            );
        }
        assert_eq!(at("/loop", LastLink::Keep), Some(9));
        // As many as Linux follows.
        assert_eq!(
            at(&format!("{}usr", "root/".repeat(40)), LastLink::Follow),
            Some(1)
        );
        assert!(resolve(&Fake, "root/".repeat(41).as_bytes(), LastLink::Follow).is_err());
    }

    #[test]
    fn long_paths_and_names_are_refused() {
        assert_eq!(at(&"./".repeat(2048), LastLink::Follow), Some(0));
        assert!(resolve(&Fake, "./".repeat(2049).as_bytes(), LastLink::Follow).is_err());
        assert_eq!(at(&"x".repeat(765), LastLink::Follow), None);
        assert!(resolve(&Fake, "x".repeat(766).as_bytes(), LastLink::Follow).is_err());
    }
}
