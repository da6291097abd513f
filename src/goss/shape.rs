//! The types of checks and their attributes, as tables.
//!
//! Knows names only. Must not know how anything is found out.

/// A type of check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A port that is reached from the guest.
    Addr,
    /// A command run in the guest.
    Command,
    /// A name that is resolved in the guest.
    Dns,
    /// A file of the guest.
    File,
    /// A group in /etc/group.
    Group,
    /// A URL that is fetched in the guest.
    Http,
    /// A network interface.
    Interface,
    /// A parameter of the kernel.
    KernelParam,
    /// Content of the file of checks itself.
    Matching,
    /// A mount point.
    Mount,
    /// A package of the guest's package manager.
    Package,
    /// A port of the guest that somebody listens on.
    Port,
    /// A process, by the name of its program.
    Process,
    /// A service of systemd, OpenRC or System V.
    Service,
    /// A user in /etc/passwd.
    User,
    /// The first boot.
    Boot,
    /// What cloud-init made of the seed.
    CloudInit,
    /// The root filesystem on a larger disk.
    Grow,
    /// Ways to log in.
    Login,
    /// Live migration to another QEMU.
    Migrate,
    /// A reboot.
    Reboot,
    /// What an image must not hold, read from it without booting.
    Sealed,
    /// The serial console.
    Serial,
    /// The power button.
    Shutdown,
}

/// What may stand in a check of one type.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// As in files.
    pub(crate) name: &'static str,
    /// As in results.
    pub(crate) label: &'static str,
    /// The attribute that stands for the key; empty: there is none.
    pub(crate) key: &'static str,
    /// What is compared, in the order of results; the first of them decides about the others where `gate`.
    pub(crate) properties: &'static [&'static str],
    /// Whether the others are skipped where the first one fails, or is false.
    pub(crate) gate: bool,
    /// What only says how to look.
    pub(crate) settings: &'static [(&'static str, Setting)],
    /// Milliseconds.
    pub(crate) timeout: u64,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Text,
    Number,
    Flag,
    Lines,
    /// Anything at all.
    Any,
}

use Setting::{Any, Flag, Lines, Number, Text};

macro_rules! shape {
    ($kind:ident, $name:literal, $label:literal, $key:literal, $gate:literal, $timeout:literal, $properties:expr, $settings:expr) => {
        Shape {
            kind: Kind::$kind,
            name: $name,
            label: $label,
            key: $key,
            properties: &$properties,
            gate: $gate,
            settings: &$settings,
            timeout: $timeout,
        }
    };
}

/// All types; `gossfile` is none of them.
#[rustfmt::skip]
pub(crate) const SHAPES: [Shape; 24] = [
    shape!(Addr, "addr", "Addr", "address", true, 500, ["reachable"], [("timeout", Number), ("local-address", Text)]),
    shape!(Command, "command", "Command", "exec", false, 10_000, ["exit-status", "stdout", "stderr"], [("timeout", Number)]),
    shape!(Dns, "dns", "DNS", "resolve", true, 500, ["resolvable", "addrs"], [("timeout", Number), ("server", Text)]),
    shape!(File, "file", "File", "path", true, 10_000,
        ["exists", "mode", "owner", "uid", "group", "gid", "linked-to", "filetype", "contents", "size", "md5", "sha256", "sha512"], []),
    shape!(Group, "group", "Group", "groupname", true, 0, ["exists", "gid"], []),
    shape!(Http, "http", "HTTP", "url", true, 5000, ["status", "headers", "body"], [
        ("timeout", Number), ("allow-insecure", Flag), ("no-follow-redirects", Flag), ("method", Text), ("request-headers", Lines),
        ("request-body", Text), ("username", Text), ("password", Text), ("ca-file", Text), ("cert-file", Text), ("key-file", Text),
        ("proxy", Text)]),
    shape!(Interface, "interface", "Interface", "name", true, 0, ["exists", "addrs", "mtu"], []),
    shape!(KernelParam, "kernel-param", "KernelParam", "name", false, 0, ["value"], []),
    shape!(Matching, "matching", "Matching", "", false, 0, ["matches"], [("content", Any)]),
    shape!(Mount, "mount", "Mount", "mountpoint", true, 1000,
        ["exists", "opts", "vfs-opts", "source", "filesystem", "usage"], [("timeout", Number)]),
    shape!(Package, "package", "Package", "name", true, 10_000, ["installed", "versions"], []),
    shape!(Port, "port", "Port", "port", true, 0, ["listening", "ip"], []),
    shape!(Process, "process", "Process", "comm", true, 0, ["running"], []),
    shape!(Service, "service", "Service", "name", false, 10_000, ["enabled", "running", "runlevels"], []),
    shape!(User, "user", "User", "username", true, 0, ["exists", "uid", "gid", "home", "groups", "shell"], []),
    shape!(Boot, "boot", "Boot", "", false, 0, ["seconds", "failed-units", "kernel-log"], []),
    shape!(CloudInit, "cloud-init", "CloudInit", "", false, 600_000, ["status", "datasource", "errors", "warnings"], [("timeout", Number)]),
    shape!(Grow, "grow", "Grow", "", false, 60_000, ["grown", "root-size"], [("timeout", Number), ("disk", Text)]),
    shape!(Login, "login", "Login", "user", false, 60_000, ["key", "password", "password-change"], [("timeout", Number)]),
    shape!(Migrate, "migrate", "Migrate", "", false, 600_000, ["answers", "boot-id-kept", "seconds"], [("timeout", Number)]),
    shape!(Reboot, "reboot", "Reboot", "", false, 600_000, ["boot-id-changed", "data-kept", "seconds"], [("timeout", Number)]),
    shape!(Sealed, "sealed", "Sealed", "", false, 0,
        ["authorized-keys", "host-keys", "machine-id", "cloud-init-state", "random-seed"], []),
    shape!(Serial, "serial", "Serial", "", false, 600_000, ["output"], [("timeout", Number)]),
    shape!(Shutdown, "shutdown", "Shutdown", "", false, 120_000, ["clean", "seconds"], [("timeout", Number)]),
];

impl Kind {
    pub(crate) fn shape(self) -> &'static Shape {
        let found = SHAPES.iter().find(|shape| shape.kind == self);
        // Every kind has a row: a test goes through all of them.
        found.unwrap_or(&SHAPES[0])
    }

    /// The type of that name in files.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = SHAPES.iter().find(|shape| shape.name == name);
        found.map(|shape| shape.kind)
    }

    /// As in files: `kernel-param`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.shape().name
    }

    /// As in results: `KernelParam`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.shape().label
    }

    /// Whether it is about the image and its machine, and not about a system that runs somewhere.
    #[must_use]
    pub fn is_of_image(self) -> bool {
        matches!(
            self,
            Self::Boot
                | Self::CloudInit
                | Self::Grow
                | Self::Login
                | Self::Migrate
                | Self::Reboot
                | Self::Sealed
                | Self::Serial
                | Self::Shutdown
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_row() {
        for shape in &SHAPES {
            assert_eq!(shape.kind.shape().name, shape.name);
            assert_eq!(Kind::named(shape.name), Some(shape.kind));
            assert!(!shape.properties.is_empty());
        }
    }
}
