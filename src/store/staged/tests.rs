use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use super::*;
use crate::error::ErrorKind;

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn write_and_commit(destination: &Path, bytes: &[u8], sync: Sync) -> Result<()> {
    let staged = Staged::create(destination)?;
    staged.write_all_at(bytes, 0)?;
    staged.commit(sync)
}

#[test]
fn it_appears_complete_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    for sync in [Sync::Full, Sync::None] {
        let staged = Staged::create(&destination).unwrap();
        staged.write_all_at(b"bytes", 0).unwrap();
        assert_eq!(staged.len().unwrap(), 5);
        assert_eq!(staged.path(), Some(destination.as_path()));
        assert!(!destination.exists());
        staged.commit(sync).unwrap();
        assert_eq!(std::fs::read(&destination).unwrap(), b"bytes");
        assert_eq!(names(dir.path()), ["disk"]);
        std::fs::remove_file(&destination).unwrap();
    }
}

#[test]
fn dropping_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    std::fs::write(&destination, "old").unwrap();
    let staged = Staged::create(&destination).unwrap();
    let still_open = staged.file();
    staged.write_all_at(b"new", 0).unwrap();
    assert_eq!(names(dir.path()).len(), 2);
    drop(staged);
    assert_eq!(names(dir.path()), ["disk"]);
    assert_eq!(std::fs::read(&destination).unwrap(), b"old");
    drop(still_open);

    Staged::create(&destination).unwrap().discard().unwrap();
    let panicked = std::panic::catch_unwind(|| {
        let _staged = Staged::create(&destination).unwrap();
        panic!("half way");
    });
    assert!(panicked.is_err());
    assert_eq!(names(dir.path()), ["disk"]);
}

#[test]
fn a_new_file_has_the_mode_that_open_gives() {
    let dir = tempfile::tempdir().unwrap();
    let [plain, staged] = ["plain", "staged"].map(|name| dir.path().join(name));
    std::fs::write(&plain, "").unwrap();
    write_and_commit(&staged, b"", Sync::None).unwrap();
    assert_eq!(
        staged.metadata().unwrap().mode(),
        plain.metadata().unwrap().mode()
    );
}

#[test]
fn a_replaced_file_hands_on_mode_and_attributes_before_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    std::fs::write(&destination, "old").unwrap();
    std::fs::set_permissions(&destination, PermissionsExt::from_mode(0o604)).unwrap();
    let empty = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&destination, "user.origin", b"here", empty).unwrap();

    let staged = Staged::create(&destination).unwrap();
    let mode = rustix::fs::fstat(&*staged.file()).unwrap().st_mode;
    assert_eq!(mode & 0o7777, 0o604);
    staged.commit(Sync::None).unwrap();
    assert_eq!(destination.metadata().unwrap().mode() & 0o7777, 0o604);
    let mut value = [0; 4];
    rustix::fs::getxattr(&destination, "user.origin", value.as_mut_slice()).unwrap();
    assert_eq!(&value, b"here");
    assert_eq!(destination.metadata().unwrap().len(), 0);
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    std::fs::create_dir(dir.path().join("there")).unwrap();
    let target = dir.path().join("there/disk");
    symlink("second", &first).unwrap();
    symlink("there/../there/disk", &second).unwrap();

    // Dangling at first, then not.
    for bytes in [b"one", b"two"] {
        write_and_commit(&first, bytes, Sync::Full).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), bytes);
        assert!(first.is_symlink() && second.is_symlink() && !target.is_symlink());
    }
    assert_eq!(names(dir.path()), ["first", "second", "there"]);
    assert_eq!(names(&dir.path().join("there")), ["disk"]);

    let looped = dir.path().join("looped");
    symlink("looped", &looped).unwrap();
    assert_eq!(
        Staged::create(&looped).unwrap_err().path(),
        Some(looped.as_path())
    );
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    let trailing = dir.path().join("new/");
    let link = dir.path().join("link");
    symlink("/dev/null", &link).unwrap();
    for refused in [dir.path(), &fifo, &trailing, Path::new("/dev/null"), &link] {
        let error = Staged::create(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert_eq!(error.path(), Some(refused));
    }
    assert_eq!(names(dir.path()), ["fifo", "link"]);
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("no/disk");
    let error = Staged::create(&destination).unwrap_err();
    assert!(error.to_string().contains("/no does not exist"), "{error}");
    assert!(error.remedy().is_some());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Staged::create(file.join("disk")).is_err());
}

#[test]
fn a_destination_in_use_is_refused_then_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    std::fs::write(&destination, "old").unwrap();
    let reader = HostFile::open_read(&destination, Locking::Check).unwrap();
    let error = Staged::create(&destination).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let rewriting = Staged::create_with(&destination, Locking::Ignore).unwrap();
    rewriting.commit(Sync::None).unwrap();
    drop(reader);

    // While it is being replaced nobody begins to use it.
    let staged = Staged::create(&destination).unwrap();
    let error = HostFile::open_read(&destination, Locking::Check).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    // Unless it is another file by then.
    std::fs::remove_file(&destination).unwrap();
    std::fs::write(&destination, "newcomer").unwrap();
    let reader = HostFile::open_read(&destination, Locking::Check).unwrap();
    let error = staged.commit(Sync::None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(names(dir.path()), ["disk"]);
    assert_eq!(std::fs::read(&destination).unwrap(), b"newcomer");
    drop(reader);
}

#[test]
fn a_finished_file_is_free_even_while_its_writer_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    let staged = Staged::create(&destination).unwrap();
    let _open = staged.file();
    staged.commit(Sync::None).unwrap();
    HostFile::open_write(&destination, Locking::Check).unwrap();
    write_and_commit(&destination, b"again", Sync::None).unwrap();
}

/// The process that [`a_killed_run_leaves_one_file_and_the_next_removes_it`] kills.
#[test]
#[ignore = "runs as a child of another test"]
fn child_that_never_commits() {
    let destination = std::env::var_os("QIMG_TEST_DESTINATION").unwrap();
    let staged = Staged::create(PathBuf::from(destination)).unwrap();
    staged.write_all_at(b"half", 0).unwrap();
    // Captured by the test harness otherwise.
    std::io::Write::write_all(&mut std::io::stderr(), b"staged\n").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_run_leaves_one_file_and_the_next_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("disk");
    std::fs::write(&destination, "old").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("store::staged::tests::child_that_never_commits")
        .env("QIMG_TEST_DESTINATION", &destination)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let staged = stderr.lines().any(|line| line.unwrap() == "staged");
    assert!(staged);
    let both = names(dir.path());
    assert_eq!(both.len(), 2);

    // Another destination in the same directory leaves a live one alone.
    let other = dir.path().join("other");
    write_and_commit(&other, b"", Sync::None).unwrap();
    std::fs::remove_file(&other).unwrap();
    assert_eq!(names(dir.path()), both);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(dir.path()), both);
    assert_eq!(std::fs::read(&destination).unwrap(), b"old");

    write_and_commit(&destination, b"new", Sync::Full).unwrap();
    assert_eq!(names(dir.path()), ["disk"]);
    assert_eq!(std::fs::read(&destination).unwrap(), b"new");
}
