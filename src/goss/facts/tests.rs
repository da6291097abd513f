//! What systems say, in the forms that they have.

use serde_json::{Value, json};

use super::fact;
use crate::goss::load::load_text;
use crate::goss::matcher::Actual;
use crate::goss::probe::Answers;
use crate::seed::base64;

/// The fact of the first property of the only check of `text`, after `answers`: check or `g`, name, value.
fn found(text: &str, property: &str, answers: &[(&str, &str, &str)]) -> Result<Value, String> {
    let suite = load_text(text).unwrap();
    let mut output = String::new();
    for (number, name, value) in answers {
        output.push_str(&format!(
            "{number} {name} b:{}\n",
            base64::encode(value.as_bytes())
        ));
    }
    output.push_str("g end =1\n");
    let answers = Answers::parse(output.as_bytes(), 1).unwrap();
    fact(&suite.checks[0], 0, property, &answers).map(|actual| match actual {
        Actual::Value(value) => value,
        Actual::Text(text) => Value::String(text),
    })
}

#[test]
fn files_are_told_by_stat_or_by_ls() {
    let file = "file:\n  /a: {exists: true}\n";
    let stat = [
        ("0", "exists", "1"),
        ("0", "stat", "a1ff 777 8 0 65534 root UNKNOWN"),
    ];
    for (property, wanted) in [
        ("mode", json!("0777")),
        ("size", json!(8)),
        ("owner", json!("root")),
        ("group", json!("65534")),
        ("filetype", json!("symlink")),
    ] {
        assert_eq!(found(file, property, &stat), Ok(wanted));
    }
    let ls = [
        ("0", "exists", "1"),
        ("0", "ls", "drwxrwsr-t 2 0 7 4096 Jan 1 00:00 /a"),
    ];
    assert_eq!(found(file, "mode", &ls), Ok(json!("3775")));
    assert_eq!(found(file, "filetype", &ls), Ok(json!("directory")));
    assert_eq!(found(file, "gid", &ls), Ok(json!(7)));
    let absent = [("0", "exists", "0")];
    assert!(
        found(file, "mode", &absent)
            .unwrap_err()
            .contains("no such file")
    );
    let directory = [("0", "exists", "1"), ("0", "refused-contents", "kind")];
    assert!(
        found(file, "contents", &directory)
            .unwrap_err()
            .contains("no regular file")
    );
}

#[test]
fn packages_are_told_by_each_manager() {
    let package = "package:\n  p: {installed: true}\n";
    for (manager, said, installed, versions) in [
        (
            "deb",
            "install ok installed 1:2.3-4\n",
            true,
            json!(["1:2.3-4"]),
        ),
        ("deb", "hold ok installed 1.0\n", true, json!(["1.0"])),
        ("deb", "deinstall ok config-files 1.0\n", false, json!([])),
        ("deb", "unknown ok not-installed \n", false, json!([])),
        (
            "rpm",
            "installed 5.14.0-1\ninstalled 5.14.0-2\n",
            true,
            json!(["5.14.0-1", "5.14.0-2"]),
        ),
        ("rpm", "package p is not installed\n", false, json!([])),
        ("apk", "installed 1.2-r0\n", true, json!(["1.2-r0"])),
        ("pacman", "", false, json!([])),
    ] {
        let answers = [("0", "manager", manager), ("0", "versions", said)];
        assert_eq!(
            found(package, "installed", &answers),
            Ok(json!(installed)),
            "{said}"
        );
        if installed {
            assert_eq!(found(package, "versions", &answers), Ok(versions));
        }
    }
    let none = [("0", "manager", "none")];
    assert!(
        found(package, "installed", &none)
            .unwrap_err()
            .contains("no package manager")
    );
}

#[test]
fn users_groups_and_processes_are_found_by_their_whole_names() {
    let passwd = (
        "g",
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/bash\n",
    );
    let group = (
        "g",
        "group",
        "users:x:100:\nsudo:x:27:al,bob\nbo:x:5:bobby\n",
    );
    let user = "user:\n  bob: {exists: true}\n";
    assert_eq!(
        found(user, "groups", &[passwd, group]),
        Ok(json!(["sudo", "users"]))
    );
    assert_eq!(found(user, "uid", &[passwd, group]), Ok(json!(1000)));
    assert_eq!(
        found(user, "shell", &[passwd, group]),
        Ok(json!("/bin/bash"))
    );
    assert_eq!(
        found("user:\n  bo: {exists: true}\n", "exists", &[passwd, group]),
        Ok(json!(false))
    );
    assert_eq!(
        found("group:\n  sudo: {exists: true}\n", "gid", &[passwd, group]),
        Ok(json!(27))
    );
    let processes = ("g", "processes", "init\nsystemd-journal\n");
    let running = |name: &str| {
        found(
            &format!("process:\n  {name}: {{running: true}}\n"),
            "running",
            &[processes],
        )
    };
    assert_eq!(running("systemd-journald"), Ok(json!(true)));
    assert_eq!(running("systemd"), Ok(json!(false)));
}

#[test]
fn the_last_mount_at_a_place_counts() {
    let mounts = (
        "g",
        "mounts",
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
         2 1 0:9 / /a\\040b rw - tmpfs old rw\n3 1 0:9 / /a\\040b ro,nosuid - tmpfs new rw,size=4k\n",
    );
    let mount = "mount:\n  /a b: {exists: true}\n";
    assert_eq!(found(mount, "opts", &[mounts]), Ok(json!(["ro", "nosuid"])));
    assert_eq!(found(mount, "source", &[mounts]), Ok(json!("new")));
    assert_eq!(
        found(mount, "vfs-opts", &[mounts]),
        Ok(json!(["rw", "size=4k"]))
    );
    assert_eq!(
        found(mount, "usage", &[mounts, ("0", "usage", "200 50")]),
        Ok(json!(75))
    );
    assert_eq!(
        found(
            mount,
            "usage",
            &[mounts, ("0", "df", "/dev/x 100 40 60 41% /a b")]
        ),
        Ok(json!(41))
    );
    assert_eq!(
        found("mount:\n  /b: {exists: true}\n", "exists", &[mounts]),
        Ok(json!(false))
    );
}

