//! Images that come packed, and images that must not be used.

use std::io::Write;
use std::process::{Command, Stdio};

use qimg::ErrorKind;
use qimg::fetch::{NamedFiles, check_base};
use qimg::image::Format;

use super::oracle_tools::{must, qemu_io};
use super::server::Server;
use super::{Bench, noise, read, sha256};

fn packed(tool: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} must be installed: {error}"));
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn sparse_disk() -> Vec<u8> {
    let mut disk = vec![0; 6 << 20];
    disk[..200_000].copy_from_slice(&noise(200_000));
    disk[5 << 20..][..100_000].copy_from_slice(&noise(100_000));
    disk
}

const TOOLS: [(&str, &[&str], &str); 6] = [
    ("gzip", &["-c"], "gzip"),
    ("xz", &["-c", "-1"], "xz"),
    ("xz", &["-c", "-T2", "--block-size=1MiB"], "xz"),
    ("zstd", &["-c", "-q", "--ultra", "-22"], "zstd"),
    ("zstd", &["-c", "-q", "--long=27"], "zstd"),
    ("bzip2", &["-c"], "bzip2"),
];

#[test]
fn packed_images_are_unpacked_by_their_contents_with_their_holes() {
    let disk = sparse_disk();
    for (tool, options, name) in TOOLS {
        let bytes = packed(tool, options, &disk);
        let server = Server::of(bytes.clone());
        // The ending is nobody's word.
        let mut bench = Bench::of(server.url("disk.qcow2")).expecting(&bytes);
        let fetched = bench.fetch().unwrap();
        assert_eq!(fetched.unpacked.as_deref(), Some(name));
        assert!(read(&fetched.path) == disk, "{tool} {options:?}");
        assert_eq!(fetched.sha256(), Some(&sha256(&bytes)));
        assert_eq!(fetched.format, Format::Raw);
        let info = fetched.path.metadata().unwrap();
        use std::os::unix::fs::MetadataExt;
        assert!(info.blocks() * 512 < 2 << 20, "{} blocks", info.blocks());
        drop(fetched);
        assert!(bench.fetch().unwrap().cached);
        bench.options.verify = true;
        assert!(bench.fetch().unwrap().cached);
        assert_eq!(server.requests().len(), 1);
        let left = bench.options.cache.list().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");

        let mut local = Bench::of("disk").expecting(&bytes);
        local.write("disk", &bytes);
        let fetched = local.fetch().unwrap();
        assert!(read(&fetched.path) == disk);
        assert!(!fetched.cached);
        assert!(local.fetch().unwrap().cached);
        local.urls = vec!["twice".into()];
        let twice = [
            packed(tool, options, &disk[..1 << 20]),
            packed(tool, options, &disk[1 << 20..]),
        ]
        .concat();
        local.write("twice", &twice);
        local.checksum.clear();
        assert!(
            read(&local.fetch().unwrap().path) == disk,
            "two members of {tool}"
        );
    }
}

#[test]
fn a_packed_image_that_is_damaged_leaves_nothing() {
    let disk = sparse_disk();
    for (tool, options, name) in TOOLS {
        let good = packed(tool, options, &disk);
        let mut damaged = good.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        for bytes in [&good[..good.len() / 2], &good[..good.len() - 3], &damaged] {
            let server = Server::of(bytes.to_vec());
            let bench = Bench::of(server.url("disk"));
            let error = bench.fetch().unwrap_err();
            let message = error.to_string();
            assert!(message.contains(name), "{message}");
            assert!(
                bench
                    .options
                    .cache
                    .list()
                    .unwrap()
                    .iter()
                    .all(|item| item.digest.is_none())
            );
        }
    }
}

