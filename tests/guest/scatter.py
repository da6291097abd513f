"""scatter.py OUT VIRTUAL_BYTES CLUSTERS [SOURCE]

Writes a large qcow2 of 64 KiB clusters in one pass: CLUSTERS of them allocated, in runs strewn over the whole virtual
disk, whose order in the file is not the order on the disk. With SOURCE, a raw disk, seven clusters of eight hold its
non-zero clusters, rotated so that no two are equal, and the eighth is noise; without, the data is a hole in the file.
The same arguments make the same bytes.
"""

import os
import random
import struct
import sys
from array import array

CLUSTER = 1 << 16
PER_L2 = CLUSTER // 8
PER_BLOCK = CLUSTER // 2
COPIED = 1 << 63


def runs(rng, disk, wanted):
    """(first guest cluster, length) of each run, in guest order: one run in each of equal slots."""
    slots = wanted // 32
    lengths = [rng.randint(1, 63) for _ in range(slots)]
    excess = sum(lengths) - wanted
    at = 0
    while excess:
        step = 1 if excess > 0 else -1
        if 1 <= lengths[at] - step <= 63:
            lengths[at] -= step
            excess -= step
        at = (at + 1) % slots
    slot = disk // slots
    assert slot >= 63, "the disk is too small for that many clusters"
    return [(i * slot + rng.randint(0, slot - n), n) for i, n in enumerate(lengths)]


def big_endian(code, values):
    a = array(code, values)
    a.byteswap() if sys.byteorder == "little" else None
    return a.tobytes()


def payload(rng, source):
    zero = bytes(CLUSTER)
    count = turn = 0
    while True:
        source.seek(0)
        while cluster := source.read(CLUSTER):
            if cluster == zero or len(cluster) < CLUSTER:
                continue
            if count % 8 == 7:
                count += 1
                yield rng.randbytes(CLUSTER)
            cut = turn * 48
            count += 1
            yield cluster[cut:] + cluster[:cut]
        turn += 1


def main(out, virtual, clusters, source=None):
    virtual, clusters = int(virtual), int(clusters)
    rng = random.Random(f"{virtual} {clusters}")
    disk = virtual // CLUSTER
    in_guest_order = runs(rng, disk, clusters)
    in_host_order = in_guest_order[:]
    rng.shuffle(in_host_order)

    l1_len = -(-disk // PER_L2)
    used = sorted({c // PER_L2 for first, n in in_guest_order for c in (first, first + n - 1)})
    fixed = 2 + -(-l1_len * 8 // CLUSTER) + len(used) + clusters
    blocks = 1
    while blocks * PER_BLOCK < fixed + blocks:
        blocks += 1
    assert blocks <= PER_L2, "one cluster of refcount table is not enough"
    block_at = 2
    l1_at = block_at + blocks
    l2_at = l1_at + -(-l1_len * 8 // CLUSTER)
    data_at = l2_at + len(used)
    total = data_at + clusters

    tables = {index: array("Q", bytes(CLUSTER)) for index in used}
    host = data_at
    for first, n in in_host_order:
        for guest in range(first, first + n):
            tables[guest // PER_L2][guest % PER_L2] = host * CLUSTER | COPIED
            host += 1
    l1 = array("Q", bytes(l1_len * 8))
    for position, index in enumerate(used):
        l1[index] = (l2_at + position) * CLUSTER | COPIED

    with open(out, "wb") as f:
        header = struct.pack(
            ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, virtual, 0, l1_len, l1_at * CLUSTER,
            CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104)
        f.write(header)
        f.seek(CLUSTER)
        f.write(big_endian("Q", ((block_at + i) * CLUSTER for i in range(blocks))))
        f.seek(block_at * CLUSTER)
        f.write(b"\x00\x01" * total)
        f.seek(l1_at * CLUSTER)
        f.write(big_endian("Q", l1))
        f.seek(l2_at * CLUSTER)
        for index in used:
            f.write(big_endian("Q", tables.pop(index)))
        assert f.tell() == data_at * CLUSTER
        if source:
            with open(source, "rb") as raw:
                data = payload(rng, raw)
                for _ in range(clusters):
                    f.write(next(data))
        f.truncate(total * CLUSTER)
        f.flush()
        os.fsync(f.fileno())


main(*sys.argv[1:])