#[test]
fn interfaces_are_told_by_ip_and_by_both_kinds_of_ifconfig() {
    let interface = "interface:\n  eth0: {exists: true}\n";
    let there = ("0", "exists", "1");
    let wanted = json!(["10.0.2.15/24", "fe80::1/64"]);
    for (tool, said) in [
        (
            "ip",
            "2: eth0: <UP> mtu 1500\n    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0\n    inet6 fe80::1/64 scope link\n",
        ),
        (
            "ifconfig",
            "eth0  Link encap:Ethernet\n  inet addr:10.0.2.15  Bcast:10.0.2.255  Mask:255.255.255.0\n  inet6 addr: fe80::1/64 Scope:Link\n",
        ),
        (
            "ifconfig",
            "eth0: flags=4163<UP>  mtu 1500\n  inet 10.0.2.15  netmask 255.255.255.0  broadcast 10.0.2.255\n  inet6 fe80::1  prefixlen 64  scopeid 0x20<link>\n",
        ),
    ] {
        assert_eq!(
            found(interface, "addrs", &[there, ("0", tool, said)]),
            Ok(wanted.clone()),
            "{said}"
        );
    }
}

#[test]
fn a_command_that_took_too_long_is_no_command_that_was_killed() {
    let command = "command:\n  x: {exit-status: 0, timeout: 2000}\n";
    let said = |took| [("0", "exit", "137"), ("0", "took", took), ("0", "out", "")];
    assert!(
        found(command, "exit-status", &said("2"))
            .unwrap_err()
            .contains("longer than 2000 ms")
    );
    assert_eq!(found(command, "exit-status", &said("0")), Ok(json!(137)));
}

#[test]
fn pages_are_told_by_curl_and_by_wget() {
    let http = "http:\n  http://a/: {status: 200}\n";
    let curl = [
        ("0", "status", "200"),
        (
            "0",
            "headers",
            "HTTP/1.1 301 Moved\r\nLocation: /b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
        ),
        ("0", "body", "hello"),
    ];
    assert_eq!(found(http, "status", &curl), Ok(json!(200)));
    assert_eq!(
        found(http, "headers", &curl),
        Ok(json!("Content-Type: text/html"))
    );
    assert_eq!(found(http, "body", &curl), Ok(json!("hello")));
    let wget = [
        (
            "0",
            "wget",
            "Connecting to a (1.2.3.4:80)\n  HTTP/1.0 200 OK\n  Server: x\n",
        ),
        ("0", "body", "hi"),
    ];
    assert_eq!(found(http, "status", &wget), Ok(json!(200)));
    assert_eq!(found(http, "headers", &wget), Ok(json!("Server: x")));
    let failed = [("0", "failed", "curl: (7) Failed to connect\n")];
    assert!(
        found(http, "status", &failed)
            .unwrap_err()
            .contains("Failed to connect")
    );
    let refused = [
        (
            "0",
            "wget",
            "wget: can't connect to remote host (127.0.0.1): Connection refused\n",
        ),
        ("0", "body", ""),
    ];
    assert!(
        found(http, "status", &refused)
            .unwrap_err()
            .contains("Connection refused")
    );
    assert!(
        found(http, "status", &[("0", "refused", "tool")])
            .unwrap_err()
            .contains("no curl")
    );
}

#[test]
fn names_are_told_by_each_tool() {
    let plain = "dns:\n  a.example: {resolvable: true}\n";
    let typed = |kind: &str| {
        format!("dns:\n  '{kind}:a.example': {{resolvable: true, server: 192.0.2.1}}\n")
    };
    for (text, tool, said, wanted) in [
        (
            plain,
            "getent",
            "127.0.0.1 STREAM a\n127.0.0.1 DGRAM\n::1 STREAM\n",
            json!(["127.0.0.1", "::1"]),
        ),
        (
            plain,
            "dig",
            "b.example.\n192.0.2.7\n",
            json!(["192.0.2.7"]),
        ),
        (
            plain,
            "host",
            "a.example has address 192.0.2.7\na.example mail is handled by 10 mx.\n",
            json!(["192.0.2.7"]),
        ),
        (
            plain,
            "nslookup",
            "Server:\t10.0.2.3\nAddress:\t10.0.2.3:53\n\nNon-authoritative answer:\nName:\ta.example\nAddress: 192.0.2.7\n",
            json!(["192.0.2.7"]),
        ),
        (
            &typed("SRV"),
            "dig",
            "0 5 443 a.example.\n",
            json!(["0 5 443 a.example."]),
        ),
        (
            &typed("MX"),
            "host",
            "a.example mail is handled by 10 mx.example.\n",
            json!(["10 mx.example."]),
        ),
        (
            &typed("A"),
            "nslookup",
            "Server: x\nAddress: 10.0.2.3:53\n\nName: a.example\nAddress: 192.0.2.7\nName: a.example\nAddress: ::1\n",
            json!(["192.0.2.7"]),
        ),
    ] {
        assert_eq!(
            found(text, "addrs", &[("0", tool, said)]),
            Ok(wanted),
            "{tool}: {said}"
        );
    }
    assert_eq!(
        found(plain, "resolvable", &[("0", "getent", "")]),
        Ok(json!(false))
    );
}
