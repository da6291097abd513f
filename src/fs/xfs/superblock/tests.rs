use super::Volume;
use crate::fs::xfs::identify;
use crate::fs::xfs::tests::{Image, must};

#[test]
fn what_is_not_known_is_refused_by_name() {
    let image = Image::make("100M", "-l size=10m");
    let refused = |at: u64, bytes: &[u8]| {
        let mut disk = image.disk();
        disk.patch(at, bytes);
        disk.seal(0..512, 224);
        disk.free_space().unwrap_err().to_string()
    };
    for (at, bytes, reason) in [
        (
            216,
            [0, 0, 0, 0x1b],
            "xfs is marked as needing repair (run xfs_repair on it)",
        ),
        (
            216,
            [0, 0, 1, 0xb],
            "xfs has the feature metadir (incompatible, bit 8), which is not read here",
        ),
        (
            216,
            [0, 0, 2, 0xb],
            "xfs has the feature zoned (incompatible, bit 9), which is not read here",
        ),
        (
            216,
            [0, 1, 8, 0xb],
            "xfs has unknown incompatible features (bit 11, 16)",
        ),
        (
            212,
            [0, 0, 0, 0x15],
            "xfs has unknown read-only compatible features (bit 4)",
        ),
        (
            220,
            [0, 0, 0, 0x2],
            "xfs has unknown log incompatible features (bit 1)",
        ),
        (28, [0, 0, 0, 1], "xfs with a realtime section"),
        (52, [0, 0, 0, 0], "xfs whose log is on another device"),
        (124, [15, 0, 1, 25], "xfs superblock: impossible geometry"),
        (12, [0xff, 0, 0, 0], "xfs superblock: impossible geometry"),
        (148, [0, 0, 0, 0], "xfs superblock counts 0 free blocks"),
    ] {
        let found = refused(at, &bytes);
        assert!(found.starts_with(reason), "{found}");
    }
    let mut cut = image.disk();
    cut.size = 99 << 20;
    let refusal = cut.free_space().unwrap_err();
    assert_eq!(
        refusal.reason,
        "xfs of 25600 blocks reaches past the end of its volume"
    );
}

#[test]
fn an_identity_is_what_blkid_says() {
    for (options, version) in [
        ("-L twelve-bytes", "v5"),
        ("-m crc=0 -L a", "v4"),
        ("", "v5"),
    ] {
        let image = Image::make("100M", options);
        let disk = image.disk();
        let identity = identify(&Volume::whole(&disk)).unwrap().unwrap();
        let blkid = must("blkid", &["-p", "-o", "export", image.name()]);
        let tag = |name: &str| {
            let line = blkid.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches('=').to_owned())
        };
        assert_eq!(tag("TYPE").as_deref(), Some(identity.kind));
        assert_eq!(tag("UUID="), identity.uuid);
        assert_eq!(tag("LABEL="), identity.label);
        assert_eq!(identity.version.as_deref(), Some(version));
        assert_eq!(
            (identity.size, identity.block_size),
            (Some(100 << 20), Some(4096))
        );
    }
    let image = Image::make("100M", "");
    let mut disk = image.disk();
    disk.patch(1, b"X");
    assert_eq!(identify(&Volume::whole(&disk)).unwrap(), None);
}
