seal_random_seed() {
    # It writes a new one when it stops: so it stops before.
    if [ -d /run/systemd/system ] && have systemctl; then
        systemctl stop systemd-random-seed.service >/dev/null 2>&1
    fi
    drop "$R"/var/lib/systemd/random-seed "$R"/var/lib/urandom/random-seed "$R"/var/lib/random-seed \
        "$R"/var/lib/misc/random-seed "$R"/var/lib/seedrng "$R"/etc/random.seed "$R"/var/db/host.random \
        "$R"/boot/loader/random-seed "$R"/boot/efi/loader/random-seed "$R"/efi/loader/random-seed
}
