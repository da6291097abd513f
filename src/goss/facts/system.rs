//! Files, packages, services, processes, users, mounts and parameters.

use serde_json::Value;

use super::{Fact, Known, is, list, text};
use crate::goss::matcher::Actual;

/// What a name in answers that begin with `refused-` stands for.
fn why(word: &str) -> String {
    match word {
        "kind" => "it is no regular file",
        "permission" => "the guest does not let it be read",
        "tool" => "the guest has no program that could tell",
        "absent" => "there is none",
        other => other,
    }
    .to_owned()
}

impl Known<'_> {
    pub(super) fn refused(&self, name: &str) -> Result<(), String> {
        self.said(name).map_or(Ok(()), |word| Err(why(&word)))
    }

    pub(super) fn file(&self, property: &str) -> Fact {
        let exists = self.flag("exists")?;
        if property == "exists" {
            return Ok(is(exists));
        }
        if !exists {
            return Err("there is no such file".to_owned());
        }
        match property {
            "contents" => {
                self.refused("refused-contents")?;
                return self.lines("contents");
            }
            "md5" | "sha256" | "sha512" => {
                self.refused(&format!("refused-{property}"))?;
                let said = self.needs(property)?;
                let digest = said.split_whitespace().next().unwrap_or_default();
                return Ok(text(digest));
            }
            "linked-to" => return Ok(text(self.said("link").ok_or("it is no symbolic link")?)),
            _ => {}
        }
        let status = match (self.said("stat"), self.said("ls")) {
            (Some(said), _) => Status::of_stat(&said),
            (None, Some(said)) => Status::of_ls(&said),
            (None, None) => None,
        };
        let status = status.ok_or("the guest does not tell what it is")?;
        Ok(match property {
            "mode" => text(format!("{:04o}", status.mode & 0o7777)),
            "size" => Actual::Value(Value::from(status.size)),
            "uid" => Actual::Value(Value::from(status.uid)),
            "gid" => Actual::Value(Value::from(status.gid)),
            "owner" => text(status.owner),
            "group" => text(status.group),
            _ => text(match status.mode & 0o170_000 {
                0o100_000 => "file",
                0o040_000 => "directory",
                0o120_000 => "symlink",
                0o140_000 => "socket",
                0o010_000 => "pipe",
                0o060_000 => "block-device",
                0o020_000 => "character-device",
                _ => "unknown",
            }),
        })
    }

    pub(super) fn package(&self, property: &str) -> Fact {
        if self.said("manager").as_deref() == Some("none") {
            return Err(
                "the guest has no package manager that is known: dpkg, rpm, apk or pacman"
                    .to_owned(),
            );
        }
        let said = self.said("versions").unwrap_or_default();
        // `install ok installed 1.2`, `hold ok installed 1.2`, or `installed 1.2`.
        let versions: Vec<String> = said
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (version, state) = words.split_last()?;
                (state.last() == Some(&"installed")).then(|| (*version).to_owned())
            })
            .collect();
        match property {
            "installed" => Ok(is(!versions.is_empty())),
            _ if versions.is_empty() => Err("it is not installed".to_owned()),
            _ => Ok(list(versions)),
        }
    }

    pub(super) fn service(&self, property: &str) -> Fact {
        match property {
            "runlevels" => {
                let said = self.needs("runlevels")?;
                Ok(list(said.split_whitespace().map(str::to_owned)))
            }
            // A name that none can have is not asked.
            property => Ok(is(self.flag(property).unwrap_or(false))),
        }
    }

    pub(super) fn process(&self) -> Actual {
        // The kernel keeps this much of a name.
        let wanted: Vec<u8> = self.check.subject.bytes().take(15).collect();
        let said = self.answers.global_text("processes").unwrap_or_default();
        is(said.lines().any(|name| name.as_bytes() == wanted))
    }

    pub(super) fn user(&self, property: &str) -> Fact {
        let passwd = self.answers.global_text("passwd").unwrap_or_default();
        let group = self.answers.global_text("group").unwrap_or_default();
        let name = &self.check.subject;
        let line = { passwd.lines() }
            .map(|line| line.split(':').collect::<Vec<&str>>())
            .find(|fields| fields.first() == Some(&name.as_str()) && fields.len() >= 7);
        if property == "exists" {
            return Ok(is(line.is_some()));
        }
        let fields = line.ok_or("there is no such user in /etc/passwd")?;
        let field = |number: usize| fields.get(number).copied().unwrap_or_default();
        let number = |text: &str| match text.parse::<i64>() {
            Ok(number) => Ok(Actual::Value(Value::from(number))),
            Err(_) => Err(format!("{text:?} is no number")),
        };
        match property {
            "uid" => number(field(2)),
            "gid" => number(field(3)),
            "home" => Ok(text(field(5))),
            "shell" => Ok(text(field(6))),
            _ => {
                let mut groups: Vec<String> = group
                    .lines()
                    .map(|line| line.split(':').collect::<Vec<&str>>())
                    .filter(|of| {
                        let members = of.get(3).copied().unwrap_or_default();
                        of.get(2) == Some(&field(3))
                            || members.split(',').any(|member| member == name)
                    })
                    .filter_map(|of| of.first().map(|name| (*name).to_owned()))
                    .collect();
                groups.sort();
                groups.dedup();
                Ok(list(groups))
            }
        }
    }

    pub(super) fn group(&self, property: &str) -> Fact {
        let said = self.answers.global_text("group").unwrap_or_default();
        let found = { said.lines() }
            .map(|line| line.split(':').collect::<Vec<&str>>())
            .find(|fields| fields.first() == Some(&self.check.subject.as_str()));
        if property == "exists" {
            return Ok(is(found.is_some()));
        }
        let fields = found.ok_or("there is no such group in /etc/group")?;
        let gid = fields.get(2).and_then(|gid| gid.parse::<i64>().ok());
        Ok(Actual::Value(Value::from(
            gid.ok_or("its gid is no number")?,
        )))
    }

    pub(super) fn mount(&self, property: &str) -> Fact {
        let said = self.answers.global_text("mounts").unwrap_or_default();
        let wanted = match self.check.subject.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        // What was mounted last lies on top.
        let found = said
            .lines()
            .rev()
            .filter_map(Mount::parse)
            .find(|mount| mount.point == wanted);
        if property == "exists" {
            return Ok(is(found.is_some()));
        }
        let mount = found.ok_or("nothing is mounted there")?;
        let options = |text: &str| list(text.split(',').map(str::to_owned));
        Ok(match property {
            "opts" => options(mount.options),
            "vfs-opts" => options(mount.of_filesystem),
            "source" => text(mount.source),
            "filesystem" => text(mount.kind),
            _ => return self.usage(),
        })
    }

    fn usage(&self) -> Fact {
        if let Some(said) = self.said("usage") {
            let numbers: Vec<f64> = said
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            let [blocks, free] = numbers.as_slice() else {
                return Err("the guest does not tell how much is used".to_owned());
            };
            if *blocks <= 0.0 {
                return Ok(Actual::Value(Value::from(0)));
            }
            let used = 100.0 - free / blocks * 100.0;
            return Ok(Actual::Value(Value::from(used.round() as i64)));
        }
        let said = self
            .needs("df")
            .map_err(|_| "the guest does not tell how much is used")?;
        let used = said
            .split_whitespace()
            .find_map(|word| word.strip_suffix('%')?.parse::<i64>().ok());
        Ok(Actual::Value(Value::from(
            used.ok_or("the guest does not tell how much is used")?,
        )))
    }

    pub(super) fn parameter(&self) -> Fact {
        self.refused("refused")?;
        Ok(text(self.needs("value")?.trim()))
    }
}

