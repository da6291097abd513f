//! What is packed is unpacked by the programs that people have, and is the same whenever and by however many threads.

use qimg::template::model::Dialect;

use super::oracle_tools::{must, qemu_io, run};
use super::{Bench, checksum, compress, compress_at};

fn disk() -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes = vec![0; 3 << 20];
    for at in (0..bytes.len()).filter(|at| at / (1 << 18) % 3 != 1) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes[at] = (state >> 30) as u8 * 17;
    }
    bytes
}

fn kept(output: &str, level: Option<i32>) -> super::PostProcessor {
    let mut post_processor = compress_at(output, level);
    post_processor.keep_input = Some(true);
    post_processor
}

#[test]
fn one_file_is_read_by_the_program_of_its_ending() {
    let disk = disk();
    let cases: [(&str, &str, &[i32]); 6] = [
        ("disk.gz", "gzip", &[1, 9]),
        ("disk.zst", "zstd", &[1, 9]),
        ("disk.xz", "xz", &[0, 6]),
        ("disk.bz2", "bzip2", &[1, 9]),
        ("disk.bzip2", "bzip2", &[]),
        ("disk.LZ4", "lz4", &[1, 9]),
    ];
    for (output, tool, levels) in cases {
        let mut bench = Bench::new(&[("disk.img", &disk)]);
        let mut sizes = Vec::new();
        for level in levels.iter().copied().map(Some).chain([None]) {
            let mut made = Vec::new();
            for threads in [1, 2, 5] {
                bench.threads = threads;
                bench.must(&[kept(output, level)]);
                made.push(bench.read(output));
            }
            assert!(
                made[0] == made[1] && made[0] == made[2],
                "{output} {level:?}: threads matter"
            );
            must(
                bench.directory.path(),
                "sh",
                &["-c", &format!("{tool} -t < {output}")],
            );
            let unpacked = must(
                bench.directory.path(),
                "sh",
                &["-c", &format!("{tool} -dc < {output}")],
            );
            assert!(unpacked.stdout == disk, "{output} {level:?}");
            sizes.push(made[0].len());
        }
        assert!(
            levels.is_empty() || sizes[0] > sizes[1],
            "{output}: {sizes:?}"
        );
        bench.must(&[kept("empty.img.gz", None)]);
    }
}

#[test]
fn an_empty_file_is_packed_as_well() {
    for (output, tool) in [
        ("e.gz", "gzip"),
        ("e.zst", "zstd"),
        ("e.xz", "xz"),
        ("e.bz2", "bzip2"),
        ("e.lz4", "lz4"),
    ] {
        let mut bench = Bench::new(&[("empty.img", b"")]);
        bench.must(&[compress(output)]);
        let unpacked = must(
            bench.directory.path(),
            "sh",
            &["-c", &format!("{tool} -dc < {output}")],
        );
        assert!(unpacked.stdout.is_empty(), "{output}");
    }
}

#[test]
fn several_files_go_into_archives_that_differ_in_nothing_but_them() {
    let disk = disk();
    let files: [(&str, &[u8]); 2] = [("disk.img", &disk), ("efivars.fd", b"variables")];
    for output in [
        "a.tar",
        "a.tar.gz",
        "a.tgz",
        "a.tar.zst",
        "a.tar.xz",
        "a.tar.bz2",
        "a.tar.lz4",
        "a.zip",
    ] {
        let made: Vec<Vec<u8>> = [1, 3]
            .into_iter()
            .map(|threads| {
                let mut bench = Bench::new(&files);
                // Other times, other modes: the same bytes.
                let when = format!("@{threads}000000000");
                must(
                    bench.directory.path(),
                    "touch",
                    &["-d", &when, "output/disk.img"],
                );
                must(
                    bench.directory.path(),
                    "chmod",
                    &[if threads == 1 { "600" } else { "755" }, "output/disk.img"],
                );
                bench.threads = threads;
                bench.must(&[compress(output)]);
                assert_eq!(bench.names(), [output]);
                for (name, bytes) in files {
                    let unpacked = must(bench.directory.path(), "bsdtar", &["xOf", output, name]);
                    assert!(unpacked.stdout == bytes, "{output} {name}");
                }
                if output.ends_with(".zip") {
                    must(bench.directory.path(), "unzip", &["-tq", output]);
                } else {
                    // tar does not know lz4 by itself.
                    let command = match output {
                        "a.tar.lz4" => "lz4 -dc a.tar.lz4 | tar xvf -".to_owned(),
                        _ => format!("tar xvf {output}"),
                    };
                    let told = must(bench.directory.path(), "sh", &["-c", &command]);
                    assert_eq!(told.stdout, b"disk.img\nefivars.fd\n");
                    assert!(
                        told.stderr.is_empty(),
                        "{}",
                        String::from_utf8_lossy(&told.stderr)
                    );
                }
                bench.read(output)
            })
            .collect();
        assert!(made[0] == made[1], "{output}");
    }
    for output in ["disk.gz", "disk.qcow2"] {
        let error = Bench::new(&files).failure(&[compress(output)]);
        assert!(
            error
                .to_string()
                .contains("output/disk.img, output/efivars.fd"),
            "{error}"
        );
    }
}

