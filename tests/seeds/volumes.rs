//! The volumes hold, to every tool, what was put into them.

use std::collections::BTreeSet;

use crate::Bench;

const NETWORK: &str = "version: 2\nethernets:\n  first: {match: {name: 'e*'}, dhcp4: true}\n";
const VENDOR: &str = "#!/bin/sh\necho vendor\n";

fn full(bench: &Bench, more: &[&str]) {
    bench.file("network", NETWORK);
    bench.file("vendor", VENDOR);
    bench.file("empty", "");
    let mut arguments = vec![
        "seed",
        "user-data",
        "--hostname",
        "web1",
        "--network-config",
        "network",
    ];
    arguments.extend([
        "--vendor-data",
        "vendor",
        "--add",
        "a rather long name, even so.txt=empty",
        "-q",
    ]);
    arguments.extend(more);
    bench.qimg(&arguments).well();
}

const NAMES: [&str; 5] = [
    "a rather long name, even so.txt",
    "meta-data",
    "network-config",
    "user-data",
    "vendor-data",
];

#[test]
fn an_iso_is_read_the_same_by_every_reader() {
    let bench = Bench::new();
    full(&bench, &["-o", "seed.iso"]);
    let told = bench.tool("isoinfo", &["-d", "-i", "seed.iso"]);
    for line in [
        "Volume id: cidata\n",
        "Joliet with UCS level 3 found\n",
        "Rock Ridge signatures version 1 found\n",
        "Logical block size is: 2048\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    for extension in ["-R", "-J"] {
        let told = bench.tool("isoinfo", &["-f", extension, "-i", "seed.iso"]);
        let names: BTreeSet<&str> = told
            .lines()
            .map(|line| line.trim_start_matches('/'))
            .collect();
        assert_eq!(names, BTreeSet::from(NAMES), "{extension}");
        for (name, contents) in [("/vendor-data", VENDOR), ("/network-config", NETWORK)] {
            let got = bench.tool("isoinfo", &[extension, "-i", "seed.iso", "-x", name]);
            assert_eq!(got, contents, "{extension} {name}");
        }
    }
    let plain = bench.tool("isoinfo", &["-f", "-i", "seed.iso"]);
    let plain: Vec<&str> = plain.lines().collect();
    assert_eq!(
        plain,
        [
            "/A_RATHER.TXT;1",
            "/META_DAT.;1",
            "/NETWORK_.;1",
            "/USER_DAT.;1",
            "/VENDOR_D.;1"
        ]
    );

    let told = bench.run(
        "xorriso",
        &[
            "-abort_on",
            "WARNING",
            "-indev",
            "seed.iso",
            "-find",
            "/",
            "-exec",
            "lsdl",
        ],
    );
    let (out, err) = (
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr),
    );
    assert!(told.status.success(), "{err}");
    assert!(err.contains("Volume id    : 'cidata'"), "{err}");
    for name in NAMES {
        let line = out
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{out}"));
        assert!(
            line.starts_with("-rw-r--r--    1 0        0 ") && line.contains("Jan  1  1970"),
            "{line}"
        );
    }

    let listed = bench.tool("bsdtar", &["-tf", "seed.iso"]);
    let names: BTreeSet<&str> = listed.lines().filter(|name| *name != ".").collect();
    assert_eq!(names, BTreeSet::from(NAMES));
    assert_eq!(
        bench
            .tool("bsdtar", &["-xOf", "seed.iso", "user-data"])
            .as_bytes(),
        bench.read("user-data")
    );
    let without = ["--options", "iso9660:!rockridge", "-tf", "seed.iso"];
    let names = bench.tool("bsdtar", &without);
    assert!(
        names.lines().any(|name| name == NAMES[0]),
        "by Joliet: {names}"
    );

    let told = bench.tool("blkid", &["-p", "-o", "export", "seed.iso"]);
    assert!(
        told.contains("LABEL=cidata\n") && told.contains("TYPE=iso9660\n"),
        "{told}"
    );
}

