//! Seeds that others made are read; those who know cloud-localds find what they know.

use std::os::unix::fs::symlink;

use crate::Bench;

/// What `seed show --json` says of an image that was made of user-data and meta-data.
fn shown(bench: &Bench, image: &str) -> serde_json::Value {
    let said = bench.qimg(&["seed", "show", "--json", image]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.json()
}

#[test]
fn seeds_of_other_tools_are_read() {
    let bench = Bench::new();
    bench.file(
        "meta-data",
        "{\"instance-id\": \"iid-other\", \"local-hostname\": \"other\"}\n",
    );
    let both = ["user-data", "meta-data"];
    let genisoimage = |output: &'static str, more: &[&str]| {
        let arguments = [
            &["-quiet", "-output", output, "-volid", "cidata"][..],
            more,
            &both,
        ]
        .concat();
        bench.tool("genisoimage", &arguments);
        output
    };
    let mut images = vec![
        genisoimage("both.iso", &["-joliet", "-rock"]),
        genisoimage("rock.iso", &["-rock"]),
        genisoimage("joliet.iso", &["-joliet"]),
    ];
    let arguments = [
        &[
            "-as",
            "mkisofs",
            "-V",
            "cidata",
            "-J",
            "-R",
            "-o",
            "xorriso.iso",
        ][..],
        &both,
    ]
    .concat();
    bench.tool("xorriso", &arguments);
    images.push("xorriso.iso");
    bench.tool("truncate", &["-s", "128K", "fat.img"]);
    bench.tool("mkfs.vfat", &["-n", "cidata", "fat.img"]);
    bench.tool("mcopy", &["-i", "fat.img", "user-data", "meta-data", "::"]);
    images.push("fat.img");
    bench.tool("cloud-localds", &["localds.img", "user-data", "meta-data"]);
    bench.tool(
        "cloud-localds",
        &["-f", "vfat", "localds-fat.img", "user-data", "meta-data"],
    );
    bench.tool(
        "cloud-localds",
        &["-d", "qcow2", "localds.qcow2", "user-data", "meta-data"],
    );
    images.extend(["localds.img", "localds-fat.img", "localds.qcow2"]);
    // On a partition of a disk.
    bench.file("table", "label: gpt\nstart=2048, size=2048\n");
    bench.tool("sh", &["-c", "truncate -s 4M disk.raw && sfdisk -q disk.raw <table && dd if=both.iso of=disk.raw bs=1M seek=1 conv=notrunc status=none"]);
    images.push("disk.raw");
    for image in images {
        let json = shown(&bench, image);
        assert_eq!(json["instance-id"], "iid-other", "{image}: {json}");
        assert_eq!(json["hostname"], "other", "{image}");
        assert_eq!(json["user-data"]["header"], "cloud-config", "{image}");
        assert_eq!(json["label"], "cidata", "{image}");
        assert_eq!(
            json["findings"].as_array().map(Vec::len),
            Some(0),
            "{image}: {json}"
        );
    }
}

#[test]
fn what_makes_a_seed_useless_is_told() {
    let bench = Bench::new();
    bench.tool(
        "genisoimage",
        &[
            "-quiet",
            "-output",
            "no-meta.iso",
            "-volid",
            "cidata",
            "-rock",
            "user-data",
        ],
    );
    let json = shown(&bench, "no-meta.iso");
    assert_eq!(json["findings"][0]["file"], "meta-data");
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(
        bench
            .qimg(&["seed", "show", "--strict", "no-meta.iso"])
            .code,
        Some(2)
    );
    bench.file("meta-data", "instance-id: x\n");
    bench.tool(
        "genisoimage",
        &[
            "-quiet",
            "-output",
            "label.iso",
            "-volid",
            "seed",
            "-rock",
            "user-data",
            "meta-data",
        ],
    );
    let said = bench.qimg(&["seed", "show", "label.iso"]);
    assert!(
        said.err.contains("has not the label cidata"),
        "{}",
        said.err
    );
    bench.file("empty.img", vec![0; 1 << 20]);
    let said = bench
        .qimg(&["seed", "show", "-f", "raw", "empty.img"])
        .failed(1);
    assert!(said.contains("holds no seed"), "{said}");
}

/// Runs the program under the name `cloud-localds`.
fn localds(bench: &Bench, arguments: &[&str]) -> crate::program::Said {
    let link = bench.path().join("cloud-localds");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_qimg"), &link).unwrap();
    }
    let mut command = std::process::Command::new(link);
    command
        .current_dir(bench.path())
        .args(arguments)
        .output()
        .unwrap()
        .into()
}

#[test]
fn the_command_line_of_cloud_localds_works_under_its_name() {
    let bench = Bench::new();
    bench.file("network", "version: 1\nconfig: []\n");
    bench.file("vendor", "#cloud-config\npackages: [a]\n");
    bench.file("meta-data", "instance-id: mine\n");
    let short = [
        "-d",
        "raw",
        "-f",
        "vfat",
        "-H",
        "web1",
        "-m",
        "local",
        "-N",
        "network",
        "-V",
        "vendor",
        "a.img",
        "user-data",
    ];
    localds(&bench, &short).well();
    let long = [
        "--disk-format=raw",
        "--filesystem=vfat",
        "--hostname=web1",
        "--dsmode=local",
        "--network-config=network",
        "--vendor-data=vendor",
        "b.img",
        "user-data",
    ];
    localds(&bench, &long).well();
    assert!(bench.read("a.img") == bench.read("b.img"));
    let json = shown(&bench, "a.img");
    assert_eq!(
        (&json["filesystem"], &json["hostname"]),
        (&"vfat".into(), &"web1".into())
    );
    let names: Vec<&str> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["meta-data", "network-config", "user-data", "vendor-data"]
    );
    // The real one puts the same files into its own.
    bench.tool(
        "cloud-localds",
        &[&short[..12], &["real.img", "user-data"]].concat(),
    );
    let real = shown(&bench, "real.img");
    let real: Vec<&str> = real["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, real);

    localds(&bench, &["c.img", "user-data", "meta-data"]).well();
    assert_eq!(shown(&bench, "c.img")["instance-id"], "mine");
    let said = localds(&bench, &["-v", "d.img", "user-data"]).well();
    assert!(said.starts_with("d.img: iso9660 volume"), "{said}");
    let said = localds(&bench, &["-i", "network", "e.img", "user-data"]);
    assert!(
        said.code == Some(0) && said.err.contains("-i has no effect"),
        "{}",
        said.err
    );
    for wrong in [
        &["-H", "x", "f.img", "user-data", "meta-data"][..],
        &["-i", "x", "f.img", "user-data", "meta-data"],
        &["-m", "net", "f.img", "user-data", "meta-data"],
        &["f.img"],
        &["-d", "vmdk", "f.img", "user-data"],
        &["-f", "ext4", "f.img", "user-data"],
    ] {
        localds(&bench, wrong).failed(1);
    }
    assert!(!bench.path().join("f.img").exists());
}
