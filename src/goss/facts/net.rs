//! Ports that somebody listens on, from /proc/net.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which port is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    /// `tcp` or `udp`.
    pub(crate) is_udp: bool,
    /// `Some(4)` or `Some(6)`: of this version alone.
    pub(crate) version: Option<u8>,
    pub(crate) number: u16,
}

impl Port {
    /// From `tcp:22`, `tcp4:22`, `tcp6:22` and the same of UDP.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (protocol, number) = text.split_once(':')?;
        let (is_udp, version) = match protocol {
            "tcp" => (false, None),
            "tcp4" => (false, Some(4)),
            "tcp6" => (false, Some(6)),
            "udp" => (true, None),
            "udp4" => (true, Some(4)),
            "udp6" => (true, Some(6)),
            _ => return None,
        };
        let number = number.parse().ok()?;
        Some(Self {
            is_udp,
            version,
            number,
        })
    }
}

/// Local address and port of each socket in a table of /proc/net that waits for others.
pub(crate) fn listening(table: &str, is_udp: bool) -> Vec<(IpAddr, u16)> {
    // TCP_LISTEN; UDP has no such state, but sockets without a peer are in TCP_CLOSE.
    let state = if is_udp { "07" } else { "0A" };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let local = words.nth(1)?;
            let found = words.nth(1)?;
            (found == state).then(|| socket(local)).flatten()
        })
        .collect()
}

/// An address as the kernel writes it: 32-bit words of the machine's order, which is little-endian where qimg's guests run.
fn socket(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_le_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (place, at) in bytes.chunks_mut(4).zip([0, 8, 16, 24]) {
                place.copy_from_slice(&word(at)?.to_le_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((address, port))
}

/// The addresses on which `port` is listened on; `four` and `six` are the tables of both versions.
///
/// A socket on any IPv6 address takes IPv4 connections too, unless `only_six`: it counts for both.
pub(crate) fn addresses(port: Port, four: &str, six: &str, only_six: bool) -> Vec<String> {
    let of = |table: &str| -> Vec<IpAddr> {
        let sockets = listening(table, port.is_udp).into_iter();
        sockets
            .filter(|(_, number)| *number == port.number)
            .map(|(address, _)| address)
            .collect()
    };
    let (four, six) = (of(four), of(six));
    let both = !only_six && six.iter().any(IpAddr::is_unspecified);
    let mut found: Vec<String> = Vec::new();
    let mut add = |address: String| {
        if !found.contains(&address) {
            found.push(address);
        }
    };
    if port.version != Some(6) {
        four.iter().for_each(|address| add(address.to_string()));
        for address in &six {
            if let IpAddr::V6(address) = address
                && let Some(mapped) = address.to_ipv4_mapped()
            {
                add(mapped.to_string());
            }
        }
        if both {
            add(Ipv4Addr::UNSPECIFIED.to_string());
        }
    }
    // What answers to `tcp` answers by IPv6 as well, and its address is told.
    if port.version == Some(6) || (port.version.is_none() && both) {
        six.iter()
            .filter(|address| matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_none()))
            .for_each(|address| add(address.to_string()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue\n";

    #[test]
    fn a_socket_on_any_address_of_ipv6_counts_for_ipv4() {
        let four = format!(
            "{HEAD}   0: 0100007F:0CEA 00000000:0000 0A 0\n   1: 0100007F:0016 0200007F:9999 01 0\n"
        );
        let six = format!(
            "{HEAD}   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n"
        );
        let at =
            |text: &str, only_six| addresses(Port::parse(text).unwrap(), &four, &six, only_six);
        assert_eq!(at("tcp:3306", false), ["127.0.0.1"]);
        assert_eq!(at("tcp6:3306", false), [""; 0]);
        assert_eq!(at("tcp:22", false), ["0.0.0.0", "::"]);
        assert_eq!(at("tcp4:22", false), ["0.0.0.0"]);
        assert_eq!(at("tcp:22", true), [""; 0]);
        assert_eq!(at("tcp6:22", true), ["::"]);
        assert_eq!(at("udp:22", false), [""; 0]);
        assert_eq!(Port::parse("tcp22"), None);
        assert_eq!(Port::parse("tcp:70000"), None);
    }
}
