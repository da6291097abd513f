# Shared by the scripts beside it and by tests/run; sourced, never run.
# shellcheck shell=bash

cache=${QIMG_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qimg-tests}

say() { printf '==> %s\n' "$*" >&2; }
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "not root, and sudo is not there: cannot run $1"
        sudo "$@"
    fi
}

need() {
    local tool
    for tool; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
            die "$tool is missing; tests/oracles installs it"
    done
}

# The version of a cached artifact is the text of every file that makes it:
# `recipe FILE...` prints one hash, `is_fresh NAME HASH` compares it with the one kept beside NAME.
recipe() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_fresh() { [ -f "$cache/$1.recipe" ] && [ "$(cat "$cache/$1.recipe")" = "$2" ]; }

# One maker at a time; the second one then finds the artifact made.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/.lock-$1"
    flock 9
}
