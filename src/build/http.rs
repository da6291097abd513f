//! What the guest of a build fetches over HTTP: the template's files, and its seed.
//!
//! Knows what is where, and what is said of requests. How it is served, [`crate::serve`] knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::event::Reporter;
use super::request::BuildRequest;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::File;
use crate::seed::serve::Files;
use crate::serve::{Answered, Found, HOST_IN_GUEST, Looked, Server, Site, look_beneath};

/// Where a seed is, as cloud-init is told.
const SEED: &str = "/nocloud/";
/// Names of a directory that are compared with one that is not there.
const COMPARED: usize = 1000;

/// What the guest may fetch.
#[derive(Debug)]
struct GuestSite {
    directory: Option<PathBuf>,
    content: BTreeMap<String, String>,
    seed: OnceLock<Files>,
}

/// A server for one build.
#[derive(Debug)]
pub(super) struct Serving {
    server: Server,
    site: GuestSite,
    has_seed: bool,
    stop: AtomicBool,
    /// As the guest sees it.
    address: String,
}

impl Serving {
    /// Listens, where the build has something to be fetched.
    ///
    /// # Errors
    /// No port is free; the address is not this host's; the directory is not there.
    pub(super) fn new(request: &BuildRequest<'_>) -> Result<Option<Self>> {
        let (media, host) = (&request.build.media, request.surroundings);
        let directory = media
            .http_directory
            .as_ref()
            .map(|directory| host.directory.join(directory));
        let has_seed = request
            .build
            .seed
            .as_ref()
            .is_some_and(|seed| seed.over_http);
        if directory.is_none() && media.http_content.is_empty() && !has_seed {
            return Ok(None);
        }
        if let Some(directory) = directory.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(
                Error::usage("there is no such directory for the guest to fetch from")
                    .at_path(directory)
                    .with_remedy("name one that is there: http_directory, or directory in [http]"),
            );
        }
        let content = media
            .http_content
            .iter()
            .map(|(path, text)| (format!("/{}", path.trim_start_matches('/')), text.clone()))
            .collect();
        let listens = address_of(request)?;
        Ok(Some(Self {
            server: listen(listens, media.http_ports)?,
            site: GuestSite {
                directory,
                content,
                seed: OnceLock::new(),
            },
            has_seed,
            stop: AtomicBool::new(false),
            address: guest_address(request, listens),
        }))
    }

    /// The files of the seed, which are not known when the port has to be.
    pub(super) fn give_seed(&self, files: Vec<File>) {
        let _ = self.site.seed.set(Files::new(files));
    }

    /// Address and port, as the guest sees them.
    pub(super) fn as_seen(&self) -> (String, u16) {
        (self.address.clone(), self.server.address().port())
    }

    /// Where the seed is, as cloud-init is told.
    pub(super) fn seed_url(&self) -> Option<String> {
        let (address, port) = self.as_seen();
        let shown = match address.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => address,
        };
        self.has_seed
            .then(|| format!("http://{shown}:{port}{SEED}"))
    }

    /// Answers until [`Serving::stop`], and tells of each request.
    pub(super) fn run(&self, reporter: &Reporter<'_>) {
        let told = |answered: &Answered| {
            let request = crate::error::Escaped(&answered.request);
            let text = format!(
                "HTTP: {request}: {}, {} bytes",
                answered.status, answered.length
            );
            match (&answered.near, answered.status) {
                (Some(near), _) => reporter.warn(&format!("{text}; did you mean {near}?")),
                (None, 403) => reporter.warn(&format!(
                    "{text}: a link there leads out of the directory that is served, or the file may not be read"
                )),
                // What a guest asks for by itself, such as vendor-data, may well be missing.
                (None, _) => reporter.note(&text),
            }
            false
        };
        if let Err(error) = self.server.run(&self.site, &self.stop, &told) {
            reporter.warn(&format!("The HTTP server has ended: {error}"));
        }
    }

    /// Has it end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Has a server end when this goes.
#[derive(Debug)]
pub(super) struct EndWith<'a>(pub(super) &'a Serving);

impl Drop for EndWith<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Where to listen: where QEMU's user network leads to, and nowhere else, unless the template says so.
fn address_of(request: &BuildRequest<'_>) -> Result<IpAddr> {
    let media = &request.build.media;
    if let Some(address) = &media.http_address {
        return address.parse().map_err(|_| {
            Error::usage(format!("'{address}' is no address to listen at"))
                .with_remedy("write one of this host's, such as 127.0.0.1")
        });
    }
    match &request.build.machine.net_bridge {
        None => Ok(Ipv4Addr::LOCALHOST.into()),
        Some(bridge) => super::bridge::address_of(bridge).map(IpAddr::V4),
    }
}

/// How the guest calls the host.
pub(super) fn guest_address(request: &BuildRequest<'_>, listens: IpAddr) -> String {
    match &request.build.machine.net_bridge {
        None => HOST_IN_GUEST.to_owned(),
        Some(bridge) if listens.is_unspecified() => super::bridge::address_of(bridge)
            .map_or_else(|_| listens.to_string(), |address| address.to_string()),
        Some(_) => listens.to_string(),
    }
}