#[test]
fn the_image_of_a_vagrant_box_is_a_base() {
    let disk = sparse_disk();
    let bench = Bench::of("web.box");
    bench.write("box.img", disk.clone());
    bench.write("metadata.json", b"{\"provider\": \"libvirt\"}");
    bench.write("Vagrantfile", b"# nothing\n");
    let directory = bench.directory.path();
    for members in [
        &["metadata.json", "Vagrantfile", "box.img"],
        &["./box.img", "./metadata.json", "./Vagrantfile"],
    ] {
        let mut arguments = vec!["--sparse", "-czf", "web.box"];
        arguments.extend(members);
        must(directory, "tar", &arguments);
        let fetched = bench.fetch().unwrap();
        assert!(read(&fetched.path) == disk, "{members:?}");
    }
    // Cut off in its image.
    let whole = std::fs::read(bench.path("web.box")).unwrap();
    std::fs::write(bench.path("web.box"), &whole[..whole.len() / 2]).unwrap();
    assert!(bench.fetch().is_err());
}

#[test]
fn what_is_no_image_alone_is_refused_by_name() {
    let bench = Bench::new();
    bench.write("disk.raw", noise(100_000));
    let directory = bench.directory.path();
    must(directory, "tar", &["cf", "disk.tar", "disk.raw"]);
    must(directory, "tar", &["czf", "disk.tar.gz", "disk.raw"]);
    must(directory, "zip", &["-q", "disk.zip", "disk.raw"]);
    for (name, word) in [
        ("disk.tar", "tar archive"),
        ("disk.tar.gz", "tar archive"),
        ("disk.zip", "zip archive"),
    ] {
        let mut bench = Bench::of(name);
        bench.directory = tempfile::tempdir().unwrap();
        std::fs::copy(directory.join(name), bench.path(name)).unwrap();
        let error = bench.fetch().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_qcow2_image_that_unpacks_without_end_is_stopped() {
    let bench = Bench::new();
    must(
        bench.directory.path(),
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "small.qcow2", "1M"],
    );
    let mut bytes = read(&bench.path("small.qcow2"));
    bytes.resize(1100 << 20, 0);
    let server = Server::of(packed("zstd", &["-c", "-q", "-1"], &bytes));
    let bench = Bench::of(server.url("disk.zst"));
    let error = bench.fetch().unwrap_err();
    assert!(
        error.to_string().contains("no image of its size"),
        "{error}"
    );
}

#[test]
fn an_image_that_names_other_files_is_refused() {
    let bench = Bench::new();
    let directory = bench.directory.path();
    let qemu_img = |arguments: &[&str]| {
        must(directory, "qemu-img", arguments);
    };
    bench.write("secret", noise(65536));
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "secret",
        "backed.qcow2",
    ]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-F",
        "raw",
        "-b",
        "json:{\"file.filename\":\"/etc/passwd\"}",
        "json.qcow2",
        "1M",
    ]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=data.raw",
        "data.qcow2",
        "1M",
    ]);
    qemu_img(&["create", "-q", "-f", "qcow2", "plain.qcow2", "1M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "other.vmdk", "1M"]);
    qemu_io(directory, "plain.qcow2", &["write -q -P 1 0 64k"]);
    for (name, word) in [
        ("backed.qcow2", "'secret'"),
        ("json.qcow2", "/etc/passwd"),
        ("data.qcow2", "'data.raw'"),
    ] {
        let bytes = read(&bench.path(name));
        let server = Server::of(bytes.clone());
        let mut remote = Bench::of(server.url(name)).expecting(&bytes);
        remote.named = NamedFiles::Allow;
        let error = remote.fetch().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(word), "{error}");
        // The entry is what the checksum says, and no more usable the second time.
        assert_eq!(remote.fetch().unwrap_err().kind(), ErrorKind::Refused);

        let error = check_base(&bench.path(name), NamedFiles::Refuse).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let checked = check_base(&bench.path("backed.qcow2"), NamedFiles::Allow).unwrap();
    assert_eq!(
        (checked.format, checked.virtual_size),
        (Format::Qcow2, 65536)
    );
    assert!(check_base(&bench.path("plain.qcow2"), NamedFiles::Refuse).is_ok());
    assert!(
        check_base(&bench.path("other.vmdk"), NamedFiles::Refuse)
            .unwrap_err()
            .to_string()
            .contains("vmdk")
    );
    // A disk is what its bytes are, whatever it is called.
    std::fs::rename(bench.path("backed.qcow2"), bench.path("harmless.raw")).unwrap();
    assert!(check_base(&bench.path("harmless.raw"), NamedFiles::Refuse).is_err());
}
