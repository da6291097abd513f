//! Ports, interfaces, and what is reached from the guest: addresses, names, pages.

use std::net::IpAddr;

use serde_json::Value;

use super::net::{Port, addresses};
use super::{Fact, Known, is, list};
use crate::goss::matcher::Actual;
use crate::goss::probe::record;

impl Known<'_> {
    pub(super) fn port(&self, property: &str) -> Fact {
        let port = Port::parse(&self.check.subject).ok_or("this is no port")?;
        let protocol = if port.is_udp { "udp" } else { "tcp" };
        let table = |name: String| self.answers.global_text(&name);
        let four = table(format!("net-{protocol}"));
        let six = table(format!("net-{protocol}6")).unwrap_or_default();
        let four = four.ok_or("the guest does not tell its sockets: /proc/net cannot be read")?;
        let only_six = self.answers.global_text("bindv6only").as_deref() == Some("1");
        let found = addresses(port, &four, &six, only_six);
        match property {
            "listening" => Ok(is(!found.is_empty())),
            _ if found.is_empty() => Err("nobody listens there".to_owned()),
            _ => Ok(list(found)),
        }
    }

    pub(super) fn interface(&self, property: &str) -> Fact {
        let exists = self.flag("exists").unwrap_or(false);
        match property {
            "exists" => Ok(is(exists)),
            _ if !exists => Err("there is no such interface".to_owned()),
            "mtu" => {
                let said = self.needs("mtu")?;
                let mtu = said.trim().parse::<i64>();
                Ok(Actual::Value(Value::from(
                    mtu.map_err(|_| "its MTU is no number")?,
                )))
            }
            _ => match (self.said("ip"), self.said("ifconfig")) {
                (Some(said), _) => Ok(list(of_ip(&said))),
                (None, Some(said)) => Ok(list(of_ifconfig(&said))),
                (None, None) => Err("the guest has neither ip nor ifconfig".to_owned()),
            },
        }
    }

    pub(super) fn address(&self) -> Fact {
        if self.said("refused").is_some() {
            return Err(
                "the guest has nothing that connects: none of bash, nc, python3 and curl"
                    .to_owned(),
            );
        }
        Ok(is(self.flag("reachable")?))
    }

    pub(super) fn url(&self, property: &str) -> Fact {
        if self.said("refused").is_some() {
            return Err("the guest has no curl (wget does for plain GET requests)".to_owned());
        }
        if let Some(why) = self.said("failed") {
            let why = why.trim();
            return Err(if why.is_empty() {
                "no answer".to_owned()
            } else {
                why.to_owned()
            });
        }
        let (status, headers) = match self.said("wget") {
            Some(said) => {
                let lines: Vec<&str> = { said.lines() }
                    .filter_map(|line| line.strip_prefix("  "))
                    .collect();
                let joined = lines.join("\n");
                let last = last_head(&joined);
                let status = last.lines().next().and_then(status_of);
                (status, last)
            }
            None => {
                let status = self.needs("status")?.trim().parse::<i64>().ok();
                let said = self.said("headers").unwrap_or_default();
                (status, last_head(&said))
            }
        };
        match property {
            "status" => {
                let status = status.filter(|status| *status > 0).ok_or_else(|| {
                    let said = self.said("wget").unwrap_or_default();
                    let last = said.lines().rev().find(|line| !line.trim().is_empty());
                    last.map_or_else(|| "no answer".to_owned(), |line| line.trim().to_owned())
                })?;
                Ok(Actual::Value(Value::from(status)))
            }
            "headers" => {
                let lines: Vec<&str> = headers.lines().skip(1).map(str::trim).collect();
                Ok(Actual::Text(lines.join("\n")))
            }
            _ => self.lines("body"),
        }
    }

    pub(super) fn name(&self, property: &str) -> Fact {
        if self.said("refused").is_some() {
            return Err(
                "the guest has nothing that resolves names: none of getent, nslookup, dig and host"
                    .to_owned(),
            );
        }
        let (kind, name) = record(&self.check.subject);
        let mut found = if let Some(said) = self.said("getent") {
            let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
            said.lines().filter_map(first).collect()
        } else if let Some(said) = self.said("dig") {
            { said.lines() }
                .filter(|line| !line.starts_with(';') && !line.trim().is_empty())
                .map(|line| line.trim().to_owned())
                .filter(|line| kind.is_some() || line.parse::<IpAddr>().is_ok())
                .collect()
        } else if let Some(said) = self.said("host") {
            said.lines()
                .filter_map(|line| of_host(line, kind))
                .collect()
        } else if let Some(said) = self.said("nslookup") {
            let mut found = of_nslookup(&said, kind, name);
            let local = self.said("hosts").unwrap_or_default();
            found.extend(local.lines().map(str::to_owned));
            found
        } else {
            return Err("the guest said nothing of it".to_owned());
        };
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|address: &String| seen.insert(address.clone()));
        match property {
            "resolvable" => Ok(is(!found.is_empty())),
            _ if found.is_empty() => Err("it is not resolved".to_owned()),
            _ => Ok(list(found)),
        }
    }
}

