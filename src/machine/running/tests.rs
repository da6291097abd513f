use super::*;

#[test]
fn the_port_is_found_in_what_qemu_shows() {
    let shown = "Hub -1 (user.0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
        TCP[ESTABLISHED]   15       127.0.0.1 45001       10.0.2.15    22     0     0\n  \
        TCP[HOST_FORWARD]  13       127.0.0.1 45693       10.0.2.15    22     0     0\n  \
        TCP[HOST_FORWARD]  14               * 80          10.0.2.15  8080     0     0\n";
    assert_eq!(forwarded_port(shown, 22), Some(45693));
    assert_eq!(forwarded_port(shown, 8080), Some(80));
    assert_eq!(forwarded_port(shown, 23), None);
    for garbage in [
        "",
        "TCP[HOST_FORWARD]",
        "TCP[HOST_FORWARD] a b c d e f",
        "TCP[HOST_FORWARD] 1 x 99999 y 22",
    ] {
        assert_eq!(forwarded_port(garbage, 22), None);
    }
}
