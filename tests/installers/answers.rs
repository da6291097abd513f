//! Thirty questions, answered by typing.

use crate::shop::{Load, Shop, append, cache, sha256};

/// Answers, and a part of the question that each is for.
const ANSWERS: [(&str, &str); 30] = [
    ("i", "(S)hell?"),
    ("us", "keyboard layout"),
    ("puffy-01.Example", "System hostname?"),
    ("vio0", "interface do you wish to configure?"),
    ("autoconf", "IPv4 address"),
    ("none", "IPv6 address"),
    ("done", "configure? (more)"),
    ("example.net", "DNS domain name?"),
    ("10.0.2.3", "DNS nameservers?"),
    ("PASSWORD", "Password for root account? (will not echo)"),
    ("PASSWORD", "Password for root account? (again)"),
    ("yes", "Start sshd(8)"),
    ("no", "X Window System?"),
    ("yes", "console to com0?"),
    ("115200", "Which speed"),
    ("packer", "Setup a user?"),
    ("A User, the 1st", "Full name"),
    ("s3cret!", "Password for user?"),
    ("prohibit-password", "Allow root ssh login?"),
    ("Europe/Zurich", "What timezone"),
    ("sd0", "Which disk is the root disk?"),
    ("w", "(W)hole disk MBR"),
    ("a", "(A)uto layout"),
    ("http", "Location of sets? (cd0"),
    ("pub/OpenBSD/7.6/amd64", "Pathname to the sets?"),
    ("-all bsd* base*", "Set name(s)?"),
    ("yes", "SHA256.sig"),
    ("done", "Location of sets? (done)"),
    ("~!@#$%^&*()_+{}|:\"?`-=[]\\;',./", "Punctuation?"),
    ("H", "Exit to (S)hell"),
];

/// What the guest has written onto its disk.
fn assert_answers(shop: &Shop, image: &str, password: Option<&str>) {
    let start = shop.disk_start(image, 4096);
    let text = String::from_utf8_lossy(&start).into_owned();
    let text = text.trim_end_matches('\0');
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), ANSWERS.len(), "{text}");
    for (line, (answer, question)) in lines.iter().zip(ANSWERS) {
        match (answer, password) {
            ("PASSWORD", Some(password)) => assert_eq!(*line, password),
            ("PASSWORD", None) => assert!(line.len() == 36, "{line}"),
            _ => assert_eq!(*line, answer, "{question}"),
        }
    }
    assert_eq!(lines[9], lines[10]);
}

/// A template that starts the guest by its kernel; it asks on `tty`.
fn native(tty: &str, wait: &str, command: &[String]) -> String {
    let at = cache();
    let kernel = if tty == "ttyS0" { "vmlinux" } else { "vmlinuz" };
    let console = if tty == "ttyS0" { "" } else { "console=tty0" };
    let command = serde_json::to_string(command).unwrap();
    format!(
        "name = \"asked\"\n[boot]\nkernel = {:?}\ninitrd = {:?}\n\
         append = \"{} {console} questions.tty={tty} questions.slow=1\"\nwait = \"{wait}\"\ncommand = {command}\n\
         [disk]\nsize = \"16M\"\n[machine]\naccelerator = \"tcg\"\nmemory = \"256M\"\ncpus = 1\n\
         [ssh]\ncommunicator = \"none\"\n[shutdown]\ntimeout = \"10m\"\n\
         [output]\ndirectory = \"output\"\nname = \"disk.qcow2\"\n",
        at.join("small").join(kernel),
        at.join("questions/initrd"),
        append(),
    )
}

/// Each answer when its question is there.
fn with_waitfor() -> Vec<String> {
    let one =
        |(answer, question): (&str, &str)| format!("<waitfor \"{question}\" 5m>{answer}<enter>");
    ANSWERS.map(one).to_vec()
}

/// As templates without it are: the first question is waited for by time alone.
fn without_waitfor() -> Vec<String> {
    ANSWERS
        .map(|(answer, _)| format!("{answer}<enter><wait>"))
        .to_vec()
}

#[test]
fn answers_are_typed_when_the_screen_asks() {
    let shop = Shop::new();
    let text = native("tty1", "1s", &with_waitfor());
    let ended = shop.build("asked.toml", &text, &[]).well();
    ended
        .has("It is on the screen")
        .has("Waiting for the guest to power off");
    assert_answers(&shop, "output/disk.qcow2", Some("PASSWORD"));
}

