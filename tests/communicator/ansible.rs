//! Ansible, on the host and in the guest, against a real server: ansible-core in the test cache, put there by
//! tests/oracles; the guest is this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use qimg::build::event::{Event, Reporter};
use qimg::build::late::RenderText;
use qimg::build::provisioner::{self, Connection, Context, Facts, Host};
use qimg::build::secrets::Masks;
use qimg::communicator::Communicator;
use qimg::template::model::{Action, Ansible, AnsibleLocal, Provisioner, Text};

use crate::servers::{Sshd, user};

/// Texts without actions.
struct Plain;

impl RenderText for Plain {
    fn render(&self, text: &Text, fields: &[(&str, &str)]) -> qimg::Result<String> {
        let mut filled = text.0.clone();
        for (name, value) in fields {
            filled = filled.replace(&format!("{{{{ .{name} }}}}"), value);
        }
        Ok(filled)
    }
}

fn program(name: &str) -> String {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/qimg-tests"),
        PathBuf::from,
    );
    let program = cache.join("ansible/bin").join(name);
    assert!(
        program.is_file(),
        "{program:?} is missing; tests/oracles makes it"
    );
    program.to_str().unwrap().to_owned()
}

/// Runs one step; all that was said.
fn run(sshd: &Sshd, host_key: Option<String>, action: Action) -> (qimg::Result<()>, String) {
    let said = Mutex::new(String::new());
    let sink = |event: &Event| {
        let text = serde_json::to_string(event).unwrap();
        said.lock().unwrap().push_str(&(text + "\n"));
    };
    let reporter = Reporter::new("web", Arc::new(Masks::new(["hidden"]).unwrap()), &sink);
    let facts = Facts {
        name: "web".to_owned(),
        kind: "qemu".to_owned(),
        http: None,
        connection: Some(Connection {
            host: "127.0.0.1".to_owned(),
            port: sshd.options().guest.port,
            user: user(),
            password: None,
            private_key: Some(sshd.at("user")),
            host_key,
        }),
    };
    let host = Host {
        environment: std::env::vars_os().collect(),
        temporary: std::env::temp_dir(),
        system: "linux".to_owned(),
    };
    let ssh = sshd.ssh();
    let step = Provisioner {
        kind: "ansible".to_owned(),
        line: 3,
        pause_before: std::time::Duration::ZERO,
        max_retries: 0,
        timeout: None,
        cache: None,
        action,
    };
    let result = provisioner::run(
        &step,
        &Context {
            facts: &facts,
            host: &host,
            communicator: Some(&ssh as &dyn Communicator),
            reporter: &reporter,
            texts: &Plain,
            numbers: &|| 0x2a,
            ask: None,
            patience: 1,
            stop: &|| false,
        },
    );
    let said = said.lock().unwrap().clone();
    (result, said)
}

fn host_key(sshd: &Sshd) -> String {
    std::fs::read_to_string(sshd.at("host.pub")).unwrap()
}

fn text(text: &str) -> Text {
    Text(text.to_owned())
}

fn on_host(sshd: &Sshd, playbook: &str) -> Ansible {
    std::fs::write(sshd.at("site.yml"), playbook).unwrap();
    Ansible {
        playbooks: vec![text(sshd.at("site.yml").to_str().unwrap())],
        command: program("ansible-playbook"),
        extra_arguments: vec![text("-e"), text("word=seven")],
        environment: vec![(
            "ANSIBLE_PYTHON_INTERPRETER".to_owned(),
            text("/usr/bin/python3"),
        )],
        groups: vec!["servers".to_owned()],
        empty_groups: vec!["none".to_owned()],
        host_alias: "guest".to_owned(),
        user: None,
        inventory_file: None,
        inventory_directory: None,
        inventory_template: None,
        keep_inventory: false,
        galaxy_file: None,
        galaxy_command: program("ansible-galaxy"),
        galaxy_force: false,
        roles_path: None,
        collections_path: None,
    }
}

const PLAYBOOK: &str = "
- hosts: servers
  gather_facts: false
  tasks:
    - copy:
        dest: PLACE
        content: '{{ inventory_hostname }} {{ word }} {{ packer_build_name }} {{ groups.none | length }}'
";

