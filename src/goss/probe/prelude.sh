# Looks at this machine for a test of it. POSIX sh and what every userland has; writes into one directory of its own only, which
# is gone in the end. Each answer is a line: number of the check, name of what was asked, and = with a word, b: with base64 or
# x: with hexadecimal digits.
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask_before=$(umask)
umask 077
has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s %s =%s\n' "$1" "$2" "$3"; }
T=
for place in "${TMPDIR:-/tmp}" /run /dev/shm /var/tmp; do
    T=$(mktemp -d "$place/qimg-test.XXXXXX" 2>/dev/null) && break
    T=
done
if [ -z "$T" ]; then
    say g lacks place
    exit 0
fi
trap 'rm -rf "$T"' EXIT
trap 'exit 1' HUP INT TERM
if has base64; then
    sign=b
    encode() { base64 | tr -d '\n'; }
elif has openssl; then
    sign=b
    encode() { openssl base64 | tr -d '\n'; }
elif has od; then
    sign=x
    encode() { od -An -v -tx1 | tr -d ' \n'; }
else
    say g lacks encoder
    exit 0
fi
# put CHECK NAME BYTES <data
put() {
    printf '%s %s %s:' "$1" "$2" "$sign"
    head -c "$3" | encode
    printf '\n'
}
# word CHECK NAME TEXT: any text that this script made
word() { printf '%s' "$3" | put "$1" "$2" 65536; }
quietly() { LC_ALL=C "$@" 2>/dev/null; }
if timeout -s KILL 5 true >/dev/null 2>&1; then
    timed() { timeout -s KILL "$@"; }
else
    timed() {
        timed_for=$1
        shift
        "$@" &
        timed_pid=$!
        (sleep "$timed_for" && kill -9 "$timed_pid") >/dev/null 2>&1 &
        timed_watch=$!
        wait "$timed_pid" 2>/dev/null
        timed_code=$?
        kill -9 "$timed_watch" 2>/dev/null
        return "$timed_code"
    }
fi
now() { date +%s; }
jobs_now=0
# aside CHECK FUNCTION ARGUMENTS: not waited for until so many run
aside() {
    aside_to=$T/answer.$1
    shift
    "$@" >"$aside_to" 2>/dev/null &
    jobs_now=$((jobs_now + 1))
    if [ "$jobs_now" -ge "$most_jobs" ]; then
        wait
        jobs_now=0
    fi
}

ask_globals() {
    say g uid "$(id -u)"
    for what; do
        case $what in
        net)
            for table in tcp tcp6 udp udp6; do
                [ ! -r "/proc/net/$table" ] || put g "net-$table" 4194304 <"/proc/net/$table"
            done
            [ ! -r /proc/sys/net/ipv6/bindv6only ] || say g bindv6only "$(cat /proc/sys/net/ipv6/bindv6only)"
            ;;
        processes) cat /proc/[0-9]*/comm 2>/dev/null | put g processes 1048576 ;;
        users)
            put g passwd 4194304 </etc/passwd
            put g group 4194304 </etc/group
            ;;
        mounts) put g mounts 1048576 </proc/self/mountinfo ;;
        esac
    done
}

# ask_file CHECK PATH BYTES WANTED...
ask_file() {
    check=$1 path=$2 most=$3
    shift 3
    if [ ! -e "$path" ] && [ ! -L "$path" ]; then
        # What lies in a directory that nobody lets us see is not known to be absent.
        say "$check" exists 0
        return
    fi
    say "$check" exists 1
    if status=$(quietly stat -c '%f %a %s %u %g %U %G' "$path"); then
        word "$check" stat "$status"
    else
        word "$check" ls "$(quietly ls -ldn "$path")"
    fi
    [ ! -L "$path" ] || word "$check" link "$(readlink "$path")"
    for wanted; do
        if [ ! -f "$path" ]; then
            say "$check" "refused-$wanted" kind
            continue
        elif [ ! -r "$path" ]; then
            say "$check" "refused-$wanted" permission
            continue
        fi
        case $wanted in
        contents) put "$check" contents "$most" <"$path" ;;
        *)
            if has "${wanted}sum"; then
                word "$check" "$wanted" "$("${wanted}sum" <"$path" 2>/dev/null)"
            elif has openssl; then
                word "$check" "$wanted" "$(openssl dgst "-$wanted" -r <"$path" 2>/dev/null)"
            else
                say "$check" "refused-$wanted" tool
            fi
            ;;
        esac
    done
}

