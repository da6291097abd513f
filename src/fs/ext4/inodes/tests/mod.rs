#![expect(clippy::disallowed_types, reason = "tests write images themselves")]

mod damage;
mod lost_blocks;

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use super::super::tests::{Disk, Image, must, nightly};
use super::super::{blocks::Blocks, group::Group, superblock::Superblock};
use crate::fs::{FreeSpace, Refusal, RefusalKind};
use crate::volume::Volume;

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a disk says of its groups.
struct Layout {
    superblock: Superblock,
    groups: Vec<Group>,
}

impl Layout {
    fn of(disk: &Disk) -> Self {
        let superblock = disk.superblock();
        let volume = Volume::whole(disk);
        let blocks = Blocks::new(&volume, superblock.block_length());
        let numbers = 0..superblock.descriptor_blocks();
        let groups =
            numbers.flat_map(|number| Group::read_block(&blocks, &superblock, number).unwrap());
        Self {
            groups: groups.collect(),
            superblock,
        }
    }

    /// Which cluster of the filesystem `block` is of.
    fn cluster(&self, block: u64) -> u64 {
        (block - self.superblock.first_data_block) / self.superblock.cluster_blocks
    }

    fn bytes(&self, cluster: u64) -> Range<u64> {
        let first = self.superblock.first_data_block + cluster * self.superblock.cluster_blocks;
        let end = (first + self.superblock.cluster_blocks).min(self.superblock.blocks);
        self.superblock.bytes(first..end)
    }

    /// The byte and the bit that stand for a cluster; `None` when they were never written.
    fn bit(&self, cluster: u64) -> Option<(u64, u8)> {
        let per_group = self.superblock.clusters_per_group;
        let group = &self.groups[usize::try_from(cluster / per_group).unwrap()];
        let at = group.block_bitmap * self.superblock.block_size + cluster % per_group / 8;
        (!group.uninit).then(|| (at, 1 << (cluster % per_group % 8)))
    }

    fn is_used(&self, disk: &Disk, cluster: u64) -> bool {
        self.bit(cluster)
            .is_some_and(|(at, bit)| disk.bytes(at..at + 1)[0] & bit != 0)
    }

    fn clusters(&self, group: &Group) -> Range<u64> {
        let first = group.number * self.superblock.clusters_per_group;
        first..first + self.superblock.clusters_in(group.number)
    }

    /// Clusters in use: those of inodes, which is what is left when metadata of all groups is taken away, and all.
    fn used(&self, disk: &Disk) -> (Vec<u64>, Vec<u64>) {
        let heads = self
            .groups
            .iter()
            .map(|group| self.superblock.head(group.number));
        let tables = self.groups.iter().flat_map(Group::metadata);
        let metadata: std::collections::BTreeSet<u64> = heads.chain(tables).flatten().collect();
        let metadata: std::collections::BTreeSet<u64> = metadata
            .into_iter()
            .map(|block| self.cluster(block))
            .collect();
        let all = self.groups.iter().flat_map(|group| self.clusters(group));
        let all: Vec<u64> = all.filter(|&cluster| self.is_used(disk, cluster)).collect();
        let of_inodes = all.iter().filter(|cluster| !metadata.contains(cluster));
        (of_inodes.copied().collect(), all)
    }

    /// The bitmap loses `cluster` and gains one of the same group, so that all counts stay right; false when it has none.
    fn lose(&self, disk: &mut Disk, cluster: u64, chance: &mut Chance) -> bool {
        let group = cluster / self.superblock.clusters_per_group;
        let group = self.clusters(&self.groups[usize::try_from(group).unwrap()]);
        let (at, bit) = self.bit(cluster).unwrap();
        let length = group.end - group.start;
        let skipped = chance.below(length);
        let places = (0..length).map(|n| group.start + (skipped + n) % length);
        let Some(gained) = places.into_iter().find(|&place| !self.is_used(disk, place)) else {
            return false;
        };
        let old = disk.bytes(at..at + 1)[0];
        disk.patch(at, &[old & !bit]);
        let (at, bit) = self.bit(gained).unwrap();
        let old = disk.bytes(at..at + 1)[0];
        disk.patch(at, &[old | bit]);
        true
    }

    /// Where an inode is.
    fn inode(&self, number: u64) -> u64 {
        let (group, index) = (
            (number - 1) / self.superblock.inodes_per_group,
            (number - 1) % self.superblock.inodes_per_group,
        );
        let table = &self.groups[usize::try_from(group).unwrap()].inode_table;
        table.start * self.superblock.block_size + index * self.superblock.inode_size
    }

    /// Where the bit of an inode is.
    fn inode_bit(&self, number: u64) -> (u64, u8) {
        let (group, index) = (
            (number - 1) / self.superblock.inodes_per_group,
            (number - 1) % self.superblock.inodes_per_group,
        );
        let bitmap = self.groups[usize::try_from(group).unwrap()].inode_bitmap;
        (
            bitmap * self.superblock.block_size + index / 8,
            1 << (index % 8),
        )
    }
}

