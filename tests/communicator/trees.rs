//! Directories of a guest, listed and found by its own tools.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use qimg::ErrorKind;
use qimg::communicator::tree::{self, Entry, Kind};

use crate::servers::Sshd;

#[test]
fn a_directory_is_listed_with_all_that_is_in_it() {
    let sshd = Sshd::start("");
    let guest = sshd.ssh();
    let root = sshd.at("root dir's");
    let path = root.to_str().unwrap();
    tree::make_directory(&guest, &format!("{path}/sub/deep")).unwrap();
    tree::make_directory(&guest, &format!("{path}/sub/deep")).unwrap();
    fs::write(root.join("sub/line\nbreak"), "").unwrap();
    fs::write(root.join("-file"), "").unwrap();
    fs::write(root.join("run me"), "").unwrap();
    fs::set_permissions(root.join("run me"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run me", root.join("to file")).unwrap();
    symlink("sub", root.join("to directory")).unwrap();
    symlink("nowhere", root.join("to nothing")).unwrap();

    let file = |path: &str, executable| Entry {
        path: path.to_owned(),
        kind: Kind::File { executable },
    };
    let other = |path: &str, kind| Entry {
        path: path.to_owned(),
        kind,
    };
    let all = [
        other("", Kind::Directory),
        file("-file", false),
        file("run me", true),
        other("sub", Kind::Directory),
        other("sub/deep", Kind::Directory),
        file("sub/line\nbreak", false),
        other("to directory", Kind::Other),
        file("to file", true),
        other("to nothing", Kind::Other),
    ];
    assert_eq!(tree::list(&guest, path).unwrap(), all);
    assert_eq!(tree::list(&guest, &format!("{path}/")).unwrap(), all);
    assert_eq!(
        tree::list(&guest, &format!("{path}/run me")).unwrap(),
        [file("", true)]
    );
    assert!(tree::is_directory(&guest, path).unwrap());
    assert!(!tree::is_directory(&guest, "/etc/passwd").unwrap());

    let error = tree::list(&guest, "/nowhere").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guest);
    assert!(error.to_string().contains("No such file"), "{error}");
    let error = tree::make_directory(&guest, "/proc/x").unwrap_err();
    assert!(error.to_string().contains("/proc/x"), "{error}");
}

#[test]
fn patterns_find_files_and_run_nothing() {
    let sshd = Sshd::start("");
    let guest = sshd.ssh();
    let root = sshd.at("logs");
    fs::create_dir(&root).unwrap();
    for name in ["a.log", "b.log", "c.txt", "d e.log"] {
        fs::write(root.join(name), "").unwrap();
    }
    let path = root.to_str().unwrap();
    let found = |pattern: &str| tree::glob(&guest, &format!("{path}/{pattern}")).unwrap();
    let expected: Vec<String> = ["a.log", "b.log", "d e.log"]
        .iter()
        .map(|name| format!("{path}/{name}"))
        .collect();
    assert_eq!(found("*.log"), expected);
    assert_eq!(found("[ac].*").len(), 2);
    assert_eq!(found("d e*").len(), 1);
    assert!(found("*.none").is_empty());
    assert!(found("$(touch x)*;touch x").is_empty());
}
