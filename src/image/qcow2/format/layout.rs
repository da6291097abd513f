//! How much metadata an image needs: pure arithmetic, no tables.

#![cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "counts of clusters of a disk below 2^63 bytes, each at least 512 bytes: sums stay within 63 bits"
    )
)]

use super::RefcountOrder;
use super::entry::Geometry;

/// Clusters of refcount metadata for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefcountMetadata {
    /// Refcount blocks.
    pub blocks: u64,
    /// Clusters of the refcount table.
    pub table_clusters: u64,
}

/// The refcount blocks and table clusters needed to count `clusters` host clusters and themselves.
///
/// The counts depend on each other; they grow until they are stable.
pub fn refcount_metadata(
    clusters: u64,
    geometry: Geometry,
    order: RefcountOrder,
) -> RefcountMetadata {
    let per_block = order.entries_per_block(geometry.cluster_bits);
    let per_table_cluster = geometry.cluster_bits.size() / 8;
    let mut metadata = RefcountMetadata {
        blocks: 0,
        table_clusters: 0,
    };
    loop {
        let total = clusters + metadata.blocks + metadata.table_clusters;
        let blocks = total.div_ceil(per_block);
        let next = RefcountMetadata {
            blocks,
            table_clusters: blocks.div_ceil(per_table_cluster),
        };
        if next == metadata {
            return metadata;
        }
        metadata = next;
    }
}

/// Bytes of metadata of a fully allocated image of `virtual_size` bytes, as QEMU preallocates it:
/// header, L1 and L2 tables, refcount table and blocks.
pub fn full_metadata_bytes(virtual_size: u64, geometry: Geometry, order: RefcountOrder) -> u64 {
    let cluster_bits = geometry.cluster_bits;
    let data = cluster_bits.clusters_for(virtual_size);
    let l2_tables = data.div_ceil(geometry.l2_entries());
    let l1 = cluster_bits.clusters_for(l2_tables * 8);
    let before = 1 + l1 + l2_tables;
    let refcounts = refcount_metadata(before + data, geometry, order);
    (before + refcounts.blocks + refcounts.table_clusters) << cluster_bits.bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::qcow2::format::ClusterBits;

    #[test]
    fn refcount_metadata_counts_itself() {
        for bits in [9, 12, 16, 21] {
            for order in 0..=6 {
                let geometry = Geometry {
                    cluster_bits: ClusterBits::new(bits).unwrap(),
                    version: 3,
                    extended_l2: false,
                    external_data: false,
                };
                let order = RefcountOrder::new(order).unwrap();
                for clusters in [1, 100, 4096, 1_000_000] {
                    let m = refcount_metadata(clusters, geometry, order);
                    let total = clusters + m.blocks + m.table_clusters;
                    assert!(m.blocks * order.entries_per_block(geometry.cluster_bits) >= total);
                    assert!(m.table_clusters * (geometry.cluster_bits.size() / 8) >= m.blocks);
                }
            }
        }
    }
}
