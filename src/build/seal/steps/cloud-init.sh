seal_cloud_init() {
    if ! has_cloud_init && [ ! -d "$R/var/lib/cloud" ]; then
        note='the guest has no cloud-init'
        return
    fi
    # Versions before 17.2 cannot clean; all others know these two.
    if have cloud-init && cloud-init clean --logs --seed >/dev/null 2>&1; then
        count=$((count + 1))
        note='cloud-init clean --logs --seed'
    fi
    # What it left, or all of it.
    for left in "$R"/var/lib/cloud/*; do
        drop "$left"
    done
    drop "$R"/var/log/cloud-init.log "$R"/var/log/cloud-init-output.log
}
