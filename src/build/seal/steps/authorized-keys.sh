# Removes the lines of the build's own keys from one file.
strip_keys() {
    [ -f "$1" ] && [ -n "$own_keys" ] || return 0
    grep -q -F -e "$own_keys" "$1" || return 0
    kept=$(grep -v -F -e "$own_keys" "$1")
    case $kept in
    *[![:space:]]*)
        if printf '%s\n' "$kept" >"$1"; then count=$((count + 1)); else failed=${1#"$R"}; fi
        ;;
    *)
        # Nobody else's: as if there had been none.
        drop "$1"
        rmdir "${1%/*}" 2>/dev/null
        ;;
    esac
}

strip_user() {
    strip_keys "$2/.ssh/authorized_keys"
    strip_keys "$2/.ssh/authorized_keys2"
}

seal_authorized_keys() {
    each_user strip_user
    for file in "$R"/etc/ssh/authorized_keys "$R"/etc/ssh/authorized_keys/* "$R"/etc/ssh/authorized_keys.d/* \
        "$R"/etc/dropbear/authorized_keys "$R"/root/.ssh/authorized_keys; do
        strip_keys "$file"
    done
}
