//! The host's own address on a bridge.
//!
//! Knows what Linux shows of routes (`/proc/net/route`) and of its addresses (`/proc/net/fib_trie`). Must not know what
//! anybody wants of it.

use std::net::Ipv4Addr;

use crate::error::{Error, Result};
use crate::store::read_file;

/// Bytes of such a table at most.
const TABLE: u64 = 16 << 20;

/// The first IPv4 address that this host has in the network of `bridge`.
///
/// # Errors
/// There is none, or no such bridge.
pub(super) fn address_of(bridge: &str) -> Result<Ipv4Addr> {
    let read = |path: &str| {
        read_file(path, TABLE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let routes = read("/proc/net/route")?;
    let addresses = read("/proc/net/fib_trie")?;
    find(bridge, &routes, &addresses).ok_or_else(|| {
        Error::usage(format!(
            "this host has no IPv4 address on the bridge '{bridge}'"
        ))
        .with_remedy("give it one, or say where to listen: http_bind_address")
    })
}

fn find(bridge: &str, routes: &str, addresses: &str) -> Option<Ipv4Addr> {
    let hex = |text: &str| {
        let bytes = u32::from_str_radix(text, 16).ok()?.to_le_bytes();
        Some(u32::from_be_bytes(bytes))
    };
    let networks: Vec<(u32, u32)> = routes
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let network = (hex(fields.get(1)?)?, hex(fields.get(7)?)?);
            (fields.first() == Some(&bridge) && network.1 != 0).then_some(network)
        })
        .collect();
    // An address stands in the line above the one that calls it local.
    let mut above = None;
    for line in addresses.lines() {
        if line.contains("/32 host LOCAL") {
            let local = above.filter(|address: &Ipv4Addr| {
                let bits = u32::from(*address);
                networks
                    .iter()
                    .any(|(network, mask)| bits & mask == *network)
            });
            if local.is_some() {
                return local;
            }
        }
        let address = line.rsplit(' ').next().unwrap_or_default();
        if let Ok(address) = address.parse() {
            above = Some(address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_one_in_the_bridges_network() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
            br0\t007BA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        let addresses = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.15\n        /32 host LOCAL\n     \
            +-- 192.168.123.0/24 2 0 2\n        |-- 192.168.123.0\n           /24 link UNICAST\n        \
            |-- 192.168.123.1\n           /32 host LOCAL\n";
        let found = |bridge| find(bridge, routes, addresses);
        assert_eq!(found("br0"), Some(Ipv4Addr::new(192, 168, 123, 1)));
        assert_eq!(found("eth0"), Some(Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!(found("br1"), None);
    }
}