#[test]
fn a_fat_volume_is_sound_and_read_the_same() {
    let bench = Bench::new();
    full(&bench, &["-o", "seed.img", "-f", "vfat"]);
    bench.tool("fsck.fat", &["-n", "seed.img"]);
    for name in NAMES {
        bench.tool(
            "mcopy",
            &["-n", "-i", "seed.img", &format!("::{name}"), "copy"],
        );
        let bytes = bench.read("copy");
        match name {
            "user-data" => assert_eq!(bytes, bench.read("user-data")),
            "vendor-data" => assert_eq!(bytes, VENDOR.as_bytes()),
            "network-config" => assert_eq!(bytes, NETWORK.as_bytes()),
            "meta-data" => assert!(bytes.ends_with(b"local-hostname: web1\n")),
            _ => assert!(bytes.is_empty()),
        }
        std::fs::remove_file(bench.path().join("copy")).unwrap();
    }
    let told = bench.tool("blkid", &["-p", "-o", "export", "seed.img"]);
    for line in ["LABEL_FATBOOT=cidata\n", "LABEL=cidata\n", "TYPE=vfat\n"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn any_size_of_user_data_fits() {
    let bench = Bench::new();
    for size in [
        0usize,
        1,
        2047,
        2048,
        2049,
        108 << 10,
        131_072,
        3 << 20,
        9 << 20,
        40 << 20,
    ] {
        let mut text = b"#!/bin/sh\n".repeat(size / 10 + 1);
        text.truncate(size);
        bench.file("user-data", &text);
        for (filesystem, check) in [("iso", "isoinfo"), ("vfat", "fsck.fat")] {
            bench.qimg(&[
                "seed",
                "-q",
                "user-data",
                "-f",
                filesystem,
                "-o",
                "seed.img",
            ]);
            let got = if check == "isoinfo" {
                bench
                    .run("isoinfo", &["-R", "-i", "seed.img", "-x", "/user-data"])
                    .stdout
            } else {
                bench.tool("fsck.fat", &["-n", "seed.img"]);
                bench
                    .run("mtype", &["-i", "seed.img", "::user-data"])
                    .stdout
            };
            assert!(got == text, "{filesystem} {size}");
            let whole = bench.qimg(&["cat", "seed.img:/user-data"]);
            assert_eq!(whole.out.len(), size);
        }
    }
}

#[test]
fn many_files_fill_many_sectors_of_a_directory() {
    let bench = Bench::new();
    let mut arguments = vec!["seed".to_owned(), "-q".to_owned(), "user-data".to_owned()];
    for number in 0..120 {
        let name = format!("file-with-a-name-of-some-length-{number:03}.txt");
        bench.file(&name, format!("{number}\n"));
        arguments.extend(["--add".to_owned(), name]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    bench.qimg(&arguments).well();
    for extension in ["-R", "-J"] {
        let told = bench.tool("isoinfo", &["-f", extension, "-i", "seed.img"]);
        assert_eq!(told.lines().count(), 122, "{extension}");
        let got = bench.tool(
            "isoinfo",
            &[
                extension,
                "-i",
                "seed.img",
                "-x",
                "/file-with-a-name-of-some-length-077.txt",
            ],
        );
        assert_eq!(got, "77\n");
    }
    let listed = bench.tool("bsdtar", &["-tf", "seed.img"]);
    assert_eq!(listed.lines().count(), 123);
}

#[test]
fn the_bytes_depend_on_the_inputs_alone() {
    let bench = Bench::new();
    for options in [
        &["-f", "iso"][..],
        &["-f", "vfat"],
        &["-d", "qcow2"],
        &["-d", "tar"],
        &["--gzip"],
    ] {
        for output in ["a", "b"] {
            full(&bench, &[options, &["-o", output]].concat());
        }
        assert!(bench.read("a") == bench.read("b"), "{options:?}");
        let mut arguments = vec![
            "seed",
            "user-data",
            "--hostname",
            "web1",
            "--network-config",
            "network",
        ];
        arguments.extend([
            "--vendor-data",
            "vendor",
            "--add",
            "a rather long name, even so.txt=empty",
            "-o",
            "-",
        ]);
        arguments.extend(options);
        let mut command = crate::program::command();
        let piped = command
            .current_dir(bench.path())
            .args(&arguments)
            .output()
            .unwrap();
        assert!(
            piped.status.success() && piped.stdout == bench.read("a"),
            "{options:?} to standard output"
        );
    }
    full(&bench, &["-o", "later", "--time", "1700000000"]);
    let told = bench.run(
        "xorriso",
        &["-indev", "later", "-find", "/", "-exec", "lsdl"],
    );
    assert!(
        String::from_utf8_lossy(&told.stdout).contains("Nov 14"),
        "{told:?}"
    );
}

/// A change of these is one of the bytes that users get: it belongs into the changelog's "Image bytes".
#[test]
fn the_bytes_of_a_seed_are_those_of_the_last_release() {
    let bench = Bench::new();
    let mut digests = Vec::new();
    for options in [&["-f", "iso"][..], &["-f", "vfat"], &["-d", "tar"]] {
        full(&bench, &[options, &["-o", "golden"]].concat());
        digests.push(format!("{:08x}", crc32fast::hash(&bench.read("golden"))));
    }
    assert_eq!(digests, ["36783895", "d05f98e7", "7e456d0e"]);
}

#[test]
fn an_image_of_another_format_holds_the_same_volume() {
    let bench = Bench::new();
    full(&bench, &["-o", "seed.raw"]);
    full(&bench, &["-o", "seed.qcow2", "-d", "qcow2"]);
    bench.tool("qemu-img", &["check", "-q", "seed.qcow2"]);
    bench.tool("qemu-img", &["compare", "-q", "seed.raw", "seed.qcow2"]);
}

#[test]
fn archives_unpack_where_cloud_init_looks() {
    let bench = Bench::new();
    for (format, directory) in [
        ("tar", ""),
        ("tar-seed-local", "var/lib/cloud/seed/nocloud/"),
        ("tar-seed-net", "var/lib/cloud/seed/nocloud-net/"),
    ] {
        bench
            .qimg(&["seed", "-q", "user-data", "-d", format, "-o", "seed.tar"])
            .well();
        for tool in ["tar", "bsdtar"] {
            let listed = bench.tool(tool, &["-tvf", "seed.tar"]);
            assert!(
                listed.contains("root") && listed.contains(&format!(" {directory}user-data\n")),
                "{listed}"
            );
        }
        let got = bench.tool(
            "tar",
            &["-xOf", "seed.tar", &format!("{directory}user-data")],
        );
        assert_eq!(got.as_bytes(), bench.read("user-data"));
    }
}

#[test]
fn cloud_init_finds_the_seed_on_a_disk() {
    let bench = Bench::new();
    let root = bench.path().join("root");
    for directory in ["run", "etc/cloud", "proc/1", "sys/class/dmi/id", "dev"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::create_dir(bench.path().join("bin")).unwrap();
    // ds-identify asks the tools of the guest: of its disks, there is the seed.
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = bench.file(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(
        "blkid",
        "echo DEVNAME=/dev/vdb\nexec /usr/sbin/blkid -p -o export \"$SEED\"",
    );
    script("systemd-detect-virt", "echo kvm");
    bench.file("root/proc/cmdline", "root=/dev/vda1\n");
    bench.file("root/proc/uptime", "0 0\n");
    bench.file("root/proc/1/environ", "");
    bench.file(
        "root/etc/cloud/cloud.cfg",
        "datasource_list: [ NoCloud, ConfigDrive, None ]\n",
    );
    bench.file(
        "root/etc/cloud/ds-identify.cfg",
        "policy: search,found=all,maybe=none,notfound=disabled\n",
    );
    for (options, found) in [
        (&["-f", "iso"][..], true),
        (&["-f", "vfat"], true),
        (&["-f", "iso", "--label", "CIDATA"], true),
        (&["-f", "vfat", "--label", "CIDATA"], true),
        (&["-f", "iso", "--label", "seed"], false),
    ] {
        full(&bench, &[options, &["-o", "seed.img"]].concat());
        let path = format!(
            "{}/bin:{}",
            bench.path().display(),
            std::env::var("PATH").unwrap()
        );
        let said = std::process::Command::new("/bin/sh")
            .args(["/usr/lib/cloud-init/ds-identify", "--force"])
            .env("PATH", path)
            .env("PATH_ROOT", &root)
            .env("SEED", bench.path().join("seed.img"))
            .env("DI_LOG", "stderr")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.success(), found, "{options:?}: {log}");
        assert_eq!(
            log.contains("check for 'NoCloud' returned found"),
            found,
            "{options:?}: {log}"
        );
    }
}
