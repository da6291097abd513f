//! The user that cloud-init makes by itself.

use super::yaml;

/// The name of the default user in the text of a `cloud.cfg`, or of a file of its directory; `None`: it names none.
pub fn default_user(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    // Debian's and others' may be a template that was never filled in, or anything else: then it names nobody.
    let document = yaml::load(text).ok()?;
    let user = document.root.field("system_info")?.field("default_user")?;
    user.field("name")?.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_where_there_is_one() {
        let text = b"users:\n  - default\nsystem_info:\n  distro: debian\n  default_user:\n    name: debian\n    lock_passwd: True\n";
        assert_eq!(default_user(text).as_deref(), Some("debian"));
        for none in [
            &b"users: [default]"[..],
            b"",
            b"\xff",
            b"a: [",
            b"system_info: x",
        ] {
            assert_eq!(default_user(none), None);
        }
    }
}
