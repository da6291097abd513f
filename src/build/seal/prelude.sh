# What all steps use. $R is put before every path: empty, but for tests.
set -u
umask 077
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C

# What the caller reads goes to descriptor 3, everything else to standard error.
say() { printf 'qimg-seal %s\n' "$*" >&3; }

# Whether this is the running system, whose services may be asked.
live() { [ -z "$R" ]; }
have() { live && command -v "$1" >/dev/null 2>&1; }

# A start of the guest that is not over yet would write again what is removed: its cloud-init is waited for, 5 minutes at most.
await_cloud_init() {
    have systemctl || return 0
    tries=0
    while [ $tries -lt 300 ] && systemctl list-jobs --no-legend 2>/dev/null | grep -q ' cloud-[a-z-]*\.service '; do
        tries=$((tries + 1))
        sleep 1
    done
}

# Runs one step: its name, and its function.
step() {
    count=0 failed='' note='' state=''
    "$2"
    if [ -n "$failed" ]; then
        state=failed
        note="cannot change $failed${note:+; $note}"
    elif [ -z "$state" ]; then
        state=absent
        [ "$count" -eq 0 ] || state=done
    fi
    say "step $1 $state $count $(printf %s "$note" | tr '\000-\037' ' ' | head -c 900)"
}

# Removes what is there of these.
drop() {
    for dropped in "$@"; do
        if [ -e "$dropped" ] || [ -h "$dropped" ]; then
            if rm -rf "$dropped"; then count=$((count + 1)); else failed=${dropped#"$R"}; fi
        fi
    done
}

# Empties what is there of these, and keeps them.
empty() {
    for emptied in "$@"; do
        if [ -f "$emptied" ] && [ -s "$emptied" ]; then
            if true >"$emptied"; then count=$((count + 1)); else failed=${emptied#"$R"}; fi
        fi
    done
}

# Removes the files below a directory that find's further arguments choose, on its own filesystem only.
sweep() {
    swept=$1
    shift
    [ -d "$swept" ] || return 0
    found=$(find "$swept" -xdev ! -type d "$@" -print 2>/dev/null | wc -l)
    [ "$found" -gt 0 ] || return 0
    if find "$swept" -xdev ! -type d "$@" -exec rm -f {} +; then
        count=$((count + found))
    else
        failed=${swept#"$R"}
    fi
}

# Calls a function with the name and the home of each user who has one.
each_user() {
    [ -r "$R/etc/passwd" ] || return 0
    while IFS=: read -r user_name _ _ _ _ user_home _; do
        case $user_home in
        /*) if [ -d "$R$user_home" ]; then "$1" "$user_name" "$R${user_home%/}"; fi ;;
        esac
    done <"$R/etc/passwd"
}

has_cloud_init() {
    [ -e "$R/usr/bin/cloud-init" ] || [ -e "$R/usr/local/bin/cloud-init" ] || have cloud-init
}

# Whether cloud-init will take the next start for the first one of a new machine.
cloud_init_starts_anew() {
    has_cloud_init && [ ! -e "$R/etc/cloud/cloud-init.disabled" ] &&
        [ ! -e "$R/var/lib/cloud/instance" ] && [ ! -h "$R/var/lib/cloud/instance" ]
}

# Whose work it is to make host keys where there are none; nothing where it is nobody's.
key_maker() {
    if cloud_init_starts_anew; then
        echo cloud-init
        return
    fi
    for unit in "$R"/etc/systemd/system/*ssh*.service "$R"/usr/lib/systemd/system/*ssh*.service \
        "$R"/lib/systemd/system/*ssh*.service "$R"/etc/systemd/system/dropbear*.service \
        "$R"/lib/systemd/system/dropbear*.service "$R"/etc/init.d/*ssh* "$R"/etc/init.d/dropbear \
        "$R"/etc/init.d/rcS "$R"/etc/default/dropbear "$R"/etc/inittab "$R"/etc/rc.d/*ssh* "$R"/etc/rc "$R"/etc/rc.local; do
        if [ -f "$unit" ] && grep -v '^[[:space:]]*#' "$unit" 2>/dev/null |
            grep -q -E 'ssh-keygen|sshd-keygen|sshd-gen-keys|sshdgenkeys|dropbearkey|dropbear.* -[A-Za-z]*R'; then
            echo "${unit#"$R"}"
            return
        fi
    done
}