#[test]
fn a_playbook_of_the_host_changes_the_guest_whose_host_key_is_pinned() {
    let sshd = Sshd::start("");
    let made = sshd.at("made");
    let playbook = PLAYBOOK.replace("PLACE", made.to_str().unwrap());
    let ansible = on_host(&sshd, &playbook);
    let (result, said) = run(
        &sshd,
        Some(host_key(&sshd)),
        Action::Ansible(ansible.clone()),
    );
    result.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "guest seven web 0");
    assert!(said.contains("changed=1"), "{said}");
    // Another host key is not the guest.
    let other = std::fs::read_to_string(sshd.at("user.pub")).unwrap();
    let (result, said) = run(&sshd, Some(other), Action::Ansible(ansible.clone()));
    assert!(result.is_err(), "{said}");
    // A playbook that fails is a failure, with its code.
    let bad = playbook
        .replace(
            "hosts: servers",
            "hosts: servers\n  vars: {word: '{{ nothing }}'}",
        )
        .replace("- copy:", "- command: /bin/false\n    - copy:");
    let (result, _) = run(&sshd, None, Action::Ansible(on_host(&sshd, &bad)));
    let error = result.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("exit code 2"), "{cause}");
    let missing = Ansible {
        command: "no-such-ansible".to_owned(),
        ..ansible
    };
    let (result, _) = run(&sshd, None, Action::Ansible(missing));
    assert!(
        result
            .unwrap_err()
            .remedy()
            .unwrap()
            .contains("install Ansible")
    );
}

#[test]
fn an_inventory_of_ones_own_line_is_filled_in() {
    let sshd = Sshd::start("");
    let made = sshd.at("made");
    let playbook = PLAYBOOK
        .replace("PLACE", made.to_str().unwrap())
        .replace("hosts: servers", "hosts: all");
    let ansible = Ansible {
        inventory_template: Some(text(
            "{{ .HostAlias }}-own ansible_host={{ .Host }} ansible_port={{ .Port }} ansible_user={{ .User }}\n",
        )),
        groups: Vec::new(),
        ..on_host(&sshd, &playbook)
    };
    let (result, said) = run(&sshd, Some(host_key(&sshd)), Action::Ansible(ansible));
    result.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert_eq!(
        std::fs::read_to_string(&made).unwrap(),
        "guest-own seven web 0"
    );
}

#[test]
fn a_playbook_in_the_guest_finds_its_roles_and_variables_and_nothing_is_left() {
    let sshd = Sshd::start("");
    let made = sshd.at("made");
    let at = |name: &str| {
        let path = sshd.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    std::fs::write(
        at("site.yml"),
        "- hosts: servers\n  gather_facts: false\n  roles: [greets]\n",
    )
    .unwrap();
    let task = format!(
        "- copy:\n    dest: {}\n    content: '{{{{ greeting }}}} {{{{ packer_build_name }}}}'\n",
        made.display()
    );
    std::fs::write(at("greets/tasks/main.yml"), task).unwrap();
    std::fs::write(at("vars/servers.yml"), "greeting: hello\n").unwrap();
    let staging = at("staging/deep");
    let ansible = AnsibleLocal {
        playbooks: vec![text(at("site.yml").to_str().unwrap())],
        playbook_dir: None,
        playbook_paths: Vec::new(),
        role_paths: vec![text(at("greets").to_str().unwrap())],
        collection_paths: Vec::new(),
        group_vars: Some(text(at("vars").to_str().unwrap())),
        host_vars: None,
        inventory_file: None,
        inventory_groups: vec!["servers".to_owned()],
        galaxy_file: None,
        galaxy_command: program("ansible-galaxy"),
        command: format!(
            "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3 {}",
            program("ansible-playbook")
        ),
        extra_arguments: vec![text("-v")],
        staging_directory: Some(staging.to_str().unwrap().to_owned()),
        clean: true,
    };
    let (result, said) = run(&sshd, None, Action::AnsibleLocal(ansible.clone()));
    result.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "hello web");
    assert!(!staging.exists());
    let missing = AnsibleLocal {
        command: "no-such-ansible".to_owned(),
        clean: false,
        ..ansible
    };
    let (result, _) = run(&sshd, None, Action::AnsibleLocal(missing));
    let error = result.unwrap_err();
    assert!(
        error.remedy().unwrap().contains("in the guest"),
        "{error:?}"
    );
    assert!(staging.join("roles/greets/tasks/main.yml").exists());
    assert!(staging.join("group_vars/servers.yml").exists());
}