packages_by=
find_packages() {
    if [ -f /etc/alpine-release ] && [ -f /lib/apk/db/installed ]; then
        packages_by=apk
    elif [ -f /etc/debian_version ] && has dpkg-query; then
        packages_by=deb
    elif [ -f /etc/arch-release ] && has pacman; then
        packages_by=pacman
    elif has rpm; then
        packages_by=rpm
    elif has dpkg-query; then
        packages_by=deb
    elif [ -f /lib/apk/db/installed ]; then
        packages_by=apk
    elif has pacman; then
        packages_by=pacman
    else
        packages_by=none
    fi
}
# ask_package CHECK NAME
ask_package() {
    [ -n "$packages_by" ] || find_packages
    say "$1" manager "$packages_by"
    case $packages_by in
    deb) quietly dpkg-query -W -f '${Status} ${Version}\n' "$2" | put "$1" versions 65536 ;;
    rpm) quietly rpm -q --nosignature --nodigest --qf 'installed %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n' "$2" |
        put "$1" versions 65536 ;;
    apk) awk -v name="$2" '/^P:/ { here = substr($0, 3) == name } here && /^V:/ { print "installed " substr($0, 3) }' \
        /lib/apk/db/installed 2>/dev/null | put "$1" versions 65536 ;;
    pacman) quietly pacman -Q "$2" | awk '{ print "installed " $2 }' | put "$1" versions 65536 ;;
    esac
}

# ask_service CHECK NAME
ask_service() {
    enabled=0 running=0 levels=
    if [ -d /run/systemd/system ] && has systemctl; then
        ! systemctl -q is-enabled "$2" >/dev/null 2>&1 || enabled=1
        ! systemctl -q is-active "$2" >/dev/null 2>&1 || running=1
    fi
    if has rc-service && [ -d /etc/runlevels ]; then
        for link in /etc/runlevels/*/"$2"; do
            [ -e "$link" ] || [ -L "$link" ] || continue
            enabled=1
            level=${link%/*}
            levels="$levels ${level##*/}"
        done
        ! timed 10 rc-service "$2" status >/dev/null 2>&1 || running=1
    elif [ ! -d /run/systemd/system ]; then
        for link in /etc/rc[0-9S].d/S[0-9][0-9]"$2"; do
            [ -e "$link" ] || [ -L "$link" ] || continue
            enabled=1
            level=${link#/etc/rc}
            levels="$levels ${level%%.d/*}"
        done
        if [ -x "/etc/init.d/$2" ]; then
            ! timed 10 "/etc/init.d/$2" status >/dev/null 2>&1 || running=1
        fi
    fi
    say "$1" enabled "$enabled"
    say "$1" running "$running"
    word "$1" runlevels "$levels"
}

# ask_usage CHECK MOUNT-POINT SECONDS
ask_usage() {
    if usage=$(quietly timed "$3" stat -f -c '%b %f' "$2"); then
        word "$1" usage "$usage"
    else
        word "$1" df "$(quietly timed "$3" df -P "$2" | tail -n 1)"
    fi
}

# ask_parameter CHECK PATH
ask_parameter() {
    if [ -r "/proc/sys/$2" ]; then
        put "$1" value 65536 <"/proc/sys/$2"
    elif [ -e "/proc/sys/$2" ]; then
        say "$1" refused permission
    else
        say "$1" refused absent
    fi
}

# ask_interface CHECK NAME
ask_interface() {
    if [ ! -e "/sys/class/net/$2" ]; then
        say "$1" exists 0
        return
    fi
    say "$1" exists 1
    say "$1" mtu "$(cat "/sys/class/net/$2/mtu")"
    if has ip; then
        quietly ip addr show dev "$2" | put "$1" ip 65536
    elif has ifconfig; then
        quietly ifconfig "$2" | put "$1" ifconfig 65536
    fi
}

# ask_command CHECK SECONDS BYTES COMMAND
ask_command() {
    began=$(now)
    (
        umask "$umask_before"
        timed "$2" sh -c "$4"
    ) >"$T/$1.out" 2>"$T/$1.err" </dev/null
    say "$1" exit "$?"
    say "$1" took "$(($(now) - began))"
    put "$1" out "$3" <"$T/$1.out"
    put "$1" err "$3" <"$T/$1.err"
    rm -f "$T/$1.out" "$T/$1.err"
}

