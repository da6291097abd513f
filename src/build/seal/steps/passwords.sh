# Makes a user's password one that nobody has, in one file. The user is not locked: keys go on working everywhere.
lock_in() {
    [ -f "$1" ] || return 0
    grep -q "^$2:[^:*!]" "$1" || grep -q "^$2::" "$1" || return 0
    locked=$(sed "s/^$2:[^:]*/$2:*/" "$1")
    if printf '%s\n' "$locked" >"$1"; then count=$((count + 1)); else failed=${1#"$R"}; fi
}

seal_passwords() {
    for own in $own_users; do
        if [ -f "$R/etc/shadow" ]; then
            lock_in "$R/etc/shadow" "$own"
            # The copy that was made before the last change.
            lock_in "$R/etc/shadow-" "$own"
        elif have usermod; then
            if usermod -p '*' "$own"; then count=$((count + 1)); else failed="the password of $own"; fi
        elif grep -q "^$own:[^:x*!]" "$R/etc/passwd" 2>/dev/null; then
            lock_in "$R/etc/passwd" "$own"
        fi
    done
}