fn assert_kept(result: Result<FreeSpace, Refusal>, what: &str) {
    match result {
        Ok(_) => panic!("{what}: not kept"),
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::Damaged, "{what}: {refusal}");
            assert!(
                refusal.reason.starts_with("ext4 inode "),
                "{what}: {refusal}"
            );
            assert!(!refusal.reason.contains('\n'), "{what}: {refusal}");
        }
    }
}

/// Whether e2fsck finds nothing wrong with a copy of an image that has the same bytes as `disk`.
fn is_clean(image: &Image, disk: &Disk) -> bool {
    let copy = image.copy("judged");
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    for (&at, byte) in &disk.patches {
        file.write_all_at(&[*byte], at).unwrap();
    }
    let mut command = Command::new("e2fsck");
    let status = command.arg("-fn").arg(&copy).output().unwrap().status;
    status.success()
}

/// The inode of a file in the root directory.
fn inode_of(image: &Image, name: &str) -> u64 {
    let text = image.debugfs(&format!("stat {name}\n"));
    let number = text.split_once("Inode: ").unwrap().1;
    number.split_whitespace().next().unwrap().parse().unwrap()
}

/// Blocks of trees and attributes, as debugfs tells them.
fn nodes(image: &Image, names: &[&str]) -> Vec<u64> {
    let mut list = Vec::new();
    for name in names {
        let text = image.debugfs(&format!("stat {name}\n"));
        let number = |text: &str| -> Option<u64> {
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            text[..end].parse().ok()
        };
        for part in text.split('(') {
            let is_node = ["IND)", "DIND)", "TIND)", "ETB"]
                .iter()
                .any(|kind| part.starts_with(kind));
            if is_node {
                list.extend(number(part.split_once("):").unwrap().1));
            }
        }
        let attributes = text
            .split_once("File ACL: ")
            .and_then(|(_, rest)| number(rest));
        list.extend(attributes.filter(|&block| block != 0));
    }
    list
}

/// Files whose blocks `nodes` is asked for.
const NAMES: [&str; 9] = [
    "far",
    "pieces",
    "many",
    "attributes",
    "link",
    "pipe",
    "<7>",
    "<8>",
    "/",
];

/// Everything that has blocks in another way.
fn populate(at: &Path, block: u64) {
    let write = |name: &str, offsets: &mut dyn Iterator<Item = u64>| {
        let file = File::create(at.join(name)).unwrap();
        let bytes = vec![0x5a; usize::try_from(block).unwrap()];
        for offset in offsets {
            file.write_all_at(&bytes, offset * block).unwrap();
        }
    };
    let per_block = block / 4;
    let far = [
        0,
        13,
        12 + per_block + 5,
        12 + per_block + per_block * per_block + 7,
    ];
    write("far", &mut far.into_iter());
    // So many extents that their tree is two levels deep.
    let pieces = (block / 12 + 8) * 4;
    write("pieces", &mut (0..pieces).map(|n| n * 2));
    write("long", &mut (0..60));
    fs::create_dir(at.join("many")).unwrap();
    for n in 0..250 {
        let name = format!("{n}{}", "-long".repeat(n % 20));
        fs::write(at.join("many").join(name), vec![1; n * 10]).unwrap();
    }
    for n in (0..250).step_by(3) {
        let name = format!("{n}{}", "-long".repeat(n % 20));
        fs::remove_file(at.join("many").join(name)).unwrap();
    }
    for n in 0..5 {
        fs::create_dir_all(at.join(format!("d{n}/e/f"))).unwrap();
        fs::write(at.join(format!("d{n}/e/f/g")), vec![2; 20_000 * n]).unwrap();
    }
    fs::remove_dir_all(at.join("d3")).unwrap();
    for length in [5, 59, 60, 61, 200, 900] {
        symlink("t".repeat(length), at.join(format!("link{length}"))).unwrap();
    }
    symlink("target", at.join("link")).unwrap();
    let name = |name: &str| at.join(name).to_str().unwrap().to_owned();
    must("mkfifo", &[&name("pipe")]);
    must("mknod", &[&name("device"), "c", "200", "300"]);
    write("attributes", &mut (0..1));
    let value = vec![b'v'; usize::try_from(block * 3 / 4).unwrap()];
    for file in ["attributes", "link", "pipe", "device", "d1"] {
        let flags = rustix::fs::XattrFlags::empty();
        // The oldest filesystems have none.
        let _ = rustix::fs::lsetxattr(at.join(file), "trusted.large", &value, flags);
        let _ = rustix::fs::lsetxattr(at.join(file), "trusted.small", b"x", flags);
    }
    // Behind the end, where there are extents.
    let beyond = ["-n", "-o", "8192", "-l", "40000", &name("long")];
    let _ = Command::new("fallocate").args(beyond).output();
}