# ask_address CHECK HOST PORT SECONDS SOURCE
ask_address() {
    if has bash && [ -z "$5" ]; then
        ! timed "$4" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" >/dev/null 2>&1 || { say "$1" reachable 1; return; }
    elif has nc && nc -h 2>&1 | grep -q -e '-z'; then
        ! timed "$(($4 + 1))" nc -z -w "$4" ${5:+-s "$5"} "$2" "$3" >/dev/null 2>&1 || { say "$1" reachable 1; return; }
    elif has nc && nc --help 2>&1 | grep -q -e '-e PROG'; then
        ! timed "$(($4 + 1))" nc -w "$4" ${5:+-s "$5"} "$2" "$3" -e true >/dev/null 2>&1 || { say "$1" reachable 1; return; }
    elif has python3; then
        ! timed "$(($4 + 1))" python3 -c 'import socket, sys
h, p, t, s = sys.argv[1:]
socket.create_connection((h, int(p)), float(t), (s, 0) if s else None)' "$2" "$3" "$4" "$5" >/dev/null 2>&1 ||
            { say "$1" reachable 1; return; }
    elif has curl; then
        ! timed "$(($4 + 1))" curl -sv --connect-timeout "$4" --max-time "$4" ${5:+--interface "$5"} "telnet://$2:$3" 2>&1 </dev/null |
            grep -q 'Connected to' || { say "$1" reachable 1; return; }
    else
        say "$1" refused tool
        return
    fi
    say "$1" reachable 0
}

# ask_url CHECK SECONDS BYTES URL PLAIN: curl's configuration is in a file; PLAIN: nothing in it that any client does not have
ask_url() {
    if has curl; then
        code=$(timed "$(($2 + 5))" curl -q -K "$T/$1.curl" -o "$T/$1.body" -D "$T/$1.head" -w '%{http_code}' "$4" 2>"$T/$1.why")
        if [ $? -eq 0 ]; then
            word "$1" status "$code"
            put "$1" headers 1048576 <"$T/$1.head"
            if [ -f "$T/$1.body" ]; then put "$1" body "$3" <"$T/$1.body"; else word "$1" body ''; fi
        else
            put "$1" failed 4096 <"$T/$1.why"
        fi
    elif has wget && [ "$5" = 1 ]; then
        timed "$(($2 + 5))" wget -S -T "$2" -O "$T/$1.body" "$4" >"$T/$1.head" 2>&1
        put "$1" wget 1048576 <"$T/$1.head"
        if [ -f "$T/$1.body" ]; then put "$1" body "$3" <"$T/$1.body"; else word "$1" body ''; fi
    else
        say "$1" refused tool
    fi
    rm -f "$T/$1.curl" "$T/$1.body" "$T/$1.head" "$T/$1.why"
}

# ask_name CHECK SECONDS NAME TYPE SERVER PORT
ask_name() {
    if [ -z "$5" ]; then
        if has getent; then
            quietly timed "$2" getent ahosts "$3" >"$T/$1.dns" || quietly timed "$2" getent hosts "$3" >"$T/$1.dns"
            put "$1" getent 65536 <"$T/$1.dns"
        elif has nslookup; then
            quietly timed "$2" nslookup "$3" | put "$1" nslookup 65536
            # The servers do not know what the file does.
            awk -v name="$3" '{ for (i = 2; i <= NF && $1 !~ /^#/; i++) if ($i == name) print $1 }' /etc/hosts 2>/dev/null |
                put "$1" hosts 65536
        else
            say "$1" refused tool
        fi
    elif has dig; then
        if [ "$4" = PTR ]; then
            quietly timed "$(($2 + 1))" dig +short +time="$2" +tries=1 -p "$6" "@$5" -x "$3"
        elif [ -n "$4" ]; then
            quietly timed "$(($2 + 1))" dig +short +time="$2" +tries=1 -p "$6" "@$5" "$3" "$4"
        else
            quietly timed "$(($2 + 1))" dig +short +time="$2" +tries=1 -p "$6" "@$5" "$3" A
            quietly timed "$(($2 + 1))" dig +short +time="$2" +tries=1 -p "$6" "@$5" "$3" AAAA
        fi >"$T/$1.dns"
        put "$1" dig 65536 <"$T/$1.dns"
    elif has host; then
        quietly timed "$(($2 + 1))" host -p "$6" -W "$2" ${4:+-t "$4"} "$3" "$5" >"$T/$1.dns"
        put "$1" host 65536 <"$T/$1.dns"
    elif has nslookup; then
        quietly timed "$(($2 + 1))" nslookup ${4:+-type="$4"} "$3" "$5" | put "$1" nslookup 65536
    else
        say "$1" refused tool
    fi
    rm -f "$T/$1.dns"
}
