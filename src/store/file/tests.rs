use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;
use crate::store::Memory;

const KIB: u64 = 1024;

fn new_file() -> (TempDir, HostFile) {
    let dir = tempfile::tempdir().unwrap();
    let file = HostFile::create_new(dir.path().join("disk")).unwrap();
    (dir, file)
}

fn path(file: &HostFile) -> &Path {
    ReadAt::path(file).unwrap()
}

fn open_any(path: &Path) -> [Result<HostFile>; 2] {
    [
        HostFile::open_read(path, Locking::Check),
        HostFile::open_write(path, Locking::Check),
    ]
}

#[test]
fn what_holds_no_image_is_refused_without_blocking() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let (kind, mode) = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();

    for (special, word) in [
        (fifo.as_path(), "pipe"),
        (&socket, "socket"),
        (dir.path(), "directory"),
        (Path::new("/dev/null"), "character device"),
    ] {
        for opened in open_any(special) {
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert_eq!(error.path(), Some(special));
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

#[test]
fn opening_never_creates_or_truncates() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for opened in open_any(&missing) {
        assert_eq!(opened.unwrap_err().path(), Some(missing.as_path()));
    }
    assert!(!missing.exists());

    let present = dir.path().join("present");
    std::fs::write(&present, "bytes").unwrap();
    let file = HostFile::open_write(&present, Locking::Check).unwrap();
    file.write_all_at(b"B", 0).unwrap();
    assert_eq!(std::fs::read(&present).unwrap(), b"Bytes");
    assert!(HostFile::create_new(&present).is_err());
}

#[test]
fn a_short_file_is_an_error_that_names_path_and_offset() {
    let (_dir, file) = new_file();
    file.write_all_at(&[1; 100], 0).unwrap();
    let mut buf = [0; 64];
    let error = file.read_exact_at(&mut buf, 60).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(path(&file)));
    assert_eq!(error.host_offset(), Some(100));

    // Asked for, the rest is zero; but what the file had once and lost is not.
    file.read_zero_filled(&mut buf, 60).unwrap();
    assert_eq!(
        (&buf[..40], &buf[40..]),
        ([1; 40].as_slice(), [0; 24].as_slice())
    );
    rustix::fs::ftruncate(&file, 80).unwrap();
    let error = file.read_zero_filled(&mut buf, 60).unwrap_err();
    assert_eq!(error.host_offset(), Some(80));
    assert!(file.read_exact_at(&mut buf, u64::MAX).is_err());
}

#[test]
fn the_length_follows_what_is_written() {
    let (_dir, file) = new_file();
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"abc", 10).unwrap();
    assert_eq!(file.len().unwrap(), 13);
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(file.len().unwrap(), 13);
    file.set_len(5).unwrap();
    assert_eq!(file.len().unwrap(), 5);
    file.preallocate(0..4096).unwrap();
    assert_eq!(file.len().unwrap(), 4096);
    assert_eq!(path(&file).metadata().unwrap().len(), 4096);
    let mut buf = [9; 5];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"abc\0\0");
}

#[test]
fn runs_alternate_and_end_with_the_file() {
    let (_dir, file) = new_file();
    file.set_len(1024 * KIB).unwrap();
    file.write_all_at(&[1; 64 << 10], 256 * KIB).unwrap();
    file.will_need(0..1024 * KIB);
    let run = |kind, kib| HostRun {
        kind,
        end: kib * KIB,
    };
    assert_eq!(file.run_at(0).unwrap(), run(RunKind::Hole, 256));
    assert_eq!(file.run_at(100 * KIB).unwrap(), run(RunKind::Hole, 256));
    assert_eq!(file.run_at(256 * KIB).unwrap(), run(RunKind::Data, 320));
    assert_eq!(file.run_at(319 * KIB).unwrap(), run(RunKind::Data, 320));
    assert_eq!(file.run_at(320 * KIB).unwrap(), run(RunKind::Hole, 1024));
    assert_eq!(file.run_at(1024 * KIB).unwrap(), run(RunKind::Hole, 1024));
    assert_eq!(file.run_at(u64::MAX).unwrap(), run(RunKind::Hole, 1024));

    // An end that went away is no hole.
    rustix::fs::ftruncate(&file, 512 * KIB).unwrap();
    assert!(file.run_at(320 * KIB).is_err());
    assert!(file.run_at(600 * KIB).is_err());
}