/// Code of `HTTP/1.1 200 OK`.
fn status_of(line: &str) -> Option<i64> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| word.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

/// The head of the last answer, where others led to it.
fn last_head(text: &str) -> String {
    let text = text.replace('\r', "");
    let start = { text.match_indices("HTTP/") }
        .filter(|(at, _)| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'))
        .last()
        .map_or(0, |(at, _)| at);
    text.get(start..).unwrap_or_default().trim_end().to_owned()
}

/// `inet 10.0.2.15/24 brd ...`, `inet6 fe80::1/64 scope link`.
fn of_ip(said: &str) -> Vec<String> {
    { said.lines() }
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words
                .next()
                .filter(|word| *word == "inet" || *word == "inet6")?;
            let address = words.next()?;
            // A tunnel tells its own end only.
            if address.contains('/') {
                return Some(address.to_owned());
            }
            let bits = if address.contains(':') { 128 } else { 32 };
            Some(format!("{address}/{bits}"))
        })
        .collect()
}

/// Both forms that ifconfig has had.
fn of_ifconfig(said: &str) -> Vec<String> {
    let value = |line: &str, names: &[&str]| {
        names.iter().find_map(|name| {
            let (_, rest) = line.split_once(name)?;
            rest.split_whitespace().next().map(str::to_owned)
        })
    };
    { said.lines() }
        .filter_map(|line| {
            let line = line.trim();
            if line.starts_with("inet6") {
                let address = value(line, &["addr:", "inet6 "])?;
                return Some(match value(line, &["prefixlen "]) {
                    Some(bits) if !address.contains('/') => format!("{address}/{bits}"),
                    _ => address,
                });
            }
            line.starts_with("inet").then_some(())?;
            let address = value(line, &["addr:", "inet "])?;
            let mask: std::net::Ipv4Addr = value(line, &["Mask:", "netmask "])?.parse().ok()?;
            Some(format!("{address}/{}", u32::from(mask).count_ones()))
        })
        .collect()
}

/// A line of host(1).
fn of_host(line: &str, kind: Option<&str>) -> Option<String> {
    let words = [
        (" has address ", "A"),
        (" has IPv6 address ", "AAAA"),
        (" is an alias for ", "CNAME"),
        (" mail is handled by ", "MX"),
        (" name server ", "NS"),
        (" domain name pointer ", "PTR"),
        (" has SRV record ", "SRV"),
        (" descriptive text ", "TXT"),
        (" has CAA record ", "CAA"),
    ];
    words.iter().find_map(|(part, of)| {
        let (_, rest) = line.split_once(part)?;
        let wanted = match kind {
            Some(kind) => kind == *of,
            None => *of == "A" || *of == "AAAA",
        };
        wanted.then(|| rest.trim().to_owned())
    })
}

/// What nslookup, of busybox or of BIND, says after it has named its server.
fn of_nslookup(said: &str, kind: Option<&str>, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_answer = false;
    for line in said.lines() {
        let line = line.trim();
        if line.starts_with("Name:")
            || line.starts_with("Non-authoritative")
            || line.starts_with(name)
        {
            is_answer = true;
        }
        let after = |part: &str| {
            line.split_once(part)
                .map(|(_, rest)| rest.trim().to_owned())
        };
        let value = match kind {
            None | Some("A" | "AAAA") => line
                .strip_prefix("Address")
                .and_then(|rest| rest.split_once(':'))
                .map(|(_, rest)| {
                    rest.split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                }),
            Some("CNAME") => after("canonical name = "),
            Some("MX") => after("mail exchanger = "),
            Some("NS") => after("nameserver = "),
            Some("PTR") => after("name = "),
            Some("SRV") => after("service = "),
            Some("TXT") => after("text = "),
            Some(_) => after(" = "),
        };
        let fits = |value: &String| match kind {
            Some("A") => value.parse::<std::net::Ipv4Addr>().is_ok(),
            Some("AAAA") => value.parse::<std::net::Ipv6Addr>().is_ok(),
            None => value.parse::<IpAddr>().is_ok(),
            Some(_) => !value.is_empty(),
        };
        if is_answer {
            found.extend(value.filter(fits));
        }
    }
    found
}
