use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::build::event::Event;
use crate::build::provisioner::Host;
use crate::build::request::{Options, Surroundings};
use crate::build::secrets::Masks;
use crate::fetch::{self, Cache, Signature};
use crate::image::Format;
use crate::machine::{Launcher, accelerator, firmware};
use crate::template::{LoadRequest, load};

const TEMPLATE: &str = r#"
[variables]
who = "world"
[base]
image = "base.qcow2"
checksum = "none"
[machine]
memory = "1G"
[ssh]
username = "root"
[[provision]]
scripts = ["one.sh"]
env = { A = "1" }
[[provision]]
upload = "tree"
to = "/srv"
[[provision]]
shell = "echo {{user `who`}} {{build `User`}}"
[[provision]]
shell = "echo last"
"#;

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("base.qcow2"), "base").unwrap();
        std::fs::write(at("one.sh"), "echo one\n").unwrap();
        std::fs::write(at("other.sh"), "echo one\n").unwrap();
        std::fs::create_dir_all(at("tree/below")).unwrap();
        std::fs::write(at("tree/below/file"), "file").unwrap();
        std::fs::write(at("kernel.img"), "kernel").unwrap();
        std::fs::write(at("files.iso"), "medium").unwrap();
        std::fs::create_dir(at("served")).unwrap();
        std::fs::write(at("served/answers"), "yes").unwrap();
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn keys(&self, text: &str, base_digest: &str) -> Result<Keys, String> {
        let directory = self.directory.path().to_owned();
        let loaded = load(&LoadRequest {
            path: directory.join("web.toml"),
            bytes: Some(text.as_bytes().to_vec()),
            var_files: Vec::new(),
            variables: Vec::new(),
            only: Vec::new(),
            except: Vec::new(),
            environment: BTreeMap::new(),
            directory: directory.clone(),
            started: std::time::Duration::from_secs(1),
            random: &|| [7; 12],
        })
        .unwrap();
        let surroundings = Surroundings {
            directory: directory.clone(),
            runs: directory.join("runs"),
            run: "1".to_owned(),
            run_uuid: "uuid".to_owned(),
            time: 5,
            started: std::time::Instant::now(),
            host: Host::default(),
            launcher: Launcher::new("/bin/false"),
            agent: None,
            has_display: false,
            fetch: fetch::Options::new(Cache::new(directory.join("cache"))),
            kvm: accelerator::Host::default(),
            firmware: firmware::Places::of_host(None),
            threads: 1,
            publish: None,
        };
        let sink = |_: &Event| {};
        let build = &loaded.template.builds[0];
        let request = BuildRequest {
            template: &loaded.template,
            build,
            surroundings: &surroundings,
            options: Options::default(),
            ask: None,
            sink: &sink,
            numbers: &|| 1,
            stop: Arc::new(|| false),
        };
        let reporter = Reporter::new(
            "web",
            Arc::new(Masks::new(Vec::<String>::new()).unwrap()),
            &sink,
        );
        let base = Fetched {
            path: self.at("base.qcow2"),
            source: "base.qcow2".to_owned(),
            format: Format::Qcow2,
            virtual_size: 1 << 30,
            digests: vec![
                crate::digest::Digest::from_hex(DigestKind::Sha256, base_digest).unwrap(),
            ],
            expected: None,
            signature: Signature::NoList,
            cached: true,
            unpacked: None,
            entry: None,
        };
        let args: Vec<(String, Vec<String>)> = build
            .machine
            .qemu_args
            .iter()
            .map(|(switch, values)| {
                (
                    switch.0.clone(),
                    values.iter().map(|value| value.0.clone()).collect(),
                )
            })
            .collect();
        let made = Made {
            base: &base,
            qemu_args: &args,
            boot: None,
            media: &[self.at("files.iso")],
        };
        keys(&request, &made, &reporter).unwrap()
    }
}

const BASE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// How many keys from the beginning are the same.
fn common(one: &Keys, other: &Keys) -> usize {
    one.all
        .iter()
        .zip(&other.all)
        .take_while(|(one, other)| one == other)
        .count()
}

