//! Bitmaps that lost a block and gained another.

use super::*;

/// Filesystems whose bitmaps have no checksum.
const UNSUMMED: [(&str, &str); 20] = [
    ("12M", "-t ext2 -b 1024"),
    ("24M", "-t ext2 -b 2048 -O ^resize_inode"),
    ("48M", "-t ext2 -b 4096"),
    ("12M", "-r 0 -O none -b 1024"),
    ("16M", "-t ext3 -b 1024 -J size=1"),
    ("64M", "-t ext3 -b 4096 -J size=4"),
    (
        "16M",
        "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg -J size=1",
    ),
    (
        "16M",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg,64bit -J size=4",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,64bit -J size=4",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,^64bit -g 1024 -J size=4",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg,^64bit,^flex_bg,^extent -g 2048 -J size=4",
    ),
    (
        "24M",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,meta_bg,^resize_inode -g 1024 -J size=1",
    ),
    (
        "24M",
        "-t ext4 -b 1024 -O ^metadata_csum,sparse_super2 -E num_backup_sb=2 -g 4096 -J size=1",
    ),
    (
        "32M",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,bigalloc -C 4096 -J size=1",
    ),
    (
        "96M",
        "-t ext4 -b 4096 -O ^metadata_csum,^uninit_bg,bigalloc -C 16384 -J size=4",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,inline_data,ea_inode -J size=4",
    ),
    (
        "64M",
        "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg,quota,project -J size=4",
    ),
    (
        "16M",
        "-t ext4 -b 1024 -I 128 -O ^metadata_csum,^uninit_bg,orphan_file -J size=1",
    ),
    (
        "16M",
        "-t ext4 -b 1024 -O ^metadata_csum,mmp,huge_file -E resize=1G -J size=1",
    ),
];

#[test]
fn a_bitmap_that_lost_a_block_of_any_inode_and_gained_another_is_not_believed() {
    for (n, (size, options)) in UNSUMMED.into_iter().enumerate() {
        let image = Image::make(size, options);
        // Not every kernel knows quotas; mke2fs writes some.
        let mounted = !options.contains("quota");
        if mounted {
            let mount = image.mount("");
            populate(&mount.at, image.disk().superblock().block_size);
            mount.unmount();
        }
        // With all of that it is not kept, and what is free is what dumpe2fs says.
        image.assert_exact();

        let sound = image.disk().in_memory();
        let layout = Layout::of(&sound);
        let (mut of_inodes, all) = layout.used(&sound);
        let mut chance = Chance(0x9e37_79b9 + n as u64);
        let nodes = if mounted {
            nodes(&image, &NAMES)
        } else {
            Vec::new()
        };
        assert!(nodes.len() >= 4 || !mounted, "{options}: {nodes:?}");
        let nodes = nodes.into_iter().map(|block| layout.cluster(block));
        let nodes: Vec<u64> = nodes.filter(|node| of_inodes.contains(node)).collect();
        if !nightly() {
            let count = of_inodes.len() as u64;
            of_inodes = (0..60)
                .map(|_| of_inodes[usize::try_from(chance.below(count)).unwrap()])
                .collect();
        }
        let mut lost = 0;
        for &cluster in nodes.iter().chain(&of_inodes) {
            let mut disk = sound.clone();
            if !layout.lose(&mut disk, cluster, &mut chance) {
                continue;
            }
            let what = format!("{options}: cluster {cluster}");
            assert_kept(disk.free_space(), &what);
            assert_kept(disk.replayed(), &what);
            if lost % 40 == 0 {
                assert!(!is_clean(&image, &disk), "{what}");
            }
            lost += 1;
        }
        assert!(lost > 20, "{options}: {lost}");
        // Metadata whose place is computed is never free, be its bitmap believed or not.
        for _ in 0..20 {
            let cluster = all[usize::try_from(chance.below(all.len() as u64)).unwrap()];
            let mut disk = sound.clone();
            if layout.lose(&mut disk, cluster, &mut chance)
                && let Ok(space) = disk.free_space()
            {
                let lost = layout.bytes(cluster);
                assert_eq!(
                    space.free.within(lost).count(),
                    0,
                    "{options}: cluster {cluster}"
                );
            }
        }
    }
}
