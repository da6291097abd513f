//! Features: which there are, and which of them mean that free space is not read.
//!
//! Source: `EXT4_FEATURE_*` of the kernel's `fs/ext4/ext4.h`, and for those that only e2fsprogs knows `EXT2_FEATURE_*` of
//! its `lib/ext2fs/ext2_fs.h`; which features tell ext2, ext3 and ext4 apart is libblkid's word.

use std::borrow::Cow;

use crate::fs::{Refusal, RefusalKind};

/// The three words of features.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Features {
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
}

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const COMPAT_FAST_COMMIT: u32 = 0x400;

const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_MMP: u32 = 0x100;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const INCOMPAT_EA_INODE: u32 = 0x400;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGEDIR: u32 = 0x4000;
const INCOMPAT_INLINE_DATA: u32 = 0x8000;

const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const RO_COMPAT_READONLY: u32 = 0x1000;
const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x10000;

/// dir_prealloc, imagic_inodes, has_journal, ext_attr, resize_inode, dir_index, sparse_super2, fast_commit,
/// stable_inodes, orphan_file: none of them puts an allocated block anywhere but in the bitmaps.
const KNOWN_COMPAT: u32 = 0x3f | 0x200 | 0x400 | 0x800 | 0x1000;
/// filetype, needs_recovery, meta_bg, extent, 64bit, mmp, flex_bg, ea_inode, dirdata, metadata_csum_seed, large_dir,
/// inline_data, encrypt, casefold.
const KNOWN_INCOMPAT: u32 = 0x2
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x1000
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x10000
    | 0x20000;
/// sparse_super, large_file, btree_dir, huge_file, uninit_bg, dir_nlink, extra_isize, quota, bigalloc, metadata_csum,
/// project, verity, orphan_present.
const KNOWN_RO_COMPAT: u32 = 0x7f | 0x100 | 0x200 | 0x400 | 0x2000 | 0x8000 | 0x10000;

/// What libblkid takes for ext2 and ext3 at most.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

/// Names of features that are known and not read.
const UNREAD: [(Word, u32, &str); 7] = [
    (Word::Compat, 0x40, "lazy_bg"),
    (Word::Compat, 0x80, "exclude_inode"),
    (Word::Compat, 0x100, "exclude_bitmap"),
    (Word::Incompat, 0x1, "compression"),
    (Word::Incompat, 0x8, "journal_dev"),
    (Word::RoCompat, 0x80, "snapshot"),
    (Word::RoCompat, 0x800, "replica"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Compat,
    Incompat,
    RoCompat,
}

impl Features {
    /// The format's name, as blkid has it.
    pub(super) fn kind(self) -> &'static str {
        let ext4_only =
            self.incompat & !EXT3_INCOMPAT != 0 || self.ro_compat & !EXT3_RO_COMPAT != 0;
        if self.incompat & INCOMPAT_JOURNAL_DEV != 0 {
            "jbd"
        } else if ext4_only {
            "ext4"
        } else if self.has_journal() {
            "ext3"
        } else {
            "ext2"
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.compat | self.incompat | self.ro_compat == 0
    }

    pub(super) fn has_journal(self) -> bool {
        self.compat & COMPAT_HAS_JOURNAL != 0
    }

    pub(super) fn sparse_super2(self) -> bool {
        self.compat & COMPAT_SPARSE_SUPER2 != 0
    }

    pub(super) fn fast_commit(self) -> bool {
        self.compat & COMPAT_FAST_COMMIT != 0
    }

    pub(super) fn file_types(self) -> bool {
        self.incompat & INCOMPAT_FILETYPE != 0
    }

    pub(super) fn attribute_inodes(self) -> bool {
        self.incompat & INCOMPAT_EA_INODE != 0
    }

    pub(super) fn inline_data(self) -> bool {
        self.incompat & INCOMPAT_INLINE_DATA != 0
    }

    pub(super) fn large_directories(self) -> bool {
        self.incompat & INCOMPAT_LARGEDIR != 0
    }

    pub(super) fn needs_recovery(self) -> bool {
        self.incompat & INCOMPAT_RECOVER != 0
    }

    pub(super) fn meta_bg(self) -> bool {
        self.incompat & INCOMPAT_META_BG != 0
    }

    pub(super) fn wide(self) -> bool {
        self.incompat & INCOMPAT_64BIT != 0
    }

    pub(super) fn mmp(self) -> bool {
        self.incompat & INCOMPAT_MMP != 0
    }

    pub(super) fn flex_bg(self) -> bool {
        self.incompat & INCOMPAT_FLEX_BG != 0
    }

    pub(super) fn checksum_seed(self) -> bool {
        self.incompat & INCOMPAT_CSUM_SEED != 0
    }

    pub(super) fn sparse_super(self) -> bool {
        self.ro_compat & RO_COMPAT_SPARSE_SUPER != 0
    }

    pub(super) fn descriptor_crc16(self) -> bool {
        self.ro_compat & RO_COMPAT_GDT_CSUM != 0 && !self.metadata_checksums()
    }

    pub(super) fn metadata_checksums(self) -> bool {
        self.ro_compat & RO_COMPAT_METADATA_CSUM != 0
    }

    /// Only then do the flags of descriptors mean anything.
    pub(super) fn descriptor_checksums(self) -> bool {
        self.ro_compat & (RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM) != 0
    }

    pub(super) fn bigalloc(self) -> bool {
        self.ro_compat & RO_COMPAT_BIGALLOC != 0
    }

    pub(super) fn orphans(self) -> bool {
        self.ro_compat & RO_COMPAT_ORPHAN_PRESENT != 0
    }

    /// Refuses whatever a reader of files would have to know about and this does not.
    pub(super) fn require_readable(self) -> Result<(), Refusal> {
        match self.incompat & !KNOWN_INCOMPAT {
            0 => Ok(()),
            bits => Err(Refusal::unsupported(self.unread(
                Word::Incompat,
                bits,
                "incompat",
            ))),
        }
    }

    /// Refuses whatever a writer would have to know about and this does not.
    pub(super) fn require_known(self) -> Result<(), Refusal> {
        for (bit, name) in [
            (RO_COMPAT_READONLY, "read-only"),
            (RO_COMPAT_SHARED_BLOCKS, "shared_blocks"),
        ] {
            if self.ro_compat & bit != 0 {
                return Err(Refusal::new(
                    RefusalKind::Protected,
                    format!(
                        "{} has the feature {name}: its image is not meant to change",
                        self.kind()
                    ),
                ));
            }
        }
        for (word, bits, known, kind) in [
            (Word::Incompat, self.incompat, KNOWN_INCOMPAT, "incompat"),
            (Word::RoCompat, self.ro_compat, KNOWN_RO_COMPAT, "ro_compat"),
            (Word::Compat, self.compat, KNOWN_COMPAT, "compat"),
        ] {
            if bits & !known != 0 {
                return Err(Refusal::unsupported(self.unread(word, bits & !known, kind)));
            }
        }
        Ok(())
    }

    fn unread(self, word: Word, bits: u32, kind: &str) -> Cow<'static, str> {
        let names: Vec<Cow<'static, str>> = (0..u32::BITS)
            .map(|n| 1 << n)
            .filter(|bit| bits & bit != 0)
            .map(|bit| {
                let named = UNREAD
                    .iter()
                    .find(|(other, value, _)| *other == word && *value == bit);
                named.map_or_else(|| format!("{bit:#x}").into(), |(_, _, name)| (*name).into())
            })
            .collect();
        format!(
            "{} has {kind} features that are not read here: {}",
            self.kind(),
            names.join(", ")
        )
        .into()
    }
}
