seal_logs() {
    # Whoever still writes would write what is to be gone.
    if [ -d /run/systemd/system ] && have systemctl; then
        systemctl stop syslog.socket rsyslog.service syslog-ng.service >/dev/null 2>&1
    fi
    # The journal goes on in memory; one that cannot begins new files, with the end of this machine's life.
    if have journalctl; then
        journalctl --relinquish-var >/dev/null 2>&1 || journalctl --rotate >/dev/null 2>&1
    fi
    [ -d "$R/var/log" ] || return 0
    # Its directories have the machine's id for a name.
    for journal in "$R"/var/log/journal/*; do
        drop "$journal"
    done
    sweep "$R/var/log" \( -name '*.gz' -o -name '*.xz' -o -name '*.bz2' \
        -o -name '*.zst' -o -name '*.[0-9]' -o -name '*.[0-9][0-9]' -o -name '*.old' -o -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' \)
    full=$(find "$R/var/log" -xdev -type f ! -size 0 -print 2>/dev/null | wc -l)
    if [ "$full" -gt 0 ]; then
        # shellcheck disable=SC2016
        if find "$R/var/log" -xdev -type f ! -size 0 -exec sh -c 'for file do true >"$file" || exit 1; done' sh {} +; then
            count=$((count + full))
        else
            failed=/var/log
        fi
    fi
    sweep "$R/var/lib/systemd/coredump"
    sweep "$R/var/crash"
}