#[test]
fn holes_are_not_read() {
    let mut bench = Bench::new(&[("disk.img", b"")]);
    must(
        bench.directory.path(),
        "truncate",
        &["-s", "2415919104", "output/disk.img"],
    );
    let started = std::time::Instant::now();
    bench.must(&[kept("disk.tar.zst", Some(1))]);
    let listed = must(bench.directory.path(), "tar", &["tvf", "disk.tar.zst"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("2415919104"));
    assert!(started.elapsed().as_secs() < 120);
}

#[test]
fn a_qcow2_image_is_encoded_anew() {
    let mut bench = Bench::new(&[]);
    let directory = bench.directory.path().to_owned();
    must(
        &directory,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "output/disk.qcow2", "64M"],
    );
    qemu_io(
        &directory,
        "output/disk.qcow2",
        &["write -q -P 7 0 9M", "write -q -P 9 33M 1M"],
    );
    bench.artifact.files = vec!["output/disk.qcow2".into()];
    bench.must(&[kept("small.qcow2", None), kept("best.qcow2", Some(12))]);
    must(&directory, "qemu-img", &["check", "-q", "small.qcow2"]);
    must(
        &directory,
        "qemu-img",
        &["compare", "-q", "output/disk.qcow2", "best.qcow2"],
    );
    assert!(bench.read("small.qcow2").len() < bench.read("output/disk.qcow2").len() / 4);
    let stopped = bench.run_until(&[vec![kept("never.qcow2", None)]], &|| true);
    assert!(stopped.is_err() && !bench.path("never.qcow2").exists());
}

#[test]
fn levels_and_endings_that_do_not_exist() {
    let mut bench = Bench::new(&[("disk.img", b"disk")]);
    bench.must(&[kept("disk.gz", Some(20)), kept("disk.name", None)]);
    assert!(bench.told[0].contains("9 is taken"), "{:?}", bench.told);
    assert!(bench.told[1].contains("'name'"), "{:?}", bench.told);
    bench.dialect = Dialect::Native;
    assert!(
        bench
            .failure(&[kept("disk.gz", Some(20))])
            .to_string()
            .contains("from 1 to 9")
    );
    assert!(
        bench
            .failure(&[kept("disk.name", None)])
            .remedy()
            .unwrap()
            .contains("zst")
    );
    assert!(
        bench
            .failure(&[kept("disk.bgzf", None)])
            .remedy()
            .unwrap()
            .contains(".gz")
    );
}

#[test]
fn checksums_are_checked_by_coreutils() {
    let disk = disk();
    let mut bench = Bench::new(&[("disk.img", &disk), ("two words\\", b"x")]);
    for (kind, tool) in [
        ("md5", "md5sum"),
        ("sha1", "sha1sum"),
        ("sha224", "sha224sum"),
        ("sha256", "sha256sum"),
        ("sha384", "sha384sum"),
        ("sha512", "sha512sum"),
    ] {
        for output in ["SUMS", "output/SUMS"] {
            let output = format!("{output}.{kind}");
            // Twice: no line stands there twice, or stays when its file has changed.
            bench.must(&[checksum(&[kind], &output, true)]);
            std::fs::write(bench.path("output/two words\\"), kind).unwrap();
            bench.must(&[checksum(&[kind], &output, true)]);
            let lines = String::from_utf8(bench.read(&output)).unwrap();
            assert_eq!(lines.lines().count(), 2, "{lines}");
            let (directory, name) = output.rsplit_once('/').unwrap_or(("", &output));
            let checked = must(&bench.path(directory), tool, &["-c", "--strict", name]);
            assert!(String::from_utf8_lossy(&checked.stdout).contains("disk.img: OK"));
        }
    }
    let missing = run(
        bench.directory.path(),
        "sha256sum",
        &["-c", "--strict", "SUMS.md5"],
    );
    assert!(!missing.status.success());
}
