//! Ports of the host that lead to the guest.
//!
//! Knows how to have one without a moment in which somebody else can take it; and how to find one where it must be
//! known before the machine is started. Must not know what listens in the guest.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, ErrorKind, Result};

use super::running::Running;

/// A port of the loopback address that was free a moment ago: the first of `range` (both included), or the kernel's
/// choice. For templates that speak of the port in their `qemuargs`; nothing keeps others from it until QEMU has it.
///
/// # Errors
///
/// When all of the range are taken.
pub fn free_port(range: Option<(u16, u16)>) -> Result<u16> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let Some((first, last)) = range else {
        let listener = listen(0).and_then(|listener| listener.local_addr());
        return listener
            .map(|address| address.port())
            .map_err(|cause| Error::io("find a free port", cause));
    };
    (first..=last)
        .find(|&port| listen(port).is_ok())
        .ok_or_else(|| all_taken(first, last))
}

fn all_taken(first: u16, last: u16) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("all ports from {first} to {last} are taken"),
    )
    .with_remedy(
        "widen the range (host_port_min, host_port_max), or leave it out: the kernel chooses then",
    )
}

impl Running {
    /// Has the first port of `range` (both included) that is free lead to port `guest`, for a machine whose network is
    /// qimg's own. QEMU itself takes it: nobody can come in between.
    ///
    /// # Errors
    ///
    /// When all of the range are taken, or QEMU does not answer.
    pub fn forward(&self, range: (u16, u16), guest: u16) -> Result<u16> {
        let (first, last) = range;
        for port in first..=last {
            let command = format!("hostfwd_add user.0 tcp:127.0.0.1:{port}-:{guest}");
            // What it complains of is output.
            let said = self.qmp().human(&command)?;
            if said.trim().is_empty() {
                return Ok(port);
            }
            if !said.contains("host forwarding rule") {
                let said = said.trim();
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("cannot forward a port: {said}"),
                ));
            }
        }
        Err(all_taken(first, last))
    }
}

/// Finds the port in what `info usernet` shows: a line a connection, `TCP[HOST_FORWARD]`, a descriptor, address and
/// port of the host, address and port of the guest.
pub(super) fn forwarded_port(shown: &str, guest: u16) -> Option<u16> {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        if fields.next()? != "TCP[HOST_FORWARD]" {
            return None;
        }
        let host = fields.nth(2)?.parse().ok()?;
        (fields.nth(1)?.parse() == Ok(guest)).then_some(host)
    };
    shown.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = free_port(Some((port, port))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("from {port} to {port}")),
            "{error}"
        );
        assert_ne!(free_port(None).unwrap(), port);
        assert!(free_port(Some((port, port.saturating_add(50)))).unwrap() > port);
    }
}
