seal_ssh_host_keys() {
    set --
    for key in "$R"/etc/ssh/ssh_host_*key* "$R"/etc/dropbear/dropbear_*_host_key "$R"/etc/dropbear/*.pub; do
        if [ -e "$key" ]; then set -- "$@" "$key"; fi
    done
    [ $# -gt 0 ] || return 0
    maker=$(key_maker)
    if [ -z "$maker" ]; then
        state=kept
        note='nothing in the guest would make new ones'
        return
    fi
    drop "$@"
    note="made anew by $maker"
}
