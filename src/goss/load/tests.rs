//! Files of checks: the documented ones are read, and each mistake is told with its place.

use std::collections::BTreeMap;
use std::path::Path;

use super::{LoadRequest, Suite, load, load_text};
use crate::goss::Kind;

fn request(files: &[&Path]) -> LoadRequest {
    LoadRequest {
        files: files.iter().map(|file| file.to_path_buf()).collect(),
        ..LoadRequest::default()
    }
}

fn names(suite: &Suite) -> Vec<(Kind, &str)> {
    { suite.checks.iter() }
        .map(|check| (check.kind, check.id.as_str()))
        .collect()
}

/// Every attribute that Goss's documentation names, with the values it shows.
const DOCUMENTED: &str = r#"
addr:
  tcp://ip-address-or-domain-name:80:
    reachable: true
    address: "tcp://ip-address-or-domain-name:80"
    timeout: 500
    local-address: 127.0.0.1
command:
  'go version':
    exit-status: 0
    exec: "go version"
    stdout:
    - go version go1.6 linux/amd64
    timeout: 10000
    skip: false
dns:
  localhost:
    resolvable: true
    resolve: localhost
    addrs:
      consist-of: [127.0.0.1]
    timeout: 500
  CNAME:c.dnstest.io:
    resolvable: true
    server: 208.67.222.222
    addrs: ["a.dnstest.io."]
file:
  /etc/passwd:
    exists: true
    path: /etc/passwd
    mode: "0644"
    size: 2118
    owner: root
    group: root
    filetype: file
    contents: ["root"]
    md5: 7c9bb14b3bf178e82c00c2a4398c93cd
    sha256: 7f78ce27859049f725936f7b52c6e25d774012947d915e7b394402cfceb70c4c
    sha512: cb71b1940dc879a3688bd502846bff6316dd537bbe917484964fe0f098e9245d80958258dc3bd6297bf42d5bd978cbe2c03d077d4ed45b2b1ed9cd831ceb1bd0
  /etc/alternatives/mta:
    exists: true
    filetype: symlink
    linked-to: /usr/sbin/sendmail.sendmail
    skip: false
group:
  nfsnobody: {exists: true, groupname: nfsnobody, gid: 65534, skip: false}
http:
  https://www.example.com:
    status: 200
    url: https://www.example.com
    allow-insecure: false
    no-follow-redirects: false
    timeout: 1000
    request-headers: ["Content-Type: text/html"]
    headers: ["Content-Type: text/html"]
    request-body: '{"key": "value"}'
    body: ["x"]
    username: ""
    password: ""
    ca-file: ""
    cert-file: ""
    key-file: ""
    proxy: ""
    skip: false
    method: PUT
interface:
  eth0:
    exists: true
    name: eth0
    addrs: [172.17.0.2/16, "fe80::42:acff:fe11:2/64"]
    mtu: 1500
kernel-param:
  kernel.ostype: {value: Linux, name: kernel.ostype}
mount:
  /home:
    exists: true
    timeout: 1000
    mountpoint: /home
    opts: [rw, relatime]
    vfs-opts: [rw]
    source: /dev/mapper/fedora-home
    filesystem: xfs
    usage: {lt: 95}
matching:
  has_substr: {content: some string, matches: {match-regexp: some str}}
package:
  httpd: {installed: true, name: httpd, versions: [2.2.15], skip: false}
port:
  tcp:22: {listening: true, port: 'tcp:22', ip: [0.0.0.0], skip: false}
process:
  chrome: {running: true, comm: chrome, skip: false}
service:
  sshd: {name: sshd, enabled: true, running: true, runlevels: ["3", "4", "5"], skip: false}
user:
  nfsnobody:
    title: the user
    meta: {why: because}
    exists: true
    username: nfsnobody
    uid: 65534
    gid: 65534
    groups: [nfsnobody]
    home: /var/lib/nfs
    shell: /sbin/nologin
"#;

