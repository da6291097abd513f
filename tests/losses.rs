//! What a slip on the command line would destroy is there afterwards: the image below an overlay, what a target holds, what
//! only a damaged image still has.

mod oracle;

use std::process::{Command, Output};

use oracle::{Scratch, qemu_img, qemu_io};

struct Bench(Scratch);

impl Bench {
    /// `base.qcow2` is full of nines, `over.qcow2` is an empty overlay of it, `empty.qcow2` reads as zeros.
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.create("base.qcow2", &["-f", "qcow2"], "1M");
        qemu_io("qcow2", &scratch.path("base.qcow2"), &["write -P 9 0 1M"]);
        scratch.create("empty.qcow2", &["-f", "qcow2"], "1M");
        let bench = Self(scratch);
        bench.overlay("over.qcow2", "base.qcow2");
        bench
    }

    fn overlay(&self, name: &str, of: &str) {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", of, name])
            .current_dir(self.0.directory())
            .status();
        assert!(made.unwrap().success());
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name)
    }

    fn qimg(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_qimg"))
            .args(arguments)
            .current_dir(self.0.directory())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn well(&self, arguments: &[&str]) {
        let output = self.qimg(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// It is refused with these words, and no file of the directory is another one.
    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let before = self.files();
        let output = self.qimg(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(self.files() == before, "{arguments:?} changed something");
    }

    fn files(&self) -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.0.directory())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
}

#[test]
fn no_image_becomes_its_own_backing_file() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("base.qcow2", bench.path("link.qcow2")).unwrap();
    let words = "its own backing file";
    let of = ["-F", "qcow2"];
    for arguments in [
        &["compress", "over.qcow2", "base.qcow2"][..],
        &["compress", "over.qcow2", "link.qcow2"],
        &["compress", "-n", "over.qcow2", "base.qcow2"],
        &[
            "convert",
            "-B",
            "base.qcow2",
            of[0],
            of[1],
            "over.qcow2",
            "base.qcow2",
        ],
        &[
            "convert",
            "-o",
            "backing_file=empty.qcow2,backing_fmt=qcow2",
            "base.qcow2",
            "empty.qcow2",
        ],
        &[
            "create",
            "-f",
            "qcow2",
            "-b",
            "base.qcow2",
            of[0],
            of[1],
            "base.qcow2",
        ],
        &[
            "create",
            "-f",
            "qcow2",
            "-b",
            "base.qcow2",
            of[0],
            of[1],
            "link.qcow2",
        ],
        &[
            "create",
            "-f",
            "qcow2",
            "-u",
            "-b",
            "link.qcow2",
            of[0],
            of[1],
            "base.qcow2",
            "1M",
        ],
        &[
            "create",
            "-f",
            "qcow2",
            "-u",
            "-b",
            "new.qcow2",
            of[0],
            of[1],
            "new.qcow2",
            "1M",
        ],
    ] {
        bench.refused(arguments, words);
    }
}

#[test]
fn an_existing_target_takes_only_what_it_can_hold() {
    let bench = Bench::new();
    bench.0.create("zlib.qcow2", &["-f", "qcow2"], "1M");
    let zstd = ["-f", "qcow2", "-o", "compression_type=zstd"];
    bench.0.create("zstd.qcow2", &zstd, "1M");
    bench.0.create("large.qcow2", &["-f", "qcow2"], "4M");
    for (arguments, words) in [
        (
            &[
                "compress",
                "-n",
                "--codec",
                "zstd",
                "base.qcow2",
                "zlib.qcow2",
            ][..],
            "are zlib, not zstd",
        ),
        (
            &["compress", "-n", "base.qcow2", "zstd.qcow2"],
            "are zstd, not zlib",
        ),
        (
            &[
                "convert",
                "-n",
                "-O",
                "qcow2",
                "-c",
                "base.qcow2",
                "zstd.qcow2",
            ],
            "are zstd, not zlib",
        ),
        (
            &["compress", "-n", "over.qcow2", "zlib.qcow2"],
            "needs 'base.qcow2' below it",
        ),
    ] {
        bench.refused(arguments, words);
    }
    bench.well(&[
        "compress",
        "-n",
        "--codec",
        "zstd",
        "base.qcow2",
        "zstd.qcow2",
    ]);
    bench.well(&["convert", "-n", "-O", "qcow2", "base.qcow2", "zlib.qcow2"]);
    bench.well(&["convert", "-n", "-O", "qcow2", "base.qcow2", "large.qcow2"]);
    for name in ["zlib.qcow2", "zstd.qcow2"] {
        qemu_img(&["compare", &bench.path("base.qcow2"), &bench.path(name)]);
    }
    // Behind what is written there is something now.
    qemu_io("qcow2", &bench.path("large.qcow2"), &["write -P 7 3M 64k"]);
    bench.refused(
        &["convert", "-n", "-O", "qcow2", "base.qcow2", "large.qcow2"],
        "holds data behind it, at 3145728",
    );
}

