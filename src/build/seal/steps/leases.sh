seal_leases() {
    drop "$R"/var/lib/dhcp/*.lease* "$R"/var/lib/dhclient/*lease* "$R"/var/lib/dhcp3/*.lease* \
        "$R"/var/lib/dhcpcd/*.lease* "$R"/var/lib/dhcpcd5/*.lease* "$R"/var/db/dhcpcd/*.lease* \
        "$R"/var/lib/dhcpcd/duid "$R"/var/db/dhcpcd/duid "$R"/etc/dhcpcd.duid "$R"/var/db/dhclient.leases.* \
        "$R"/var/lib/NetworkManager/*.lease "$R"/var/lib/NetworkManager/timestamps \
        "$R"/var/lib/NetworkManager/seen-bssids "$R"/var/lib/NetworkManager/secret_key \
        "$R"/var/lib/wicked/lease-* "$R"/var/lib/wicked/duid.xml "$R"/var/lib/wicked/iaid.xml \
        "$R"/var/lib/systemd/network/* "$R"/etc/udev/rules.d/70-persistent-net.rules
    # What cloud-init wrote for the network card of this machine, it writes again for the next one's.
    if cloud_init_starts_anew && ! grep -r -q -E 'config: *"?disabled' "$R"/etc/cloud/cloud.cfg.d 2>/dev/null; then
        drop "$R"/etc/netplan/50-cloud-init.yaml "$R"/etc/network/interfaces.d/50-cloud-init \
            "$R"/etc/network/interfaces.d/50-cloud-init.cfg "$R"/etc/systemd/network/10-cloud-init-*.network \
            "$R"/etc/NetworkManager/system-connections/cloud-init-*.nmconnection
        for file in "$R"/etc/sysconfig/network-scripts/ifcfg-*; do
            if grep -q -i 'created by cloud-init' "$file" 2>/dev/null; then drop "$file"; fi
        done
    fi
}
