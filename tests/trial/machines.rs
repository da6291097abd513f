//! Machines made of the small guest's image.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::bench::{Bench, image};

const GOOD: &str = r#"
file:
  /etc/passwd: {exists: true, mode: "0644", owner: root, group: root, filetype: file, contents: ["/^root:/", "!/^nobody-there/"]}
  /bin/busybox: {exists: true, size: {gt: 100000}, sha256: {have-len: 64}}
  /etc/absent: {exists: false}
user:
  root: {exists: true, uid: 0, home: /root}
group:
  root: {exists: true, gid: 0}
process:
  dropbear: {running: true}
port:
  tcp:22: {listening: true, ip: [0.0.0.0]}
  tcp:80: {listening: false}
mount:
  /: {exists: true, filesystem: ext4, opts: [rw], usage: {lt: 100}}
kernel-param:
  kernel.ostype: {value: Linux}
interface:
  eth0: {exists: true, mtu: 1500, addrs: [10.0.2.15/24]}
package:
  nothing: {skip: true, installed: true}
service:
  nothing: {enabled: false, running: false}
command:
  id -u: {exit-status: 0, stdout: "0\n", stderr: ""}
  slow: {exec: sleep 100, timeout: 1000, exit-status: {gt: 0}, skip: true}
addr:
  tcp://127.0.0.1:22: {reachable: true, timeout: 20000}
dns:
  localhost: {resolvable: true, timeout: 20000}
boot:
  first: {seconds: {lt: 900}, failed-units: "", kernel-log: ["Linux version", "!Oops:"]}
cloud-init:
  none: {status: absent}
login:
  qimg: {key: true}
grow:
  root: {grown: false, root-size: {gt: 50000000}}
reboot:
  once: {boot-id-changed: true, data-kept: true, seconds: {lt: 900}}
migrate:
  once: {answers: true, boot-id-kept: true, seconds: {lt: 900}}
sealed:
  image: {authorized-keys: "", host-keys: "", machine-id: "", cloud-init-state: "", random-seed: ""}
serial:
  console: {output: ["small: up after"]}
shutdown:
  acpi: {clean: true, seconds: {lt: 900}}
"#;

#[test]
fn a_good_image_passes_and_leaves_nothing() {
    let bench = Bench::new();
    bench.write("goss.yaml", GOOD);
    let small = image("small.qcow2");
    let said = bench.test(&[
        "--format",
        "json",
        "--memory",
        "256M",
        "--cpus",
        "1",
        "-s",
        "goss.yaml",
        small.to_str().unwrap(),
    ]);
    for (name, passed, line) in said.results() {
        assert!(passed, "{name}: {line}\n{}", said.err);
    }
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("logged in as qimg after"), "{}", said.err);
    assert!(bench.left().is_empty(), "{:?}", bench.left());
}

const BAD: &str = r#"
file:
  /etc/absent: {exists: true, mode: "0644"}
port:
  tcp:80: {listening: true}
command:
  exit 3: {exit-status: 0}
boot:
  first: {seconds: {lt: 0.01}, kernel-log: ["!Linux version"]}
cloud-init:
  some: {status: done}
login:
  qimg: {key: false}
  root: {password: true}
grow:
  root: {grown: true}
reboot:
  once: {boot-id-changed: false}
migrate:
  once: {boot-id-kept: false}
sealed:
  image: {host-keys: ["never there"]}
serial:
  console: {output: ["never said"], timeout: 1000}
shutdown:
  acpi: {clean: true, timeout: 1000}
"#;