#[test]
fn the_documented_attributes_are_read() {
    let suite = load_text(DOCUMENTED).unwrap();
    assert_eq!(suite.checks.len(), 17);
    let file = suite
        .checks
        .iter()
        .find(|check| check.id == "/etc/passwd")
        .unwrap();
    assert_eq!(file.properties.len(), 10);
    assert_eq!(file.line, 28);
    let user = suite.checks.last().unwrap();
    assert_eq!(user.title.as_deref(), Some("the user"));
    assert_eq!(user.meta["why"], "because");
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"file": {"/etc/passwd": {"exists": true, "contents": ["root", "/^r.*\\/sh$/"]}}, "port": {"tcp:22": {"listening": true}}}"#;
    let suite = load_text(text).unwrap();
    assert_eq!(
        names(&suite),
        [(Kind::File, "/etc/passwd"), (Kind::Port, "tcp:22")]
    );
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (text, words, remedy) in [
        (
            "file:\n  /a: {exists: true}\nfile:\n  /b: {exists: true}\n",
            "line 3, column 1: 'file' is there twice, first in line 1",
            "under one key",
        ),
        (
            "file:\n  /a: {exists: true}\n  /a: {mode: '0644'}\n",
            "line 3, column 3: '/a' is there twice",
            "under one key",
        ),
        (
            "file:\n  /a: {exists: true, exists: false}\n",
            "'exists' is there twice",
            "",
        ),
        (
            "flie:\n  /a: {exists: true}\n",
            "line 1, column 1: there is no type of check 'flie'",
            "did you mean file?",
        ),
        (
            "file:\n  /a: {exist: true}\n",
            "line 2, column 8: file has no attribute 'exist'",
            "did you mean exists?",
        ),
        (
            "file:\n  /a: {contains: [x]}\n",
            "file has no attribute 'contains'",
            "contents",
        ),
        (
            "file:\n  /a: {}\n",
            "line 2, column 3: file '/a' asserts nothing",
            "exists, mode",
        ),
        ("file:\n  /a:\n", "file '/a' asserts nothing", ""),
        ("file:\n", "file has no checks: it asserts nothing", ""),
        ("", "it asserts nothing", ""),
        (
            "command:\n  ls: {exit-status: 0, stderr: []}\n",
            "line 2, column 32: an empty list asserts nothing",
            "write \"\"",
        ),
        (
            "command:\n  ls: {timeout: 10}\n",
            "command 'ls' asserts nothing",
            "exit-status",
        ),
        ("file:\n  /a: {mode: 0644}\n", "a mode is text", "\"0644\""),
        (
            "port:\n  ssh: {listening: true}\n",
            "'ssh' is no port",
            "tcp:22",
        ),
        (
            "addr:\n  udp://a:1: {reachable: true}\n",
            "is no address",
            "UDP",
        ),
        (
            "dns:\n  MX:a.example: {resolvable: true}\n",
            "needs a server",
            "server",
        ),
        ("http:\n  ftp://a: {status: 200}\n", "is no URL of HTTP", ""),
        ("matching:\n  a: {matches: 1}\n", "there is no content", ""),
        (
            "command:\n  ls: {exit-status: 0, timeout: 0}\n",
            "a number of milliseconds",
            "",
        ),
        (
            "file:\n  /a: {exists: {nto: true}}\n",
            "there is no matcher 'nto'",
            "did you mean not?",
        ),
        ("file: [1\n", "line", ""),
        ("{{ if }}", "line 1, column", ""),
        ("a: {{ .Vars.nothing }}", "there is no .nothing here", ""),
        ("a: {{ uper \"x\" }}", "uper", ""),
    ] {
        let error = load_text(text).unwrap_err();
        let said = format!("{error} / {}", error.remedy().unwrap_or_default());
        assert!(said.contains(words), "{text}: {said}");
        assert!(said.contains(remedy), "{text}: {said}");
        assert_eq!(error.path(), Some(Path::new("goss.yaml")), "{text}");
    }
}