#[test]
fn a_punched_hole_reads_zero_and_frees_blocks() {
    let (_dir, file) = new_file();
    file.write_all_at(&[1; 1 << 20], 0).unwrap();
    file.sync().unwrap();
    let before = file.allocated_bytes().unwrap();
    assert!(before >= 1 << 20);

    file.punch_hole(64 * KIB..960 * KIB).unwrap();
    file.punch_hole(10..20).unwrap();
    file.punch_hole(1024 * KIB - 1..u64::MAX).unwrap();
    file.punch_hole(5..5).unwrap();

    let freed = before - file.allocated_bytes().unwrap();
    assert!(freed >= 800 * KIB, "{freed}");
    assert_eq!(file.len().unwrap(), 1 << 20);
    let mut bytes = vec![9; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for (at, byte) in bytes.iter().enumerate() {
        let zero = matches!(at, 10..20 | 1_048_575) || (64 << 10..960 << 10).contains(&at);
        assert_eq!(*byte, u8::from(!zero), "at {at}");
    }
}

#[test]
fn zeros_are_written_where_no_hole_can_be() {
    let (_dir, file) = new_file();
    file.write_all_at(&[1; 200_000], 0).unwrap();
    file.write_zeros(1..199_999).unwrap();
    let mut bytes = vec![9; 200_000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[0], bytes[199_999]), (1, 1));
    assert!(bytes[1..199_999].iter().all(|byte| *byte == 0));
}

#[test]
fn preallocated_space_is_allocated() {
    let (_dir, file) = new_file();
    file.preallocate(0..512 * KIB).unwrap();
    assert!(file.allocated_bytes().unwrap() >= 512 * KIB);
}

#[test]
fn the_kernel_copies_between_host_files_only() {
    let (dir, source) = new_file();
    source.write_all_at(b"0123456789", 0).unwrap();
    let target = HostFile::create_new(dir.path().join("target")).unwrap();
    assert_eq!(target.copy_from(&source, 2, 5, 4).unwrap(), 4);
    assert_eq!(target.len().unwrap(), 9);
    // It ends where the source does.
    assert_eq!(target.copy_from(&source, 8, 0, 100).unwrap(), 2);
    let mut bytes = [9; 9];
    target.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [b'8', b'9', 0, 0, 0, b'2', b'3', b'4', b'5']);

    let memory = Memory::from(b"abc".to_vec());
    assert_eq!(target.copy_from(&memory, 0, 0, 3).unwrap(), 0);
    assert_eq!(memory.copy_from(&source, 0, 0, 3).unwrap(), 0);
    // A pointer to a store is that store.
    let shared: std::sync::Arc<dyn WriteAt> = std::sync::Arc::new(target);
    assert_eq!(shared.copy_from(&&source, 0, 0, 1).unwrap(), 1);
}

#[test]
fn a_file_is_the_same_under_all_its_names() {
    let (dir, file) = new_file();
    let [hard, soft, other] = ["hard", "soft", "other"].map(|name| dir.path().join(name));
    std::fs::hard_link(path(&file), &hard).unwrap();
    std::os::unix::fs::symlink("hard", &soft).unwrap();
    std::fs::write(&other, "").unwrap();
    for name in [path(&file), &hard, &soft] {
        assert!(same_file(&file, name).unwrap());
    }
    assert!(!same_file(&file, &other).unwrap());
    assert!(!same_file(&file, dir.path().join("missing")).unwrap());
    assert!(!same_file(&Memory::new(), path(&file)).unwrap());
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let (_dir, file) = new_file();
    let path = path(&file);
    let read = || HostFile::open_read(path, Locking::Check);
    let write = || HostFile::open_write(path, Locking::Check);

    let readers = [read().unwrap(), read().unwrap()];
    let error = write().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(!error.to_string().contains("for writing"), "{error}");
    drop(readers);

    let writer = write().unwrap();
    for refused in [read(), write()] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert_eq!(error.path(), Some(path));
        assert!(error.to_string().contains("for writing"), "{error}");
    }
    HostFile::open_read(path, Locking::Ignore).unwrap();
    HostFile::open_write(path, Locking::Ignore).unwrap();
    drop(writer);
    read().unwrap();
}

#[test]
fn what_is_deallocated_is_a_hole_and_the_length_stays() {
    let (_dir, file) = new_file();
    file.write_all_at(&[7; 64 * 1024], 0).unwrap();
    file.sync().unwrap();
    let before = file.allocated_bytes().unwrap();
    assert!(file.can_deallocate().unwrap());
    assert_eq!(file.allocated_bytes().unwrap(), before);
    assert!(file.block_size().is_power_of_two());
    assert!(file.deallocate(16 * KIB..48 * KIB).unwrap());
    assert!(file.deallocate(60 * KIB..u64::MAX).unwrap());
    assert!(file.deallocate(5..5).unwrap());
    assert_eq!(file.len().unwrap(), 64 * KIB);
    assert!(file.allocated_bytes().unwrap() < before);
    let mut bytes = vec![0; 64 * 1024];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for (at, byte) in (0u64..).zip(bytes) {
        let gone = (16 * KIB..48 * KIB).contains(&at) || at >= 60 * KIB;
        assert_eq!(byte == 0, gone, "{at}");
    }
}
