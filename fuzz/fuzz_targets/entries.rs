//! Table entries of every kind: any words decode or are refused, and what was decoded survives being encoded.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use qimg::fuzzing::addr::{ClusterBits, HostOffset};
use qimg::fuzzing::bitmap::{encode_directory, parse_directory};
use qimg::fuzzing::compressed::CompressedDescriptor;
use qimg::fuzzing::entry::{Geometry, L1Entry, L2Entry, L2Mapping, join_bitmap, split_bitmap};
use qimg::fuzzing::layout::{full_metadata_bytes, refcount_metadata};
use qimg::fuzzing::refcount::RefcountOrder;
use qimg::fuzzing::snapshot::parse_table;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    cluster_bits: u8,
    version3: bool,
    extended_l2: bool,
    external_data: bool,
    word: u64,
    bitmap: u64,
    guest: u32,
    length: u32,
    refcount_order: u8,
    count: u64,
    index: u16,
    snapshots: u16,
    bitmaps: u16,
    table: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let cluster_bits = ClusterBits::new(9 + u32::from(input.cluster_bits) % 13).unwrap();
    let geometry = Geometry {
        cluster_bits,
        version: if input.version3 { 3 } else { 2 },
        extended_l2: input.version3 && input.extended_l2 && cluster_bits.bits() >= 14,
        external_data: input.external_data,
    };
    l1(cluster_bits, &input);
    l2(geometry, &input);
    descriptor(cluster_bits, &input);
    refcounts(geometry, &input);
    tables(&input);
});

fn l1(cluster_bits: ClusterBits, input: &Input<'_>) {
    if let Ok(Some(host)) = L1Entry(input.word).table(cluster_bits) {
        assert!(cluster_bits.is_aligned(host.0) && host.0 >> 56 == 0);
        assert_eq!(L1Entry::to_table(host).table(cluster_bits), Ok(Some(host)));
    }
}

fn l2(geometry: Geometry, input: &Input<'_>) {
    let bits = geometry.cluster_bits;
    let guest = u64::from(input.guest) << bits.bits();
    let entry = L2Entry {
        word: input.word,
        bitmap: input.bitmap,
    };
    match entry.decode(geometry, guest) {
        Err(_) | Ok(L2Mapping::Unallocated | L2Mapping::Compressed(_)) => {}
        Ok(L2Mapping::Data { host } | L2Mapping::Zero { host: Some(host) }) => {
            assert!(bits.is_aligned(host.0) && host.0 >> 56 == 0);
            assert!(!geometry.external_data || host.0 == guest);
            if !geometry.extended_l2 {
                let data = L2Entry::data(host).decode(geometry, guest);
                assert_eq!(data, Ok(L2Mapping::Data { host }));
            }
        }
        Ok(L2Mapping::Zero { host: None }) => assert!(geometry.version >= 3),
        Ok(L2Mapping::Subclusters {
            host,
            allocated,
            zero,
        }) => {
            assert_eq!(allocated & zero, 0);
            assert!(host.is_some() || allocated == 0);
        }
    }
    let (allocated, zero) = split_bitmap(input.bitmap);
    assert_eq!(join_bitmap(allocated, zero), input.bitmap);
}

fn descriptor(cluster_bits: ClusterBits, input: &Input<'_>) {
    let found = CompressedDescriptor::decode(input.word, cluster_bits);
    assert!(found.length > 0 && found.length <= 2 * cluster_bits.size());
    assert_eq!(found.end() % 512, 0);
    if found.end() <= CompressedDescriptor::host_limit(cluster_bits) {
        let entry = CompressedDescriptor::encode(found.host, found.length, cluster_bits).unwrap();
        assert_eq!(CompressedDescriptor::decode(entry, cluster_bits), found);
    }
    let (host, length) = (HostOffset(input.word), u64::from(input.length));
    if let Some(entry) = CompressedDescriptor::encode(host, length, cluster_bits) {
        let back = CompressedDescriptor::decode(entry, cluster_bits);
        assert_eq!(back.host, host);
        assert!((length..length + 512).contains(&back.length));
    }
}

fn refcounts(geometry: Geometry, input: &Input<'_>) {
    let order = RefcountOrder::new(u32::from(input.refcount_order) % 7).unwrap();
    let mut block = input.table.to_vec();
    let index = usize::from(input.index);
    match order.load(&block, index) {
        None => assert_eq!(order.store(&mut block, index, 0), None),
        Some(before) => {
            order.store(&mut block, index, before).unwrap();
            assert_eq!(block, input.table, "storing what is there changes nothing");
            let fits = input.count <= order.max();
            assert_eq!(order.store(&mut block, index, input.count).is_some(), fits);
            let now = if fits { input.count } else { before };
            assert_eq!(order.load(&block, index), Some(now));
        }
    }
    let clusters = u64::from(input.guest);
    let metadata = refcount_metadata(clusters, geometry, order);
    let total = clusters + metadata.blocks + metadata.table_clusters;
    assert!(metadata.blocks * order.entries_per_block(geometry.cluster_bits) >= total);
    full_metadata_bytes(input.guest.into(), geometry, order);
}

fn tables(input: &Input<'_>) {
    if let Ok((snapshots, length)) = parse_table(input.table, input.snapshots.into(), input.count) {
        assert_eq!(snapshots.len(), usize::from(input.snapshots));
        assert!(length <= input.table.len() as u64);
    }
    let count = u32::from(input.bitmaps);
    // The directory is what is left of the table's bytes when they are not whole entries.
    if let Ok(entries) = parse_directory(input.table, count) {
        assert_eq!(entries.len(), usize::from(input.bitmaps));
        if entries
            .iter()
            .any(|entry| entry.name.contains(char::REPLACEMENT_CHARACTER))
        {
            return;
        }
        let written = encode_directory(&entries);
        assert_eq!(parse_directory(&written, count), Ok(entries));
    }
}