/// What stat(2) tells.
struct Status {
    mode: u32,
    size: u64,
    uid: i64,
    gid: i64,
    owner: String,
    group: String,
}

impl Status {
    fn of_stat(said: &str) -> Option<Self> {
        let words: Vec<&str> = said.split_whitespace().collect();
        let [mode, _, size, uid, gid, owner, group] = words.as_slice() else {
            return None;
        };
        let named = |name: &str, id: &str| match name {
            "UNKNOWN" => id.to_owned(),
            name => name.to_owned(),
        };
        Some(Self {
            mode: u32::from_str_radix(mode, 16).ok()?,
            size: size.parse().ok()?,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            owner: named(owner, uid),
            group: named(group, gid),
        })
    }

    /// `drwxr-xr-x 2 0 0 4096 ...`.
    fn of_ls(said: &str) -> Option<Self> {
        let words: Vec<&str> = said.split_whitespace().collect();
        let (mode, uid, gid) = (words.first()?, words.get(2)?, words.get(3)?);
        let letters: Vec<char> = mode.chars().collect();
        let kind = match letters.first()? {
            '-' => 0o100_000,
            'd' => 0o040_000,
            'l' => 0o120_000,
            's' => 0o140_000,
            'p' => 0o010_000,
            'b' => 0o060_000,
            'c' => 0o020_000,
            _ => return None,
        };
        let mut bits = 0;
        for (place, letter) in letters.iter().skip(1).take(9).enumerate() {
            let bit = 0o400 >> place;
            let special = [0o4000, 0o2000, 0o1000]
                .get(place / 3)
                .copied()
                .unwrap_or(0);
            bits |= match letter {
                'r' | 'w' | 'x' => bit,
                's' | 't' => bit | special,
                'S' | 'T' => special,
                _ => 0,
            };
        }
        Some(Self {
            mode: kind | bits,
            // Devices have two numbers there.
            size: words.get(4).and_then(|size| size.parse().ok()).unwrap_or(0),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            owner: (*uid).to_owned(),
            group: (*gid).to_owned(),
        })
    }
}

/// A line of /proc/self/mountinfo.
struct Mount<'a> {
    point: String,
    options: &'a str,
    kind: &'a str,
    source: String,
    of_filesystem: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let mut after = after.split(' ');
        Some(Self {
            point: unescaped(before.nth(4)?),
            options: before.next()?,
            kind: after.next()?,
            source: unescaped(after.next()?),
            of_filesystem: after.next()?,
        })
    }
}

/// `\040` is a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
