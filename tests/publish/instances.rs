//! Instances of templates: made, asked and destroyed, by the same cloud as in `cloud`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::{Cloud, program};
use crate::{Program, oracle_tools};

/// What a test has in the cloud.
#[derive(Default)]
pub struct Machines {
    /// By id: as the cloud tells it, with what was asked for.
    pub instances: BTreeMap<String, Value>,
    /// Names, with the public line.
    pub keys: BTreeMap<String, String>,
    /// By id: name and rules.
    pub groups: BTreeMap<String, (String, Vec<Value>)>,
    /// The port at which a guest answers; without one, there is an address and nobody.
    guest: Option<u16>,
    running: BTreeMap<String, Guest>,
    /// Requests that start so are refused.
    refused: Option<&'static str>,
    /// All that was there, as it was asked for.
    history: Vec<(String, Value)>,
}

/// A QEMU that is killed with whoever has it.
struct Guest {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What comes of a request.
pub enum Answer {
    Refused(u16, Value),
    Told(Value),
    /// An operation on the thing of this id.
    Begun(String),
}

const SMALL: &str = "71004023-bb72-4a97-b1e9-bc66dfce9470";

pub fn respond(
    machines: &mut Machines,
    method: &str,
    rest: &[&str],
    body: &str,
    id: &str,
) -> Option<Answer> {
    let line = format!("{method} {}", rest.join("/"));
    if machines
        .refused
        .is_some_and(|start| line.starts_with(start))
    {
        return Some(Answer::Refused(503, json!({"message": "not now"})));
    }
    let wanted: Value = serde_json::from_str(body).unwrap_or_default();
    if method == "POST" {
        machines.history.push((rest.join("/"), wanted.clone()));
    }
    let nobody = || Answer::Refused(404, json!({"message": "Not Found"}));
    Some(match (method, rest) {
        ("GET", ["instance-type"]) => Answer::Told(json!({"instance-types": [
            {"id": SMALL, "family": "standard", "size": "small", "cpus": 2},
            {"id": "b6cd1ff5-3a2f-4e9d-a4d1-8988c1191fe8", "family": "standard", "size": "medium"},
        ]})),
        ("POST", ["ssh-key"]) => {
            let name = wanted["name"].as_str().unwrap().to_owned();
            let line = wanted["public-key"].as_str().unwrap().to_owned();
            machines.keys.insert(name, line);
            Answer::Begun(id.to_owned())
        }
        ("DELETE", ["ssh-key", name]) => match machines.keys.remove(*name) {
            Some(_) => Answer::Begun(id.to_owned()),
            None => nobody(),
        },
        ("POST", ["security-group"]) => {
            let name = wanted["name"].as_str().unwrap().to_owned();
            machines.groups.insert(id.to_owned(), (name, Vec::new()));
            Answer::Begun(id.to_owned())
        }
        ("POST", ["security-group", group, "rules"]) => match machines.groups.get_mut(*group) {
            Some((_, rules)) => {
                rules.push(wanted);
                Answer::Begun((*group).to_owned())
            }
            None => nobody(),
        },
        ("GET", ["security-group"]) => {
            let groups: Vec<_> = { machines.groups.iter() }
                .map(|(id, (name, _))| json!({"id": id, "name": name}))
                .collect();
            Answer::Told(json!({ "security-groups": groups }))
        }
        ("DELETE", ["security-group", group]) => {
            let uses = |one: &Value| one["security-groups"][0]["id"] == **group;
            if machines.instances.values().any(uses) {
                return Some(Answer::Refused(409, json!({"message": "it is in use"})));
            }
            match machines.groups.remove(*group) {
                Some(_) => Answer::Begun(id.to_owned()),
                None => nobody(),
            }
        }
        ("POST", ["instance"]) => {
            let mut instance = wanted;
            instance["id"] = json!(id);
            instance["state"] = json!("running");
            instance["public-ip"] = json!("127.0.0.1");
            if let Some(port) = machines.guest {
                let guest = boot(&instance, &machines.keys, port);
                machines.running.insert(id.to_owned(), guest);
            }
            machines.instances.insert(id.to_owned(), instance);
            Answer::Begun(id.to_owned())
        }
        ("GET", ["instance"]) => {
            let all: Vec<_> = machines.instances.values().cloned().collect();
            Answer::Told(json!({ "instances": all }))
        }
        ("GET", ["instance", id]) => match machines.instances.get(*id) {
            Some(instance) => Answer::Told(instance.clone()),
            None => nobody(),
        },
        ("DELETE", ["instance", id]) => {
            machines.running.remove(*id);
            match machines.instances.remove(*id) {
                Some(_) => Answer::Begun((*id).to_owned()),
                None => nobody(),
            }
        }
        _ => return None,
    })
}

/// Boots the small guest as the cloud boots an instance.
fn boot(instance: &Value, keys: &BTreeMap<String, String>, port: u16) -> Guest {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let encoded = instance["user-data"].as_str().unwrap();
    let mut user_data = decoded(encoded);
    for key in instance["ssh-keys"].as_array().unwrap() {
        // The small guest takes keys from its user-data alone.
        let line = &keys[key["name"].as_str().unwrap()];
        user_data.extend(format!("\n# {line}\n").bytes());
    }
    std::fs::write(here.join("user-data"), user_data).unwrap();
    oracle_tools::must(here, "cloud-localds", &["seed.img", "user-data"]);
    let image = image("small.qcow2");
    let overlay = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &image,
        "disk.qcow2",
    ];
    oracle_tools::must(here, "qemu-img", &overlay);
    let child = Command::new("qemu-system-x86_64")
        .current_dir(here)
        .args([
            "-accel", "tcg", "-cpu", "max", "-m", "256", "-display", "none", "-serial", "null",
        ])
        .args(["-drive", "file=disk.qcow2,if=virtio,format=qcow2"])
        .args(["-drive", "file=seed.img,if=virtio,format=raw,readonly=on"])
        .args(["-device", "virtio-net-pci,netdev=n"])
        .arg("-netdev")
        .arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"))
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64 must be installed");
    Guest {
        child,
        _directory: directory,
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut child = Command::new("base64")
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    { child.stdin.take().unwrap() }
        .write_all(text.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap().stdout
}

fn image(name: &str) -> String {
    let cache = match std::env::var_os("QIMG_TEST_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/qimg-tests"),
    };
    let path = cache.join(name);
    assert!(path.is_file(), "{path:?} is missing; tests/guest makes it");
    path.to_str().unwrap().to_owned()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

const TEMPLATE: &str = "0d8bb0f4-8a0a-4a8e-9d0a-5f0e6f0f8a11";

fn cloud_with_template() -> Cloud {
    let cloud = Cloud::new();
    cloud.put(
        "api",
        json!({
            "id": TEMPLATE, "name": "small", "default-user": "user", "boot-mode": "legacy", "size": 10_u64 << 30,
            "ssh-key-enabled": true, "password-enabled": false, "zones": ["ch-gva-2"],
        }),
    );
    cloud
}

const GOSS: &str = "
file: {/etc/passwd: {exists: true, contents: ['/^root:/']}}
command: {id -u: {exit-status: 0, stdout: \"0\\n\"}}
cloud-init: {here: {status: absent}}
boot: {first: {seconds: {lt: 900}, kernel-log: ['Linux version']}}
login: {root: {key: true, password: false}}
reboot: {once: {boot-id-changed: true, data-kept: true}}
sealed: {image: {machine-id: never}}
";

/// `qimg test` of the template.
fn test(port: u16, further: &[&str]) -> Vec<String> {
    let port = port.to_string();
    let template = format!("exoscale:{TEMPLATE}");
    let always = [
        "test",
        &template,
        "-s",
        "goss.yaml",
        "--zone",
        "ch-gva-2",
        "--poll",
        "0.05",
        "--port",
        &port,
    ];
    let words = always.iter().chain(further);
    words.map(|word| (*word).to_owned()).collect()
}

fn run(program: &Program, arguments: &[String]) -> std::process::Output {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    program.run(&arguments)
}

/// Nothing is in the cloud, and nothing is remembered of it.
#[track_caller]
fn is_tidy(cloud: &Cloud, program: &Program) {
    cloud.machines(|machines| {
        assert!(machines.instances.is_empty(), "{:?}", machines.instances);
        assert!(machines.keys.is_empty(), "{:?}", machines.keys);
        assert!(machines.groups.is_empty(), "{:?}", machines.groups);
    });
    assert_eq!(notes(program), Vec::<PathBuf>::new());
}

fn notes(program: &Program) -> Vec<PathBuf> {
    let directory = program.path(".local/state/qimg/uploads/instances");
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_instance_is_made_of_a_template_asked_and_destroyed() {
    let cloud = cloud_with_template();
    let port = free_port();
    cloud.machines(|machines| machines.guest = Some(port));
    let program = program(&cloud);
    program.file("goss.yaml", GOSS.as_bytes());
    let output = run(
        &program,
        &test(port, &["--format", "json", "--ssh-timeout", "15m"]),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    let results: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(output.status.code(), Some(0), "{results:#}\n{said}");
    for result in results["results"].as_array().unwrap() {
        let skipped = result["resource-type"] == "Sealed";
        assert_eq!(result["skipped"] == true, skipped, "{result:#}");
    }
    assert!(said.contains("logged in as user after"), "{said}");
    assert!(
        results.to_string().contains("a check needs an image"),
        "{results:#}"
    );
    is_tidy(&cloud, &program);
    cloud.machines(|machines| {
        let asked = |path: &str| {
            let found = machines.history.iter().find(|(at, _)| at == path);
            found.map(|(_, body)| body.clone()).unwrap()
        };
        let instance = asked("instance");
        assert_eq!(instance["template"]["id"], TEMPLATE);
        assert_eq!(instance["instance-type"]["id"], SMALL);
        assert_eq!(instance["disk-size"], 10);
        let name = instance["name"].as_str().unwrap();
        assert!(name.starts_with("qimg-test-"), "{name}");
        assert_eq!(asked("ssh-key")["name"], name);
        let rules: Vec<_> = { machines.history.iter() }
            .filter(|(at, _)| at.ends_with("/rules"))
            .map(|(_, rule)| rule)
            .collect();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0]["flow-direction"], "ingress");
        assert_eq!(
            (&rules[0]["start-port"], &rules[0]["end-port"]),
            (&json!(port), &json!(port))
        );
    });
}

#[test]
fn a_guest_that_never_answers_is_destroyed_and_fails_the_test() {
    let cloud = cloud_with_template();
    let program = program(&cloud);
    program.file("goss.yaml", GOSS.as_bytes());
    let output = run(
        &program,
        &test(
            free_port(),
            &["--ssh-timeout", "1s", "--instance-type", "standard.medium"],
        ),
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody listens on the port"), "{said}");
    is_tidy(&cloud, &program);
}

#[test]
fn what_the_cloud_refuses_leaves_nothing() {
    let cloud = cloud_with_template();
    let program = program(&cloud);
    program.file("goss.yaml", GOSS.as_bytes());
    let fails = |further: &[&str], words: &str| {
        let output = run(&program, &test(22, further));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
        is_tidy(&cloud, &program);
    };
    fails(
        &["--instance-type", "standard.huge"],
        "there are standard.small, standard.medium, and others",
    );
    fails(
        &["--security-group", "web"],
        "there is no security group 'web'",
    );
    fails(&["--environment", "ppapi"], "there is no template");
    cloud.machines(|machines| machines.refused = Some("POST instance"));
    fails(&[], "Exoscale says 503: not now");
    let output = program.fails(
        1,
        &["test", "exoscale:../x", "-s", "goss.yaml", "--zone", "z"],
    );
    assert!(output.contains("is no template's id"), "{output}");
    let output = program.fails(1, &["test", "exoscale:x", "-s", "goss.yaml"]);
    assert!(output.contains("--zone"), "{output}");
}

/// Starts a test of a guest that never answers, and waits until its instance is there.
fn started(cloud: &Cloud, program: &Program) -> Child {
    let arguments = test(free_port(), &["--ssh-timeout", "10m"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = program
        .command(&arguments)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while cloud.machines(|machines| machines.instances.is_empty()) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "there is no instance"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn send(child: &Child, signal: &str) {
    oracle_tools::must(Path::new("/"), "kill", &[signal, &child.id().to_string()]);
}

#[test]
fn ctrl_c_destroys_the_instance() {
    let cloud = cloud_with_template();
    let program = program(&cloud);
    program.file("goss.yaml", GOSS.as_bytes());
    let child = started(&cloud, &program);
    send(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    is_tidy(&cloud, &program);
}

#[test]
fn what_a_killed_test_leaves_is_destroyed_by_the_next_one() {
    let cloud = cloud_with_template();
    let program = program(&cloud);
    program.file("goss.yaml", GOSS.as_bytes());
    let mut child = started(&cloud, &program);
    let name = cloud.machines(|machines| {
        let instance = machines.instances.values().next().unwrap();
        instance["name"].as_str().unwrap().to_owned()
    });
    // It is not touched while its test runs.
    let output = run(&program, &test(22, &["--instance-type", "standard.huge"]));
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&name));
    assert_eq!(cloud.machines(|machines| machines.instances.len()), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(cloud.machines(|machines| machines.instances.len()), 1);
    // Another key's machines are nobody's business.
    let output = run(&program, &test(22, &["--environment", "ppapi"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(cloud.machines(|machines| machines.instances.len()), 1);
    // What cannot be destroyed is said, and tried again.
    cloud.machines(|machines| machines.refused = Some("DELETE security-group"));
    let output = run(&program, &test(22, &[]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&format!("{name} may still be there, and cost money")),
        "{said}"
    );
    assert!(
        said.contains(&format!("exo compute instance delete {name} -z ch-gva-2")),
        "{said}"
    );
    cloud.machines(|machines| machines.refused = None);
    let output = run(&program, &test(22, &["--instance-type", "standard.huge"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(&format!("{name} is left of a test that was killed")),
        "{said}"
    );
    is_tidy(&cloud, &program);
}
