seal_fstrim() {
    if ! have fstrim; then
        note='the guest has no fstrim'
        return
    fi
    sync
    if trimmed=$(fstrim -av 2>/dev/null) && [ -n "$trimmed" ]; then
        count=$(printf '%s\n' "$trimmed" | wc -l)
        note=$trimmed
        return
    fi
    # That of busybox takes one filesystem at a time.
    trimmed=' '
    while read -r device mounted kind _; do
        case $kind in
        ext[234] | xfs | btrfs | vfat | f2fs)
            case $trimmed in *" $device "*) continue ;; esac
            if fstrim "$mounted" 2>/dev/null; then
                count=$((count + 1))
                trimmed="$trimmed$device "
            fi
            ;;
        esac
    done </proc/mounts
    [ "$count" -gt 0 ] || note='no filesystem can be trimmed'
}
