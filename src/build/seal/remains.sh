# What a reader of the image would find. Fields are separated by tabs.
tab=$(printf '\t')
remain() {
    kind=$1
    shift
    line=$kind
    for field in "$@"; do
        line="$line$tab$(printf %s "$field" | tr '\000-\037' ' ' | head -c 300)"
    done
    say "remains $line"
}

keys_in() {
    [ -f "$2" ] || return 0
    keys_left=0
    while read -r line && [ "$keys_left" -lt 50 ]; do
        case $line in
        '' | '#'*) continue ;;
        esac
        keys_left=$((keys_left + 1))
        # Options may stand before the type, and hold anything.
        type=unknown comment=''
        case $line in
        *'ssh-'* | *'ecdsa-'* | *'sk-'*)
            set -f
            # shellcheck disable=SC2086
            set -- "$1" "$2" $line
            set +f
            owner=$1 where=$2
            shift 2
            while [ $# -gt 0 ]; do
                case $1 in
                ssh-rsa | ssh-ed25519 | ssh-dss | ecdsa-sha2-* | sk-*)
                    type=$1
                    shift
                    if [ $# -gt 0 ]; then shift; fi
                    comment=$*
                    break
                    ;;
                esac
                shift
            done
            set -- "$owner" "$where"
            ;;
        esac
        remain authorized-key "$1" "${2#"$R"}" "$type" "$comment"
    done <"$2"
}

keys_of_user() {
    case $seen_homes in *"|$2|"*) return 0 ;; esac
    seen_homes="$seen_homes|$2|"
    keys_in "$1" "$2/.ssh/authorized_keys"
    keys_in "$1" "$2/.ssh/authorized_keys2"
}

# Before host keys go: without them sshd answers no questions.
look_at_sshd() {
    password_login=unknown
    if have sshd && asked=$(sshd -T 2>/dev/null); then
        case $asked in
        *'passwordauthentication yes'*) password_login=yes ;;
        *'passwordauthentication no'*) password_login=no ;;
        esac
    fi
    if [ "$password_login" = unknown ] && [ -r "$R/etc/ssh/sshd_config" ]; then
        # The first that says so counts, and those that are included come first.
        first=$(cat "$R"/etc/ssh/sshd_config.d/*.conf "$R/etc/ssh/sshd_config" 2>/dev/null |
            sed -n 's/^[[:space:]]*[Pp]assword[Aa]uthentication[[:space:]=]*\([a-z]*\).*/\1/p' | head -n 1)
        password_login=${first:-yes}
    fi
}

look_at_remains() {
    seen_homes=''
    each_user keys_of_user
    for file in "$R"/etc/ssh/authorized_keys "$R"/etc/ssh/authorized_keys/* "$R"/etc/ssh/authorized_keys.d/* \
        "$R"/etc/dropbear/authorized_keys; do
        keys_in "${file##*/}" "$file"
    done
    for key in "$R"/etc/ssh/ssh_host_*_key.pub; do
        [ -f "$key" ] || continue
        print=''
        if command -v ssh-keygen >/dev/null 2>&1; then print=$(ssh-keygen -l -f "$key" 2>/dev/null); fi
        remain host-key "${key#"$R"}" "$print"
    done
    for key in "$R"/etc/ssh/ssh_host_*_key "$R"/etc/dropbear/dropbear_*_host_key; do
        if [ -f "$key" ] && [ ! -f "$key.pub" ]; then remain host-key "${key#"$R"}" ''; fi
    done
    id=absent
    if [ -f "$R/etc/machine-id" ]; then
        id=$(head -c 40 "$R/etc/machine-id" | tr -d '\000-\037')
        case $id in
        '') id=empty ;;
        uninitialized) ;;
        *) id=set ;;
        esac
    fi
    remain machine-id $id
    if [ -r "$R/etc/shadow" ]; then
        while IFS=: read -r name hash _; do
            case $hash in
            '') remain password "$name" empty ;;
            # Locked ones begin with a sign that no hash has.
            !* | \**) ;;
            \$* | _* | ?????????????) remain password "$name" hash ;;
            esac
        done <"$R/etc/shadow"
    fi
    for instance in "$R"/var/lib/cloud/instances/*; do
        if [ -e "$instance" ]; then remain cloud-init "${instance##*/}"; fi
    done
    remain ssh-password-login "$password_login"
}