fn listen(address: IpAddr, ports: Option<(u16, u16)>) -> Result<Server> {
    let Some((first, last)) = ports else {
        return Server::bind(SocketAddr::new(address, 0));
    };
    for port in first..=last {
        match Server::bind(SocketAddr::new(address, port)) {
            Ok(server) => return Ok(server),
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(
        ErrorKind::Io,
        format!("all ports from {first} to {last} of {address} are taken"),
    )
    .with_remedy(
        "widen http_port_min and http_port_max, or leave them out: the kernel finds one then",
    ))
}

fn is_taken(error: &Error) -> bool {
    let cause = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    matches!(
        cause,
        Some(std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied)
    )
}

impl Site for GuestSite {
    fn find(&self, path: &str) -> Found {
        if let (Some(seed), Some(name)) = (self.seed.get(), path.strip_prefix(SEED)) {
            return seed.find(name);
        }
        if let Some(text) = self.content.get(path) {
            let kind = "text/plain; charset=utf-8";
            return Found::Bytes(text.clone().into_bytes(), kind);
        }
        let Some(root) = &self.directory else {
            let known: Vec<&str> = self.content.keys().map(String::as_str).collect();
            return Found::Missing(near(path, &known));
        };
        match look_beneath(root, path) {
            Looked::File(file, length) => Found::File(file, length),
            Looked::Outside => Found::Forbidden,
            Looked::Directory(names) => {
                let index = names.iter().any(|name| name == "index.html");
                let page = format!("{}/index.html", path.trim_end_matches('/'));
                match index.then(|| look_beneath(root, &page)) {
                    Some(Looked::File(file, length)) => Found::File(file, length),
                    _ => Found::Bytes(
                        listing(path, &names).into_bytes(),
                        "text/html; charset=utf-8",
                    ),
                }
            }
            Looked::Missing => {
                let (above, _) = path.rsplit_once('/').unwrap_or_default();
                let names = match look_beneath(root, above) {
                    Looked::Directory(names) => names,
                    _ => Vec::new(),
                };
                let paths: Vec<String> = names
                    .iter()
                    .take(COMPARED)
                    .map(|name| format!("{above}/{}", name.trim_end_matches('/')))
                    .collect();
                let known: Vec<&str> = paths.iter().map(String::as_str).collect();
                Found::Missing(near(path, &known))
            }
        }
    }
}

/// The path that was probably meant: one that differs little, or of the same name elsewhere.
fn near(path: &str, known: &[&str]) -> Option<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_lowercase();
    crate::seed::nearest(path, known.iter().copied())
        .or_else(|| {
            known
                .iter()
                .copied()
                .find(|other| name(other) == name(path))
        })
        .map(str::to_owned)
}

/// The names in a directory, for people and for installers that look around.
fn listing(path: &str, names: &[String]) -> String {
    let base = path.trim_end_matches('/');
    let mut text = String::from("<!doctype html>\n<pre>\n");
    for name in names {
        let mut encoded = String::new();
        for byte in format!("{base}/{name}").bytes() {
            if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        let shown = name
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        text.push_str(&format!("<a href=\"{encoded}\">{shown}</a>\n"));
    }
    text.push_str("</pre>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(site: &GuestSite, path: &str) -> String {
        match site.find(path) {
            Found::Bytes(bytes, _) => String::from_utf8(bytes).unwrap(),
            Found::File(_, length) => format!("file of {length}"),
            Found::Missing(None) => "missing".to_owned(),
            Found::Missing(Some(near)) => format!("missing, {near}?"),
            Found::Forbidden => "forbidden".to_owned(),
        }
    }

    #[test]
    fn contents_are_there_and_the_nearest_is_named() {
        let site = GuestSite {
            directory: None,
            content: [("/preseed.cfg", "d-i x"), ("/sub/ks.cfg", "text")]
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .into(),
            seed: OnceLock::from(Files::new(vec![File {
                name: "meta-data".to_owned(),
                bytes: b"instance-id: a\n".to_vec(),
            }])),
        };
        assert_eq!(shown(&site, "/preseed.cfg"), "d-i x");
        assert_eq!(shown(&site, "/presed.cfg"), "missing, /preseed.cfg?");
        assert_eq!(shown(&site, "/ks.cfg"), "missing, /sub/ks.cfg?");
        assert_eq!(shown(&site, "/"), "missing");
        assert_eq!(shown(&site, "/nocloud/meta-data"), "instance-id: a\n");
        assert_eq!(shown(&site, "/nocloud/vendor-data"), "");
        assert_eq!(shown(&site, "/nocloud/x"), "missing");
    }

    #[test]
    fn a_directory_is_served_and_nothing_else() {
        let bench = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(bench.path().join("a <b")).unwrap();
        std::fs::write(bench.path().join("kickstart.cfg"), "text").unwrap();
        std::fs::create_dir_all(bench.path().join("page")).unwrap();
        std::fs::write(bench.path().join("page/index.html"), "hello").unwrap();
        let site = GuestSite {
            directory: Some(bench.path().to_owned()),
            content: BTreeMap::new(),
            seed: OnceLock::new(),
        };
        assert_eq!(shown(&site, "/kickstart.cfg"), "file of 4");
        assert_eq!(shown(&site, "/kickstrat.cfg"), "missing, /kickstart.cfg?");
        assert_eq!(shown(&site, "/KICKSTART.CFG"), "missing, /kickstart.cfg?");
        assert_eq!(shown(&site, "/page/"), "file of 5");
        assert_eq!(shown(&site, "/../x"), "forbidden");
        let list = shown(&site, "/");
        assert!(
            list.contains("<a href=\"/a%20%3Cb/\">a &lt;b/</a>"),
            "{list}"
        );
    }
}