#[test]
fn a_bad_image_fails_each_check_and_leaves_what_there_is_to_look_at() {
    let bench = Bench::new();
    bench.write("goss.yaml", BAD);
    bench.write(
        "user-data",
        "#cloud-config\n# small.poweroff=ignore\nhostname: bad\n",
    );
    let small = image("small.qcow2");
    let said = bench.test(&[
        "--format",
        "json",
        "--memory",
        "256M",
        "--cpus",
        "1",
        "--user-data",
        "user-data",
        "-s",
        "goss.yaml",
        "--report",
        "junit=results.xml",
        "--report",
        "human=results.txt",
        small.to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let skipped = "File /etc/absent mode";
    for (name, passed, line) in said.results() {
        assert_eq!(passed, name == skipped, "{name}: {line}\n{}", said.err);
    }
    assert_eq!(said.results().len(), 15);
    let image = &said.json()["images"][0];
    let log = image["console-log"].as_str().unwrap();
    assert!(
        std::fs::read_to_string(log)
            .unwrap()
            .contains("small: up after")
    );
    assert!(
        std::fs::read(image["screenshot"].as_str().unwrap())
            .unwrap()
            .starts_with(b"\x89PNG")
    );
    let text = std::fs::read_to_string(bench.path("results.txt")).unwrap();
    assert!(text.contains(log), "{text}");
    crate::reports::assert_junit(&bench.path("results.xml"));
    let left = bench.left();
    assert!(
        !left
            .iter()
            .any(|name| name == "key" || name == "seed.img" || name.ends_with(".qcow2")),
        "{left:?}"
    );
}

#[test]
fn a_guest_that_never_answers_fails_with_its_likely_cause() {
    let bench = Bench::new();
    bench.write(
        "goss.yaml",
        "port:\n  tcp:22: {listening: true}\nmatching:\n  one: {content: 1, matches: 1}\n",
    );
    bench.write(
        "user-data",
        "#cloud-config\n# small.ssh=off\nhostname: silent\n",
    );
    let small = image("small.qcow2");
    let said = bench.test(&[
        "--memory",
        "256M",
        "--cpus",
        "1",
        "--user-data",
        "user-data",
        "-s",
        "goss.yaml",
        "--ssh-timeout",
        "15s",
        small.to_str().unwrap(),
    ]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("1 passed, 1 failed"), "{}", said.out);
    assert!(said.out.contains("console.log"), "{}", said.out);
}

#[test]
fn a_machine_that_is_kept_is_asked_as_one_that_is_up() {
    let bench = Bench::new();
    let small = image("small.qcow2");
    bench.write("goss.yaml", "process:\n  dropbear: {running: true}\n");
    let mut child = bench
        .command()
        .args([
            "--keep",
            "--memory",
            "256M",
            "--cpus",
            "1",
            "-s",
            "goss.yaml",
        ])
        .arg(&small)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains("runs until Ctrl-C: ssh -i "))
        .expect("it says how to log in");
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
    let host = format!("{}:{}", words.last().unwrap(), after("-p"));
    let asked = bench.test(&[
        "--host",
        &host,
        "-i",
        after("-i"),
        "-s",
        "goss.yaml",
        "--ssh-timeout",
        "2m",
    ]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert!(asked.out.contains("1 passed, 0 failed"), "{asked:?}");
    let made = bench.test(&[
        "--host",
        &host,
        "-i",
        after("-i"),
        "--generate=port,user,mount",
        "--ssh-timeout",
        "2m",
    ]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(
        made.out
            .contains("port:\n  \"tcp:22\":\n    listening: true\n"),
        "{}",
        made.out
    );
    bench.write("made.yaml", &made.out);
    let asked = bench.test(&[
        "--host",
        &host,
        "-i",
        after("-i"),
        "-s",
        "made.yaml",
        "--ssh-timeout",
        "2m",
    ]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    // What was found is told all the same.
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(bench.left().is_empty(), "{:?}", bench.left());
}

#[test]
fn an_interrupt_ends_the_machine() {
    let bench = Bench::new();
    let small = image("small.qcow2");
    bench.write(
        "goss.yaml",
        "command:\n  sleep 500: {exit-status: 0, timeout: 600000}\n",
    );
    let mut child = bench
        .command()
        .args(["--memory", "256M", "--cpus", "1", "-s", "goss.yaml"])
        .arg(&small)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let asking = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("asking the guest"));
    assert!(asking);
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left = bench.left();
    assert!(
        !left
            .iter()
            .any(|name| name == "key" || name == "seed.img" || name.ends_with(".qcow2")),
        "{left:?}"
    );
}