#[test]
fn answers_are_typed_when_the_screen_asks_on_a_busy_host() {
    let shop = Shop::new();
    let _load = Load::of(4);
    let text = native("tty1", "1s", &with_waitfor());
    shop.build("asked.toml", &text, &[]).well();
    assert_answers(&shop, "output/disk.qcow2", Some("PASSWORD"));
}

#[test]
fn answers_are_typed_without_a_look_at_the_screen_on_a_busy_host() {
    let shop = Shop::new();
    let _load = Load::of(4);
    let mut command = without_waitfor();
    // How long the guest takes to come up is not what this is about.
    command.insert(0, "<waitfor \"Welcome to the installer\" 10m>".to_owned());
    let text = native("tty1", "1s", &command);
    shop.build("asked.toml", &text, &[]).well();
    assert_answers(&shop, "output/disk.qcow2", Some("PASSWORD"));
}

/// A guest that asks on its serial console takes answers from its keyboard all the same, where it reads both; this one does
/// not: its questions are only waited for.
#[test]
fn a_text_on_the_serial_console_is_found() {
    let shop = Shop::new();
    let text = native("ttyS0", "0s", &["<waitfor \"(S)hell?\" 5m>".to_owned()])
        .replace("timeout = \"10m\"", "timeout = \"2s\"");
    let ended = shop.build("asked.toml", &text, &[]);
    assert_eq!(ended.code, 2, "{}", ended.said);
    ended
        .has("It is on the console")
        .has("has not powered off within 2 s");
}

#[test]
fn what_does_not_appear_is_told_with_what_is_there() {
    let shop = Shop::new();
    let command = [
        "<waitfor \"(S)hell?\" 5m>".to_owned(),
        "<waitfor \"no such words\" 3s>".to_owned(),
    ];
    let ended = shop.build("asked.toml", &native("tty1", "0s", &command), &[]);
    assert_eq!(ended.code, 2, "{}", ended.said);
    ended
        .has("'no such words' did not appear within 3 s; the screen shows:")
        .has("Welcome to the installer of questions. | (I)nstall, (U)pgrade");
    assert!(!shop.path("output").exists());
}

/// A template of Packer's, of the kind that answers an installer key by key.
#[test]
fn a_packer_template_with_an_iso_and_thirty_answers_builds_as_it_is() {
    let shop = Shop::new();
    let iso = cache().join("questions/begin.iso");
    shop.write("SHA256", format!("SHA256 (begin.iso) = {}\n", sha256(&iso)));
    let mut command: Vec<String> = without_waitfor()
        .iter()
        .map(|answer| answer.replace("PASSWORD", "{{user `root_password`}}"))
        .collect();
    let last = command.len() - 1;
    command[last] = "H<enter>".to_owned();
    let template = serde_json::json!({
        "variables": {"root_password": "{{uuid}}", "boot_wait": "30s"},
        "sensitive-variables": ["root_password"],
        "builders": [{
            "type": "qemu",
            "iso_url": iso,
            "iso_checksum": format!("file:{}", shop.path("SHA256").display()),
            "disk_size": "16M",
            "disk_image": false,
            "format": "qcow2",
            "headless": true,
            "accelerator": "none",
            "memory": 256,
            "boot_wait": "{{user `boot_wait`}}",
            "boot_command": command,
            "communicator": "none",
            "ssh_password": "{{user `root_password`}}",
            "shutdown_timeout": "10m",
            "output_directory": "output",
            "vm_name": "disk.qcow2"
        }]
    });
    let text = serde_json::to_string_pretty(&template).unwrap();
    shop.write("openbsd.json", &text);
    shop.qimg(&["validate", "openbsd.json"]).well();
    let plan = shop.qimg(&["build", "--plan", "openbsd.json"]).well();
    plan.has("once=d")
        .has("wait 30 s, then type the boot command");
    // Time alone tells when to begin, and this machine may be slow.
    let ended = shop
        .build("openbsd.json", &text, &["-var", "boot_wait=150s"])
        .well();
    assert_answers(&shop, "output/disk.qcow2", None);
    let start = shop.disk_start("output/disk.qcow2", 4096);
    let lines = String::from_utf8_lossy(&start).into_owned();
    let password = lines.lines().nth(9).unwrap();
    ended.has_not(password);
    let mut told = Vec::new();
    logs_below(&shop.runs(), &mut told);
    assert!(told.len() >= 2, "{told:?}");
    for log in told {
        let bytes = std::fs::read(&log).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(password), "{log:?}");
    }
}

fn logs_below(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logs_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "log") {
            found.push(path);
        }
    }
}