#[test]
fn an_image_without_a_backing_file_shows_nothing_of_a_new_one() {
    let bench = Bench::new();
    qemu_io(
        "qcow2",
        &bench.path("empty.qcow2"),
        &["write -P 5 128k 64k"],
    );
    for more in [&[][..], &["-c"]] {
        let mut arguments = vec!["convert", "-B", "base.qcow2", "-F", "qcow2"];
        arguments.extend(more);
        arguments.extend(["empty.qcow2", "out.qcow2"]);
        bench.well(&arguments);
        qemu_img(&[
            "compare",
            &bench.path("empty.qcow2"),
            &bench.path("out.qcow2"),
        ]);
        qemu_img(&["check", &bench.path("out.qcow2")]);
    }
    // What an overlay leaves to its own backing file is left to the new one.
    bench.well(&[
        "convert",
        "-B",
        "base.qcow2",
        "-F",
        "qcow2",
        "over.qcow2",
        "out.qcow2",
    ]);
    qemu_img(&[
        "compare",
        &bench.path("over.qcow2"),
        &bench.path("out.qcow2"),
    ]);
    bench.refused(
        &[
            "convert",
            "-B",
            "nowhere.qcow2",
            "-F",
            "qcow2",
            "over.qcow2",
            "out.qcow2",
        ],
        "nowhere.qcow2",
    );
}

#[test]
fn what_only_a_damaged_image_has_is_not_compressed_away() {
    let bench = Bench::new();
    bench.0.create("damaged.qcow2", &["-f", "qcow2"], "1M");
    let path = bench.path("damaged.qcow2");
    qemu_io("qcow2", &path, &["write -P 1 0 64k", "write -P 2 64k 64k"]);
    let whole = std::fs::read(&path).unwrap();
    // The second guest cluster says that it is where the first one is: its own has leaked.
    let mut bytes = whole.clone();
    let table = 4 * 65536;
    let first: [u8; 8] = bytes[table..table + 8].try_into().unwrap();
    bytes[table + 8..table + 16].copy_from_slice(&first);
    std::fs::write(&path, &bytes).unwrap();
    bench.refused(&["compress", "--in-place", "damaged.qcow2"], "has errors");
    // Marked corrupt, and not closed.
    for bit in [2, 1] {
        let mut bytes = whole.clone();
        bytes[79] |= bit;
        std::fs::write(&path, &bytes).unwrap();
        bench.refused(
            &["compress", "--in-place", "damaged.qcow2"],
            "damaged.qcow2",
        );
        bench.refused(
            &[
                "convert",
                "-n",
                "-O",
                "qcow2",
                "base.qcow2",
                "damaged.qcow2",
            ],
            "marked corrupt, or was not closed",
        );
        // Another image may be made of it.
        bench.well(&["compress", "damaged.qcow2", "saved.qcow2"]);
    }
}

#[test]
fn an_encrypted_image_is_not_taken_for_an_empty_one() {
    let bench = Bench::new();
    let secret = ["--object", "secret,id=s,data=abc", "-f", "qcow2"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let mut arguments = secret.to_vec();
    arguments.extend(["-o", luks]);
    bench.0.create("luks.qcow2", &arguments, "4M");
    bench.refused(&["compress", "--in-place", "luks.qcow2"], "is encrypted");
    bench.refused(&["compress", "luks.qcow2", "out.qcow2"], "is encrypted");
    bench.refused(
        &["convert", "-O", "raw", "luks.qcow2", "out.raw"],
        "is encrypted",
    );
}
