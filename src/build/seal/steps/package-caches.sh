seal_package_caches() {
    sweep "$R/var/lib/apt/lists" ! -name lock
    sweep "$R/var/cache/apt" ! -name lock
    sweep "$R/var/cache/debconf" -name '*-old'
    sweep "$R/var/lib/dpkg" -name '*-old'
    for cache in dnf yum libdnf5 PackageKit zypp apk; do
        sweep "$R/var/cache/$cache"
    done
    sweep "$R/var/lib/dnf" -name '*.solv*'
    sweep "$R/var/cache/pacman/pkg"
    sweep "$R/var/lib/pacman/sync"
}
