# Shared by the scripts beside it and by tests/run; sourced, never run.
# shellcheck shell=bash

cache=${QIMG_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qimg-tests}

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "not root, and sudo is not there: cannot run $1"
        sudo "$@"
    fi
}

need() {
    local tool
    for tool; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
            die "$tool is missing; tests/oracles installs it"
    done
}

# The version of a cached artifact is the text of every file that makes it:
# `recipe FILE...` prints one hash, `is_fresh NAME HASH` compares it with the one kept beside NAME.
recipe() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_fresh() { [ -f "$cache/$1.recipe" ] && [ "$(cat "$cache/$1.recipe")" = "$2" ]; }

# One maker at a time; the second one then finds the artifact made.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/.lock-$1"
    flock 9
}

# Offset and length in bytes of a partition of a raw disk.
partition_range() {
    sfdisk --json "$1" | python3 -c '
import json, sys
table = json.load(sys.stdin)["partitiontable"]
for entry in table["partitions"]:
    if entry["node"].endswith(sys.argv[1]) and not entry["node"][: -len(sys.argv[1])][-1].isdigit():
        print(entry["start"] * 512, entry["size"] * 512)
' "$2"
}

# Loop devices and mounts that are held; `release` lets all of them go, the last one first.
held=()
release() {
    local index
    for ((index = ${#held[@]} - 1; index >= 0; index--)); do as_root ${held[index]}; done
    held=()
}

# mount_file FILE DIRECTORY [MOUNT OPTIONS]: a filesystem in a file, or in the loop device that FILE is.
mount_file() {
    local file=$1 directory=$2 device
    shift 2
    mkdir -p "$directory"
    device=$(as_root losetup --find --show "$file")
    held+=("losetup --detach $device")
    as_root mount "$@" "$device" "$directory"
    held+=("umount $directory")
}

# mount_partition DISK NUMBER DIRECTORY [MOUNT OPTIONS]: a partition of a raw disk, without partition nodes.
mount_partition() {
    local disk=$1 number=$2 directory=$3 device start size
    shift 3
    mkdir -p "$directory"
    read -r start size < <(partition_range "$disk" "$number")
    device=$(as_root losetup --find --show --offset "$start" --sizelimit "$size" "$disk")
    held+=("losetup --detach $device")
    as_root mount "$@" "$device" "$directory"
    held+=("umount $directory")
}
