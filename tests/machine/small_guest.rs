//! The small guest of tests/guest/small-guest, started as a build starts its machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qimg::machine::command_line::{Drive, Forward};
use qimg::machine::{Accelerator, Launcher, Running, Spec, Start, command_line};
use qimg::template::model::{Disk, DiskFormat, Firmware, Machine};

/// A wait that nobody ends.
pub const NEVER: &qimg::communicator::Stop = &|| false;

pub fn launcher() -> Launcher {
    Launcher::new(env!("CARGO_BIN_EXE_qimg"))
}

pub fn qemu() -> PathBuf {
    PathBuf::from("/usr/bin/qemu-system-x86_64")
}

/// Where the guest's files are; made once by tests/guest/small-guest.
pub fn cache() -> PathBuf {
    let cache = std::env::var_os("QIMG_TEST_CACHE").map_or_else(
        || {
            let home = PathBuf::from(std::env::var_os("HOME").expect("there is a home"));
            home.join(".cache/qimg-tests")
        },
        PathBuf::from,
    );
    let kernel = cache.join("small/vmlinux");
    assert!(
        kernel.is_file(),
        "{kernel:?} is missing; tests/guest/small-guest makes it"
    );
    cache
}

pub fn machine() -> Machine {
    Machine {
        qemu: "qemu-system-x86_64".to_owned(),
        accelerator: None,
        machine_type: None,
        cpu_model: None,
        cpus: 1,
        topology: [None; 3],
        memory_mib: 256,
        net_device: "virtio-net".to_owned(),
        net_bridge: None,
        host_ports: None,
        skip_nat_mapping: false,
        headless: true,
        display: None,
        vga: None,
        vnc: None,
        cdrom_interface: None,
        firmware: Firmware::Default,
        tpm: None,
        qmp_socket: None,
        qemu_args: Vec::new(),
    }
}

pub fn disk() -> Disk {
    Disk {
        size: None,
        format: DiskFormat::Qcow2,
        interface: "virtio".to_owned(),
        cache: "writeback".to_owned(),
        discard: "ignore".to_owned(),
        detect_zeroes: None,
        keep_backing_file: false,
    }
}

/// A guest and the directory of its run.
pub struct Guest {
    pub running: Running,
    pub directory: tempfile::TempDir,
}

/// Arguments of the small guest, with `told` on its kernel's command line, and `more` in qemuargs.
pub fn arguments(
    directory: &Path,
    told: &str,
    more: &[(&str, &str)],
    accelerator: &Accelerator,
) -> Vec<String> {
    let cache = cache();
    let main = directory.join("main.raw");
    if !main.exists() {
        std::fs::write(&main, vec![0; 1 << 20]).unwrap();
    }
    let append = std::fs::read_to_string(cache.join("small/append")).unwrap();
    let path = |name: &str| cache.join("small").join(name).to_str().unwrap().to_owned();
    let mut qemu_args = vec![
        ("-initrd".to_owned(), vec![path("initrd")]),
        (
            "-append".to_owned(),
            vec![format!("{} small.key=eA== {told}", append.trim())],
        ),
    ];
    if !more.iter().any(|(switch, _)| *switch == "-kernel") {
        qemu_args.push(("-kernel".to_owned(), vec![path("vmlinux")]));
    }
    for (switch, value) in more {
        qemu_args.push(((*switch).to_owned(), vec![(*value).to_owned()]));
    }
    let machine = machine();
    let disk = disk();
    let spec = Spec {
        name: "small",
        machine: &machine,
        disk: &disk,
        qemu_args: &qemu_args,
        main: Drive {
            path: main,
            format: "raw".to_owned(),
        },
        main_by_template: Path::new("output-small/small"),
        directory,
        additional: &[],
        boots_from_disk: true,
        cds: &[],
        floppy: None,
        network_boot: None,
        seed: None,
        forward: Some(Forward { host: 0, guest: 22 }),
        accelerator,
        boot: None,
        tpm: None,
        has_display: false,
        copies: &BTreeMap::new(),
    };
    command_line(&spec).unwrap().all().cloned().collect()
}

pub fn start_with(told: &str, more: &[(&str, &str)], accelerator: &Accelerator) -> Guest {
    let directory = tempfile::tempdir().unwrap();
    let launcher = launcher();
    let start = Start {
        launcher: &launcher,
        qemu: &qemu(),
        arguments: arguments(directory.path(), told, more, accelerator),
        run_directory: directory.path(),
        vnc_password: None,
    };
    let running = Running::start(&start, NEVER).unwrap();
    Guest { running, directory }
}

pub fn start(told: &str) -> Guest {
    start_with(told, &[], &Accelerator::Tcg)
}

impl Guest {
    /// Waits until the guest says `words` on its console.
    pub fn wait_for(&self, words: &str) {
        let started = Instant::now();
        loop {
            if self
                .running
                .console()
                .tail(200)
                .iter()
                .any(|line| line.contains(words))
            {
                return;
            }
            assert_eq!(self.running.death(), None, "{:#?}", self.running.report());
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "{words}: {:#?}",
                self.running.report()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_until_up(&self) {
        self.wait_for("small: up");
    }
}

/// The state of a process, as its letter; none when it is gone.
pub fn state_of(id: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// Whether a process is gone; one that only waits to be reaped counts.
pub fn is_gone(id: i32) -> bool {
    matches!(state_of(id), None | Some('Z'))
}

pub fn wait_until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < within, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn signal(id: i32, name: &str) {
    let status = std::process::Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status();
    assert!(status.unwrap().success());
}
