//! GUIDs and numbers that are derived from a seed.
//!
//! They are name-based (RFC 9562, version 5), so that nobody else's are the same by chance, and the same inputs give the
//! same disk. Whoever makes many disks of the same parts gives each a seed of its own.

use uuid::Uuid;

/// The space of names of this module: a random number.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d3c_1f7e_86a4_4c0b_9e52_b7d1_40f3_6a98);

/// The disk's GUID.
pub(super) fn disk(seed: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, seed.as_bytes())
}

/// The GUID of one of its partitions.
pub(super) fn partition(disk: Uuid, number: u32) -> Uuid {
    Uuid::new_v5(&disk, format!("partition {number}").as_bytes())
}

/// The number of the FAT volume in one of its partitions.
pub(super) fn volume(disk: Uuid, number: u32) -> u32 {
    let uuid = Uuid::new_v5(&disk, format!("volume {number}").as_bytes());
    uuid.as_fields().0
}