#[test]
fn variables_and_the_environment_fill_in_the_template() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let vars = write(
        "vars.yaml",
        "centos:\n  packages:\n    kernel:\n    - \"4.9.11-centos\"\n    - \"4.9.11-centos2\"\nusers: [user1, user2]\ncount: 1\n",
    );
    write("token", "  s3cret\n");
    let goss = write(
        "goss.yaml",
        r#"
package:
# Looping over variables
{{range $name, $vers := index .Vars .Env.OS "packages"}}
  {{$name}}:
    installed: true
    versions:
    {{range $vers}}
      - {{.}}
    {{end}}
{{end}}
{{if .Env.OS | regexMatch "[Cc]ent(OS|os)"}}
  libselinux:
    installed: true
{{end}}
user:
{{range .Vars.users}}
  {{.}}:
    exists: true
    groups:
    - {{.}}
    home: /home/{{.}}
{{end}}
file:
{{- range mkSlice "/etc/passwd" "/etc/group"}}
  {{.}}:
    exists: true
    mode: "0644"
{{end}}
matching:
  sprig:
    content: {{ "hello!" | upper | repeat 5 }}
    matches:
      match-regexp: "HELLO!HELLO!HELLO!HELLO!HELLO!"
  count:
    content: {{ .Vars.count }}
    matches: {gt: 1}
  token:
    content: {{ readFile "token" }}{{ getEnv "ABSENT" "-default" }}
    matches: s3cret-default
  {{ $found := "user=me" | findStringSubmatch "user=(?P<who>[a-z]+)" }}
  groups:
    content: {{ get $found "who" }}
    matches: me
"#,
    );
    let request = LoadRequest {
        variables: vec![vars],
        inline: vec!["count: 2".to_owned()],
        environment: BTreeMap::from([("OS".to_owned(), "centos".to_owned())]),
        ..request(&[&goss])
    };
    let suite = load(&request).unwrap();
    let found: Vec<&str> = names(&suite).into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        found,
        [
            "kernel",
            "libselinux",
            "user1",
            "user2",
            "/etc/passwd",
            "/etc/group",
            "sprig",
            "count",
            "token",
            "groups"
        ]
    );
    let nobody = |_: usize, _: usize| {};
    let guest = crate::communicator::scripted::Scripted::strict();
    let only: Vec<_> = suite
        .checks
        .into_iter()
        .filter(|check| check.kind == Kind::Matching)
        .collect();
    let run = crate::goss::run(
        &only,
        &guest,
        &crate::goss::RunOptions::default(),
        &|| false,
        &mut { nobody },
    )
    .unwrap();
    for outcome in &run.outcomes {
        assert_eq!(
            outcome.state,
            crate::goss::State::Passed,
            "{}",
            outcome.summary()
        );
    }
    assert!(guest.calls().is_empty());
}

#[test]
fn includes_are_found_from_the_file_that_names_them_and_never_go_round() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let top = write(
        "goss.yaml",
        "gossfile:\n  app: {file: more/app.yaml}\n  more/b*.yaml: {}\n  left.yaml: {skip: true}\nfile:\n  /top: {exists: true}\n",
    );
    write(
        "more/app.yaml",
        "gossfile:\n  deep.yaml: {}\nfile:\n  /app: {exists: true}\n",
    );
    write("more/deep.yaml", "file:\n  /deep: {exists: true}\n");
    write("more/b2.yaml", "file:\n  /b2: {exists: true}\n");
    write("more/b1.yaml", "file:\n  /b1: {exists: true}\n");
    let suite = load(&request(&[&top])).unwrap();
    let found: Vec<&str> = names(&suite).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["/deep", "/app", "/b1", "/b2", "/top"]);

    let round = write("round.yaml", "gossfile:\n  other.yaml: {}\n");
    write("other.yaml", "gossfile:\n  round.yaml: {}\n");
    let error = load(&request(&[&round])).unwrap_err();
    assert!(error.to_string().contains("includes itself"), "{error}");

    let nothing = write("nothing.yaml", "gossfile:\n  none-*.yaml: {}\n");
    let error = load(&request(&[&nothing])).unwrap_err();
    assert!(error.to_string().contains("no file is called"), "{error}");
}

#[test]
fn a_small_template_cannot_make_a_large_text() {
    for text in [
        "{{ $x := list 1 }}{{ range until 100 }}{{ $x = list $x $x }}{{ end }}{{ $x }}",
        "{{ repeat 100000000 \"x\" }}",
        "{{ range until 1000000 }}x{{ end }}",
        "{{ $x := \"ab\" }}{{ range until 60 }}{{ $x = replace \"a\" $x $x }}{{ end }}",
        "{{ indent 1000000000 \"x\" }}",
    ] {
        assert!(load_text(text).is_err(), "{text}");
    }
}
