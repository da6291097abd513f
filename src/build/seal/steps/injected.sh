# What a seed of the build's own brought: its data hold keys, and cloud-init shall take the next start for the first.
seal_injected_instance() {
    [ -n "$own_instance" ] || return 0
    cloud=$R/var/lib/cloud
    case $(readlink "$cloud/instance" 2>/dev/null) in
    */"$own_instance") drop "$cloud/instance" ;;
    esac
    drop "$cloud/instances/$own_instance"
    # Unless the image had been started before, all the rest comes from the same start.
    for other in "$cloud"/instances/*; do
        [ ! -e "$other" ] || return 0
    done
    drop "$cloud"/data/* "$cloud"/sem/*
}

seal_injected_host_keys() {
    [ -n "$own_host_keys" ] || return 0
    for public in "$R"/etc/ssh/ssh_host_*_key.pub; do
        if grep -q -F -e "$own_host_keys" "$public" 2>/dev/null; then
            drop "$public" "${public%.pub}" "${public%.pub}-cert.pub"
        fi
    done
    [ "$count" -gt 0 ] || return 0
    for key in "$R"/etc/ssh/ssh_host_*_key; do
        [ ! -e "$key" ] || return 0
    done
    maker=$(key_maker)
    if [ -n "$maker" ]; then
        note="made anew by $maker"
    elif have ssh-keygen; then
        # Nobody else would.
        ssh-keygen -A >/dev/null
        note='made anew'
    fi
}

seal_injected_users() {
    for own in $own_created; do
        grep -q "^$own:" "$R/etc/passwd" 2>/dev/null || continue
        home=$(sed -n "s/^$own:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*/\1/p" "$R/etc/passwd" | head -n 1)
        # It is logged in: that is us.
        if have userdel; then
            userdel -f "$own" >/dev/null 2>&1
        elif have deluser; then
            deluser "$own" >/dev/null 2>&1
        fi
        for file in passwd passwd- shadow shadow- group group- gshadow gshadow- subuid subuid- subgid subgid-; do
            if grep -q "^$own:" "$R/etc/$file" 2>/dev/null; then
                left=$(sed "/^$own:/d" "$R/etc/$file")
                if ! printf '%s\n' "$left" >"$R/etc/$file"; then failed=/etc/$file; fi
            fi
        done
        for file in "$R"/etc/sudoers.d/90-cloud-init-users "$R"/etc/doas.conf; do
            if grep -q -w -F "$own" "$file" 2>/dev/null; then
                left=$(sed -e "/^$own[[:space:]]/d" -e "/^# User rules for $own\$/d" "$file")
                if ! printf '%s\n' "$left" >"$file"; then failed=${file#"$R"}; fi
            fi
        done
        # We may be in it.
        cd /
        case $home in
        /home/?*) drop "$R$home" ;;
        esac
        drop "$R/var/mail/$own" "$R/var/spool/mail/$own" "$R/var/spool/cron/crontabs/$own"
        count=$((count + 1))
    done
}