#[test]
fn every_kind_of_change_is_a_change_from_its_step_on() {
    let world = World::new();
    let first = world.keys(TEMPLATE, BASE).unwrap();
    assert_eq!((first.all.len(), first.ended.clone()), (5, None));
    assert_eq!(world.keys(TEMPLATE, BASE).unwrap(), first);
    let mut wrong = Vec::new();
    // What is changed in the template, and how many keys stay.
    for (from, to, stays) in [
        ("memory = \"1G\"", "memory = \"2G\"", 0),
        ("memory = \"1G\"", "memory = \"1G\"\ncpus = 3", 0),
        ("memory = \"1G\"", "memory = \"1G\"\nboot = \"uefi\"", 0),
        (
            "memory = \"1G\"",
            "memory = \"1G\"\nnet-device = \"e1000\"",
            0,
        ),
        (
            "memory = \"1G\"",
            "memory = \"1G\"\nqemu-args = [[\"-rtc\", \"base=utc\"]]",
            0,
        ),
        ("username = \"root\"", "username = \"debian\"", 0),
        (
            "username = \"root\"",
            "username = \"root\"\ntemporary-key = \"rsa\"",
            0,
        ),
        ("[ssh]", "[disk]\nsize = \"8G\"\n[ssh]", 0),
        ("[ssh]", "[disk]\nadditional = [\"1G\"]\n[ssh]", 0),
        ("[ssh]", "[disk]\ninterface = \"ide\"\n[ssh]", 0),
        ("[ssh]", "[seed]\nuser-data = \"#cloud-config\"\n[ssh]", 0),
        ("[ssh]", "[boot]\ncommand = \"<enter>\"\n[ssh]", 0),
        ("[ssh]", "[http]\ndirectory = \"tree\"\n[ssh]", 0),
        ("[ssh]", "[http.content]\n\"/a\" = \"b\"\n[ssh]", 0),
        ("env = { A = \"1\" }", "env = { A = \"2\" }", 1),
        ("env = { A = \"1\" }", "env = { B = \"1\" }", 1),
        ("env = { A = \"1\" }", "env = { A = \"1\" }\nsudo = true", 1),
        (
            "env = { A = \"1\" }",
            "env = { A = \"1\" }\nexecute-command = \"sh {{.Path}} {{.Vars}}\"",
            1,
        ),
        (
            "env = { A = \"1\" }",
            "env = { A = \"1\" }\nremote-folder = \"/var/tmp\"",
            1,
        ),
        (
            "env = { A = \"1\" }",
            "env = { A = \"1\" }\nbinary = true",
            1,
        ),
        (
            "env = { A = \"1\" }",
            "env = { A = \"1\" }\nvalid-exit-codes = [0, 1]",
            1,
        ),
        (
            "[[provision]]\nscripts",
            "[[provision]]\nsleep = \"1s\"\n[[provision]]\nscripts",
            1,
        ),
        ("to = \"/srv\"", "to = \"/opt\"", 2),
        ("upload = \"tree\"", "upload = \"tree/\"", 2),
        ("who = \"world\"", "who = \"moon\"", 3),
        ("{{build `User`}}", "{{build `Host`}}", 3),
        ("echo last", "echo the last", 4),
        (
            "echo last",
            "echo last\"\n[[provision]]\nreboot = \"reboot",
            5,
        ),
        // Nothing of these is seen by the guest.
        (
            "username = \"root\"",
            "username = \"root\"\ntimeout = \"9m\"",
            5,
        ),
        (
            "memory = \"1G\"",
            "memory = \"1G\"\naccelerator = \"tcg\"\nheadless = false",
            5,
        ),
        (
            "memory = \"1G\"",
            "memory = \"1G\"\nhost-ports = [2222, 2230]",
            5,
        ),
        (
            "env = { A = \"1\" }",
            "env = { A = \"1\" }\nmax-retries = 3\ntimeout = \"5m\"\npause-before = \"1s\"",
            5,
        ),
        (
            "[[provision]]\nscripts",
            "# a remark\n\n[[provision]]\nscripts",
            5,
        ),
        (
            "[ssh]",
            "[output]\ncompression = \"zstd\"\n[seal]\nenabled = false\n[ssh]",
            5,
        ),
        // By content, not by name.
        ("one.sh", "other.sh", 5),
    ] {
        let changed = TEMPLATE.replacen(from, to, 1);
        assert_ne!(changed, TEMPLATE, "{from}");
        let keys = world.keys(&changed, BASE).unwrap();
        let common = common(&first, &keys);
        if common != stays {
            wrong.push(format!("{from} -> {to}: {common}, {:?}", keys.ended));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let other_base = BASE.replace("00", "01");
    assert_eq!(
        common(&first, &world.keys(TEMPLATE, &other_base).unwrap()),
        0
    );
}

#[test]
fn every_file_counts_by_its_bytes_and_its_mode() {
    let world = World::new();
    let with_kernel = TEMPLATE.replace(
        "memory = \"1G\"",
        "memory = \"1G\"\nqemu-args = [[\"-kernel\", \"kernel.img\"], [\"-append\", \"console=ttyS0\"]]",
    );
    let with_kernel = format!("{with_kernel}\n[http]\ndirectory = \"served\"\n");
    let first = world.keys(&with_kernel, BASE).unwrap();
    let changes: [(&str, &dyn Fn(), usize); 8] = [
        (
            "medium",
            &|| std::fs::write(world.at("files.iso"), "Medium!").unwrap(),
            0,
        ),
        (
            "served",
            &|| std::fs::write(world.at("served/answers"), "no").unwrap(),
            0,
        ),
        (
            "script",
            &|| std::fs::write(world.at("one.sh"), "echo 1\n").unwrap(),
            1,
        ),
        (
            "file",
            &|| std::fs::write(world.at("tree/below/file"), "File").unwrap(),
            2,
        ),
        (
            "mode",
            &|| {
                let mode = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(world.at("tree/below/file"), mode).unwrap();
            },
            2,
        ),
        (
            "name",
            &|| std::fs::rename(world.at("tree/below/file"), world.at("tree/below/other")).unwrap(),
            2,
        ),
        (
            "directory",
            &|| std::fs::create_dir(world.at("tree/empty")).unwrap(),
            2,
        ),
        (
            "kernel",
            &|| std::fs::write(world.at("kernel.img"), "Kernel!").unwrap(),
            0,
        ),
    ];
    let mut before = first;
    for (what, change, stays) in changes {
        change();
        let now = world.keys(&with_kernel, BASE).unwrap();
        assert_eq!(common(&before, &now), stays, "{what}");
        before = now;
    }
    // A time alone is no change.
    std::fs::write(world.at("one.sh"), "echo 1\n").unwrap();
    assert_eq!(world.keys(&with_kernel, BASE).unwrap(), before);
}

#[test]
fn what_acts_on_the_host_or_differs_from_run_to_run_ends_it() {
    let world = World::new();
    for (step, why) in [
        ("local = \"date\"", "runs on the host"),
        ("download = \"/etc/passwd\"\nto = \"here\"", "fetches files"),
        ("breakpoint = \"look\"", "asks somebody"),
        ("custom = \"mine\"", "nobody knows"),
        ("shell = \"true\"\ncache = false", "every time"),
        (
            "shell = \"echo {{build `Port`}}\"",
            "differs from run to run",
        ),
        (
            "shell = \"echo {{build `PackerRunUUID`}}\"",
            "differs from run to run",
        ),
        ("scripts = [\"{{build `ID`}}.sh\"]", ""),
    ] {
        let text = TEMPLATE.replacen(
            "[[provision]]\nupload",
            &format!("[[provision]]\n{step}\n[[provision]]\nupload"),
            1,
        );
        let keys = world.keys(&text, BASE).unwrap();
        assert_eq!(keys.all.len(), 2, "{step}");
        let ended = keys.ended.unwrap();
        assert!(ended.contains(why), "{step}: {ended}");
    }
    // Unless the template says that it need not be done again.
    for step in [
        "local = \"date\"",
        "custom = \"mine\"",
        "download = \"/etc/passwd\"\nto = \"here\"",
    ] {
        let text = TEMPLATE.replacen(
            "[[provision]]\nupload",
            &format!("[[provision]]\n{step}\ncache = true\n[[provision]]\nupload"),
            1,
        );
        assert_eq!(world.keys(&text, BASE).unwrap().all.len(), 6, "{step}");
    }
    let joined = TEMPLATE.replace(
        "memory = \"1G\"",
        "memory = \"1G\"\nqemu-args = [[\"-virtfs\", \"local,path=/tmp,mount_tag=x,security_model=none\"]]",
    );
    assert!(world.keys(&joined, BASE).unwrap_err().contains("-virtfs"));
}

#[test]
fn a_file_counts_however_an_argument_names_it() {
    let world = World::new();
    for name in ["payload", "pay.bin", "pa,y"] {
        std::fs::write(world.at(name), name).unwrap();
    }
    let directory = world.directory.path();
    for (value, name) in [
        ("payload", "payload"),
        ("name=opt/x,file=payload", "payload"),
        (
            "driver=raw,node-name=x,file.driver=file,file.filename=payload",
            "payload",
        ),
        ("driver=raw,file.filename=pa,,y", "pa,y"),
        (
            r#"{"driver":"raw","file":{"driver":"file","filename":"pay.bin"}}"#,
            "pay.bin",
        ),
        (
            r#"file=json:{"driver":"file",,"filename":"pay.bin"}"#,
            "pay.bin",
        ),
        ("file=file:pay.bin,if=virtio", "pay.bin"),
    ] {
        assert_eq!(named_files(value, directory), [world.at(name)], "{value}");
    }
    assert!(named_files("user,id=net0", directory).is_empty());
}
