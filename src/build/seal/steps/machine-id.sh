seal_machine_id() {
    # Emptied, not deleted: a root that is read-only at first needs the file. systemd makes a new one into it.
    empty "$R/etc/machine-id"
    if [ -e "$R/etc/machine-id" ]; then
        if [ -d "$R/var/lib/dbus" ] && [ "$(readlink "$R/var/lib/dbus/machine-id" 2>/dev/null)" != /etc/machine-id ]; then
            drop "$R/var/lib/dbus/machine-id"
            if ln -s /etc/machine-id "$R/var/lib/dbus/machine-id"; then
                count=$((count + 1))
            else
                failed=/var/lib/dbus/machine-id
            fi
        fi
    else
        # Without systemd D-Bus makes its own.
        drop "$R/var/lib/dbus/machine-id"
    fi
}
